//! added → announced: gaps and segments go to the events exchange, each confirmed by the broker and taken by a queue.
//!
//! At least once: what is not stored is announced again, ever more rarely. Runs within one connection; an error ends
//! it, and the supervisor (`control`) connects again.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::context::{Context, now};
use crate::{
    clients::broker::{self, Broker, Publish},
    domain::{
        control::{EVENTS_EXCHANGE, Envelope, Event, event_key},
        id::InstanceUid,
    },
    telemetry,
};

/// Rows taken from the outbox at a time: bounds the memory, not the speed.
const BATCH: u32 = 32;
/// How long to wait when no queue takes our events, or the outbox fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// Announces until the connection ends.
pub async fn run(context: &Context, broker: &Broker, uid: InstanceUid) -> Result<(), broker::Error> {
    let mut woken = context.to_announce.listen();
    loop {
        let wait = match batch(context, broker, uid).await {
            Ok(0) => until_next(context).await,
            Ok(_) => continue,
            Err(Failed::Broker(broker::Error::Unroutable { key })) => {
                // The recorder's queue is not there yet: whoever owns it will declare it.
                tracing::debug!("no queue takes {key} yet");
                PATIENCE
            }
            Err(Failed::Broker(error)) => return Err(error),
            Err(Failed::Outbox(error)) => {
                tracing::warn!("{}", telemetry::chain(&error));
                PATIENCE
            }
        };
        tokio::select! { _ = woken.changed() => {}, () = tokio::time::sleep(wait) => {} }
    }
}

enum Failed {
    Broker(broker::Error),
    Outbox(super::outbox::Error),
}

impl From<broker::Error> for Failed {
    fn from(error: broker::Error) -> Self {
        Self::Broker(error)
    }
}

impl From<super::outbox::Error> for Failed {
    fn from(error: super::outbox::Error) -> Self {
        Self::Outbox(error)
    }
}

/// Announces some; how many.
async fn batch(context: &Context, broker: &Broker, uid: InstanceUid) -> Result<usize, Failed> {
    let gaps = context.outbox.gaps(BATCH).await?;
    for (id, gap) in &gaps {
        say(broker, uid, Event::Gap, gap, Publish::mandatory()).await?;
        context.outbox.gap_told(*id).await?;
    }
    let segments = context.outbox.to_announce(now(), BATCH).await?;
    for segment in &segments {
        say(broker, uid, Event::Segment, segment, Publish::mandatory()).await?;
        context.outbox.announced(&segment.key, now()).await?;
        context.metrics.announced();
    }
    if !segments.is_empty() {
        context.to_report.raise();
    }
    Ok(gaps.len() + segments.len())
}

/// Publishes an event of this instance.
pub async fn say<T: Serialize>(
    broker: &Broker,
    uid: InstanceUid,
    event: Event,
    data: &T,
    how: Publish,
) -> Result<(), broker::Error> {
    let envelope = Envelope::unordered(uid.to_string(), event.as_str(), now(), data);
    broker.publish(EVENTS_EXCHANGE, &event_key(uid, event), &envelope, how).await
}

async fn until_next(context: &Context) -> Duration {
    let due = context.outbox.next_announcement_us().await.ok().flatten();
    due.map_or(Duration::from_secs(3_600), |due| {
        let left = due.saturating_sub(Timestamp::now().as_microsecond()).max(0);
        Duration::from_micros(u64::try_from(left).unwrap_or(0)).max(Duration::from_millis(100))
    })
}
