//! The labels every child carries: how watches, prunes and Services find what is ours.
//!
//! Not here: the labels users put on their own objects. Called by every `desired/` file and by [`super::watch`].

use std::collections::BTreeMap;

use crate::domain::id::InstanceUid;

/// Who manages the object; the watches of children are limited to `dsn`.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const DSN: &str = "dsn";
/// What the object is part of.
pub const NAME: &str = "app.kubernetes.io/name";
/// What the object does, e.g. `capture`, `storage`.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Name of the Pipeline.
pub const PIPELINE: &str = "dsn.network/pipeline";
/// Name of the Camera.
pub const CAMERA: &str = "dsn.network/camera";
/// Instance uid.
pub const INSTANCE: &str = "dsn.network/instance";
/// Name of the `StorageNode`.
pub const STORAGE_NODE: &str = "dsn.network/storage-node";
/// Group of `StorageNodes`.
pub const GROUP: &str = "dsn.network/group";

/// Selector of everything the operator makes.
pub fn ours() -> String {
    format!("{MANAGED_BY}={DSN}")
}

fn base(component: &str) -> BTreeMap<String, String> {
    [(NAME, DSN), (MANAGED_BY, DSN), (COMPONENT, component)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn with<const N: usize>(mut labels: BTreeMap<String, String>, more: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.extend(more.map(|(k, v)| (k.to_owned(), v.to_owned())));
    labels
}

/// Of what belongs to a whole Pipeline.
pub fn pipeline(pipeline: &str, component: &str) -> BTreeMap<String, String> {
    with(base(component), [(PIPELINE, pipeline)])
}

/// Of what belongs to one instance.
pub fn instance(pipeline: &str, camera: &str, uid: InstanceUid, component: &str) -> BTreeMap<String, String> {
    with(base(component), [(PIPELINE, pipeline), (CAMERA, camera), (INSTANCE, &uid.to_string())])
}

/// Of what belongs to one `StorageNode`.
pub fn storage_node(node: &str, group: &str, component: &str) -> BTreeMap<String, String> {
    with(base(component), [(STORAGE_NODE, node), (GROUP, group)])
}

/// Of what the `StorageNodes` of a group share.
pub fn storage_group(group: &str, component: &str) -> BTreeMap<String, String> {
    with(base(component), [(GROUP, group)])
}
