//! A watched child as it is remembered between two reconciles.
//!
//! Trap: typed, a Deployment of ours takes 54 kB, ten times its text: Rust gives each of its hundreds of absent fields
//! room. A thousand of them were half of the operator's memory.

use std::{borrow::Cow, marker::PhantomData, sync::Arc};

use kube::{Resource, api::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Metadata, by which children are found, and the text of all the rest.
#[derive(Clone, Debug)]
pub struct Packed<K> {
    metadata: ObjectMeta,
    text: Box<str>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Packed<K>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    /// Packs an object.
    pub fn of(mut object: K) -> Self {
        let metadata = std::mem::take(object.meta_mut());
        let text = serde_json::to_string(&object).expect("came as JSON").into();
        Self { metadata, text, kind: PhantomData }
    }

    /// The object as it was packed.
    pub fn unpack(&self) -> Arc<K> {
        let mut object: K = serde_json::from_str(&self.text).expect("the text of such an object");
        *object.meta_mut() = self.metadata.clone();
        Arc::new(object)
    }

    /// The same as JSON.
    pub fn value(&self) -> Value {
        let mut value: Value = serde_json::from_str(&self.text).expect("the text of an object");
        value["metadata"] = serde_json::to_value(&self.metadata).expect("came as JSON");
        value
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Packed<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way() {
        let value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "hq-gate", "namespace": "n", "uid": "u", "generation": 3, "labels": {"a": "b"},
                         "annotations": {"c": "d"}, "ownerReferences": [
                            {"apiVersion": "v1", "kind": "P", "name": "p", "uid": "o", "controller": true}]},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                     "template": {"spec": {"containers": [{"name": "x", "resources": {"limits": {"memory": "1Gi"}}}]}}},
            "status": {"readyReplicas": 1},
        });
        let object: Deployment = serde_json::from_value(value.clone()).expect("a Deployment");
        let packed = Packed::of(object.clone());
        assert_eq!(packed.name_any(), "hq-gate");
        assert_eq!(*packed.unpack(), object);
        assert_eq!(packed.value(), serde_json::to_value(&object).expect("JSON"));
        assert_eq!(packed.value()["metadata"], value["metadata"]);
    }
}
