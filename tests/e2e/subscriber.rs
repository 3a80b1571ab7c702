//! An independent subscriber of the events exchange: counts what any third party could hear (row V2).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use lapin::{
    Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::Value;

use crate::{
    kube::eventually,
    world::{BROKER, SYSTEM, runtime, secret},
};

/// A consumer of a queue of our own, bound to every announced segment.
async fn subscribe(url: &str) -> Result<(Connection, Consumer), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?.name().clone();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.clone(), "dsn.events".into(), "evt.*.segment".into(), options, none).await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
    Ok((connection, consumer))
}

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
    /// Why the test hears nothing any more.
    pub ended: Option<String>,
}

impl Subscriber {
    /// Binds a queue of its own before anything is declared, and listens until the tests end.
    pub fn start() -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (user, password) = (secret(SYSTEM, "dsn-broker", "username"), secret(SYSTEM, "dsn-broker", "password"));
        let (ready, opened) = std::sync::mpsc::channel();
        // The operator declares the exchanges a moment after the broker answers for the first time.
        let (connection, mut consumer) = eventually("a subscription", Duration::from_secs(60), || {
            let url = format!("amqp://{user}:{password}@{}/dsn", BROKER.address());
            runtime().block_on(subscribe(&url)).map_err(|error| error.to_string())
        });
        runtime().spawn({
            let heard = heard.clone();
            async move {
                let _open_while_we_listen = connection;
                ready.send(()).expect("the test waits");
                let end = loop {
                    let delivery = match consumer.next().await {
                        Some(Ok(delivery)) => delivery,
                        end => break format!("{end:?}"),
                    };
                    let message: Value = serde_json::from_slice(&delivery.data).expect("announcements are JSON");
                    heard.lock().expect("no panic while locked").add(&message["data"]);
                };
                heard.lock().expect("no panic while locked").ended = Some(end);
            }
        });
        opened.recv_timeout(Duration::from_secs(30)).expect("the subscriber is bound");
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
