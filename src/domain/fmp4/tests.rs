use proptest::prelude::*;

use super::*;
use crate::domain::media::Media;

/// Written by ffmpeg 5.1: 15 fps, a keyframe each 37 frames, AAC 44,100 Hz; the media data is cut out.
const INIT: &[u8] = include_bytes!("testdata/h264-aac.mp4");
const SEGMENT: &[u8] = include_bytes!("testdata/h264-aac.m4s");
const HEVC_INIT: &[u8] = include_bytes!("testdata/hevc.mp4");
const OPUS_INIT: &[u8] = include_bytes!("testdata/h264-opus.mp4");

fn scan(init: &Init, pieces: impl IntoIterator<Item = Vec<u8>>) -> Result<Media, Malformed> {
    let mut scanner = Scanner::new(init)?;
    for piece in pieces {
        scanner.push(&piece);
    }
    scanner.finish()
}

#[test]
fn an_init_section_tells_codecs_and_size() {
    let init = parse_init(INIT).expect("well-formed");
    let video = init.video().expect("has a picture");
    assert_eq!(init.description().codecs, "avc1.42c016,mp4a.40.2");
    assert_eq!((video.width, video.height, video.timescale), (640, 360, 15_360));
}

#[test]
fn hevc_codecs_are_spelled_as_the_standard_says() {
    let init = parse_init(HEVC_INIT).expect("well-formed");
    assert_eq!(init.description().codecs, "hvc1.1.6.L60.90");
}

#[test]
fn opus_that_was_copied_is_named_as_browsers_spell_it() {
    let description = parse_init(OPUS_INIT).expect("well-formed").description();
    assert!(description.codecs.starts_with("avc1.") && description.codecs.ends_with(",opus"), "{description:?}");
    assert!(description.sound);
}

#[test]
fn a_segment_tells_length_frames_and_keyframe_distance() {
    let init = parse_init(INIT).expect("well-formed");
    let media = scan(&init, [SEGMENT.to_vec()]).expect("well-formed");
    assert_eq!(
        media,
        Media {
            start_us: 4_933_333,
            media_us: 4_933_333,
            first_shown_us: 4_933_333,
            last_shown_us: 9_800_000,
            frames: 74,
            longest_step_us: 66_666,
            gop_us: 2_466_666,
            starts_with_keyframe: true,
        }
    );
}

#[test]
fn a_cut_segment_is_no_segment() {
    let init = parse_init(INIT).expect("well-formed");
    for end in [0, 7, 100, 1_000, SEGMENT.len() - 1] {
        assert!(scan(&init, [SEGMENT[..end].to_vec()]).is_err(), "{end}");
    }
    assert_eq!(parse_init(&INIT[..1000]), Err(Malformed::Short("moov")));
}

/// A segment of the picture with this run of samples, decoded from `begin` on.
fn of_run(begin: u32, run: &[u8]) -> Vec<u8> {
    let boxed = |kind: &[u8; 4], content: &[u8]| {
        [&u32::try_from(content.len() + 8).expect("small").to_be_bytes()[..], kind, content].concat()
    };
    let header = boxed(b"tfhd", &[[0; 4], 1_u32.to_be_bytes()].concat());
    let time = boxed(b"tfdt", &[[0; 4], begin.to_be_bytes()].concat());
    boxed(b"moof", &boxed(b"traf", &[header, time, boxed(b"trun", run)].concat()))
}

#[test]
fn sample_counts_without_samples_cost_nothing() {
    // A run that claims 2^32-1 samples, each with the default duration: no bytes behind it.
    let init = parse_init(INIT).expect("well-formed");
    let run = [&[0; 4], &u32::MAX.to_be_bytes()[..], &[0; 8]].concat();
    assert_eq!(scan(&init, [of_run(0, &run)]), Err(Malformed::Excessive("samples")));
}

#[test]
fn frames_are_shown_later_than_they_are_decoded_where_they_are_reordered() {
    let init = parse_init(INIT).expect("well-formed");
    // Durations and offsets of a frame, the one three further and those between them, in ticks of 15,360 a second; in
    // version 1 offsets have a sign.
    let samples = [(1_024_i32, 0_i32), (2_048, 3_072), (1_024, -1_024), (1_024, -1_024)];
    for (version, offset) in [(0_u8, 2_048), (1, 2_048), (1, 0)] {
        let head = [version, 0, 0x09, 0].into_iter().chain(4_u32.to_be_bytes());
        let run = head.chain(
            samples.iter().flat_map(|(duration, by)| [duration.to_be_bytes(), (by + offset).to_be_bytes()].concat()),
        );
        let media = scan(&init, [of_run(15_360, &run.collect::<Vec<u8>>())]).expect("well-formed");
        let shown = i64::from(offset) * 1_000_000 / 15_360;
        assert_eq!((media.start_us, media.media_us, media.longest_step_us), (1_000_000, 333_333, 133_333));
        assert_eq!(media.first_shown_us, 1_000_000 + shown, "{version} {offset}");
        assert_eq!(media.last_shown_us, (15_360 + 1_024 + 3_072 + i64::from(offset)) * 1_000_000 / 15_360);
    }
}

proptest! {
    #[test]
    fn pieces_may_be_cut_anywhere(cuts in proptest::collection::vec(1_usize..400, 1..20)) {
        let init = parse_init(INIT).expect("well-formed");
        let mut rest = SEGMENT;
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece.to_vec());
            rest = tail;
        }
        pieces.push(rest.to_vec());
        prop_assert_eq!(scan(&init, pieces), scan(&init, [SEGMENT.to_vec()]));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let init = parse_init(INIT).expect("well-formed");
        let _ = parse_init(&bytes);
        let _ = scan(&init, [bytes]);
    }

    #[test]
    fn flipped_bytes_never_panic(flips in proptest::collection::vec((0_usize..4_000, any::<u8>()), 1..8)) {
        let (mut init, mut segment) = (INIT.to_vec(), SEGMENT.to_vec());
        for (at, value) in flips {
            let (in_init, in_segment) = (at % init.len(), at % segment.len());
            init[in_init] = value;
            segment[in_segment] = value;
        }
        if let Ok(init) = parse_init(&init) {
            let _ = scan(&init, [SEGMENT.to_vec()]);
        }
        let _ = scan(&parse_init(INIT).expect("well-formed"), [segment]);
    }
}
