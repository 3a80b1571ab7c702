//! The floor: a client that does nothing but write the same objects, to the byte, by the same calls.
//!
//! They are planned by the operator's own pure functions, which take a tenth of a millisecond for a Pipeline.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use dsn::{
    api::{Camera, Pipeline},
    clients::broker_address::BrokerAddress,
    domain::token::MasterKey,
    operator::{
        apply::{Manager, creation, with_hash},
        broker::fleet::Link,
        context::Images,
        pipeline::{desired, observe::Observed, plan},
    },
};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    PATIENCE, harness,
    operator::IMAGE,
    seen::Seen,
    world::{self, CHILDREN, NAMESPACE, World},
};

/// Creates Cameras, Pipelines and their children; how long until the last one is there.
pub async fn converge(world: &World, count: usize, at_once: usize) -> Duration {
    let seen = Seen::children(world).await;
    let began = Instant::now();
    let broker = BrokerAddress { host: "127.0.0.1".into(), port: 5672, vhost: "dsn".into() };
    let secret = desired::agent_secret::secret(NAMESPACE, &broker, &MasterKey::new("bench"));
    Api::namespaced(world.client.clone(), NAMESPACE)
        .create(&PostParams::default(), &secret)
        .await
        .expect("the agents' Secret is created");
    let client = world.client.clone();
    harness::each(count, at_once, move |number| {
        let client = client.clone();
        async move {
            let (camera, pipeline) = world::create(&client, number).await;
            children(&client, camera, pipeline).await;
        }
    })
    .await;
    seen.until(count * CHILDREN, PATIENCE).await.duration_since(began)
}

async fn children(client: &Client, camera: Camera, pipeline: Pipeline) {
    let observed = Observed {
        cameras: vec![Arc::new(camera)],
        pipelines: vec![Arc::new(pipeline.clone())],
        storage_nodes: Vec::new(),
        held: BTreeMap::new(),
        deployments: BTreeMap::new(),
        volume_claims: BTreeMap::new(),
        pods: BTreeMap::new(),
        views: BTreeMap::new(),
        summary: None,
        link: Link::Down(Timestamp::now()),
        trouble: None,
        now: Timestamp::now(),
    };
    let plan = plan::pipeline(&pipeline, &observed).expect("a valid Pipeline");
    let instance = &plan.instances[0];
    let images = Images {
        operator: IMAGE.into(),
        capture: IMAGE.into(),
        transcoder: IMAGE.into(),
        kubo: IMAGE.into(),
        cluster: IMAGE.into(),
        pull_policy: "IfNotPresent".into(),
    };
    apply(client, desired::live_service::service(&plan)).await;
    apply(client, desired::spool::claim(&plan, instance).expect("a volume claim")).await;
    apply(client, desired::assignment::config_map(&plan, instance)).await;
    apply(client, desired::deployment::deployment(&plan, instance, &images)).await;
}

async fn apply<K>(client: &Client, desired: K)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    let body = creation(with_hash(serde_json::to_value(&desired).expect("JSON")));
    let parameters = PatchParams::apply(Manager::Pipeline.as_str()).force();
    api.patch(&desired.name_any(), &parameters, &Patch::Apply(&body)).await.expect("it is applied");
}
