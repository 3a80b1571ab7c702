//! An independent subscriber of the events exchange: counts what any third party could hear (row V2).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::Value;

use crate::world::{BROKER, SYSTEM, runtime, secret};

/// Collects every announced segment.
#[derive(Clone)]
pub struct Subscriber {
    heard: Arc<Mutex<Heard>>,
}

/// Announcements by key, and how often each came.
#[derive(Default)]
pub struct Heard {
    /// (stream, rendition, session, seq) → the announcement.
    pub segments: BTreeMap<(String, String, String, u64), Value>,
    /// Keys that were announced with two different contents: must stay empty.
    pub contradictions: BTreeSet<String>,
}

impl Subscriber {
    /// Binds a queue of its own before anything is declared, and listens until the tests end.
    pub fn start() -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let address = BROKER.address();
        let (user, password) = (secret(SYSTEM, "dsn-broker", "username"), secret(SYSTEM, "dsn-broker", "password"));
        let (ready, opened) = std::sync::mpsc::channel();
        runtime().spawn({
            let heard = heard.clone();
            async move {
                let url = format!("amqp://{user}:{password}@{address}/dsn");
                let connection =
                    Connection::connect(&url, ConnectionProperties::default()).await.expect("the broker answers");
                let channel = connection.create_channel().await.expect("a channel");
                let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
                let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a queue");
                channel
                    .queue_bind(
                        queue.name().clone(),
                        "dsn.events".into(),
                        "evt.*.segment".into(),
                        QueueBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await
                    .expect("the exchange exists");
                let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
                let mut consumer = channel
                    .basic_consume(queue.name().clone(), "".into(), options, FieldTable::default())
                    .await
                    .expect("consumes");
                ready.send(()).expect("the test waits");
                while let Some(Ok(delivery)) = consumer.next().await {
                    let message: Value = serde_json::from_slice(&delivery.data).expect("announcements are JSON");
                    heard.lock().expect("no panic while locked").add(&message["data"]);
                }
            }
        });
        opened.recv_timeout(std::time::Duration::from_secs(30)).expect("the subscriber is bound");
        Self { heard }
    }

    /// Looks at what was heard so far.
    pub fn with<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.lock().expect("no panic while locked"))
    }
}

impl Heard {
    fn add(&mut self, segment: &Value) {
        let word = |field: &str| segment[field].as_str().unwrap_or_default().to_owned();
        let key = (word("stream"), word("rendition"), word("session"), segment["seq"].as_u64().unwrap_or(u64::MAX));
        match self.segments.get(&key) {
            Some(earlier) if earlier != segment => {
                self.contradictions.insert(format!("{key:?}"));
            }
            _ => {
                self.segments.insert(key, segment.clone());
            }
        }
    }
}
