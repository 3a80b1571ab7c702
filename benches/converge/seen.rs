//! Counts objects as they appear, by watches: polling would cost the API server more than what is measured.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::watcher::{Config, Event, watcher},
};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    harness,
    world::{NAMESPACE, World},
};

/// What belongs to Pipelines, and nothing of StorageNodes.
const CAPTURE: &str = "app.kubernetes.io/managed-by=dsn,app.kubernetes.io/component=capture";

/// What was seen so far.
pub struct Seen {
    found: Arc<Mutex<Found>>,
    watches: JoinSet<()>,
}

#[derive(Default)]
struct Found {
    names: HashSet<String>,
    last: Option<Instant>,
}

impl Seen {
    /// The children of Pipelines.
    pub async fn children(world: &World) -> Self {
        let mut seen = Self::nothing();
        let label = CAPTURE;
        seen.watch::<Service>(&world.client, label).await;
        seen.watch::<PersistentVolumeClaim>(&world.client, label).await;
        seen.watch::<ConfigMap>(&world.client, label).await;
        seen.watch::<Deployment>(&world.client, label).await;
        seen
    }

    /// Their Pods.
    pub async fn pods(world: &World) -> Self {
        let mut seen = Self::nothing();
        seen.watch::<Pod>(&world.client, CAPTURE).await;
        seen
    }

    /// The children of `RabbitmqClusters`.
    pub async fn of_the_peer(world: &World) -> Self {
        let mut seen = Self::nothing();
        let label = "app.kubernetes.io/part-of=rabbitmq";
        seen.watch::<Service>(&world.client, label).await;
        seen.watch::<Secret>(&world.client, label).await;
        seen.watch::<ConfigMap>(&world.client, label).await;
        seen.watch::<StatefulSet>(&world.client, label).await;
        seen.watch::<ServiceAccount>(&world.client, label).await;
        seen.watch::<Role>(&world.client, label).await;
        seen.watch::<RoleBinding>(&world.client, label).await;
        seen
    }

    fn nothing() -> Self {
        Self { found: Arc::default(), watches: JoinSet::new() }
    }

    /// Returns when the watch has begun.
    async fn watch<K>(&mut self, client: &Client, label: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), NAMESPACE);
        let config = Config::default().labels(label);
        let (found, begun) = (Arc::clone(&self.found), Arc::new(Notify::new()));
        let told = Arc::clone(&begun);
        self.watches.spawn(async move {
            let mut events = std::pin::pin!(watcher(api, config));
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        let mut found = found.lock().expect("whole");
                        if found.names.insert(format!("{}/{}", K::kind(&()), object.name_any())) {
                            found.last = Some(Instant::now());
                        }
                    }
                    Ok(Event::InitDone) => told.notify_one(),
                    Ok(Event::Init | Event::Delete(_)) => {}
                    // It begins anew by itself, and lists what it missed.
                    Err(error) => eprintln!("a watch broke off: {error}"),
                }
            }
        });
        begun.notified().await;
    }

    /// Waits for so many; when the last of them appeared.
    pub async fn until(&self, count: usize, within: Duration) -> Instant {
        harness::until(&format!("{count} objects"), within, async || {
            let found = self.found.lock().expect("whole");
            match found.last {
                Some(last) if found.names.len() >= count => Ok(last),
                _ => Err(format!("{} objects", found.names.len())),
            }
        })
        .await
    }
}
