//! What the parts say to each other over AMQP 0-9-1: names, routing keys and messages.
//!
//! Level-triggered: `apply` carries the whole assignment of an instance, the highest revision wins, older ones are
//! dropped, duplicates are acknowledged again. The same envelope, to the letter, lies in the instance's `ConfigMap`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    container::Container,
    id::{InstanceUid, SessionId, StreamId},
    segment::SegmentKey,
};

/// Durable topic exchange from the operator and the recorder to the instances.
pub const CONTROL_EXCHANGE: &str = "dsn.control";
/// Durable topic exchange from the instances to operator, recorder and any subscriber.
pub const EVENTS_EXCHANGE: &str = "dsn.events";
/// Dead letters.
pub const DEAD_LETTER_EXCHANGE: &str = "dsn.dlx";
/// Queue behind [`DEAD_LETTER_EXCHANGE`].
pub const DEAD_LETTER_QUEUE: &str = "dsn.dead";
/// Queue of the recorder, bound to [`RECORDER_KEYS`] on [`EVENTS_EXCHANGE`].
pub const RECORDER_QUEUE: &str = "dsn.recorder";
/// What the recorder hears.
pub const RECORDER_KEYS: [&str; 4] = ["evt.*.segment", "evt.*.gap", "evt.*.state", "cfg.#"];
/// Queue of the leading operator (single active consumer), bound to [`OPERATOR_KEYS`] on [`EVENTS_EXCHANGE`].
pub const OPERATOR_QUEUE: &str = "dsn.operator";
/// What the operator hears.
pub const OPERATOR_KEYS: [&str; 7] =
    ["evt.*.hello", "evt.*.ack", "evt.*.pong", "evt.*.state", SUMMARY_KEY, KNOWN_CAMERAS_KEY, RECORDER_HELLO_KEY];
/// Heartbeats: bounded, drop-head, short-lived.
pub const HEARTBEAT_QUEUE: &str = "dsn.heartbeat";
/// What lands in [`HEARTBEAT_QUEUE`].
pub const HEARTBEAT_KEY: &str = "evt.*.heartbeat";
/// Prefix of the instances' queues.
pub const INSTANCE_QUEUE_PREFIX: &str = "dsn.ctl.";
/// Queue argument that names the owner as `namespace/pipeline/uid`, so that a sweep can ask for it.
pub const OWNER_ARGUMENT: &str = "x-dsn-owner";

/// Prefix of the broker users of agents; the rest is their namespace.
pub const AGENT_USER_PREFIX: &str = "dsn-";

/// Seconds between two heartbeats of an instance.
pub const HEARTBEAT_SECONDS: u64 = 10;

/// Queue of an instance, bound to `inst.<uid>.#` and `all.#` on [`CONTROL_EXCHANGE`].
pub fn instance_queue(uid: InstanceUid) -> String {
    format!("{INSTANCE_QUEUE_PREFIX}{uid}")
}

/// Routing key of a command to one instance.
pub fn instance_key(uid: InstanceUid, op: Command) -> String {
    format!("inst.{uid}.{}", op.as_str())
}

/// Routing key of an event of one instance.
pub fn event_key(uid: InstanceUid, event: Event) -> String {
    format!("evt.{uid}.{}", event.as_str())
}

/// Routing key of a [`CameraConfig`].
pub fn camera_config_key(camera_uid: &str) -> String {
    format!("cfg.camera.{camera_uid}")
}

/// Routing key of a [`StreamConfig`].
pub fn stream_config_key(stream: StreamId) -> String {
    format!("cfg.stream.{stream}")
}

/// Routing key of a [`StreamOrphaned`].
pub fn stream_orphaned_key(stream: StreamId) -> String {
    format!("cfg.orphan.{stream}")
}

/// Routing key of a [`Summary`].
pub const SUMMARY_KEY: &str = "sys.summary";
/// Routing key of [`KnownCameras`].
pub const KNOWN_CAMERAS_KEY: &str = "sys.cameras";
/// Routing key by which a recorder that starts asks for every configuration.
pub const RECORDER_HELLO_KEY: &str = "sys.hello";

/// What an instance is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Take this [`Assignment`].
    Apply,
    /// [`Assignment`] with [`Activity::Running`].
    Start,
    /// [`Assignment`] with [`Activity::Paused`].
    Stop,
    /// Drain the spool: the instance leaves its pipeline.
    Remove,
    /// Answer with `pong`, same correlation id.
    Ping,
    /// [`Stored`]: local copies may go.
    Stored,
    /// [`Readd`]: upload these again.
    Readd,
}

impl Command {
    /// The last word of the routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Remove => "remove",
            Self::Ping => "ping",
            Self::Stored => "stored",
            Self::Readd => "readd",
        }
    }
}

/// What an instance says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The agent started and asks for its assignment; data: [`Hello`].
    Hello,
    /// An assignment is applied; data: [`Ack`].
    Ack,
    /// Answer to `ping`.
    Pong,
    /// Still there; data: [`InstanceReport`].
    Heartbeat,
    /// Something changed; data: [`InstanceReport`].
    State,
    /// A segment is in IPFS; data: [`super::segment::Segment`].
    Segment,
    /// Footage is missing; data: [`super::segment::Gap`].
    Gap,
}

impl Event {
    /// The last word of the routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Ack => "ack",
            Self::Pong => "pong",
            Self::Heartbeat => "heartbeat",
            Self::State => "state",
            Self::Segment => "segment",
            Self::Gap => "gap",
        }
    }
}

/// The frame of every message, `content-type: application/json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<T> {
    /// Identity of the message.
    pub id: Uuid,
    /// Instance that is told or that says it; the stream or camera for `cfg.*`.
    pub uid: String,
    /// Orders the assignments of an instance; 0 where nothing is ordered.
    pub revision: u64,
    /// Hash of `data` of an assignment; empty elsewhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub spec_hash: String,
    /// [`Command`], [`Event`] or configuration word.
    pub op: String,
    /// When it was made.
    pub issued_at: Timestamp,
    /// The message itself.
    pub data: T,
}

impl<T> Envelope<T> {
    /// An envelope outside the ordering of assignments.
    pub fn unordered(uid: impl Into<String>, op: impl Into<String>, now: Timestamp, data: T) -> Self {
        Self {
            id: Uuid::now_v7(),
            uid: uid.into(),
            revision: 0,
            spec_hash: String::new(),
            op: op.into(),
            issued_at: now,
            data,
        }
    }
}

/// What an instance shall do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activity {
    /// Capture.
    #[default]
    Running,
    /// Stop ffmpeg, keep the pod.
    Paused,
    /// Stop ffmpeg, upload and announce all that is spooled, then report `drained`.
    Draining,
}

/// The whole of what one capture instance needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The instance.
    pub instance: InstanceUid,
    /// Its stream.
    pub stream: StreamId,
    /// Wanted activity.
    pub activity: Activity,
    /// Pipeline, for people and announcements.
    pub pipeline: ObjectRef,
    /// Camera.
    pub camera: ObjectRef,
    /// Place of the camera.
    pub site: String,
    /// Where the video comes from.
    pub source: CaptureSource,
    /// Target segment length, seconds.
    pub segment_seconds: u32,
    /// What segments are packed in.
    pub container: Container,
    /// What becomes of the sound.
    pub audio: Audio,
    /// Base address of the storage agents of the group.
    pub storage_url: String,
    /// Bytes the spool may take (85 % of the volume).
    pub spool_bytes: u64,
}

/// What becomes of the sound a camera sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Audio {
    /// Encoded as AAC, which every player knows.
    #[default]
    #[serde(rename = "AAC")]
    Aac,
    /// As the camera sends it where browsers can play that, else as AAC.
    Copy,
    /// Left out.
    None,
}

/// An object of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid: tells a recreated object from its predecessor.
    pub uid: String,
}

/// Address of a camera as the runner needs it; credentials are mounted files, never part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureSource {
    /// Address without user and password.
    pub url: String,
    /// `tcp` or `udp`.
    pub transport: String,
    /// Do files with user name and password belong to it?
    pub credentials: bool,
    /// Name of the Secret those files come from, for messages to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
}

/// Data of `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Highest revision the agent has applied; 0 = none.
    pub revision: u64,
}

/// Data of `ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// Revision that is applied.
    pub revision: u64,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// No picture yet.
    #[default]
    Starting,
    /// Pictures arrive.
    Running,
    /// Stopped as told.
    Paused,
    /// Tries again and again; see `problem`.
    Failing,
    /// Uploading what is left.
    Draining,
    /// Nothing left to upload.
    Drained,
}

/// Data of `heartbeat` and `state`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceReport {
    /// Revision applied.
    pub revision: u64,
    /// What it is doing.
    pub phase: Phase,
    /// Capture run, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What the camera sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoInfo>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Footage that waits in the spool.
    pub backlog: Backlog,
    /// How often ffmpeg was started.
    pub starts: u64,
}

/// What a camera sends, as probed and seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoInfo {
    /// `h264`, `hevc`.
    pub codec: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: f64,
    /// Seconds between keyframes, once seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gop_seconds: Option<f64>,
    /// Audio codec, if there is audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<String>,
}

impl std::fmt::Display for VideoInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}x{} {}fps", self.codec, self.width, self.height, (self.fps * 10.0).round() / 10.0)?;
        if let Some(gop) = self.gop_seconds {
            write!(f, " gop {gop:.1}s")?;
        }
        if let Some(audio) = &self.audio {
            write!(f, " {audio}")?;
        }
        Ok(())
    }
}

/// What is wrong and what to do about it; carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Stable `CamelCase` word, e.g. `Unauthorized`.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
}

/// Footage that waits in a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// Segments of the source not yet announced.
    pub unannounced: u64,
    /// Segments of the source announced and not yet stored.
    pub unstored: u64,
    /// Bytes of all renditions in the spool.
    pub bytes: u64,
    /// Begin of the oldest segment of the source not yet stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
}

/// Data of `stored`: what is pinned as often as asked for. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// Everything of the source up to and including `seq`; one entry per session.
    pub upto: Vec<SegmentKey>,
    /// These segments. Renditions are made newest first and may lack some for good: no number speaks for those before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exactly: Vec<SegmentKey>,
}

/// Data of `readd`: the cluster can't find these blocks; upload them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Readd {
    /// Segments wanted (their init sections too).
    pub segments: Vec<Wanted>,
}

/// One segment of a [`Readd`], with what an agent that knows nothing of it needs to find out whether it is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Identity.
    #[serde(flatten)]
    pub key: SegmentKey,
    /// CIDs of the segment and its init section; none from an older recorder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cids: Vec<String>,
    /// Wall-clock begin.
    #[serde(default)]
    pub start: Timestamp,
    /// Wall-clock end.
    #[serde(default)]
    pub end: Timestamp,
}

/// Data of `cfg.camera.<uid>`: the operator tells the recorder who exists. Whole state; the highest revision wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CameraConfig {
    /// The camera.
    pub camera: ObjectRef,
    /// Its place.
    pub site: String,
    /// The Camera no longer exists (its footage may).
    pub deleted: bool,
}

/// Data of `cfg.stream.<stream>`: how the footage of one camera by one pipeline is kept and reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamConfig {
    /// The stream.
    pub stream: StreamId,
    /// Instance that captures it: `stored` goes to its queue.
    pub instance: InstanceUid,
    /// Pipeline.
    pub pipeline: ObjectRef,
    /// Camera.
    pub camera: ObjectRef,
    /// Storage group, in the pipeline's namespace.
    pub group: String,
    /// Replicas of each roll-up.
    pub replicas: u32,
    /// Seconds footage is kept.
    pub retention_seconds: u64,
    /// Length of a roll-up, seconds.
    pub rollup_seconds: u32,
    /// At the end of the pipeline, delete the footage?
    pub delete_with_pipeline: bool,
    /// Address of the capture agent's live endpoint.
    pub live_url: String,
    /// Instance that makes the other renditions; absent without a ladder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcoder: Option<InstanceUid>,
    /// The pipeline no longer exists, or no longer records this camera. The other fields are the last known.
    pub deleted: bool,
}

/// Data of `cfg.orphan.<stream>`: the stream's Pipeline is gone, and nobody saw it go. It carries no settings, because
/// nobody knows them but the recorder, which ends the stream as its last configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamOrphaned {
    /// The stream.
    pub stream: StreamId,
}

/// Data of `sys.summary`: what the recorder has stored of one pipeline; sent when it changes coarsely and at intervals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Pipeline.
    pub pipeline: ObjectRef,
    /// Streams of it that are not deleted.
    pub streams: Vec<StreamSummary>,
}

/// Data of `sys.cameras`: the cameras that the recorder takes to exist; sent at its start and every ten minutes, so that
/// the operator finds those whose deletion nobody saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownCameras {
    /// As they were last told.
    pub cameras: Vec<CameraConfig>,
}

/// One stream in a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSummary {
    /// The stream.
    pub stream: StreamId,
    /// Its camera.
    pub camera: ObjectRef,
    /// End of the newest catalogued segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogued_until: Option<Timestamp>,
    /// Everything before this is pinned as often as asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_until: Option<Timestamp>,
    /// Why pins do not come about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_keys_are_those_of_the_contract() {
        let uid = InstanceUid(Uuid::nil());
        assert_eq!(instance_key(uid, Command::Apply), "inst.00000000-0000-0000-0000-000000000000.apply");
        assert_eq!(event_key(uid, Event::Segment), "evt.00000000-0000-0000-0000-000000000000.segment");
        assert_eq!(instance_queue(uid), "dsn.ctl.00000000-0000-0000-0000-000000000000");
    }

    #[test]
    fn an_unknown_field_of_a_newer_version_is_ignored() {
        let text = r#"{"id":"00000000-0000-0000-0000-000000000000","uid":"u","revision":1,"op":"ack","issuedAt":"2026-01-01T00:00:00Z","data":{"revision":3,"later":true},"later":1}"#;
        let ack: Envelope<Ack> = serde_json::from_str(text).expect("parses");
        assert_eq!(ack.data.revision, 3);
    }
}
