//! A segment of footage, as it is announced and catalogued (row V2).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    container::Container,
    id::{SessionId, StreamId},
};

/// Rendition that carries the camera's own encoding.
pub const SOURCE: &str = "source";

/// Content of a known hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob {
    /// CIDv1, base32 text.
    pub cid: String,
    /// SHA-256 of the bytes, 64 hex digits. Equals the CID's digest for up to 2,096,896 bytes, not beyond.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// What identifies a segment: the CID is an attribute of it, not its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentKey {
    /// Stream it belongs to.
    pub stream: StreamId,
    /// `source`, or the name of a rung of the ladder.
    pub rendition: String,
    /// Capture run.
    pub session: SessionId,
    /// Number within the session, from 0, as ffmpeg counts.
    pub seq: u64,
}

/// A sealed segment whose bytes are in IPFS: the data of `evt.<uid>.segment`.
///
/// Times are wall clock, UTC, microseconds; within a session `start` equals the `end` of the segment before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// Identity.
    #[serde(flatten)]
    pub key: SegmentKey,
    /// Uid of the camera (the "device").
    pub camera: String,
    /// Namespace and name of the camera, for people.
    pub camera_name: String,
    /// Place of the camera (the "factory").
    pub site: String,
    /// Name of the file: `<session>/<rendition>/<seq>.m4s`, or `….ts`.
    pub file: String,
    /// The bytes.
    #[serde(flatten)]
    pub blob: Blob,
    /// The init section (`EXT-X-MAP`) the segment needs; absent for MPEG-TS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Blob>,
    /// RFC 6381 codecs, e.g. `avc1.64001f,mp4a.40.2`.
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
    /// Frames of the picture; 0 = not counted (by an older agent).
    #[serde(default)]
    pub frames: u64,
    /// `EXT-X-MEDIA-SEQUENCE` of the segment within its stream and rendition; given once, durably.
    pub playlist_seq: u64,
    /// `EXT-X-DISCONTINUITY-SEQUENCE`: how many breaks lie before it.
    pub discontinuity_seq: u64,
    /// `EXT-X-TARGETDURATION` of the session, seconds.
    pub target_seconds: u32,
}

impl Segment {
    /// What it is packed in.
    pub fn container(&self) -> Container {
        Container::of_init(self.init.as_ref())
    }
}

/// Why footage is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// The camera could not be reached.
    CameraUnreachable,
    /// The camera refused the credentials, or they are missing.
    Unauthorized,
    /// The camera kept its socket open and sent nothing.
    CameraHung,
    /// ffmpeg ended by itself, was killed or could not be started.
    CaptureDied,
    /// The capture pod or its agent was gone.
    InstanceLost,
    /// A person paused or stopped the pipeline.
    Paused,
    /// A person changed the settings, here or at the camera: ffmpeg was restarted.
    Reconfigured,
    /// Media time and wall time parted by more than 10 s.
    ClockStep,
    /// The spool was full.
    SpoolFull,
    /// A segment was damaged or vanished before it was stored.
    SegmentLost,
}

/// A stretch of time without footage: the data of `evt.<uid>.gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Stream it belongs to.
    pub stream: StreamId,
    /// Uid of the camera.
    pub camera: String,
    /// Session that begins after the gap, or in which the sequence number is missing.
    pub session: SessionId,
    /// The rendition that lacks `seq`; absent when the source lacks it, and with it every rendition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendition: Option<String>,
    /// Missing sequence number within `session`; absent for a break between sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// End of the footage before.
    pub from: Timestamp,
    /// Begin of the footage after.
    pub to: Timestamp,
    /// Why.
    pub reason: GapReason,
    /// One sentence more, without secrets.
    pub detail: String,
}
