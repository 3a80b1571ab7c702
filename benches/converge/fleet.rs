//! What a healthy fleet says to the operator: acknowledgements and heartbeats of every agent, summaries of the recorder.

use std::time::Duration;

use dsn::{
    clients::broker::{Broker, Publish},
    domain::control::{
        Ack, Assignment, EVENTS_EXCHANGE, Envelope, Event, HEARTBEAT_SECONDS, InstanceReport, Phase, SUMMARY_KEY,
        StreamSummary, Summary, event_key,
    },
    domain::name::{AGENT_SECRET, secret_key},
    operator::pipeline::revision::ASSIGNMENT_KEY,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, api::ListParams};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::{
    tools::broker::RabbitMq,
    world::{NAMESPACE, World},
};

/// It falls silent when dropped.
pub struct Fleet(JoinHandle<()>);

impl Fleet {
    /// Everyone acknowledges the assignment and reports pictures; from then on heartbeats and summaries.
    pub async fn start(world: &World, rabbit: &RabbitMq, vhost: &str) -> Self {
        let config_maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), NAMESPACE);
        let listed = config_maps.list(&ListParams::default().labels("app.kubernetes.io/managed-by=dsn")).await;
        let fleet: Vec<Envelope<Assignment>> = listed
            .expect("ConfigMaps")
            .items
            .into_iter()
            .filter_map(|object| serde_json::from_str(object.data?.get(ASSIGNMENT_KEY)?).ok())
            .collect();
        // An agent is believed under its namespace's user only.
        let secrets: Api<Secret> = Api::namespaced(world.client.clone(), NAMESPACE);
        let secret = secrets.get(AGENT_SECRET).await.expect("the agents' Secret").data.expect("data");
        let url = String::from_utf8(secret[secret_key::AMQP_URL].0.clone()).expect("an address");
        let agents = Broker::connect(&url, "fleet").await.expect("connects");
        let url = format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", rabbit.port());
        let recorder = Broker::connect(&url, "recorder").await.expect("connects");
        for agent in &fleet {
            say(&agents, agent, Event::Ack, Ack { revision: agent.revision }, Publish::default()).await;
            say(&agents, agent, Event::State, report(agent), Publish::default()).await;
        }
        summarise(&recorder, &fleet).await;
        Self(tokio::spawn(async move {
            let mut beats = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
            for beat in 0u64.. {
                beats.tick().await;
                for agent in &fleet {
                    // As agents send them: forgotten when nobody listens.
                    let how = Publish { ttl: Some(Duration::from_secs(HEARTBEAT_SECONDS * 3)), ..Publish::default() };
                    say(&agents, agent, Event::Heartbeat, report(agent), how).await;
                }
                if beat % 3 == 2 {
                    summarise(&recorder, &fleet).await;
                }
            }
        }))
    }
}

impl Fleet {
    /// Does it still say anything?
    pub fn lives(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn report(agent: &Envelope<Assignment>) -> InstanceReport {
    InstanceReport { revision: agent.revision, phase: Phase::Running, starts: 1, ..InstanceReport::default() }
}

async fn summarise(broker: &Broker, fleet: &[Envelope<Assignment>]) {
    for agent in fleet {
        let now = Timestamp::now();
        let stream = StreamSummary {
            stream: agent.data.stream,
            camera: agent.data.camera.clone(),
            catalogued_until: Some(now),
            stored_until: Some(now),
            problem: None,
        };
        let summary = Summary { pipeline: agent.data.pipeline.clone(), streams: vec![stream] };
        let message = Envelope::unordered(agent.data.pipeline.uid.clone(), "summary", now, summary);
        broker.publish(EVENTS_EXCHANGE, SUMMARY_KEY, &message, Publish::default()).await.expect("it is published");
    }
}

async fn say<T: Serialize>(broker: &Broker, agent: &Envelope<Assignment>, event: Event, data: T, how: Publish) {
    let uid = agent.data.instance;
    let message = Envelope::unordered(uid.to_string(), event.as_str(), Timestamp::now(), data);
    broker.publish(EVENTS_EXCHANGE, &event_key(uid, event), &message, how).await.expect("it is published");
}
