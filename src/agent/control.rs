//! The broker: one connection at a time, for ever. Commands come in, events go out; nothing here is needed to capture.
//!
//! lapin does not recover channels, so the whole connection is made anew (jittered backoff). A queue that is not
//! declared yet delays commands only: the assignment is in the ConfigMap too.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::sync::watch;

use super::{
    announce::{self, say},
    commands,
    context::Context,
};
use crate::{
    clients::broker::{self, Broker, Publish},
    domain::{
        control::{Ack, Backlog, Event, HEARTBEAT_SECONDS, Hello, InstanceReport, instance_queue},
        id::InstanceUid,
        name::secret_key,
    },
    telemetry,
};

const LEAST_WAIT: Duration = Duration::from_millis(500);
const MOST_WAIT: Duration = Duration::from_secs(15);
/// Commands in flight: each is quick, and the order matters little.
const PREFETCH: u16 = 16;
/// A heartbeat that nobody took for this long says nothing any more.
const HEARTBEAT_TTL: Duration = Duration::from_secs(3 * HEARTBEAT_SECONDS);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("there is no address of the broker yet")]
    NoAddress(#[source] std::io::Error),
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    Outbox(#[from] super::outbox::Error),
    #[error("failed to obey a command")]
    Command(#[from] commands::Error),
}

/// Stays connected until the end.
pub async fn run(context: Arc<Context>) {
    let mut wait = LEAST_WAIT;
    let mut said = String::new();
    loop {
        let begun = std::time::Instant::now();
        let ended = tokio::select! {
            ended = connection(&context) => ended,
            () = context.finished.cancelled() => return,
        };
        context.metrics.connected(false);
        if let Err(error) = ended {
            // Once per kind of trouble, not once per try.
            let message = telemetry::chain(&error);
            if message != said {
                tracing::warn!("no broker, events wait in the outbox: {message}");
                said = message;
            }
        }
        if begun.elapsed() > MOST_WAIT {
            (wait, said) = (LEAST_WAIT, String::new());
        }
        tokio::select! {
            () = tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))) => {}
            () = context.finished.cancelled() => return,
        }
        wait = (wait * 2).min(MOST_WAIT);
    }
}

async fn connection(context: &Arc<Context>) -> Result<(), Error> {
    let uid = instance(context).await;
    let url = std::fs::read_to_string(context.agent_secret(secret_key::AMQP_URL)).map_err(Error::NoAddress)?;
    let broker = Broker::connect(url.trim(), &format!("agent {uid}")).await?;
    tracing::info!("connected to the broker");
    context.metrics.connected(true);
    let revision = context.applied().map_or(0, |applied| applied.revision);
    say(&broker, uid, Event::Hello, &Hello { revision }, Publish::default()).await?;
    context.outbox.announce_once_more().await?;
    tokio::select! {
        ended = listen(context, &broker, uid) => ended?,
        ended = announce::run(context, &broker, uid) => ended?,
        ended = speak(&broker, uid, context.assignment.subscribe(), |a| a.revision, &context.report) => ended?,
        ended = transcoder(context, &broker) => ended?,
    }
    Ok(())
}

/// The same for the transcoder of the pod, as soon as there is one.
async fn transcoder(context: &Arc<Context>, broker: &Broker) -> Result<(), Error> {
    let mut told = context.ladder.told.subscribe();
    let uid = loop {
        if let Some(applied) = told.borrow_and_update().as_ref() {
            break applied.assignment.instance;
        }
        // The sender lives as long as the context.
        let _ = told.changed().await;
    };
    let revision = context.ladder.applied().map_or(0, |applied| applied.revision);
    say(broker, uid, Event::Hello, &Hello { revision }, Publish::default()).await?;
    tokio::select! {
        ended = listen(context, broker, uid) => ended,
        ended = speak(broker, uid, told, |a| a.revision, &context.ladder.report) => Ok(ended?),
    }
}

/// Who we are stands in the assignment.
async fn instance(context: &Context) -> InstanceUid {
    let mut assignments = context.assignment.subscribe();
    loop {
        if let Some(applied) = assignments.borrow_and_update().as_ref() {
            return applied.assignment.instance;
        }
        // The sender lives as long as the context.
        let _ = assignments.changed().await;
    }
}

/// Takes commands from our queue.
async fn listen(context: &Arc<Context>, broker: &Broker, uid: InstanceUid) -> Result<(), Error> {
    let queue = instance_queue(uid);
    let mut wait = LEAST_WAIT;
    loop {
        match broker.consume(&queue, PREFETCH).await {
            Ok(mut deliveries) => {
                wait = LEAST_WAIT;
                while let Some(delivery) = deliveries.next().await {
                    match delivery {
                        Ok(delivery) => commands::handle(context, broker, uid, delivery).await?,
                        Err(error) => {
                            tracing::debug!("{}", telemetry::chain(&error));
                            break;
                        }
                    }
                }
            }
            Err(error) if !broker.is_open() => return Err(error.into()),
            Err(error) => tracing::debug!("{}", telemetry::chain(&error)),
        }
        // The queue is gone or not there yet; the connection may still carry events.
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MOST_WAIT);
        if !broker.is_open() {
            return Err(broker::Error::Ended.into());
        }
    }
}

/// Says what changes, and every ten seconds that we are there.
async fn speak<A>(
    broker: &Broker,
    uid: InstanceUid,
    mut assignments: watch::Receiver<Option<A>>,
    revision_of: fn(&A) -> u64,
    report: &watch::Sender<InstanceReport>,
) -> Result<(), broker::Error> {
    let mut reports = report.subscribe();
    let mut beats = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut acked, mut stated) = (0, None);
    loop {
        let revision = assignments.borrow_and_update().as_ref().map_or(0, revision_of);
        if revision > acked {
            say(broker, uid, Event::Ack, &Ack { revision }, Publish::default()).await?;
            acked = revision;
        }
        let now = reports.borrow_and_update().clone();
        if stated.as_ref().is_none_or(|stated| differs(stated, &now)) {
            say(broker, uid, Event::State, &now, Publish::default()).await?;
            stated = Some(now);
        }
        tokio::select! {
            _ = assignments.changed() => {}
            _ = reports.changed() => {}
            _ = beats.tick() => {
                let report = report.borrow().clone();
                let how = Publish { ttl: Some(HEARTBEAT_TTL), ..Publish::default() };
                say(broker, uid, Event::Heartbeat, &report, how).await?;
            }
        }
    }
}

/// Is the change worth an event? The backlog moves with every segment and travels with the heartbeats.
fn differs(before: &InstanceReport, now: &InstanceReport) -> bool {
    let coarse = |report: &InstanceReport| InstanceReport { backlog: Backlog::default(), ..report.clone() };
    coarse(before) != coarse(now)
}
