//! One way to read a segment, whatever it is packed in.

use crate::domain::{
    fmp4::{self, Init},
    media::{Description, Media},
    mpegts,
};

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fragmented MP4.
    #[error(transparent)]
    Fmp4(#[from] fmp4::Malformed),
    /// MPEG transport stream.
    #[error(transparent)]
    MpegTs(#[from] mpegts::Malformed),
}

/// What has to be known before a session's segments can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Fragmented MP4: what the init section says.
    Fmp4(Init),
    /// MPEG transport stream, and how long one frame is, if somebody knows.
    MpegTs {
        /// µs.
        frame_us: Option<i64>,
    },
}

impl Layout {
    /// By the bytes of the init section, where there is one; `fps`: what the camera was found to send, if anybody asked.
    pub fn read(init: Option<&[u8]>, fps: Option<f64>) -> Result<Self, Malformed> {
        match init {
            Some(bytes) => Ok(Self::Fmp4(fmp4::parse_init(bytes)?)),
            None => Ok(Self::MpegTs { frame_us: fps.and_then(frame_us) }),
        }
    }

    /// Can segments of one be decoded with the init section of the other?
    pub fn decodes_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fmp4(init), Self::Fmp4(other)) => init.decodes_like(other),
            (Self::MpegTs { .. }, Self::MpegTs { .. }) => true,
            _ => false,
        }
    }

    /// What the first frame of a segment itself says of the picture, by as much of the segment as is there. `None`: it
    /// says nothing, as that of a camera which sends its parameter sets beside the stream, or of a damaged segment.
    pub fn picture(&self, beginning: &[u8]) -> Option<Description> {
        match self {
            Self::Fmp4(init) => fmp4::picture(init, beginning).ok().flatten(),
            Self::MpegTs { .. } => {
                let mut scanner = mpegts::Scanner::new(None);
                scanner.push(beginning);
                scanner.picture()
            }
        }
    }

    /// For one segment.
    pub fn scanner(&self) -> Result<Scanner, Malformed> {
        Ok(match self {
            Self::Fmp4(init) => Scanner::Fmp4(fmp4::Scanner::new(init)?, init.description()),
            Self::MpegTs { frame_us } => Scanner::MpegTs(mpegts::Scanner::new(*frame_us)),
        })
    }

    /// Reads a whole segment.
    pub fn scan(&self, bytes: &[u8]) -> Result<(Media, Description), Malformed> {
        let mut scanner = self.scanner()?;
        scanner.push(bytes);
        scanner.finish()
    }
}

/// A frame's length by a rate that somebody said.
fn frame_us(fps: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "at most ten seconds")]
    (0.1..=1000.0).contains(&fps).then(|| (1e6 / fps).round() as i64)
}

/// Takes a segment piece by piece.
#[derive(Debug)]
pub enum Scanner {
    /// Fragmented MP4; what its init section says is known before.
    Fmp4(fmp4::Scanner, Description),
    /// MPEG transport stream.
    MpegTs(mpegts::Scanner),
}

impl Scanner {
    /// Takes the next bytes, however they are cut.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Fmp4(scanner, _) => scanner.push(bytes),
            Self::MpegTs(scanner) => scanner.push(bytes),
        }
    }

    /// What is known so far of codecs and picture.
    pub fn description(&self) -> Description {
        match self {
            Self::Fmp4(_, description) => description.clone(),
            Self::MpegTs(scanner) => scanner.description(),
        }
    }

    /// After the last byte.
    pub fn finish(self) -> Result<(Media, Description), Malformed> {
        match self {
            Self::Fmp4(scanner, description) => Ok((scanner.finish()?, description)),
            Self::MpegTs(scanner) => Ok(scanner.finish()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_believed_within_reason() {
        for (fps, want) in [(25.0, Some(40_000)), (0.5, Some(2_000_000)), (0.0, None), (f64::NAN, None), (1e9, None)] {
            assert_eq!(frame_us(fps), want, "{fps}");
        }
    }

    #[test]
    fn both_containers_say_the_same_of_the_first_frame() {
        let mp4 = Layout::read(Some(include_bytes!("../mpegts/testdata/h264-aac.mp4")), None).expect("well-formed");
        let ts = Layout::read(None, None).expect("nothing to read");
        let segments: [&[u8]; 2] =
            [include_bytes!("../fmp4/testdata/h264-in-band.m4s"), include_bytes!("../mpegts/testdata/h264-aac.ts")];
        let want = Some(Description::new("avc1.42c00a", (64, 36), None));
        for (layout, segment) in [&mp4, &ts].into_iter().zip(segments) {
            assert_eq!(layout.picture(segment), want);
            assert_eq!(layout.picture(&segment[..segment.len() / 2]), want, "a beginning");
            assert_eq!(layout.picture(&segment[..300]), None);
            assert_eq!(layout.picture(&[0; 1_000]), None);
        }
        let mut torn = segments[1].to_vec();
        torn.drain(188 * 3..188 * 4);
        assert_eq!(ts.picture(&torn), None, "a packet is missing");
    }

    #[test]
    fn both_containers_say_the_same_of_the_same_recording() {
        let mp4 = Layout::read(Some(include_bytes!("../mpegts/testdata/h264-aac.mp4")), None).expect("well-formed");
        let mp4 = mp4.scan(include_bytes!("../mpegts/testdata/h264-aac.m4s")).expect("well-formed");
        let ts = Layout::read(None, None).expect("nothing to read");
        let ts = ts.scan(include_bytes!("../mpegts/testdata/h264-aac.ts")).expect("well-formed");
        assert_eq!(mp4.1, ts.1);
        let (mp4, ts) = (mp4.0, ts.0);
        // ffmpeg lets transport streams begin at 1.4 s, with the silence that AAC's encoder puts before the sound.
        assert!((ts.start_us - mp4.start_us - 1_464_000).abs() <= 12, "{mp4:?} {ts:?}");
        assert!((ts.media_us - mp4.media_us).abs() <= 12, "{mp4:?} {ts:?}");
        assert_eq!((mp4.frames, mp4.gop_us / 100, mp4.starts_with_keyframe), (ts.frames, ts.gop_us / 100, true));
    }
}
