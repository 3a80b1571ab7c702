//! `Pipeline`: what is done with cameras: capture them, keep the footage.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LocalObjectReference, Toleration},
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, LabelSelector},
    },
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LocalRef, storage_node::DEFAULT_GROUP};

/// Records a set of cameras onto a storage group.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dsn.network",
    version = "v1alpha1",
    kind = "Pipeline",
    plural = "pipelines",
    shortname = "pl",
    category = "dsn",
    namespaced,
    status = "PipelineStatus",
    derive = "PartialEq",
    doc = "Records a set of cameras onto a storage group.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("the name of a Pipeline is part of labels and object names: use at most 52 characters"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Cameras","type":"string","jsonPath":".status.cameras"}"#,
    printcolumn = r#"{"name":"Running","type":"string","jsonPath":".status.running"}"#,
    printcolumn = r#"{"name":"Stored","type":"string","jsonPath":".status.conditions[?(@.type==\"Stored\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("has(self.spool) == has(oldSelf.spool) && (!has(self.spool) || self.spool == oldSelf.spool)").message("spool is fixed once the volumes exist: create another Pipeline and delete this one"))]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// `Running`; `Paused` (pods stay, ffmpeg is stopped by message); `Stopped` (scaled to zero). Default: `Running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PipelineState>,
    /// Which cameras of this namespace are recorded: the union of `names` and `selector`.
    pub cameras: CameraSet,
    /// How they are captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// Other sizes of the picture, for viewers whose line or screen is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcode: Option<Transcode>,
    /// Where and how long the footage is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// The volume footage waits on until it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<Spool>,
    /// Where the capture pods run (camera VLANs, reserved nodes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
}

/// `Running`; `Paused` (pods stay, ffmpeg is stopped by message); `Stopped` (scaled to zero). Default: `Running`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PipelineState {
    /// Capture.
    #[default]
    Running,
    /// Keep the pods, stop ffmpeg.
    Paused,
    /// Scale to zero; footage stays playable.
    Stopped,
}

/// Union of named and selected cameras.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.names) || has(self.selector)").message("cameras: give names (e.g. names: [lobby]) or a selector (e.g. selector: {matchLabels: {site: hq}}; selector: {} takes every Camera of the namespace)"))]
#[x_kube(validation = Rule::new("!has(self.names) || size(self.names) > 0").message("cameras.names: list at least one Camera, e.g. names: [lobby]"))]
#[x_kube(validation = Rule::new("!has(self.names) || self.names.all(name, name.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$'))").message("cameras.names: use names of Cameras: lower-case letters, digits, '-' and '.', e.g. names: [lobby]"))]
#[serde(rename_all = "camelCase")]
pub struct CameraSet {
    /// Names of Cameras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 52)), extend("x-kubernetes-list-type" = "set"))]
    pub names: Option<Vec<String>>,
    /// Labels of Cameras; `{}` takes every Camera of the namespace, absent takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::selector::schema")]
    pub selector: Option<LabelSelector>,
}

/// Capture settings.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Target length of a segment in seconds; cuts fall on the next keyframe (RFC 8216 §4.3.3.1). 1 to 30. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 30").message("capture.segmentSeconds: a whole number of seconds from 1 to 30, e.g. 4"))]
    pub segment_seconds: Option<i32>,
    /// What segments are packed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The camera's audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<Audio>,
}

/// What segments are packed in: `FMP4` (fragmented MP4) or `MPEGTS` (MPEG transport stream, for players that know nothing
/// else; Apple's do not play H.265 from it). An edit restarts only ffmpeg. Default: `FMP4`.
// Trap: of an optional field the schema takes this text, not that of the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Container {
    /// Fragmented MP4.
    #[default]
    #[serde(rename = "FMP4")]
    Fmp4,
    /// MPEG transport stream.
    #[serde(rename = "MPEGTS")]
    MpegTs,
}

/// The camera's audio: `AAC` (encoded anew, which every player knows); `Copy` (as the camera sends it where browsers play
/// that: AAC, in `FMP4` also Opus; anything else is encoded as AAC all the same, so that nothing is lost); `None` (left out).
/// An edit restarts only ffmpeg. Default: `AAC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Audio {
    /// Encoded as AAC.
    #[default]
    #[serde(rename = "AAC")]
    Aac,
    /// As the camera sends it, where browsers play that.
    Copy,
    /// Left out.
    None,
}

/// Other sizes of the picture. The camera's own encoding is always kept beside them, as the rendition `source`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transcode {
    /// Made beside ffmpeg in each capture pod. Adding or removing it restarts the pods; editing it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Sidecar>,
}

/// A transcoder in each capture pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// The renditions, at most 5; each costs processor time for every camera. H.264; the audio is that of the source.
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("size(self) > 0").message("transcode.sidecar.renditions: list at least one, e.g. [{name: 480p, height: 480, videoBitrateKbps: 800}], or leave transcode out"))]
    pub renditions: Vec<Rendition>,
}

/// One other size of the picture.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendition {
    /// Its name for viewers and in addresses, e.g. `480p`.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("transcode.sidecar.renditions.name: use lower-case letters, digits and '-', at most 16, e.g. 480p"))]
    #[x_kube(validation = Rule::new("self != 'source'").message("transcode.sidecar.renditions.name: source is the camera's own encoding; take another name, e.g. 480p"))]
    pub name: String,
    /// Height of the picture in pixels, an even number from 120 to 2160; the width follows. A camera with a lower
    /// picture is not enlarged.
    #[x_kube(validation = Rule::new("self >= 120 && self <= 2160 && self % 2 == 0").message("transcode.sidecar.renditions.height: an even number of pixels from 120 to 2160, e.g. 480"))]
    pub height: i32,
    /// Bit rate of the picture, kbit/s: the mean over two seconds does not exceed it. 50 to 50000.
    #[x_kube(validation = Rule::new("self >= 50 && self <= 50000").message("transcode.sidecar.renditions.videoBitrateKbps: a whole number of kbit/s from 50 to 50000, e.g. 800"))]
    pub video_bitrate_kbps: i32,
}

/// Storage settings.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Group of StorageNodes in this namespace. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.name.size() <= 40 && self.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("storage.groupRef: use lower-case letters, digits and '-', at most 40, as in spec.group of the StorageNodes, e.g. {name: default}"))]
    pub group_ref: Option<LocalRef>,
    /// On how many StorageNodes each segment is kept. 1 to 9. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 9").message("storage.replicas: a whole number from 1 to 9, at most the number of StorageNodes in the group"))]
    pub replicas: Option<i32>,
    /// How long footage is kept, as a GEP-2257 duration: hours, minutes, seconds, e.g. `720h` for 30 days.
    /// Default: `720h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')").message("storage.retention: write hours, minutes and seconds, e.g. 720h for 30 days or 1h30m; days (d) are not a unit here"))]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('1m')").message("storage.retention: at least 1m"))]
    pub retention: Option<String>,
    /// Length in seconds of the roll-ups that are pinned as one. 10 to 3600. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 10 && self <= 3600").message("storage.rollupSeconds: a whole number of seconds from 10 to 3600, e.g. 60"))]
    pub rollup_seconds: Option<i32>,
    /// What becomes of the footage when the Pipeline is deleted: `Retain` (kept until its retention ends) or `Delete`.
    /// Default: `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// What becomes of the footage when the Pipeline is deleted: `Retain` (kept until its retention ends) or `Delete`.
/// Default: `Retain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Kept until its retention ends.
    #[default]
    Retain,
    /// Unpinned and forgotten.
    Delete,
}

/// Volume of one (pipeline, camera).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.ephemeral) || !self.ephemeral || !has(self.storageClassName)").message("spool: an ephemeral spool has no storageClassName; leave one of the two out"))]
#[serde(rename_all = "camelCase")]
pub struct Spool {
    /// Size of the volume, e.g. `10Gi`; the agent keeps within 85 % of it. Default: `2Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = Rule::new("isQuantity(string(self))").message("spool.size: write a quantity, e.g. 10Gi"))]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('64Mi')) >= 0").message("spool.size: at least 64Mi, e.g. 10Gi"))]
    pub size: Option<Quantity>,
    /// StorageClass of the volume. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// `true`: an emptyDir, lost with the pod: footage not yet stored goes with it. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<bool>,
}

/// Scheduling of the capture pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodOptions {
    /// Labels of the Kubernetes nodes that reach the cameras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Tolerations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets to pull images with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// Generation of the spec this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PipelineState>,
    /// Accepted of selected cameras, e.g. `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cameras: Option<String>,
    /// Running of all instances, e.g. `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// The message of the worst condition: what a person should look at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Settings in effect after defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectiveSettings>,
    /// At most 20 instances, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub instances: Vec<InstanceRow>,
    /// `Ready`, `CamerasAccepted`, `Capturing`, `Transcoding` (with `transcode`), `Stored`, `ControlPlane`, `Drained` (while
    /// a camera leaves).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The spec's settings after defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveSettings {
    /// Target segment length, seconds.
    pub segment_seconds: i32,
    /// What segments are packed in.
    pub container: Container,
    /// The camera's audio.
    pub audio: Audio,
    /// Storage group.
    pub group: String,
    /// Replicas.
    pub replicas: i32,
    /// Retention.
    pub retention: String,
    /// Roll-up length, seconds.
    pub rollup_seconds: i32,
    /// Deletion policy.
    pub deletion_policy: DeletionPolicy,
}

/// One participant of a Pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceRow {
    /// Instance uid: names its queue `dsn.ctl.<uid>`.
    pub uid: String,
    /// Camera it works for.
    pub camera: String,
    /// Role: `capture` or `transcoder`.
    pub role: String,
    /// `Running`, `Paused`, `Failing`, `Starting`, `Unknown`.
    pub state: String,
    /// What is wrong, when something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl PipelineSpec {
    /// State in effect.
    pub fn effective_state(&self) -> PipelineState {
        self.state.unwrap_or_default()
    }

    /// The renditions beside the source; none without a transcoder.
    pub fn renditions(&self) -> &[Rendition] {
        let sidecar = self.transcode.as_ref().and_then(|transcode| transcode.sidecar.as_ref());
        sidecar.map_or(&[], |sidecar| &sidecar.renditions)
    }

    /// Every setting after defaults.
    pub fn effective(&self) -> EffectiveSettings {
        let storage = self.storage.clone().unwrap_or_default();
        EffectiveSettings {
            segment_seconds: self.capture.as_ref().and_then(|c| c.segment_seconds).unwrap_or(4),
            container: self.capture.as_ref().and_then(|c| c.container).unwrap_or_default(),
            audio: self.capture.as_ref().and_then(|c| c.audio).unwrap_or_default(),
            group: storage.group_ref.map_or_else(|| DEFAULT_GROUP.to_owned(), |r| r.name),
            replicas: storage.replicas.unwrap_or(2),
            retention: storage.retention.unwrap_or_else(|| "720h".to_owned()),
            rollup_seconds: storage.rollup_seconds.unwrap_or(60),
            deletion_policy: storage.deletion_policy.unwrap_or_default(),
        }
    }
}
