//! Cameras, streams and segments that anyone can make again, as the broker and the recorder are told of them.

use dsn::domain::{
    cid::FileHasher,
    control::{CameraConfig, ObjectRef, StreamConfig},
    id::{InstanceUid, Role, SessionId, StreamId},
    segment::{Blob, SOURCE, Segment, SegmentKey},
};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// Namespace of everything here.
pub const NAMESPACE: &str = "bench";
/// Length of a segment.
pub const SECONDS: i64 = 4;

/// One camera and the pipeline that records it.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub stream: StreamConfig,
    pub camera: CameraConfig,
    session: SessionId,
    begin: Timestamp,
}

impl Recorded {
    /// Number `number`, recording since `begin`.
    pub fn new(number: u32, begin: Timestamp, rollup_seconds: u32) -> Self {
        let object = |kind: &str| {
            let name = format!("{kind}-{number}");
            ObjectRef { namespace: NAMESPACE.into(), uid: format!("{name}-uid"), name }
        };
        let (pipeline, camera) = (object("pipeline"), object("camera"));
        let stream = StreamConfig {
            stream: StreamId::of(&pipeline.uid, &camera.uid),
            instance: InstanceUid::of(&pipeline.uid, &camera.uid, Role::Capture, 0),
            transcoder: None,
            pipeline,
            camera: camera.clone(),
            group: "default".into(),
            replicas: 2,
            retention_seconds: 400 * 24 * 3600,
            rollup_seconds,
            delete_with_pipeline: false,
            live_url: "http://127.0.0.1:1".into(),
            deleted: false,
        };
        let session = SessionId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)));
        Self { stream, camera: CameraConfig { camera, site: "bench".into(), deleted: false }, session, begin }
    }

    /// Segment `seq` with these contents.
    pub fn segment(&self, seq: u64, content: Blob) -> Segment {
        let start = self.begin + SignedDuration::from_secs(SECONDS * i64::try_from(seq).expect("a small number"));
        Segment {
            key: SegmentKey { stream: self.stream.stream, rendition: SOURCE.into(), session: self.session, seq },
            camera: self.camera.camera.uid.clone(),
            camera_name: format!("{NAMESPACE}/{}", self.camera.camera.name),
            site: self.camera.site.clone(),
            file: format!("{}/{SOURCE}/{seq:08}.m4s", self.session),
            blob: content,
            init: Some(blob(self.camera.camera.uid.as_bytes())),
            codecs: "avc1.64001f,mp4a.40.2".into(),
            width: 1920,
            height: 1080,
            start,
            end: start + SignedDuration::from_secs(SECONDS),
            media_us: 4_000_000,
            frames: 100,
            playlist_seq: seq,
            discontinuity_seq: 0,
            target_seconds: 4,
        }
    }

    /// A segment of 2 MB of which only the name is real.
    pub fn nominal(&self, seq: u64) -> Segment {
        let mut content = blob(format!("{}/{seq}", self.session).as_bytes());
        content.bytes = 2_000_000;
        self.segment(seq, content)
    }
}

/// What some bytes are called.
pub fn blob(bytes: &[u8]) -> Blob {
    let mut hasher = FileHasher::default();
    hasher.update(bytes);
    let digest = hasher.finish();
    Blob { cid: digest.cid.to_string(), sha256: digest.sha256, bytes: digest.bytes }
}

/// So many bytes that nothing can compress or has seen before, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    // splitmix64: a generator of eight lines that is good enough for bytes to differ.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
