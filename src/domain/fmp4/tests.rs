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
        Media { start_us: 4_933_333, media_us: 4_933_333, frames: 74, gop_us: 2_466_666, starts_with_keyframe: true }
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

#[test]
fn sample_counts_without_samples_cost_nothing() {
    // A run that claims 2^32-1 samples, each with the default duration: no bytes behind it.
    let init = parse_init(INIT).expect("well-formed");
    let run = [&24_u32.to_be_bytes()[..], b"trun", &[0; 4], &u32::MAX.to_be_bytes(), &[0; 8]].concat();
    let header = [&16_u32.to_be_bytes()[..], b"tfhd", &[0; 4], &1_u32.to_be_bytes()].concat();
    let time = [&16_u32.to_be_bytes()[..], b"tfdt", &[0; 8]].concat();
    let fragment = [header, time, run].concat();
    let boxed = |kind: &[u8; 4], content: &[u8]| {
        [&u32::try_from(content.len() + 8).expect("small").to_be_bytes()[..], kind, content].concat()
    };
    let segment = boxed(b"moof", &boxed(b"traf", &fragment));
    assert_eq!(scan(&init, [segment]), Err(Malformed::Excessive("samples")));
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
