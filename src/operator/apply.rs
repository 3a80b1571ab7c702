//! Writes to the API server: children by server-side apply, Secrets by POST only, status only when it changed.
//!
//! Not here: what is written (the `desired/` and `status` files say that). Called by the last two steps of every
//! reconcile. A child that is as it should be costs no call; an object of somebody else is never seized.

use std::time::Instant;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{NamespaceResourceScope, object::HasStatus},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    containment,
    context::{Context, Stores},
    error::{Error, Verb},
    events, labels,
    watch::{Children, Packed, Tag},
};
use crate::api::{CameraStatus, PipelineStatus, StorageNodeStatus};

/// Annotation with the hash of the object as we last applied it.
pub const HASH_ANNOTATION: &str = "dsn.network/applied-hash";

/// Field manager of server-side apply, one for each controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The Pipeline controller.
    Pipeline,
    /// The Camera controller.
    Camera,
    /// The `StorageNode` controller.
    StorageNode,
}

impl Manager {
    /// The name that stands in `managedFields`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pipeline => "dsn/pipeline",
            Self::Camera => "dsn/camera",
            Self::StorageNode => "dsn/storagenode",
        }
    }
}

/// What became of an apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as it should be; no call was made.
    Unchanged,
    /// It was written.
    Written,
}

/// A kind of which we create, watch and prune objects.
pub trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The watched objects of the kind.
    fn store(stores: &Stores) -> &Children<Self>;
}

macro_rules! child {
    ($($kind:ty => $store:ident),* $(,)?) => {$(
        impl Child for $kind {
            fn store(stores: &Stores) -> &Children<Self> {
                &stores.$store
            }
        }
    )*};
}

child! {
    Deployment => deployments,
    StatefulSet => stateful_sets,
    ConfigMap => config_maps,
    Service => services,
    PodDisruptionBudget => disruption_budgets,
    PersistentVolumeClaim => volume_claims,
}

/// What to do about a desired object.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Skip,
    Write,
    Foreign(String),
}

/// Compares a desired object (with its hash annotation) with the one the API server holds.
fn decide(desired: &Value, actual: &Value) -> Decision {
    if let Some(owner) = foreign_owner(desired, actual) {
        return Decision::Foreign(owner);
    }
    let hash = |object: &Value| object.pointer("/metadata/annotations").and_then(|a| a.get(HASH_ANNOTATION).cloned());
    // resourceVersion is a precondition, no content.
    let mut content = desired.clone();
    if let Some(metadata) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    if hash(actual) == hash(desired) && containment::contains(actual, &content) {
        Decision::Skip
    } else {
        Decision::Write
    }
}

/// Whose the object is, if it isn't ours: it lacks our label, or is controlled by another object than ours would be.
fn foreign_owner(desired: &Value, actual: &Value) -> Option<String> {
    let owners = |object: &Value| object.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned();
    let controller = owners(actual)
        .unwrap_or_default()
        .into_iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool).unwrap_or(false));
    if let Some(controller) = controller {
        let ours = owners(desired).unwrap_or_default().iter().any(|owner| owner.get("uid") == controller.get("uid"));
        if !ours {
            let text = |key| controller.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
            return Some(format!("{} {:?}", text("kind"), text("name")));
        }
    }
    let managed_by = actual.pointer("/metadata/labels").and_then(|l| l.get(labels::MANAGED_BY)).and_then(Value::as_str);
    match managed_by {
        Some(labels::DSN) => None,
        Some(other) => Some(format!("{other:?}")),
        None => Some("somebody else".to_owned()),
    }
}

/// Adds the hash of the object as it is to its annotations.
pub fn with_hash(mut object: Value) -> Value {
    let mut content = object.clone();
    if let Some(metadata) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    let digest = Sha256::digest(content.to_string().as_bytes());
    object["metadata"]["annotations"][HASH_ANNOTATION] = Value::String(data_encoding::HEXLOWER.encode(&digest[..16]));
    object
}

/// A `resourceVersion` that no object has: an apply that carries it creates, and is refused when the name is taken.
///
/// Trap: one of `"0"` would be no precondition at all.
const CREATE_ONLY: &str = "1";

/// The body that creates: on the condition that there is no such object.
pub fn creation(mut body: Value) -> Value {
    body["metadata"]["resourceVersion"] = json!(CREATE_ONLY);
    body
}

/// Brings one child about. `metadata.resourceVersion`, when set, is a precondition.
///
/// The watch shows labelled objects only, so the name of a child it does not show may be somebody else's: that child is
/// applied on the condition that there is none, and only a refusal is followed by a look.
pub async fn child<K: Child>(ctx: &Context, manager: Manager, desired: K) -> Result<Outcome, Error> {
    let (kind, name, namespace) = (K::kind(&()), desired.name_any(), desired.namespace().unwrap_or_default());
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = with_hash(serde_json::to_value(&desired)?);
    let apply = async |body: &Value| {
        let _turn = ctx.writes.acquire().await.expect("nobody closes it");
        ctx.metrics.api_request(Verb::Apply, &kind);
        // Forced: fields of our own children are ours, whoever touched them.
        api.patch(&name, &PatchParams::apply(manager.as_str()).force(), &Patch::Apply(body)).await?;
        ctx.settling.wrote(Instant::now());
        tracing::info!(%kind, namespace, name, "applied");
        Ok(Outcome::Written)
    };
    let said = |verb, error| Error::api(verb, kind.clone(), &name, error);
    let hash = body["metadata"]["annotations"][HASH_ANNOTATION].as_str().unwrap_or_default();
    let cached = K::store(&ctx.stores).get(&namespace, &name);
    let actual = if let Some(cached) = &cached {
        if cached.is_known_to_hold(hash) {
            return Ok(Outcome::Unchanged);
        }
        cached.value()
    } else {
        match apply(&creation(body.clone())).await {
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => {}
            outcome => return outcome.map_err(|error| said(Verb::Apply, error)),
        }
        ctx.metrics.api_request(Verb::Get, &kind);
        serde_json::to_value(api.get(&name).await.map_err(|error| said(Verb::Get, error))?)?
    };
    match decide(&body, &actual) {
        Decision::Skip => {
            if let Some(cached) = cached {
                cached.found_to_hold(hash);
            }
            Ok(Outcome::Unchanged)
        }
        Decision::Foreign(owner) => Err(Error::Foreign { kind: kind.into(), name, owner }),
        Decision::Write => {
            let mut body = body;
            // With the uid the write can't hit an object that was recreated by somebody else meanwhile.
            body["metadata"]["uid"] = actual["metadata"]["uid"].clone();
            apply(&body).await.map_err(|error| said(Verb::Apply, error))
        }
    }
}

/// Reads a Secret, or creates it with what `make` says. It is never applied over: its content may be a person's.
pub async fn secret_once(
    ctx: &Context,
    namespace: &str,
    name: &str,
    make: impl FnOnce() -> Secret,
) -> Result<Secret, Error> {
    secret_once_with(&ctx.client, &ctx.metrics, namespace, name, make).await
}

/// [`secret_once`] before there is a [`Context`].
pub async fn secret_once_with(
    client: &kube::Client,
    metrics: &super::metrics::Metrics,
    namespace: &str,
    name: &str,
    make: impl FnOnce() -> Secret,
) -> Result<Secret, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    metrics.api_request(Verb::Get, "Secret");
    if let Some(found) = api.get_opt(name).await.map_err(|e| Error::api(Verb::Get, "Secret", name, e))? {
        return Ok(found);
    }
    metrics.api_request(Verb::Create, "Secret");
    match api.create(&PostParams::default(), &make()).await {
        Ok(created) => {
            tracing::info!(namespace, name, "created Secret");
            Ok(created)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            metrics.api_request(Verb::Get, "Secret");
            api.get(name).await.map_err(|e| Error::api(Verb::Get, "Secret", name, e))
        }
        Err(error) => Err(Error::api(Verb::Create, "Secret", name, error)),
    }
}

/// Deletes an object, and only the very one that was seen.
async fn delete<K: Child>(ctx: &Context, object: &Packed<K>) -> Result<(), Error> {
    let (kind, Tag { namespace, name, uid, .. }) = (K::kind(&()), object.tag());
    if object.tag().deleting {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    let preconditions = Preconditions { uid: Some(uid.to_string()), resource_version: None };
    ctx.metrics.api_request(Verb::Delete, &kind);
    match api.delete(name, &DeleteParams::background().preconditions(preconditions)).await {
        Ok(_) => {
            tracing::info!(%kind, %namespace, %name, "deleted");
            Ok(())
        }
        // Gone already, or another one of that name: nothing of what we saw is left.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Error::api(Verb::Delete, kind, &**name, error)),
    }
}

/// Deletes the children of one owner that `stale` names.
pub async fn prune<K: Child>(
    ctx: &Context,
    namespace: &str,
    owner_uid: &str,
    stale: impl Fn(&Tag) -> bool,
) -> Result<(), Error> {
    for child in K::store(&ctx.stores).of(namespace, owner_uid, stale) {
        delete(ctx, &child).await?;
    }
    Ok(())
}

/// A status that carries conditions.
pub trait Conditioned {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
}

macro_rules! conditioned {
    ($($status:ty),*) => {$(
        impl Conditioned for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
        }
    )*};
}

conditioned!(CameraStatus, PipelineStatus, StorageNodeStatus);

/// Writes the status when it differs from the one last seen, and tells the changes as Events.
pub async fn status<K>(ctx: &Context, manager: Manager, object: &K, status: K::Status) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + HasStatus
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
    K::Status: Conditioned + PartialEq + Serialize,
{
    if object.status() == Some(&status) {
        return Ok(());
    }
    let (kind, name, namespace) = (K::kind(&()), object.name_any(), object.namespace().unwrap_or_default());
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = json!({
        "apiVersion": K::api_version(&()), "kind": kind,
        // The uid keeps the status of a deleted object from landing on its successor.
        "metadata": {"name": name, "namespace": namespace, "uid": object.uid()},
        "status": status,
    });
    let _turn = ctx.status_writes.acquire().await.expect("nobody closes it");
    ctx.metrics.api_request(Verb::ApplyStatus, &kind);
    match api.patch_status(&name, &PatchParams::apply(manager.as_str()).force(), &Patch::Apply(&body)).await {
        Ok(_) => {
            let before = object.status().map_or(&[][..], Conditioned::conditions);
            ctx.events.publish(&object.object_ref(&()), events::transitions(before, status.conditions()));
            Ok(())
        }
        // Deleted meanwhile: nobody is left to be told.
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(error) => Err(Error::api(Verb::ApplyStatus, kind, name, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(data: &str, extra: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "x", "namespace": "n", "labels": {labels::MANAGED_BY: "dsn"},
                         "ownerReferences": [{"uid": "u1", "kind": "Pipeline", "name": "p", "controller": true}]},
            "data": {"k": data},
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        let desired = with_hash(config_map("v", &json!({})));
        let mut actual = desired.clone();
        actual["metadata"]["uid"] = json!("server-side");
        assert_eq!(decide(&desired, &actual), Decision::Skip);
    }

    #[test]
    fn drift_and_change_are_written() {
        let desired = with_hash(config_map("v", &json!({})));
        let mut drifted = desired.clone();
        drifted["data"]["k"] = json!("by hand");
        assert_eq!(decide(&desired, &drifted), Decision::Write);
        // Something we no longer say: contained, but the hash tells.
        let before = with_hash(config_map("v", &json!({"immutable": false})));
        assert_eq!(decide(&desired, &before), Decision::Write);
    }

    #[test]
    fn a_precondition_is_no_content() {
        let mut with_precondition = config_map("v", &json!({}));
        with_precondition["metadata"]["resourceVersion"] = json!("41");
        let mut actual = with_hash(config_map("v", &json!({})));
        actual["metadata"]["resourceVersion"] = json!("42");
        assert_eq!(decide(&with_hash(with_precondition), &actual), Decision::Skip);
    }

    #[test]
    fn an_object_of_somebody_else_is_left_alone() {
        let desired = with_hash(config_map("v", &json!({})));
        let unlabelled = config_map("v", &json!({"metadata": {"name": "x"}}));
        assert_eq!(decide(&desired, &unlabelled), Decision::Foreign("somebody else".into()));
        let mut owned = config_map("v", &json!({}));
        owned["metadata"]["ownerReferences"][0]["uid"] = json!("u0");
        assert_eq!(decide(&desired, &owned), Decision::Foreign("Pipeline \"p\"".into()));
        let mut helm = config_map("v", &json!({}));
        helm["metadata"]["ownerReferences"] = json!([]);
        helm["metadata"]["labels"][labels::MANAGED_BY] = json!("Helm");
        assert_eq!(decide(&desired, &helm), Decision::Foreign("\"Helm\"".into()));
    }
}
