//! `StorageNode`: one disk's worth of IPFS. Nodes with the same group in the same namespace form one private cluster.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Group of a StorageNode that names none.
pub const DEFAULT_GROUP: &str = "default";

/// One kubo + ipfs-cluster peer on a volume of its own.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dsn.network",
    version = "v1alpha1",
    kind = "StorageNode",
    plural = "storagenodes",
    shortname = "sn",
    category = "dsn",
    namespaced,
    status = "StorageNodeStatus",
    derive = "PartialEq",
    doc = "One disk's worth of IPFS: a kubo and an ipfs-cluster peer on a volume of their own.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a StorageNode is part of pod and host names: use at most 40 characters"),
    validation = Rule::new("!self.metadata.name.contains('.')").message("the name of a StorageNode becomes a host name: leave out dots, e.g. disk-1"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Online","type":"string","jsonPath":".status.conditions[?(@.type==\"Online\")].status"}"#,
    printcolumn = r#"{"name":"Group","type":"string","jsonPath":".status.group"}"#,
    printcolumn = r#"{"name":"Capacity","type":"string","jsonPath":".spec.managed.capacity"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Online\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("has(self.group) == has(oldSelf.group) && (!has(self.group) || self.group == oldSelf.group)").message("group is fixed once the node exists: its disk belongs to that group's private network; create another StorageNode instead"))]
#[serde(rename_all = "camelCase")]
pub struct StorageNodeSpec {
    /// Nodes of one namespace with the same group share a swarm key and a cluster. Cannot be changed. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("group: use lower-case letters, digits and '-', e.g. default or archive"))]
    pub group: Option<String>,
    /// The operator runs the node as a StatefulSet with a volume.
    pub managed: Managed,
}

/// A node that the operator runs.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName is fixed once the volume exists: add another StorageNode"))]
#[serde(rename_all = "camelCase")]
pub struct Managed {
    /// Size of the volume, e.g. `100Gi`. 85 % of it are given to footage. Cannot be changed.
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = Rule::new("isQuantity(string(self))").message("capacity: write a quantity, e.g. 100Gi"))]
    #[x_kube(validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('1Gi')) >= 0").message("capacity: at least 1Gi, e.g. 100Gi"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("capacity is fixed once the volume exists: add another StorageNode for more room"))]
    pub capacity: Quantity,
    /// StorageClass of the volume. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// Labels of the Kubernetes node that holds the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Tolerations of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Option<Vec<Toleration>>,
    /// What becomes of the volume when the StorageNode is deleted: `Retain` (a StorageNode of the same name finds it
    /// again) or `Delete`. Default: `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim_policy: Option<ReclaimPolicy>,
}

/// What becomes of the volume when the StorageNode is deleted: `Retain` (a StorageNode of the same name finds it again)
/// or `Delete`. Default: `Retain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// The volume claim stays and is found again by name.
    #[default]
    Retain,
    /// The volume claim goes with its owner.
    Delete,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageNodeStatus {
    /// Generation of the spec this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Group in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// libp2p identity of the node's kubo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipfs_peer_id: Option<String>,
    /// libp2p identity of the node's ipfs-cluster peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_peer_id: Option<String>,
    /// `Ready` (rolled out) and `Online` (kubo and cluster peer answer).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl StorageNode {
    /// Group in effect.
    pub fn effective_group(&self) -> &str {
        self.spec.group.as_deref().unwrap_or(DEFAULT_GROUP)
    }
}

impl Managed {
    /// Reclaim policy in effect.
    pub fn effective_reclaim_policy(&self) -> ReclaimPolicy {
        self.reclaim_policy.unwrap_or_default()
    }
}
