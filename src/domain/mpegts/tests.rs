use proptest::prelude::*;

use super::*;
use crate::domain::media::{Description, Media};

/// The middle one of three segments that ffmpeg 5.1 wrote: 15 fps, a keyframe each 10 frames, AAC 16,000 Hz.
const H264: &[u8] = include_bytes!("testdata/h264-aac.ts");
/// The same: 15 fps, a keyframe each second, three B-frames between two others, no sound.
const HEVC: &[u8] = include_bytes!("testdata/hevc-b-frames.ts");

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Media, Description), Malformed> {
    let mut scanner = Scanner::new(None);
    for piece in pieces {
        scanner.push(piece);
    }
    scanner.finish()
}

#[test]
fn a_segment_tells_length_frames_keyframe_distance_codecs_and_size() {
    let (media, description) = scan([H264]).expect("well-formed");
    assert_eq!(
        media,
        Media {
            start_us: 2_797_333,
            media_us: 1_333_333,
            first_shown_us: 2_797_333,
            last_shown_us: 4_064_000,
            frames: 20,
            longest_step_us: 66_666,
            gop_us: 666_666,
            starts_with_keyframe: true,
        }
    );
    assert_eq!(
        description,
        Description { codecs: "avc1.42c00a,mp4a.40.2".to_owned(), width: 64, height: 36, sound: true }
    );
}

#[test]
fn b_frames_are_timed_by_their_decoding() {
    let (media, description) = scan([HEVC]).expect("well-formed");
    assert_eq!(
        media,
        Media {
            start_us: 2_400_000,
            media_us: 1_000_000,
            first_shown_us: 2_533_333,
            last_shown_us: 3_466_666,
            frames: 15,
            longest_step_us: 66_666,
            gop_us: 1_000_000,
            starts_with_keyframe: true,
        }
    );
    assert_eq!(description, Description { codecs: "hvc1.1.6.L30.90".to_owned(), width: 64, height: 36, sound: false });
}

#[test]
fn a_cut_segment_is_no_segment() {
    for end in [0, 1, 187, 188, 2 * 188, H264.len() - 1] {
        assert!(scan([&H264[..end]]).is_err(), "{end}");
    }
    // A packet of the picture in the middle is gone.
    let at = (4_000 / 188..H264.len() / 188)
        .map(|n| n * 188)
        .find(|at| H264[at + 1] & 0x5f == 0x01 && H264[at + 2] == 0)
        .expect("one");
    assert_eq!(scan([&H264[..at], &H264[at + 188..]]), Err(Malformed::Torn));
    assert_eq!(scan([&H264[..188 * 5], &H264[188 * 5 + 1..]]), Err(Malformed::Packet));
    let null: Vec<u8> = [0x47, 0x1f, 0xff, 0x10].into_iter().chain([0xff; 184]).collect();
    assert_eq!(scan([&null[..]]), Err(Malformed::Missing("picture")));
}

#[test]
fn a_table_with_a_wrong_checksum_is_not_believed() {
    // The number of the map table's packets and what kind of picture it is: in the second packet and in the third.
    for at in [188 + 16, 2 * 188 + 17] {
        let mut damaged = H264.to_vec();
        damaged[at] ^= 1;
        assert_eq!(scan([&damaged[..]]), Err(Malformed::Table), "{at}");
    }
}

#[test]
fn the_first_frame_is_enough_to_know_what_comes() {
    let mut scanner = Scanner::new(None);
    scanner.push(&H264[..H264.len() / 2]);
    assert_eq!(Ok(scanner.description()), scan([H264]).map(|(_, description)| description));
}

proptest! {
    #[test]
    fn pieces_may_be_cut_anywhere(cuts in proptest::collection::vec(1_usize..400, 1..20)) {
        let mut rest = H264;
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        pieces.push(rest);
        prop_assert_eq!(scan(pieces), scan([H264]));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = scan([&bytes[..]]);
        let _ = scan([&H264[..3 * 188], &bytes[..]]);
    }

    #[test]
    fn flipped_bytes_never_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        for segment in [H264, HEVC] {
            let mut segment = segment.to_vec();
            for (at, value) in &flips {
                let at = at.index(segment.len());
                segment[at] = *value;
            }
            let _ = scan([&segment[..]]);
        }
    }

    /// Packets whose checks pass, with anything in them.
    #[test]
    fn hostile_packets_never_panic(packets in proptest::collection::vec((0_u8..0x40, any::<u8>(), any::<[u8; 6]>(), any::<u8>()), 1..12)) {
        let stuffed = packets.iter().flat_map(|(flags, fourth, head, fill)| {
            let mut packet = vec![*fill; 188];
            packet[0] = 0x47;
            // Those of the picture: number 256.
            packet[1] = (flags & 0x40) | 0x41;
            packet[2] = 0;
            packet[3] = fourth & 0x3f;
            packet[4..10].copy_from_slice(head);
            packet
        });
        let hostile: Vec<u8> = H264[..3 * 188].iter().copied().chain(stuffed).collect();
        let _ = scan([&hostile[..]]);
    }
}
