//! What a capture agent can show right now: the answer of its `GET /v1/live`.
//!
//! Not the catalogue's rows: these segments may not even be in IPFS yet. The agent serves it, the gateway composes the
//! live playlist from it and fetches the bytes from `GET /v1/live/{session}/{rendition}/{file}` of the same agent.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    id::StreamId,
    segment::{Segment, SegmentKey},
    spool::segment_file,
};

/// So many of the source's newest segments a live rendition may still lack. A player holds three behind the end: what
/// came later would come too late, and a gap that was once listed must stay one (RFC 8216bis, `EXT-X-GAP`).
pub const AWAITED: usize = 2;

/// The newest sealed segments of one stream, in the order of time; may span a change of session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveWindow {
    /// The stream.
    pub stream: StreamId,
    /// Oldest first; the last eight or so of each rendition.
    pub segments: Vec<LiveSegment>,
}

/// One sealed segment in the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSegment {
    /// Identity.
    #[serde(flatten)]
    pub key: SegmentKey,
    /// Name of its file, e.g. `00000012.m4s`.
    pub file: String,
    /// Name of the file of its init section, `init.mp4`; absent for MPEG-TS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// SHA-256 of the init section; an older agent does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_sha256: Option<String>,
    /// SHA-256 of the bytes, 64 hex digits.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
    /// RFC 6381 codecs.
    pub codecs: String,
    /// Picture width.
    pub width: u32,
    /// Picture height.
    pub height: u32,
    /// Wall-clock begin.
    pub start: Timestamp,
    /// Wall-clock end.
    pub end: Timestamp,
    /// Length by the media's own clock, µs.
    pub media_us: u64,
    /// Frames of the picture; 0 = not counted.
    #[serde(default)]
    pub frames: u64,
    /// `EXT-X-MEDIA-SEQUENCE` of the segment.
    pub playlist_seq: u64,
    /// How many breaks lie before it.
    pub discontinuity_seq: u64,
    /// `EXT-X-TARGETDURATION` of the session, seconds.
    pub target_seconds: u32,
}

impl LiveSegment {
    /// As the agent tells of a segment; `init`: the file of its init section.
    pub fn new(segment: &Segment, init: Option<&str>) -> Self {
        Self {
            key: segment.key.clone(),
            file: segment_file(segment.key.seq, segment.container()),
            init: init.map(str::to_owned),
            init_sha256: segment.init.as_ref().map(|init| init.sha256.clone()),
            sha256: segment.blob.sha256.clone(),
            bytes: segment.blob.bytes,
            codecs: segment.codecs.clone(),
            width: segment.width,
            height: segment.height,
            start: segment.start,
            end: segment.end,
            media_us: segment.media_us,
            frames: segment.frames,
            playlist_seq: segment.playlist_seq,
            discontinuity_seq: segment.discontinuity_seq,
            target_seconds: segment.target_seconds,
        }
    }

    /// Does it need this file, or is it the file itself?
    pub fn names(&self, file: &str) -> bool {
        self.file == file || self.init.as_deref() == Some(file)
    }

    /// What a file that it [names](Self::names) hashes to, as far as the agent says.
    pub fn sha256_of(&self, file: &str) -> Option<&str> {
        if self.file == file { Some(&self.sha256) } else { self.init_sha256.as_deref() }
    }
}
