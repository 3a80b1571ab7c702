//! Step 1: everything a Pipeline's plan depends on, read from the watched objects and the desk. No call is made.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
};
use kube::ResourceExt;

use super::revision::{self, Numbered};
use crate::{
    api::{Camera, Pipeline, StorageNode},
    domain::id::{InstanceUid, Role},
    operator::{
        apply::Child,
        broker::{
            InstanceView, Trouble,
            fleet::{Link, SeenSummary},
        },
        context::{Context, get, in_namespace, selected},
        watch::Children,
    },
};

/// What there is.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Cameras of the namespace that it selects or still records.
    pub cameras: Vec<Arc<Camera>>,
    /// Pipelines of the namespace that select one of those Cameras.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// `StorageNodes` of the namespace.
    pub storage_nodes: Vec<Arc<StorageNode>>,
    /// Assignments held by our `ConfigMaps`.
    pub held: BTreeMap<InstanceUid, Numbered>,
    /// Our Deployments.
    pub deployments: BTreeMap<InstanceUid, Arc<Deployment>>,
    /// Our volume claims.
    pub volume_claims: BTreeMap<InstanceUid, Arc<PersistentVolumeClaim>>,
    /// Our pods.
    pub pods: BTreeMap<InstanceUid, Vec<Arc<Pod>>>,
    /// What is known of each instance.
    pub views: BTreeMap<InstanceUid, InstanceView>,
    /// What the recorder said.
    pub summary: Option<SeenSummary>,
    /// The broker.
    pub link: Link,
    /// Why the broker is away.
    pub trouble: Option<Trouble>,
    /// When this was read.
    pub now: Timestamp,
}

/// Reads.
pub fn pipeline(pipeline: &Pipeline, ctx: &Context) -> Observed {
    let namespace = pipeline.namespace().unwrap_or_default();
    let uid = pipeline.uid().unwrap_or_default();
    let now = ctx.now();
    let config_maps: BTreeMap<InstanceUid, Arc<ConfigMap>> = children(&ctx.stores.config_maps, &namespace, &uid);
    let held: BTreeMap<_, _> = config_maps
        .iter()
        .filter(|(_, object)| object.metadata.deletion_timestamp.is_none())
        .filter_map(|(instance, object)| Some((*instance, revision::held(object)?)))
        .collect();
    let mut pods: BTreeMap<InstanceUid, Vec<Arc<Pod>>> = BTreeMap::new();
    let recorded = held.values().filter_map(|held| {
        let camera = &held.envelope.data.camera;
        let there = get(&ctx.stores.cameras, &namespace, &camera.name)?;
        (there.metadata.uid.as_ref() == Some(&camera.uid)).then_some(there)
    });
    let mut cameras: Vec<_> = selected(&ctx.stores.cameras, pipeline).into_iter().chain(recorded).collect();
    cameras.sort_by_key(|camera| camera.name_any());
    cameras.dedup_by_key(|camera| camera.name_any());
    let pipelines = ctx.stores.pipelines.selecting(cameras.iter().map(AsRef::as_ref));
    let name = pipeline.name_any();
    for pod in ctx.stores.pods.of(&namespace, &name, |pod| pod.pipeline.as_deref() == Some(&name)) {
        if let Some(instance) = pod.tag().instance {
            pods.entry(instance).or_default().push(pod.unpack());
        }
    }
    let views = cameras
        .iter()
        .flat_map(|camera| {
            let camera = camera.uid().unwrap_or_default();
            [Role::Capture, Role::Transcoder].map(|role| InstanceUid::of(&uid, &camera, role, 0))
        })
        .chain(held.keys().copied())
        .chain(held.values().filter_map(|held| Some(held.ladder.as_ref()?.envelope.data.instance)))
        .map(|instance| (instance, ctx.desk.view(instance, now)))
        .collect();
    let (link, trouble) = ctx.desk.link();
    Observed {
        pipelines,
        storage_nodes: in_namespace(&ctx.stores.storage_nodes, &namespace),
        deployments: children(&ctx.stores.deployments, &namespace, &uid),
        volume_claims: children(&ctx.stores.volume_claims, &namespace, &uid),
        summary: ctx.desk.summary(&uid),
        cameras,
        held,
        pods,
        views,
        link,
        trouble,
        now,
    }
}

fn children<K>(store: &Children<K>, namespace: &str, pipeline_uid: &str) -> BTreeMap<InstanceUid, Arc<K>>
where
    K: Child,
{
    store
        .of(namespace, pipeline_uid, |child| child.instance.is_some())
        .into_iter()
        .filter_map(|child| Some((child.tag().instance?, child.unpack())))
        .collect()
}
