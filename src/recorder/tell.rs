//! Catalogue → broker: the outbox, and what the operator wants to know of each pipeline.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use jiff::Timestamp;

use super::Recorder;
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
    /// Asks the operator for every configuration when hearing began anew.
    pub(super) async fn ask_for_all(&self, broker: &Broker) -> Result<Infallible, Error> {
        loop {
            self.asking.notified().await;
            // Until it is said, the next connection has it to say.
            self.asking.notify_one();
            let hello = Envelope::unordered("recorder", "hello", Timestamp::now(), serde_json::json!({}));
            broker.publish(EVENTS_EXCHANGE, RECORDER_HELLO_KEY, &hello, Publish::default()).await?;
            self.asking.notified().await;
        }
    }

    /// Sends what waits in the outbox, in its order.
    pub(super) async fn tell(&self, broker: &Broker) -> Result<Infallible, Error> {
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
            let mut sent = None;
            let mut ended = Ok(());
            for message in waiting {
                let how = Publish::mandatory();
                match broker.publish_text(&message.exchange, &message.key, message.body.as_bytes(), how).await {
                    Ok(()) => {}
                    // The instance is gone, or its queue is about to be declared; then its agent announces what it
                    // still holds, and is answered.
                    Err(error @ Error::Unroutable { .. }) => {
                        tracing::debug!(error = telemetry::chain(&error), "dropped a message");
                    }
                    Err(error) => {
                        ended = Err(error);
                        break;
                    }
                }
                sent = Some(message.id);
            }
            // One commit for all of them. Those that are sent again for lack of it are idempotent, as every message of ours.
            if let Some(last) = sent
                && let Err(error) = self.writer.sent(last).await
            {
                self.troubled(&error);
                tokio::time::sleep(RETRY).await;
            }
            ended?;
        }
    }

    /// Tells the operator about every pipeline, at once when something coarse changed and every half minute.
    pub(super) async fn summarise(&self, broker: &Broker) -> Result<Infallible, Error> {
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
    pub(super) async fn enumerate(&self, broker: &Broker) -> Result<Infallible, Error> {
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
