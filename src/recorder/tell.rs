//! Catalogue → broker: the outbox, and what the operator wants to know of each pipeline.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{BrokerLogin, Recorder, backoff::Backoff};
use crate::{
    catalogue,
    clients::broker::{Broker, Error, Publish},
    domain::control::{
        EVENTS_EXCHANGE, Envelope, KNOWN_CAMERAS_KEY, KnownCameras, RECORDER_HELLO_KEY, SUMMARY_KEY, StreamSummary,
        Summary,
    },
    telemetry,
};

/// Summaries are repeated this often: the operator takes silence for a dead recorder.
const SUMMARY_EVERY: Duration = Duration::from_secs(30);
/// The cameras are repeated this often, for the operator's sweep.
const CAMERAS_EVERY: Duration = Duration::from_secs(600);
/// Changes within this time are one summary.
const SUMMARY_GATHER: Duration = Duration::from_secs(2);
/// How often the outbox is looked at when the catalogue could not be read.
const RETRY: Duration = Duration::from_secs(5);

impl Recorder {
    /// Stays connected to the broker; everything that needs it runs within.
    pub(super) async fn converse(&self, address: &BrokerLogin) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            let began = Instant::now();
            let Err(error) = self.connected(address).await;
            if began.elapsed() > Duration::from_secs(30) {
                backoff.reset();
            }
            self.metrics.broker.set(0);
            self.metrics.failed(error.reason());
            let pause = backoff.pause();
            tracing::warn!(error = telemetry::chain(&error), ?pause, "not connected to the broker");
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection, until it fails.
    async fn connected(&self, address: &BrokerLogin) -> Result<Infallible, Error> {
        let url = address.url().map_err(|error| Error::Connect(Box::new(error.into())))?;
        let broker = Broker::connect(&url, "dsn-recorder").await?;
        // Configurations may have changed while we were away: the operator repeats them all.
        let hello = Envelope::unordered("recorder", "hello", Timestamp::now(), serde_json::json!({}));
        broker.publish(EVENTS_EXCHANGE, RECORDER_HELLO_KEY, &hello, Publish::default()).await?;
        self.metrics.broker.set(1);
        tracing::info!("connected to the broker");
        tokio::select! {
            ended = self.hear(&broker) => ended,
            ended = self.tell(&broker) => ended,
            ended = self.summarise(&broker) => ended,
            ended = self.enumerate(&broker) => ended,
        }
    }

    /// Sends what waits in the outbox, in its order.
    async fn tell(&self, broker: &Broker) -> Result<Infallible, Error> {
        loop {
            let waiting = match self.reader.outgoing(100).await {
                Ok(waiting) => waiting,
                Err(error) => {
                    self.troubled(&error);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if waiting.is_empty() {
                self.outgoing.notified().await;
                continue;
            }
            for message in waiting {
                let how = Publish::mandatory();
                match broker.publish_text(&message.exchange, &message.key, message.body.as_bytes(), how).await {
                    Ok(()) => {}
                    // The instance is gone, or its queue is about to be declared; then its agent announces what it
                    // still holds, and is answered.
                    Err(error @ Error::Unroutable { .. }) => {
                        tracing::debug!(error = telemetry::chain(&error), "dropped a message");
                    }
                    Err(error) => return Err(error),
                }
                if let Err(error) = self.writer.sent(message.id).await {
                    // It will be sent again: every message of ours is idempotent.
                    self.troubled(&error);
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
        }
    }

    /// Tells the operator about every pipeline, at once when something coarse changed and every half minute.
    async fn summarise(&self, broker: &Broker) -> Result<Infallible, Error> {
        loop {
            match self.summaries().await {
                Ok(summaries) => {
                    for summary in summaries {
                        let uid = summary.pipeline.uid.clone();
                        let message = Envelope::unordered(uid, "summary", Timestamp::now(), summary);
                        broker.publish(EVENTS_EXCHANGE, SUMMARY_KEY, &message, Publish::default()).await?;
                    }
                }
                Err(error) => self.troubled(&error),
            }
            if tokio::time::timeout(SUMMARY_EVERY, self.changed.notified()).await.is_ok() {
                tokio::time::sleep(SUMMARY_GATHER).await;
            }
        }
    }

    /// Tells the operator which cameras are taken to exist: it may have been off when one was deleted.
    async fn enumerate(&self, broker: &Broker) -> Result<Infallible, Error> {
        loop {
            match self.reader.cameras().await {
                Ok(mut cameras) => {
                    cameras.retain(|camera| !camera.deleted);
                    let message =
                        Envelope::unordered("recorder", "cameras", Timestamp::now(), KnownCameras { cameras });
                    broker.publish(EVENTS_EXCHANGE, KNOWN_CAMERAS_KEY, &message, Publish::default()).await?;
                }
                Err(error) => self.troubled(&error),
            }
            tokio::time::sleep(CAMERAS_EVERY).await;
        }
    }

    pub(super) async fn summaries(&self) -> Result<Vec<Summary>, catalogue::Error> {
        let progress = self.reader.progress().await?;
        let problems = self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut pipelines: BTreeMap<String, Summary> = BTreeMap::new();
        for stream in progress {
            let problem = problems.get(&stream.stream).cloned();
            pipelines
                .entry(stream.pipeline.uid.clone())
                .or_insert_with(|| Summary { pipeline: stream.pipeline, streams: Vec::new() })
                .streams
                .push(StreamSummary {
                    stream: stream.stream,
                    camera: stream.camera,
                    catalogued_until: stream.catalogued_until,
                    stored_until: stream.stored_until,
                    problem,
                });
        }
        Ok(pipelines.into_values().collect())
    }

    /// The catalogue failed a loop that will try again.
    pub(super) fn troubled(&self, error: &catalogue::Error) {
        self.metrics.failed(error.reason());
        tracing::error!(error = telemetry::chain(error), "the catalogue does not work");
    }
}
