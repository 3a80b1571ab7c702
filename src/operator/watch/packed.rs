//! A watched child as it is remembered between two reconciles: what it is found by, and the rest as compressed text.
//!
//! Trap: typed, a Deployment of ours takes 54 kB, ten times its text: Rust gives each of its hundreds of absent fields
//! room. Its metadata alone took as much as all of its text.

use std::{
    io::{Read, Write},
    marker::PhantomData,
    sync::{Arc, OnceLock},
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use kube::{Resource, api::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{domain::id::InstanceUid, operator::labels};

/// What a child is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Is it being deleted?
    pub deleting: bool,
    /// Uids of its owners.
    pub owners: Box<[Box<str>]>,
    /// The instance it belongs to, by its label.
    pub instance: Option<InstanceUid>,
    /// Name of its Pipeline, by its label.
    pub pipeline: Option<Box<str>>,
    /// Name of its `StorageNode`, by its label.
    pub storage_node: Option<Box<str>>,
    /// Its group of `StorageNodes`, by its label.
    pub group: Option<Box<str>>,
}

impl Tag {
    fn of(metadata: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let label = |key| Some(metadata.labels.as_ref()?.get(key)?.as_str());
        Self {
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
            uid: text(&metadata.uid),
            deleting: metadata.deletion_timestamp.is_some(),
            owners: metadata.owner_references.iter().flatten().map(|owner| owner.uid.as_str().into()).collect(),
            instance: label(labels::INSTANCE).and_then(|uid| uid.parse().ok()),
            pipeline: label(labels::PIPELINE).map(Into::into),
            storage_node: label(labels::STORAGE_NODE).map(Into::into),
            group: label(labels::GROUP).map(Into::into),
        }
    }

    /// Uids of its owners, the words that children are filed under: those of a former object of the same name are not ours.
    pub fn by_owner(&self) -> Vec<&str> {
        self.owners.iter().map(|owner| &**owner).collect()
    }

    /// Names of the Pipeline or the `StorageNode` it works for: pods are filed under these, for their owners are no
    /// objects of ours.
    pub fn by_label(&self) -> Vec<&str> {
        self.pipeline.iter().chain(&self.storage_node).map(|name| &**name).collect()
    }
}

/// A child.
#[derive(Clone, Debug)]
pub struct Packed<K> {
    tag: Tag,
    /// Its JSON, deflated.
    text: Box<[u8]>,
    /// Hash of the desired object that it was found to hold.
    holds: OnceLock<Box<str>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Packed<K>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    /// Packs an object.
    pub fn of(object: &K) -> Self {
        let mut deflated = DeflateEncoder::new(Vec::new(), Compression::fast());
        let text = serde_json::to_vec(object).expect("came as JSON");
        deflated.write_all(&text).expect("memory takes it");
        let text = deflated.finish().expect("memory takes it").into();
        Self { tag: Tag::of(object.meta()), text, holds: OnceLock::new(), kind: PhantomData }
    }

    /// The object as it was packed.
    pub fn unpack(&self) -> Arc<K> {
        Arc::new(self.read())
    }

    /// The same as JSON.
    pub fn value(&self) -> Value {
        self.read()
    }

    fn read<T: DeserializeOwned>(&self) -> T {
        let mut text = Vec::new();
        DeflateDecoder::new(&*self.text).read_to_end(&mut text).expect("what was deflated here");
        serde_json::from_slice(&text).expect("the text of such an object")
    }
}

impl<K> Packed<K> {
    /// What it is found by.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Was it found to hold the desired object of this hash? It is a new one after every change.
    pub fn is_known_to_hold(&self, hash: &str) -> bool {
        self.holds.get().is_some_and(|held| &**held == hash)
    }

    /// It was compared, and holds it.
    pub fn found_to_hold(&self, hash: &str) {
        // One desired object per version of the actual one, but for the moment of an edit.
        let _ = self.holds.set(hash.into());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::domain::id::Role;

    #[test]
    fn nothing_is_lost_on_the_way() {
        let instance = InstanceUid::of("p", "c", Role::Capture, 0);
        let value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "hq-gate", "namespace": "n", "uid": "u", "generation": 3,
                         "labels": {"dsn.network/pipeline": "hq", "dsn.network/instance": instance.to_string()},
                         "annotations": {"c": "d"}, "ownerReferences": [
                            {"apiVersion": "v1", "kind": "P", "name": "p", "uid": "o", "controller": true}]},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                     "template": {"spec": {"containers": [{"name": "x", "resources": {"limits": {"memory": "1Gi"}}}]}}},
            "status": {"readyReplicas": 1},
        });
        let object: Deployment = serde_json::from_value(value.clone()).expect("a Deployment");
        let packed = Packed::of(&object);
        assert_eq!(*packed.unpack(), object);
        assert_eq!(packed.value(), serde_json::to_value(&object).expect("JSON"));
        assert_eq!(packed.value()["metadata"], value["metadata"]);
        let tag = packed.tag();
        assert_eq!((&*tag.namespace, &*tag.name, &*tag.uid, tag.deleting), ("n", "hq-gate", "u", false));
        assert_eq!((tag.pipeline.as_deref(), tag.storage_node.as_deref()), (Some("hq"), None));
        assert_eq!(tag.instance, Some(instance));
        assert_eq!((tag.by_owner(), tag.by_label()), (vec!["o"], vec!["hq"]));
    }
}
