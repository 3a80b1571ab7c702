//! Finds what is left at the broker of objects whose deletion nobody saw: queues, users, streams, cameras.
//!
//! Nothing goes because a list doesn't show its owner: a live GET by name must say "gone" or "another uid", and where a
//! mistake would cost footage or a login, twice, ten minutes apart. Called by the supervisor; in a healthy installation it
//! asks Kubernetes nothing.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
};

use jiff::{SignedDuration, Timestamp};
use kube::{Api, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::{Desk, topology};
use crate::{
    api::{Camera, Pipeline},
    clients::broker_admin::{self, BrokerAdmin},
    domain::{
        control::{AGENT_USER_PREFIX, DEAD_LETTER_QUEUE, INSTANCE_QUEUE_PREFIX, OWNER_ARGUMENT, ObjectRef},
        id::InstanceUid,
    },
    operator::{
        context::Context,
        error::{Error, Verb},
        pipeline::plan,
    },
};

/// How far apart the two looks are.
const APART: SignedDuration = SignedDuration::from_mins(10);

/// Things seen without an owner once.
#[derive(Debug, Default)]
pub struct Suspects(HashMap<String, Timestamp>);

impl Suspects {
    /// `key` has no owner now: was that so ten minutes ago, too?
    fn confirmed(&mut self, key: &str, now: Timestamp) -> bool {
        let first = *self.0.entry(key.to_owned()).or_insert(now);
        now.duration_since(first) >= APART
    }

    /// Only these are still suspicious.
    fn retain(&mut self, still: &HashSet<String>) {
        self.0.retain(|key, _| still.contains(key));
    }
}

/// Why a sweep ended early; the next one comes.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The broker.
    #[error(transparent)]
    Admin(#[from] broker_admin::Error),
    /// The API server.
    #[error(transparent)]
    Api(#[from] Error),
}

/// One look at everything.
pub async fn sweep(
    ctx: &Context,
    desk: &Desk,
    admin: &BrokerAdmin,
    suspects: &mut Suspects,
    now: Timestamp,
) -> Result<(), SweepError> {
    let mut still = HashSet::new();
    let queues = admin.queues().await?;
    let there: HashSet<InstanceUid> =
        queues.iter().filter_map(|queue| queue.name.strip_prefix(INSTANCE_QUEUE_PREFIX)?.parse().ok()).collect();
    desk.queues_seen(&there);
    for queue in queues {
        if queue.name == DEAD_LETTER_QUEUE {
            ctx.metrics.dead_letters.set(i64::try_from(queue.messages.unwrap_or_default()).unwrap_or(i64::MAX));
        }
        let Some(uid) = queue.name.strip_prefix(INSTANCE_QUEUE_PREFIX).and_then(|uid| uid.parse::<InstanceUid>().ok())
        else {
            continue;
        };
        let owner = queue.arguments.get(OWNER_ARGUMENT).and_then(|o| o.as_str()).and_then(topology::parse_owner);
        let Some(owner) = owner.filter(|owner| ctx.config.watches(&owner.namespace)) else { continue };
        if desk.wants_queue(uid) || !is_orphan(ctx, desk, &owner).await? {
            continue;
        }
        // One look is enough: a queue holds nothing that is not sent again to the next one of its name.
        tracing::info!(queue = queue.name, owner.namespace, owner.name, "removing a queue without an owner");
        desk.delete_queue(uid);
    }
    for (pipeline, stream, camera) in desk.unwanted_streams() {
        if !ctx.config.watches(&pipeline.namespace) || !is_orphan(ctx, desk, &pipeline).await? {
            continue;
        }
        let key = format!("stream {stream}");
        if suspects.confirmed(&key, now) {
            tracing::info!(%stream, pipeline.namespace, pipeline.name, "burying a stream without an owner");
            match ctx.stores.pipelines.store.find(|live| live.uid().as_ref() == Some(&pipeline.uid)) {
                None => desk.orphan(stream),
                // What a Pipeline that cannot be read wants is not known: its next reconcile says it.
                Some(live) => {
                    if let Some(config) = plan::retired_stream(&live, &camera) {
                        desk.bury_stream(config, now.as_second().unsigned_abs());
                    }
                }
            }
        } else {
            still.insert(key);
        }
    }
    for config in desk.unmet_cameras() {
        let camera = &config.camera;
        if !ctx.config.watches(&camera.namespace)
            || live_uid::<Camera>(ctx, camera).await?.as_ref() == Some(&camera.uid)
        {
            continue;
        }
        let key = format!("camera {}", camera.uid);
        if suspects.confirmed(&key, now) {
            tracing::info!(camera.namespace, camera.name, "telling the recorder of a Camera that is gone");
            desk.camera_deleted(config, now.as_second().unsigned_abs());
        } else {
            still.insert(key);
        }
    }
    sweep_users(ctx, desk, admin, suspects, &mut still, now).await?;
    suspects.retain(&still);
    Ok(())
}

async fn sweep_users(
    ctx: &Context,
    desk: &Desk,
    admin: &BrokerAdmin,
    suspects: &mut Suspects,
    still: &mut HashSet<String>,
    now: Timestamp,
) -> Result<(), SweepError> {
    let agents = admin.users().await?.into_iter().filter(|user| user.tags.iter().any(|tag| tag == topology::AGENT_TAG));
    for user in agents {
        let Some(namespace) =
            user.name.strip_prefix(AGENT_USER_PREFIX).filter(|namespace| ctx.config.watches(namespace))
        else {
            continue;
        };
        let in_use = ctx.stores.pipelines.store.find(|p| p.namespace().as_deref() == Some(namespace)).is_some();
        if in_use || has_pipelines(ctx, namespace).await? {
            continue;
        }
        let key = format!("user {namespace}");
        if suspects.confirmed(&key, now) {
            tracing::info!(user = user.name, "removing the broker user of a namespace without Pipelines");
            desk.forget_user(namespace);
            admin.delete_user(&user.name).await?;
        } else {
            still.insert(key);
        }
    }
    Ok(())
}

/// Does nobody want what belonged to this Pipeline? It is gone, was recreated, or lives and does without it.
async fn is_orphan(ctx: &Context, desk: &Desk, pipeline: &ObjectRef) -> Result<bool, Error> {
    if desk.is_settled(&pipeline.uid) {
        return Ok(true);
    }
    Ok(live_uid::<Pipeline>(ctx, pipeline).await?.as_ref() != Some(&pipeline.uid))
}

/// Uid of the object that has this name now.
async fn live_uid<K>(ctx: &Context, object: &ObjectRef) -> Result<Option<String>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &object.namespace);
    let kind = K::kind(&());
    ctx.metrics.api_request(Verb::Get, &kind);
    let live =
        api.get_metadata_opt(&object.name).await.map_err(|e| Error::api(Verb::Get, kind.as_ref(), &object.name, e))?;
    Ok(live.and_then(|live| live.metadata.uid))
}

async fn has_pipelines(ctx: &Context, namespace: &str) -> Result<bool, Error> {
    let api: Api<Pipeline> = Api::namespaced(ctx.client.clone(), namespace);
    ctx.metrics.api_request(Verb::Get, "Pipeline");
    let some = api
        .list_metadata(&ListParams::default().limit(1))
        .await
        .map_err(|e| Error::api(Verb::Get, "Pipeline", namespace, e))?;
    Ok(!some.items.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::control::CameraConfig, operator::broker::wanted::Job};

    #[test]
    fn one_look_is_not_enough_and_a_recovered_thing_starts_over() {
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + 60 * minute).expect("in range");
        let mut suspects = Suspects::default();
        assert!(!suspects.confirmed("q", at(0)));
        assert!(!suspects.confirmed("q", at(5)));
        assert!(suspects.confirmed("q", at(10)));
        suspects.retain(&HashSet::new());
        assert!(!suspects.confirmed("q", at(20)));
    }

    /// A Camera deleted while the operator was off stayed on the page for ever.
    #[test]
    fn the_recorder_reminds_of_cameras_whose_deletion_nobody_saw() {
        let desk = Desk::new(Timestamp::now());
        let camera = |uid: &str| CameraConfig {
            camera: ObjectRef { namespace: "n".into(), name: uid.into(), uid: uid.into() },
            site: "hq".into(),
            deleted: false,
        };
        desk.cameras_known(vec![camera("lives"), camera("gone"), camera("seen-going")]);
        desk.want_camera(camera("lives"), 1);
        desk.camera_deleted(camera("seen-going"), 1);
        assert_eq!(desk.unmet_cameras(), [camera("gone")]);
        desk.camera_deleted(camera("gone"), 7);
        assert_eq!(desk.unmet_cameras(), []);
        let told = desk.inner().wanted.jobs();
        assert!(
            told.iter()
                .any(|job| matches!(job, Job::Camera(config, 8) if config.camera.uid == "gone" && config.deleted))
        );
    }
}
