//! The two containers that segments come in: names of files, what ffmpeg is told, what players are told, how a segment is
//! read.
//!
//! The one place that decides by the container. Nobody else asks which it is: where something exists in one of them only
//! (the init section), it is an `Option`.

use serde::{Deserialize, Serialize};

mod reading;

pub use reading::{Layout, Malformed, Scanner};

use super::{media::Description, spool};

/// The container of a session's segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Container {
    /// Fragmented MP4: segments need the session's init section.
    #[default]
    #[serde(rename = "FMP4")]
    Fmp4,
    /// MPEG transport stream: each segment stands for itself.
    #[serde(rename = "MPEGTS")]
    MpegTs,
}

impl Container {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Fmp4, Self::MpegTs];

    /// The container of what has an init section, or has none.
    pub fn of_init<T>(init: Option<&T>) -> Self {
        if init.is_some() { Self::Fmp4 } else { Self::MpegTs }
    }

    /// The container of a file by its name; `None` for what is neither a segment nor an init section.
    pub fn of_file(file: &str) -> Option<Self> {
        spool::segment_of(file).map(|(_, container)| container).or(spool::is_init(file).then_some(Self::Fmp4))
    }

    /// Name of the init section that a session begins with.
    pub fn init_file(self) -> Option<&'static str> {
        match self {
            Self::Fmp4 => Some(spool::INIT_FILE),
            Self::MpegTs => None,
        }
    }

    /// Name of the first file of a session that tells codecs and picture.
    pub fn telling_file(self) -> String {
        self.init_file().map_or_else(|| spool::segment_file(0, self), str::to_owned)
    }

    /// What that file tells.
    pub fn describe(self, file: &[u8]) -> Result<Description, Malformed> {
        let mut scanner = Layout::read(self.init_file().map(|_| file), None)?.scanner()?;
        if self.init_file().is_none() {
            scanner.push(file);
        }
        Ok(scanner.description())
    }

    /// End of a segment's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Fmp4 => "m4s",
            Self::MpegTs => "ts",
        }
    }

    /// Content type of segment and init section.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Fmp4 => "video/mp4",
            Self::MpegTs => "video/mp2t",
        }
    }

    /// What ffmpeg is told of a picture in H.265.
    pub fn hevc_options(self) -> Vec<String> {
        let options: &[&str] = match self {
            // Apple's players refuse hev1 (parameter sets in band) in HLS.
            Self::Fmp4 => &["-tag:v", "hvc1"],
            Self::MpegTs => &[],
        };
        options.iter().map(|word| (*word).to_owned()).collect()
    }

    /// What ffmpeg's HLS writer is told; `resumed`: segments continue the times of others, made by another process.
    pub fn hls_options(self, resumed: bool) -> Vec<String> {
        let kind: &[&str] = match self {
            Self::Fmp4 => &["-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", spool::INIT_FILE],
            Self::MpegTs => &["-hls_segment_type", "mpegts"],
        };
        let times: &[&str] = match self {
            // Trap: without it each track counts from its own beginning and the init section says by how much they differ,
            // in an edit list that browsers ignore. A camera's sound comes at once, its picture with the next keyframe: it
            // was shown up to a keyframe interval too early. It also lets times count on from the segment before.
            // B-frames bring the edit list back, with the time from decoding the first frame to showing it, unless it is
            // forbidden; then this writer would let every segment begin at 0, unless it is told to leave times alone.
            Self::Fmp4 => {
                &["-hls_segment_options", "movflags=+frag_discont:use_editlist=0:avoid_negative_ts=make_non_negative"]
            }
            Self::MpegTs if !resumed => &[],
            // Times as they are, not 1.4 s later. Shortly before they come round, after 26.5 hours, ffmpeg takes them for
            // negative ones, which both of its writers would move.
            Self::MpegTs => &[
                "-avoid_negative_ts",
                "disabled",
                "-hls_segment_options",
                "mpegts_copyts=1:avoid_negative_ts=disabled",
            ],
        };
        kind.iter().chain(times).map(|word| (*word).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_schema() {
        let words: Vec<String> =
            Container::ALL.iter().map(|container| serde_json::to_string(container).expect("JSON")).collect();
        assert_eq!(words, ["\"FMP4\"", "\"MPEGTS\""]);
        assert_eq!(Container::default(), Container::Fmp4);
    }

    #[test]
    fn the_first_file_tells_the_picture() {
        let files: [&[u8]; 2] =
            [include_bytes!("../mpegts/testdata/h264-aac.mp4"), include_bytes!("../mpegts/testdata/h264-aac.ts")];
        for (container, file) in Container::ALL.into_iter().zip(files) {
            let told = container.describe(file).expect("well-formed");
            assert_eq!((told.codecs.as_str(), told.width, told.height), ("avc1.42c00a,mp4a.40.2", 64, 36));
        }
        assert_eq!(Container::ALL.map(Container::telling_file), ["init.mp4", "00000000.ts"]);
    }

    #[test]
    fn what_has_an_init_section_is_mp4() {
        for container in Container::ALL {
            assert_eq!(Container::of_init(container.init_file().as_ref()), container);
        }
    }
}
