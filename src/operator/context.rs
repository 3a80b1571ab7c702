//! What every reconcile is given: the client, the watched objects, the settings and the operator's own memory.
//!
//! Not here: logic. Made once by [`super::run`], shared by the three controllers and the broker's supervisor.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Client, Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Semaphore;

use super::{
    backoff::Backoffs,
    broker::Desk,
    camera::credentials::Credentials,
    claims,
    events::Events,
    metrics::Metrics,
    settling::Settling,
    watch::{Children, Pipelines},
};
use crate::{
    api::{Camera, Pipeline, StorageNode},
    clients::broker_address::BrokerAddress,
    domain::token::MasterKey,
};

/// Everything a reconcile needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Settings from the command line.
    pub config: Config,
    /// The watched objects.
    pub stores: Stores,
    /// Key all credentials are derived from.
    pub master: MasterKey,
    /// Counters.
    pub metrics: Metrics,
    /// Kubernetes Events.
    pub events: Events,
    /// What was seen to exist and isn't watched.
    pub known: Known,
    /// Where reconciles meet the broker.
    pub desk: Desk,
    /// What is known of the cameras' Secrets.
    pub credentials: Credentials,
    /// Failures in a row, per object.
    pub backoffs: Backoffs,
    /// Pipelines and Cameras whose status waits.
    pub settling: Settling,
    /// How many children may be written at a time, whoever asks for it: one Pipeline with a thousand cameras or a thousand
    /// with one.
    pub writes: Semaphore,
    /// How many statuses may be written at a time: each takes a connection, with room for what is read.
    ///
    /// Trap: no child's turn, or an admission webhook that hangs would keep every status from saying so.
    pub status_writes: Semaphore,
}

impl Context {
    /// The time, for the pure steps.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Settings from the command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the operator.
    pub namespace: String,
    /// Only this namespace is looked after; `None` = all.
    pub watch_namespace: Option<String>,
    /// Images of the pods it makes.
    pub images: Images,
    /// Where the broker is, for us and for the agents.
    pub broker: BrokerAddress,
    /// The broker's management API.
    pub management_url: String,
    /// Secret with the broker's administrator, in [`Config::namespace`].
    pub broker_secret: String,
}

impl Config {
    /// Is this namespace looked after?
    pub fn watches(&self, namespace: &str) -> bool {
        self.watch_namespace.as_deref().is_none_or(|only| only == namespace)
    }
}

/// Images of the pods the operator makes.
#[derive(Clone, Debug)]
pub struct Images {
    /// `dsn` itself: agents and storage agents.
    pub operator: String,
    /// `dsn` with ffmpeg.
    pub capture: String,
    /// `dsn` with ffmpeg, for transcoders.
    pub transcoder: String,
    /// kubo.
    pub kubo: String,
    /// ipfs-cluster.
    pub cluster: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: String,
}

/// The watched objects; all synced before the first reconcile. Children are there only with our label.
#[derive(Clone)]
pub struct Stores {
    /// Cameras.
    pub cameras: Store<Camera>,
    /// Pipelines.
    pub pipelines: Pipelines,
    /// `StorageNodes`.
    pub storage_nodes: Store<StorageNode>,
    /// Our Deployments.
    pub deployments: Children<Deployment>,
    /// Our `StatefulSets`.
    pub stateful_sets: Children<StatefulSet>,
    /// Our `ConfigMaps`.
    pub config_maps: Children<ConfigMap>,
    /// Our Services.
    pub services: Children<Service>,
    /// Our disruption budgets.
    pub disruption_budgets: Children<PodDisruptionBudget>,
    /// Our volume claims.
    pub volume_claims: Children<PersistentVolumeClaim>,
    /// Pods of ours.
    pub pods: Children<Pod>,
}

/// The objects of a namespace that `keep` takes, in the order of their names. Only those are sorted: a namespace may hold a
/// thousand, of which one reconcile is concerned with a few.
pub fn select<K>(store: &Store<K>, namespace: &str, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut found = store.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace) && keep(object));
    found.sort_by_key(|object| object.name_any());
    found
}

/// The Cameras that a Pipeline selects, in the order of their names.
pub fn selected(cameras: &Store<Camera>, pipeline: &Pipeline) -> Vec<Arc<Camera>> {
    let namespace = pipeline.namespace().unwrap_or_default();
    if pipeline.spec.cameras.selector.is_some() {
        return select(cameras, &namespace, |camera| claims::selects(pipeline, camera));
    }
    // Not gone through from end to end by each of a thousand Pipelines that name theirs.
    let names: BTreeSet<_> = pipeline.spec.cameras.names.iter().flatten().collect();
    names.into_iter().filter_map(|name| get(cameras, &namespace, name)).collect()
}

/// One object by name.
pub fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

/// The objects of a namespace, in the order of their names.
pub fn in_namespace<K>(store: &Store<K>, namespace: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    select(store, namespace, |_| true)
}

/// How long what was seen is believed in spite of signs to the contrary.
const OLD: Duration = Duration::from_secs(30);

/// What this process has seen to exist outside its watches (Secrets), so that it need not ask again.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<String, Instant>>);

impl Known {
    /// Was `key` seen?
    pub fn contains(&self, key: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// Is it some time since `key` was seen? Then a doubt is worth another look.
    pub fn is_old(&self, key: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).is_none_or(|seen| seen.elapsed() > OLD)
    }

    /// `key` exists.
    pub fn insert(&self, key: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.into(), Instant::now());
    }

    /// Ask again next time.
    pub fn forget(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
