//! The custom resources of group `dsn.network/v1alpha1`: types only, no behaviour beyond effective defaults.
//!
//! A field enters the schema with its implementation. The CRDs carry no `default:` (Argo CD shows drift for those):
//! defaults live in the `effective_*` functions beside each type, in the field's description and, resolved, in status.

pub mod camera;
pub mod condition;
pub mod pipeline;
mod selector;
pub mod storage_node;

pub use camera::{Camera, CameraSpec, CameraStatus};
pub use pipeline::{Pipeline, PipelineSpec, PipelineStatus};
pub use storage_node::{StorageNode, StorageNodeSpec, StorageNodeStatus};

/// API group of all three kinds.
pub const GROUP: &str = "dsn.network";
/// The one served version.
pub const VERSION: &str = "v1alpha1";

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Reference to an object of a fixed kind in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRef {
    /// Name of the object, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("a name of an object in this namespace: lower-case letters, digits, '-' and '.', without a namespace or '/' before it"))]
    pub name: String,
}
