//! `Camera`: what exists, where it is, how to reach it. Recording is a Pipeline's business.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LocalRef;

/// A video source. It is recorded as soon as a Pipeline of its namespace selects it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dsn.network",
    version = "v1alpha1",
    kind = "Camera",
    plural = "cameras",
    shortname = "cam",
    category = "dsn",
    namespaced,
    status = "CameraStatus",
    derive = "PartialEq",
    doc = "A video source. It is recorded as soon as a Pipeline of its namespace selects it.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("the name of a Camera is part of labels and host names: use at most 52 characters"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Capturing","type":"string","jsonPath":".status.conditions[?(@.type==\"Capturing\")].status"}"#,
    printcolumn = r#"{"name":"Pipeline","type":"string","jsonPath":".status.claimedBy.name"}"#,
    printcolumn = r#"{"name":"Video","type":"string","jsonPath":".status.video"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Capturing\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CameraSpec {
    /// Where the video comes from.
    pub source: Source,
    /// The place the camera stands at (a building, a factory, a yard); announced with each segment.
    /// Default: the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._ -]{0,61}[A-Za-z0-9])?$')").message("site: use 1 to 63 ASCII letters, digits, '.', '_', '-' or blanks, beginning and ending with a letter or digit, e.g. hq or plant-2"))]
    #[schemars(length(max = 63))]
    pub site: Option<String>,
}

/// Address and credentials of a camera.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// RTSP address without user and password, e.g. `rtsp://10.0.0.8:554/Streaming/Channels/101`.
    /// Schemes: `rtsp`, `rtsps`.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^[Rr][Tt][Ss][Pp][Ss]?://')").message("url: begin with rtsp:// or rtsps://, e.g. rtsp://10.0.0.8:554/stream1"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-zA-Z]+://[^/?#]*@')").message("url: leave user and password out; put them into a Secret with the keys username and password and name it in credentialsSecretRef"))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]*$')").message("url: use printable ASCII only; percent-encode everything else, e.g. %C3%BC for ü"))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z]+://[^/?#:\\\\[\\\\]]+') || self.matches('^[a-zA-Z]+://\\\\[[0-9a-fA-F:.]+\\\\]')").message("url: name a host after ://, e.g. rtsp://10.0.0.8:554/stream1"))]
    pub url: String,
    /// How RTP reaches us: `TCP` (interleaved, passes every network) or `UDP` (some old cameras). Default: `TCP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Secret of this namespace with the keys `username` and `password` (type `kubernetes.io/basic-auth`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalRef>,
}

/// How RTP reaches us: `TCP` (interleaved, passes every network) or `UDP` (some old cameras). Default: `TCP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// RTP interleaved in the RTSP connection.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// RTP over UDP.
    #[serde(rename = "UDP")]
    Udp,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CameraStatus {
    /// Generation of the spec this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The one Pipeline that records this camera.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<Claim>,
    /// What the camera sends, e.g. `h264 1920x1080 25fps gop 2.0s aac`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<String>,
    /// `Ready` (accepted) and `Capturing` (pictures arrive).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The Pipeline that records a camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Name of the Pipeline.
    pub name: String,
    /// Its uid: a recreated Pipeline is another one.
    pub uid: String,
}

impl CameraSpec {
    /// Transport in effect.
    pub fn effective_transport(&self) -> Transport {
        self.source.transport.unwrap_or_default()
    }
}

impl Camera {
    /// Site in effect: the spec's, else the namespace.
    pub fn effective_site(&self) -> String {
        self.spec.site.clone().or_else(|| self.metadata.namespace.clone()).unwrap_or_default()
    }
}
