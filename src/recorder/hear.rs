//! Broker → catalogue: a message is acknowledged only after what it says is committed.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;

use super::{Recorder, backoff::Backoff, message};
use crate::{
    catalogue::{self, Fact, Recorded},
    clients::broker::{Broker, Delivery, Error},
    domain::control::{AGENT_USER_PREFIX, RECORDER_QUEUE},
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
                                "cannot write the catalogue; no more messages are taken until it works"
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
                return Err(Error::Timeout);
            }
        }
    }

    /// Writes down what its sender may say.
    pub(super) async fn take_in(&self, heard: &[Heard], now: Timestamp) -> Result<Recorded, catalogue::Error> {
        let mut facts = Vec::with_capacity(heard.len());
        for Heard { fact, user } in heard {
            if self.may_say(user.as_deref(), fact).await? {
                facts.push(fact.clone());
            } else {
                self.metrics.refused.inc();
                tracing::warn!(user, "dropped a message about what is not its sender's");
            }
        }
        self.writer.record(&facts, now).await
    }

    /// Agents speak for their own namespace only; configurations come from the operator, which the broker sees to.
    async fn may_say(&self, user: Option<&str>, fact: &Fact) -> Result<bool, catalogue::Error> {
        let said_namespace = match fact {
            Fact::Segment(segment) => segment.camera_name.split_once('/').map(|(namespace, _)| namespace),
            Fact::Gap(_) | Fact::State { .. } => None,
            Fact::Camera(..) | Fact::Stream(..) | Fact::Orphan(_) => return Ok(true),
        };
        let Some(namespace) = user.and_then(|user| user.strip_prefix(AGENT_USER_PREFIX)) else { return Ok(false) };
        let known = self.reader.namespaces_of(fact).await?;
        Ok(said_namespace.is_none_or(|said| said == namespace) && known.iter().all(|known| known == namespace))
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
