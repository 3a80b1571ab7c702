//! Broker → catalogue: a message is acknowledged only after what it says is committed.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;

use super::{Recorder, backoff::Backoff, message};
use crate::{
    clients::broker::{Broker, Delivery, Error},
    domain::control::RECORDER_QUEUE,
    telemetry,
};

/// Messages of one transaction, and those the broker may hand over ahead.
const BATCH: usize = 256;
const PREFETCH: u16 = 1024;

impl Recorder {
    /// Consumes the recorder's queue until the connection or the queue is gone.
    pub(super) async fn hear(&self, broker: &Broker) -> Result<Infallible, Error> {
        loop {
            let subscription = broker.subscribe(RECORDER_QUEUE, PREFETCH).await?;
            let mut cancelled = false;
            let mut batches = pin!(subscription.deliveries.ready_chunks(BATCH));
            while let Some(batch) = batches.next().await {
                let batch: Vec<Delivery> = batch.into_iter().collect::<Result<_, _>>()?;
                let facts: Vec<_> = batch.iter().filter_map(|delivery| self.understand(delivery)).collect();
                let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
                let recorded = loop {
                    match self.writer.record(&facts, Timestamp::now()).await {
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
                for delivery in batch {
                    delivery.ack().await?;
                }
            }
            if !cancelled {
                // The queue was deleted under us: the operator declares it again.
                return Err(Error::Timeout);
            }
        }
    }

    fn understand(&self, delivery: &Delivery) -> Option<crate::catalogue::Fact> {
        match message::fact(&delivery.key, &delivery.body) {
            Ok(fact) => Some(fact),
            Err(error) => {
                self.metrics.refused.inc();
                tracing::warn!(key = delivery.key, error = telemetry::chain(&error), "dropped a message");
                None
            }
        }
    }
}
