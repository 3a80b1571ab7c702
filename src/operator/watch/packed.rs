//! A watched child as it is remembered between two reconciles: what it is found by, and the rest as compressed text.
//!
//! Trap: typed, a Deployment of ours takes 54 kB, ten times its text: Rust gives each of its hundreds of absent fields
//! room. Its metadata alone took as much as all of its text. And of that text most is the same in every other.

use std::{
    marker::PhantomData,
    sync::{Arc, OnceLock},
};

use kube::{Resource, api::ObjectMeta};
use lz4_flex::block;
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
    /// Its JSON, as LZ4 writes it for one who knows the sample.
    text: Box<[u8]>,
    /// Of the packer, as it was then.
    sample: Arc<[u8]>,
    /// Hash of the desired object that it was found to hold.
    holds: OnceLock<Box<str>>,
    kind: PhantomData<fn() -> K>,
}

/// Packs the children of one kind: of each it keeps what a few before it had not.
pub struct Packer<K> {
    /// JSON of some children, one behind the other.
    sample: Arc<[u8]>,
    kind: PhantomData<fn() -> K>,
}

/// A sample grows up to so many bytes; LZ4 looks back no further than 64 kB.
const LARGEST_SAMPLE: usize = 32_000;
/// A child that takes more than a fifth of its JSON is unlike the sample, and enters it.
const UNLIKE: usize = 5;
/// Unless it is larger than this: one of somebody else's must not be all of the sample.
const LARGEST_IN_SAMPLE: usize = LARGEST_SAMPLE / 4;

impl<K> Default for Packer<K> {
    fn default() -> Self {
        Self { sample: Arc::default(), kind: PhantomData }
    }
}

impl<K: Resource<DynamicType = ()> + Serialize> Packer<K> {
    /// Packs one.
    pub fn pack(&mut self, object: &K) -> Packed<K> {
        let text = serde_json::to_vec(object).expect("came as JSON");
        let sample = self.sample.clone();
        let packed = block::compress_prepend_size_with_dict(&text, &sample);
        let fits = text.len() <= LARGEST_IN_SAMPLE && sample.len() + text.len() <= LARGEST_SAMPLE;
        if fits && packed.len() * UNLIKE > text.len() {
            self.sample = [&*sample, &text].concat().into();
        }
        Packed { tag: Tag::of(object.meta()), text: packed.into(), sample, holds: OnceLock::new(), kind: PhantomData }
    }
}

impl<K: DeserializeOwned> Packed<K> {
    /// The object as it was packed.
    pub fn unpack(&self) -> Arc<K> {
        Arc::new(self.read())
    }

    /// The same as JSON.
    pub fn value(&self) -> Value {
        self.read()
    }

    fn read<T: DeserializeOwned>(&self) -> T {
        let text = block::decompress_size_prepended_with_dict(&self.text, &self.sample).expect("what was packed here");
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
        let packed = Packer::default().pack(&object);
        assert_eq!(*packed.unpack(), object);
        assert_eq!(packed.value(), serde_json::to_value(&object).expect("JSON"));
        assert_eq!(packed.value()["metadata"], value["metadata"]);
        let tag = packed.tag();
        assert_eq!((&*tag.namespace, &*tag.name, &*tag.uid, tag.deleting), ("n", "hq-gate", "u", false));
        assert_eq!((tag.pipeline.as_deref(), tag.storage_node.as_deref()), (Some("hq"), None));
        assert_eq!(tag.instance, Some(instance));
        assert_eq!((tag.by_owner(), tag.by_label()), (vec!["o"], vec!["hq"]));
    }

    #[test]
    fn of_what_is_like_others_only_the_difference_is_kept() {
        let pod: Vec<String> = (0..200).map(|number| format!("--a-word-of-a-{number}-command")).collect();
        let deployment = |name: &str| -> Deployment {
            let spec = json!({"template": {"spec": {"containers": [{"name": name, "command": pod}]}}});
            let value = json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec});
            serde_json::from_value(value).expect("a Deployment")
        };
        let objects: Vec<_> = (0..50).map(|number| deployment(&format!("gate-{number}"))).collect();
        let mut packer = Packer::default();
        let kept: Vec<_> = objects.iter().map(|object| packer.pack(object)).collect();
        for (object, packed) in objects.iter().zip(&kept) {
            assert_eq!(*packed.unpack(), *object);
        }
        let whole = serde_json::to_vec(&objects[1]).expect("JSON").len();
        for packed in &kept[1..] {
            assert!(packed.text.len() < whole / 20, "{} of {whole} bytes", packed.text.len());
            assert!(Arc::ptr_eq(&packed.sample, &packer.sample), "one sample for all");
        }
        // A kind of which no two are alike: the sample stops growing.
        for number in 0..1_000_u64 {
            let unlike: String =
                (0..900).map(|n| char::from(b'a' + ((number * 7919 + n * n * 31) % 26) as u8)).collect();
            let object = deployment(&unlike);
            assert_eq!(*packer.pack(&object).unpack(), object);
        }
        assert!(packer.sample.len() <= LARGEST_SAMPLE);
    }
}
