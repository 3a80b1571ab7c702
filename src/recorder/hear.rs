//! Broker → catalogue: a message is acknowledged only after what it says is committed.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::pin,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use jiff::Timestamp;

use super::{Recorder, backoff::Backoff, message};
use crate::{
    catalogue::{self, Fact, Recorded},
    clients::broker::{Broker, Delivery, Error},
    domain::{
        control::{AGENT_USER_PREFIX, RECORDER_QUEUE},
        id::StreamId,
    },
    telemetry,
};

/// Messages of one transaction, and those the broker may hand over ahead.
const BATCH: usize = 256;
const PREFETCH: u16 = 1024;

/// A message that was understood.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) fact: Fact,
    /// The broker user that sent it.
    pub(super) user: Option<String>,
}

impl Recorder {
    /// Consumes the recorder's queue until the connection or the queue is gone.
    pub(super) async fn hear(&self, broker: &Broker) -> Result<Infallible, Error> {
        loop {
            let subscription = broker.subscribe(RECORDER_QUEUE, PREFETCH).await?;
            let mut cancelled = false;
            let mut batches = pin!(subscription.deliveries.ready_chunks(BATCH));
            while let Some(batch) = batches.next().await {
                let mut batch: Vec<Delivery> = batch.into_iter().collect::<Result<_, _>>()?;
                let heard: Vec<_> = batch.iter().filter_map(|delivery| self.understand(delivery)).collect();
                let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
                let recorded = loop {
                    match self.take_in(&heard, Timestamp::now()).await {
                        Ok(recorded) => break recorded,
                        Err(error) => {
                            self.metrics.failed(error.reason());
                            tracing::error!(
                                error = telemetry::chain(&error),
                                "the catalogue does not take what was heard; no more messages are taken until it does"
                            );
                            // Never nack: a broker with a delivery limit would dead-letter footage. What is in hand is
                            // kept and tried again; what is not is left to the queue.
                            if !cancelled {
                                subscription.consumer.cancel().await?;
                                cancelled = true;
                            }
                            tokio::time::sleep(backoff.pause()).await;
                        }
                    }
                };
                self.metrics.segments.inc_by(recorded.segments);
                self.metrics.duplicates.inc_by(recorded.duplicates);
                self.wake(&recorded);
                if let Some(last) = batch.pop() {
                    last.ack_so_far().await?;
                }
            }
            if !cancelled {
                // The queue was deleted under us: the operator declares it again.
                return Err(Error::Ended);
            }
        }
    }

    /// Writes down what its sender may say.
    pub(super) async fn take_in(&self, heard: &[Heard], now: Timestamp) -> Result<Recorded, catalogue::Error> {
        let mut facts = Vec::with_capacity(heard.len());
        for heard in heard {
            if let Some(fact) = self.believe(heard).await? {
                facts.push(fact);
            } else {
                self.metrics.refused.inc();
                tracing::warn!(heard.user, "dropped a message about what is not its sender's");
            }
        }
        let recorded = self.writer.record(&facts, now).await?;
        if !(recorded.cameras.is_empty() && recorded.streams.is_empty()) {
            self.owners().clear();
        }
        Ok(recorded)
    }

    /// What there is to be believed of a message. Agents speak for their own namespace only; configurations come from the
    /// operator, which the broker sees to.
    async fn believe(&self, Heard { fact, user }: &Heard) -> Result<Option<Fact>, catalogue::Error> {
        if matches!(fact, Fact::Camera(..) | Fact::Stream(..) | Fact::Orphan(_)) {
            return Ok(Some(fact.clone()));
        }
        let Some(namespace) = user.as_deref().and_then(|user| user.strip_prefix(AGENT_USER_PREFIX)) else {
            return Ok(None);
        };
        let theirs = match fact {
            Fact::Segment(segment) => {
                segment.camera_name.split_once('/').is_none_or(|(said, _)| said == namespace)
                    && self.owns(namespace, segment.key.stream, &segment.camera).await?
            }
            Fact::Gap(gap) => self.owns(namespace, gap.stream, &gap.camera).await?,
            Fact::State { instance, at, report } => {
                let Some(owner) = self.reader.namespace_of(*instance).await? else {
                    let (namespace, instance, at, report) = (namespace.to_owned(), *instance, *at, report.clone());
                    return Ok(Some(Fact::Stranger { namespace, instance, at, report }));
                };
                owner == namespace
            }
            Fact::Stranger { .. } | Fact::Camera(..) | Fact::Stream(..) | Fact::Orphan(_) => false,
        };
        Ok(theirs.then(|| fact.clone()))
    }

    /// Is a stream, under this camera, not known to be another namespace's?
    async fn owns(&self, namespace: &str, stream: StreamId, camera: &str) -> Result<bool, catalogue::Error> {
        let key = (stream, camera.to_owned());
        if let Some(owner) = self.owners().get(&key) {
            return Ok(owner == namespace);
        }
        let owners = self.reader.owners(stream, camera).await?;
        let allowed = owners.allow(namespace);
        if allowed && owners.complete() {
            self.owners().insert(key, namespace.to_owned());
        }
        Ok(allowed)
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<(StreamId, String), String>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn understand(&self, delivery: &Delivery) -> Option<Heard> {
        match message::fact(&delivery.key, &delivery.body) {
            Ok(fact) => Some(Heard { fact, user: delivery.user.clone() }),
            Err(error) => {
                self.metrics.refused.inc();
                tracing::warn!(key = delivery.key, error = telemetry::chain(&error), "dropped a message");
                None
            }
        }
    }
}
