//! Role part `recorder`: the operator's arm for data. It alone writes the catalogue.
//!
//! Five loops, each of which finds its work in the catalogue and so goes on after a kill at any point:
//! [`hear`] (broker → catalogue), [`tell`] (outbox and summaries → broker), [`roll`] (open segments → roll-ups → pins →
//! stored), [`expire`] (retention → tombstones → unpinned),
//! [`renew`] (a longer retention → pins that last longer). The first two have a [`connection`] each. Not here: serving
//! footage (the gateway), deciding about pods (the operator).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    catalogue::{Reader, Recorded, Writer},
    clients::groups::Groups,
    domain::{control::Problem, id::StreamId},
};

mod address;
mod backoff;
mod connection;
mod expire;
mod hear;
mod message;
mod metrics;
mod pin;
mod renew;
mod roll;

mod tell;

#[cfg(test)]
mod tests;

pub use address::BrokerLogin;
pub use metrics::Metrics;

/// What the loops share.
pub struct Recorder {
    writer: Writer,
    reader: Reader,
    groups: Arc<Groups>,
    metrics: Metrics,
    /// Told of every change of configuration or state: the gateway's map of cameras.
    listener: Box<dyn Fn(&Recorded) + Send + Sync>,
    /// Segments or gaps were catalogued: windows may close, pins may be due.
    rolled: Notify,
    /// The outbox is not empty.
    outgoing: Notify,
    /// A configuration changed: retention may end earlier, footage may have to go.
    expiring: Notify,
    /// A retention may have grown: pins may expire too early.
    renewing: Notify,
    /// Something coarse changed: tell the operator now.
    changed: Notify,
    /// Why pins of a stream do not come about.
    problems: Mutex<HashMap<StreamId, Problem>>,
    /// Hearing begins anew: the operator has to be asked for every configuration.
    asking: Notify,
    /// Namespaces of streams and cameras, as long as no configuration changes: each camera names the same every few seconds.
    owners: Mutex<HashMap<(StreamId, String), String>>,
}

impl Recorder {
    /// A recorder over an open catalogue.
    pub fn new(
        writer: Writer,
        reader: Reader,
        groups: Arc<Groups>,
        metrics: Metrics,
        listener: impl Fn(&Recorded) + Send + Sync + 'static,
    ) -> Self {
        Self {
            writer,
            reader,
            groups,
            metrics,
            listener: Box::new(listener),
            rolled: Notify::new(),
            outgoing: Notify::new(),
            expiring: Notify::new(),
            renewing: Notify::new(),
            changed: Notify::new(),
            problems: Mutex::default(),
            asking: Notify::new(),
            owners: Mutex::default(),
        }
    }

    /// Runs every loop until shutdown.
    pub async fn run(&self, broker: &BrokerLogin, shutdown: &CancellationToken) {
        let work = async {
            tokio::join!(self.listen(broker), self.speak(broker), self.roll(), self.expire(), self.renew());
        };
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
        // Whatever was under way is in the catalogue or will be delivered again.
        self.writer.close().await;
    }

    /// Wakes everything that a batch of facts may concern.
    fn wake(&self, recorded: &Recorded) {
        (self.listener)(recorded);
        self.rolled.notify_one();
        if recorded.outgoing {
            self.outgoing.notify_one();
        }
        if recorded.lengthened {
            self.renewing.notify_one();
        }
        if !recorded.streams.is_empty() {
            self.expiring.notify_one();
            self.changed.notify_one();
        }
    }
}
