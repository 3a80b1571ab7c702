//! One watch per kind, shared by all controllers, and what each event of it sets in motion.
//!
//! Not here: reconciling. Every event enters its memory; then the objects it concerns are enqueued: a child's owner by
//! label, for Pipelines and Cameras whom [`concern`] names, every Pipeline of the namespace for a `StorageNode`. A deletion
//! that is seen is handed on with the object as it last was, because nothing else will know it.

use std::{convert::Infallible, fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt, channel::mpsc};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        controller::ReconcileRequest,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinSet;

use self::{
    children::Filing,
    feed::{Seen, watch},
    packed::Packer,
    pipelines::Registrar,
};
use super::{
    concern::Concerned,
    context::{Stores, in_namespace},
    labels,
};
use crate::api::{Camera, Pipeline, StorageNode};

mod children;
mod feed;
mod packed;
mod pipelines;

pub use self::{
    children::Children,
    feed::Memory,
    packed::{Packed, Tag},
    pipelines::Pipelines,
};

/// Objects of one answer to a list: it is held whole while it is read, and memory once taken is hardly given back.
const PAGE: u32 = 50;
/// How many reconcile requests may wait to be merged into a controller's queue; a full one slows the watch down.
const QUEUE: usize = 1024;

/// Where requests to reconcile go.
#[derive(Clone)]
pub struct Triggers {
    pipelines: mpsc::Sender<ObjectRef<Pipeline>>,
    cameras: mpsc::Sender<ObjectRef<Camera>>,
    storage_nodes: mpsc::Sender<ObjectRef<StorageNode>>,
}

/// Where the controllers take them from.
pub struct Queues {
    /// Requests of Pipelines.
    pub pipelines: mpsc::Receiver<ObjectRef<Pipeline>>,
    /// Requests of Cameras.
    pub cameras: mpsc::Receiver<ObjectRef<Camera>>,
    /// Requests of `StorageNodes`.
    pub storage_nodes: mpsc::Receiver<ObjectRef<StorageNode>>,
}

/// A queue in the form `kube::runtime::applier` takes.
pub fn requests<K>(queue: mpsc::Receiver<ObjectRef<K>>) -> impl Stream<Item = Result<ReconcileRequest<K>, Infallible>>
where
    K: Resource<DynamicType = ()> + 'static,
{
    queue.map(|object| Ok(ReconcileRequest::from(object)))
}

/// Both ends of the three queues.
pub fn queues() -> (Triggers, Queues) {
    let (pipelines, pipeline_queue) = mpsc::channel(QUEUE);
    let (cameras, camera_queue) = mpsc::channel(QUEUE);
    let (storage_nodes, node_queue) = mpsc::channel(QUEUE);
    (
        Triggers { pipelines, cameras, storage_nodes },
        Queues { pipelines: pipeline_queue, cameras: camera_queue, storage_nodes: node_queue },
    )
}

/// Sends one request; a controller that ended no longer wants any.
async fn send<K: Resource<DynamicType = ()>>(queue: &mpsc::Sender<ObjectRef<K>>, namespace: &str, name: &str) {
    use futures::SinkExt;
    let _ = queue.clone().send(ObjectRef::new(name).within(namespace)).await;
}

impl Triggers {
    /// Enqueues one Pipeline.
    pub async fn pipeline(&self, namespace: &str, name: &str) {
        send(&self.pipelines, namespace, name).await;
    }

    /// Enqueues one Camera.
    pub async fn camera(&self, namespace: &str, name: &str) {
        send(&self.cameras, namespace, name).await;
    }

    /// Enqueues one `StorageNode`.
    pub async fn storage_node(&self, namespace: &str, name: &str) {
        send(&self.storage_nodes, namespace, name).await;
    }

    /// Enqueues all of those.
    pub async fn all(&self, concerned: Concerned) {
        for pipeline in concerned.pipelines {
            self.pipeline(&pipeline.namespace, &pipeline.name).await;
        }
        for camera in concerned.cameras {
            self.camera(&camera.namespace, &camera.name).await;
        }
    }

    /// Enqueues the owner of a child, as its labels name it.
    async fn owner_of(&self, stores: &Stores, child: &Tag) {
        if let Some(pipeline) = &child.pipeline {
            self.pipeline(&child.namespace, pipeline).await;
        }
        if let Some(node) = &child.storage_node {
            self.storage_node(&child.namespace, node).await;
        } else if child.group.is_some() {
            self.storage_nodes_of(stores, &child.namespace).await;
        }
    }

    /// Enqueues every Pipeline of a namespace.
    async fn pipelines_of(&self, stores: &Stores, namespace: &str) {
        for pipeline in in_namespace(&stores.pipelines.store, namespace) {
            self.pipeline(namespace, &pipeline.name_any()).await;
        }
    }

    /// Enqueues every Pipeline and every Camera: after a list, nobody knows what was missed before it.
    async fn everyone(&self, stores: &Stores) {
        for pipeline in stores.pipelines.store.state() {
            self.pipeline(&pipeline.namespace().unwrap_or_default(), &pipeline.name_any()).await;
        }
        for camera in stores.cameras.state() {
            self.camera(&camera.namespace().unwrap_or_default(), &camera.name_any()).await;
        }
    }

    /// Enqueues every `StorageNode` of a namespace.
    async fn storage_nodes_of(&self, stores: &Stores, namespace: &str) {
        for node in in_namespace(&stores.storage_nodes, namespace) {
            self.storage_node(namespace, &node.name_any()).await;
        }
    }
}

/// A deletion that was seen, with the object as it last was.
pub enum Deleted {
    /// A Pipeline.
    Pipeline(Box<Pipeline>),
    /// A Camera.
    Camera(Box<Camera>),
}

/// Called for each deletion that is seen.
pub type OnDeleted = Arc<dyn Fn(Deleted) + Send + Sync>;

/// Writers of all stores.
pub struct Writers {
    pub(super) cameras: Writer<Camera>,
    pub(super) pipelines: Registrar,
    storage_nodes: Writer<StorageNode>,
    deployments: Filing<Deployment>,
    stateful_sets: Filing<StatefulSet>,
    config_maps: Filing<ConfigMap>,
    services: Filing<Service>,
    disruption_budgets: Filing<PodDisruptionBudget>,
    volume_claims: Filing<PersistentVolumeClaim>,
    pods: Filing<Pod>,
}

/// Empty stores and their writers.
pub fn stores() -> (Stores, Writers) {
    fn pair<K>() -> (Store<K>, Writer<K>)
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let writer = Writer::new(());
        (writer.as_reader(), writer)
    }
    let (cameras, cameras_writer) = pair();
    let pipelines = Registrar::new();
    let (storage_nodes, storage_nodes_writer) = pair();
    let deployments = Filing::by(Tag::by_owner);
    let stateful_sets = Filing::by(Tag::by_owner);
    let config_maps = Filing::by(Tag::by_owner);
    let services = Filing::by(Tag::by_owner);
    let disruption_budgets = Filing::by(Tag::by_owner);
    let volume_claims = Filing::by(Tag::by_owner);
    let pods = Filing::by(Tag::by_label);
    (
        Stores {
            cameras,
            pipelines: pipelines.pipelines(),
            storage_nodes,
            deployments: deployments.children(),
            stateful_sets: stateful_sets.children(),
            config_maps: config_maps.children(),
            services: services.children(),
            disruption_budgets: disruption_budgets.children(),
            volume_claims: volume_claims.children(),
            pods: pods.children(),
        },
        Writers {
            cameras: cameras_writer,
            pipelines,
            storage_nodes: storage_nodes_writer,
            deployments,
            stateful_sets,
            config_maps,
            services,
            disruption_budgets,
            volume_claims,
            pods,
        },
    )
}

/// Waits until every store has seen its first list.
pub async fn synced(stores: &Stores) {
    // An error means that the watch task is gone, and with it the process.
    let _ = tokio::join!(
        stores.cameras.wait_until_ready(),
        stores.pipelines.store.wait_until_ready(),
        stores.storage_nodes.wait_until_ready(),
        stores.deployments.wait_until_ready(),
        stores.stateful_sets.wait_until_ready(),
        stores.config_maps.wait_until_ready(),
        stores.services.wait_until_ready(),
        stores.disruption_budgets.wait_until_ready(),
        stores.volume_claims.wait_until_ready(),
        stores.pods.wait_until_ready(),
    );
}

/// Starts all watches.
pub fn start(
    client: &Client,
    namespace: Option<&str>,
    writers: Writers,
    stores: &Stores,
    triggers: &Triggers,
    on_deleted: &OnDeleted,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default().page_size(PAGE);
    let ours = all.clone().labels(&labels::ours());
    {
        let (stores, triggers, on_deleted) = (stores.clone(), triggers.clone(), on_deleted.clone());
        tasks.spawn(watch(
            api(client, namespace),
            all.clone(),
            writers.pipelines,
            whole,
            move |seen: Seen<Pipeline>| {
                let (stores, triggers, on_deleted) = (stores.clone(), triggers.clone(), on_deleted.clone());
                async move {
                    let Some((namespace, name)) = seen.key() else { return triggers.everyone(&stores).await };
                    triggers.pipeline(&namespace, &name).await;
                    let change = seen.change();
                    let cameras = change.cameras(&stores.cameras);
                    let rivals = change.rivals(&cameras, &stores.pipelines);
                    for camera in cameras {
                        triggers.camera(&namespace, &camera.name_any()).await;
                    }
                    for rival in rivals {
                        triggers.pipeline(&namespace, &rival.name_any()).await;
                    }
                    if let Seen::Gone(pipeline) = seen {
                        on_deleted(Deleted::Pipeline(Box::new(pipeline)));
                    }
                }
            },
        ));
    }
    {
        let (stores, triggers, on_deleted) = (stores.clone(), triggers.clone(), on_deleted.clone());
        tasks.spawn(watch(api(client, namespace), all.clone(), writers.cameras, whole, move |seen: Seen<Camera>| {
            let (stores, triggers, on_deleted) = (stores.clone(), triggers.clone(), on_deleted.clone());
            async move {
                let Some((namespace, name)) = seen.key() else { return triggers.everyone(&stores).await };
                triggers.camera(&namespace, &name).await;
                let change = seen.change();
                for pipeline in change.pipelines(&stores.pipelines) {
                    triggers.pipeline(&namespace, &pipeline.name_any()).await;
                }
                if let Seen::Gone(camera) = seen {
                    on_deleted(Deleted::Camera(Box::new(camera)));
                }
            }
        }));
    }
    {
        let (stores, triggers) = (stores.clone(), triggers.clone());
        tasks.spawn(watch(
            api(client, namespace),
            all,
            writers.storage_nodes,
            whole,
            move |seen: Seen<StorageNode>| {
                let (stores, triggers) = (stores.clone(), triggers.clone());
                async move {
                    for namespace in seen.namespaces() {
                        triggers.storage_nodes_of(&stores, &namespace).await;
                        triggers.pipelines_of(&stores, &namespace).await;
                    }
                }
            },
        ));
    }
    children(&mut tasks, api(client, namespace), &ours, writers.deployments, whole, stores, triggers);
    children(&mut tasks, api(client, namespace), &ours, writers.stateful_sets, whole, stores, triggers);
    children(&mut tasks, api(client, namespace), &ours, writers.config_maps, whole, stores, triggers);
    children(&mut tasks, api(client, namespace), &ours, writers.services, whole, stores, triggers);
    children(&mut tasks, api(client, namespace), &ours, writers.disruption_budgets, whole, stores, triggers);
    children(&mut tasks, api(client, namespace), &ours, writers.volume_claims, whole, stores, triggers);
    children(&mut tasks, api(client, namespace), &ours, writers.pods, without_spec, stores, triggers);
    tasks
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// All of an object is remembered as it is.
fn whole<K>(object: K) -> K {
    object
}

/// Of a Pod its labels and its status are looked at; the rest is most of it.
fn without_spec(pod: Pod) -> Pod {
    Pod { spec: None, ..pod }
}

fn children<K>(
    tasks: &mut JoinSet<()>,
    api: Api<K>,
    config: &watcher::Config,
    filing: Filing<K>,
    kept: fn(K) -> K,
    stores: &Stores,
    triggers: &Triggers,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (stores, triggers) = (stores.clone(), triggers.clone());
    let mut packer = Packer::default();
    let kept = move |child: K| packer.pack(&kept(child));
    tasks.spawn(watch(api, config.clone(), filing, kept, move |seen: Seen<Packed<K>>| {
        let (stores, triggers) = (stores.clone(), triggers.clone());
        async move {
            match seen {
                Seen::Listed(children) => {
                    for child in children {
                        triggers.owner_of(&stores, child.tag()).await;
                    }
                }
                Seen::There { after: child, .. } | Seen::Gone(child) => triggers.owner_of(&stores, child.tag()).await,
            }
        }
    }));
}
