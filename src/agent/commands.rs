//! What an instance is told through its queue. Every command is idempotent; the broker is told that one is done only
//! after its effect is durable.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    announce::say,
    assignment::{self, Taken},
    context::Context,
    ladder,
};
use crate::{
    clients::broker::{self, Broker, Delivery, Publish},
    domain::{
        control::{Ack, Activity, Assignment, Command, Envelope, Event, Readd, Stored},
        id::InstanceUid,
        ladder::LadderAssignment,
    },
};

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what we know.
    #[error("failed to understand a command")]
    Invalid(#[from] serde_json::Error),
    /// The assignment could not be handed on.
    #[error(transparent)]
    Assignment(#[from] assignment::Error),
    /// The memory failed.
    #[error(transparent)]
    Outbox(#[from] super::outbox::Error),
    /// The answer could not be given.
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

/// Does what a message says, then acknowledges it.
///
/// A failure on our side (disk, outbox) ends the connection: the message comes again. One that nobody can understand is
/// acknowledged, or it would come for ever.
pub async fn handle(
    context: &Arc<Context>,
    broker: &Broker,
    uid: InstanceUid,
    delivery: Delivery,
) -> Result<(), Error> {
    match obey(context, broker, uid, &delivery).await {
        Err(Error::Invalid(error)) => tracing::warn!(key = delivery.key, "dropped a message: {error}"),
        other => other?,
    }
    Ok(delivery.ack().await?)
}

async fn obey(context: &Arc<Context>, broker: &Broker, uid: InstanceUid, delivery: &Delivery) -> Result<(), Error> {
    let envelope: Envelope<Value> = serde_json::from_slice(&delivery.body)?;
    // The last word of the routing key says what it is; the envelope repeats it.
    let word = delivery.key.rsplit('.').next().unwrap_or_default();
    let Ok(command) = serde_json::from_value::<Command>(Value::from(word)) else {
        tracing::debug!(key = delivery.key, "a command of a newer version");
        return Ok(());
    };
    if context.ladder.is(uid) {
        return obey_for_the_transcoder(context, broker, uid, command, envelope, delivery).await;
    }
    match command {
        Command::Apply | Command::Start | Command::Stop => {
            let envelope: Envelope<Assignment> = typed(envelope)?;
            let revision = envelope.revision;
            let taken = assignment::take(context, envelope).await?;
            answer(broker, uid, taken, revision).await?;
        }
        Command::Remove => {
            let taken = match typed::<Assignment>(envelope.clone()) {
                Ok(mut whole) => {
                    whole.data.activity = Activity::Draining;
                    assignment::take(context, whole).await?
                }
                Err(_) => assignment::drain(context, envelope.revision).await?,
            };
            answer(broker, uid, taken, envelope.revision).await?;
        }
        Command::Ping => pong(broker, uid, delivery).await?,
        Command::Stored => stored(context, &typed::<Stored>(envelope)?.data).await?,
        Command::Readd => readd(context, &typed::<Readd>(envelope)?.data).await?,
    }
    Ok(())
}

async fn obey_for_the_transcoder(
    context: &Arc<Context>,
    broker: &Broker,
    uid: InstanceUid,
    command: Command,
    envelope: Envelope<Value>,
    delivery: &Delivery,
) -> Result<(), Error> {
    let revision = envelope.revision;
    let taken = match command {
        Command::Apply | Command::Start | Command::Stop => ladder::take(context, typed(envelope)?).await?,
        Command::Remove => match typed::<LadderAssignment>(envelope) {
            Ok(mut whole) => {
                whole.data.activity = Activity::Draining;
                ladder::take(context, whole).await?
            }
            Err(_) => ladder::drain(context, revision).await?,
        },
        Command::Ping => return Ok(pong(broker, uid, delivery).await?),
        // It has no footage of its own: the capture beside it hears these.
        Command::Stored | Command::Readd => return Ok(()),
    };
    answer(broker, uid, taken, revision).await
}

async fn pong(broker: &Broker, uid: InstanceUid, delivery: &Delivery) -> Result<(), broker::Error> {
    let how = Publish {
        ttl: Some(std::time::Duration::from_secs(5)),
        correlation_id: delivery.correlation_id.clone(),
        ..Publish::default()
    };
    say(broker, uid, Event::Pong, &Value::Object(serde_json::Map::new()), how).await
}

fn typed<T: DeserializeOwned>(envelope: Envelope<Value>) -> Result<Envelope<T>, serde_json::Error> {
    Ok(Envelope {
        id: envelope.id,
        uid: envelope.uid,
        revision: envelope.revision,
        spec_hash: envelope.spec_hash,
        op: envelope.op,
        issued_at: envelope.issued_at,
        data: serde_json::from_value(envelope.data)?,
    })
}

/// A new revision is acknowledged by whoever watches the assignment; a duplicate is acknowledged again here.
async fn answer(broker: &Broker, uid: InstanceUid, taken: Taken, revision: u64) -> Result<(), Error> {
    match taken {
        Taken::Again => say(broker, uid, Event::Ack, &Ack { revision }, Publish::default()).await?,
        Taken::Foreign => tracing::warn!(revision, "dropped the assignment of another instance"),
        Taken::New | Taken::Older => {}
    }
    Ok(())
}

async fn stored(context: &Context, stored: &Stored) -> Result<(), Error> {
    let mut moved = 0;
    for upto in &stored.upto {
        moved += context.outbox.stored(upto).await?;
    }
    for key in &stored.exactly {
        moved += context.outbox.stored_exactly(key).await?;
    }
    if moved > 0 {
        context.to_trim.raise();
        context.to_report.raise();
    }
    Ok(())
}

async fn readd(context: &Context, readd: &Readd) -> Result<(), Error> {
    for wanted in &readd.segments {
        let key = &wanted.key;
        if !context.outbox.readd(key).await? {
            tracing::warn!(session = %key.session, seq = key.seq, "asked for a segment that was let go");
            context.ask_about(wanted.clone());
        }
        context.to_add.raise();
    }
    Ok(())
}
