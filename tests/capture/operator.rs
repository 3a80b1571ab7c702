//! The operator's and the recorder's end of the broker, for one instance.

use std::collections::{BTreeMap, BTreeSet};

use dsn::{
    clients::broker::{self, Broker, Publish},
    domain::{
        control::{CONTROL_EXCHANGE, Command as Op, Envelope, InstanceReport, instance_key},
        id::{InstanceUid, SessionId},
        segment::{Gap, Segment},
    },
};
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;

use crate::{
    agent_container::{START, log, operators_end},
    broker::RabbitMq,
    capture_pod::CapturePod,
};

/// The other end of the broker: declares what the operator declares, hears everything, tells the instance.
pub struct Operator {
    broker: Broker,
    deliveries: BoxStream<'static, Result<broker::Delivery, broker::Error>>,
    uid: InstanceUid,
    pub heard: Heard,
}

#[derive(Default)]
pub struct Heard {
    pub words: BTreeSet<String>,
    pub segments: BTreeMap<(SessionId, u64), Segment>,
    pub gaps: Vec<Gap>,
    pub report: Option<InstanceReport>,
    pub pong: Option<String>,
    pub acked: u64,
}

impl Operator {
    pub async fn start(rabbit: &RabbitMq, pod: &CapturePod) -> Self {
        let uid = pod.assignment.instance;
        let (broker, deliveries) = operators_end(rabbit, &[uid]).await;
        Self { broker, deliveries, uid, heard: Heard::default() }
    }

    pub async fn tell<T: serde::Serialize>(&self, op: Op, revision: u64, data: &T) {
        self.tell_raw(op, revision, data, None).await;
    }

    pub async fn tell_raw<T: serde::Serialize>(&self, op: Op, revision: u64, data: &T, correlation: Option<&str>) {
        let mut envelope = Envelope::unordered(self.uid.to_string(), op.as_str(), Timestamp::now(), data);
        envelope.revision = revision;
        let how = Publish { correlation_id: correlation.map(str::to_owned), ..Publish::mandatory() };
        self.broker.publish(CONTROL_EXCHANGE, &instance_key(self.uid, op), &envelope, how).await.expect("told");
    }

    /// Listens until something has been heard.
    pub async fn until(&mut self, pod: &CapturePod, what: &str, wanted: impl Fn(&Heard) -> bool) {
        let deadline = tokio::time::Instant::now() + START;
        while !wanted(&self.heard) {
            match tokio::time::timeout_at(deadline, self.deliveries.next()).await {
                Ok(Some(delivery)) => {
                    let delivery = delivery.expect("a delivery");
                    self.hear(&delivery);
                    delivery.ack().await.expect("acknowledged");
                }
                Ok(None) => panic!("{what}: the queue is gone"),
                Err(elapsed) => panic!(
                    "{what}: not heard ({elapsed}); words {:?}\n{}\n{}",
                    self.heard.words,
                    pod.context(),
                    log(pod)
                ),
            }
        }
    }

    fn hear(&mut self, delivery: &broker::Delivery) {
        let envelope: Envelope<serde_json::Value> = serde_json::from_slice(&delivery.body).expect("an envelope");
        assert_eq!(delivery.key, format!("evt.{}.{}", self.uid, envelope.op));
        self.heard.words.insert(envelope.op.clone());
        match envelope.op.as_str() {
            "segment" => {
                let segment: Segment = serde_json::from_value(envelope.data).expect("a segment");
                let key = (segment.key.session, segment.key.seq);
                if let Some(before) = self.heard.segments.insert(key, segment.clone()) {
                    assert_eq!(before, segment, "published numbers and times never change");
                }
            }
            "gap" => self.heard.gaps.push(serde_json::from_value(envelope.data).expect("a gap")),
            "state" | "heartbeat" => {
                self.heard.report = Some(serde_json::from_value(envelope.data).expect("a report"));
            }
            "pong" => self.heard.pong.clone_from(&delivery.correlation_id),
            "ack" => self.heard.acked = envelope.data["revision"].as_u64().expect("a revision"),
            _ => {}
        }
    }

    /// Every segment once, gapless within its session, numbered through, a break counted at each new session.
    pub fn assert_one_story(&self, pod: &CapturePod) {
        let segments: Vec<&Segment> = self.heard.segments.values().collect();
        for pair in segments.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            assert_eq!(before.playlist_seq + 1, after.playlist_seq, "{before:?} {after:?}\n{}", log(pod));
            assert!(after.media_us <= u64::from(after.target_seconds) * 1_000_000, "{after:?}");
            if before.key.session == after.key.session {
                assert_eq!((before.key.seq + 1, before.end), (after.key.seq, after.start), "{before:?} {after:?}");
                assert_eq!(before.discontinuity_seq, after.discontinuity_seq);
            } else {
                assert_eq!((after.key.seq, before.discontinuity_seq + 1), (0, after.discontinuity_seq));
                let gap = self.heard.gaps.iter().find(|gap| gap.session == after.key.session).expect("a gap is told");
                assert_eq!((gap.from, gap.to), (before.end, after.start));
            }
        }
    }
}
