//! What the first frame of a segment says of the picture, where it brings parameter sets of its own.

use super::{Cursor, Init, Malformed, Track, find, next_box};
use crate::domain::{
    media::Description,
    parameters::{Codec, sized_units},
};

/// Reads the parameter sets in the first frame of a segment, whose end may be missing; `None`: there are none.
///
/// The init section has some as well, and ffmpeg, which copies the picture, writes both: those of a camera that changed its
/// picture meanwhile stand in the segments only.
pub fn picture(init: &Init, beginning: &[u8]) -> Result<Option<Description>, Malformed> {
    let track = init.video().ok_or(Malformed::Missing("video track"))?;
    let (codec, length_bytes) = match track.codec.get(..4) {
        Some("avc1" | "avc3") => (Codec::H264, track.config.get(4)),
        Some("hvc1" | "hev1") => (Codec::Hevc, track.config.get(21)),
        _ => return Ok(None),
    };
    let length_bytes = 1 + usize::from(length_bytes.ok_or(Malformed::Missing("length of lengths"))? & 3);
    let (name, size) = codec.picture(sized_units(first_sample(track, beginning)?, length_bytes));
    Ok((!name.is_empty()).then(|| Description::new(&name, size, None)))
}

/// As much of it as there is.
fn first_sample<'a>(track: &Track, beginning: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let mut cursor = Cursor::new("segment", beginning);
    loop {
        let from = cursor.rest;
        let (kind, content) = next_box(&mut cursor)?.ok_or(Malformed::Missing("moof"))?;
        if kind == *b"moof" {
            let (offset, size) = sample(track, content)?;
            let sample = from.get(offset..).ok_or(Malformed::Short("segment"))?;
            return Ok(&sample[..size.min(sample.len())]);
        }
    }
}

/// Where the first sample of a track is, counted from the beginning of the `moof`, and how large.
fn sample(track: &Track, moof: &[u8]) -> Result<(usize, usize), Malformed> {
    let mut cursor = Cursor::new("moof", moof);
    while let Some((kind, traf)) = next_box(&mut cursor)? {
        if kind != *b"traf" {
            continue;
        }
        let mut tfhd = Cursor::new("tfhd", find("tfhd", *b"tfhd", traf)?);
        let (_, flags) = tfhd.version_and_flags()?;
        if tfhd.u32()? != track.id {
            continue;
        }
        // Offsets count from the `moof`, as HLS wants it, or from somewhere else, as no segment of ours.
        if flags & 0x1 != 0 {
            return Err(Malformed::Missing("offset from the moof"));
        }
        tfhd.take(if flags & 0x2 == 0 { 0 } else { 4 } + if flags & 0x8 == 0 { 0 } else { 4 })?;
        let default_size = if flags & 0x10 == 0 { None } else { Some(tfhd.u32()?) };

        let mut trun = Cursor::new("trun", find("trun", *b"trun", traf)?);
        let (_, flags) = trun.version_and_flags()?;
        let (samples, offset) = (trun.u32()?, if flags & 0x1 == 0 { None } else { Some(trun.u32()?) });
        trun.take(if flags & 0x4 == 0 { 0 } else { 4 } + if flags & 0x100 == 0 { 0 } else { 4 })?;
        let size = if flags & 0x200 == 0 || samples == 0 { default_size } else { Some(trun.u32()?) };
        // A negative offset is too large a one.
        return match (offset, size) {
            (Some(offset), Some(size)) if samples > 0 => Ok((offset as usize, size as usize)),
            _ => Err(Malformed::Missing("first sample")),
        };
    }
    Err(Malformed::Missing("video samples"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fmp4::parse_init;

    /// Written by ffmpeg 5.1, with media data, by libx264 and by libx265.
    const H264: (&[u8], &[u8]) =
        (include_bytes!("../mpegts/testdata/h264-aac.mp4"), include_bytes!("testdata/h264-in-band.m4s"));
    const HEVC: (&[u8], &[u8]) = (include_bytes!("testdata/hevc.mp4"), include_bytes!("testdata/hevc.m4s"));

    fn told((init, segment): (&[u8], &[u8])) -> Result<Option<Description>, Malformed> {
        picture(&parse_init(init).expect("well-formed"), segment)
    }

    #[test]
    fn the_first_frame_tells_the_picture() {
        assert_eq!(told(H264), Ok(Some(Description::new("avc1.42c00a", (64, 36), None))));
        assert_eq!(told(HEVC), Ok(Some(Description::new("hvc1.1.6.L60.90", (320, 180), None))));
    }

    #[test]
    fn a_beginning_is_enough() {
        for (init, segment) in [H264, HEVC] {
            assert_eq!(told((init, &segment[..segment.len() * 2 / 3])), told((init, segment)));
        }
    }

    #[test]
    fn a_frame_without_parameter_sets_tells_nothing() {
        assert_eq!(told((H264.0, include_bytes!("../mpegts/testdata/h264-aac.m4s"))), Ok(None));
        // Where the media data is cut out, nothing can be read.
        assert!(!matches!(told((H264.0, include_bytes!("testdata/h264-aac.m4s"))), Ok(Some(_))));
        for end in [0, 7, 100, 400] {
            assert!(told((H264.0, &H264.1[..end])).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = told((H264.0, &bytes));
        }

        #[test]
        fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            for (init, segment) in [H264, HEVC] {
                let (mut init, mut flipped) = (init.to_vec(), segment.to_vec());
                for (at, value) in &flips {
                    let (in_init, in_segment) = (at.index(init.len()), at.index(flipped.len()));
                    (init[in_init], flipped[in_segment]) = (*value, *value);
                }
                if let Ok(init) = parse_init(&init) {
                    let _ = picture(&init, segment);
                    let _ = picture(&init, &flipped);
                }
            }
        }
    }
}
