//! The recorder's two connections to the broker: one only hears, the other only speaks.
//!
//! Trap: a broker short of memory or disk stops reading from every connection that has published, acknowledgements
//! included. On one connection, who waits for a confirm would never again empty the queue that fills the broker.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use super::{BrokerLogin, Recorder, backoff::Backoff};
use crate::{
    clients::broker::{Broker, Error},
    telemetry,
};

impl Recorder {
    /// Hears for ever. Nothing may be published here.
    pub(super) async fn listen(&self, login: &BrokerLogin) {
        self.stay_connected(login, "dsn-recorder, hearing", async |broker| {
            // Configurations may have changed while we were away: the operator repeats them all.
            self.asking.notify_one();
            self.metrics.broker.set(1);
            let ended = self.hear(broker).await;
            self.metrics.broker.set(0);
            ended
        })
        .await;
    }

    /// Speaks for ever: what does not get through is in the catalogue and said by the next connection.
    pub(super) async fn speak(&self, login: &BrokerLogin) {
        self.stay_connected(login, "dsn-recorder, speaking", async |broker| {
            tokio::select! {
                ended = self.ask_for_all(broker) => ended,
                ended = self.tell(broker) => ended,
                ended = self.summarise(broker) => ended,
                ended = self.enumerate(broker) => ended,
            }
        })
        .await;
    }

    /// Connects again and again, and does `work` until it fails.
    async fn stay_connected(
        &self,
        login: &BrokerLogin,
        name: &str,
        work: impl AsyncFn(&Broker) -> Result<Infallible, Error>,
    ) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            let began = Instant::now();
            let connected = async {
                let url = login.url().map_err(|error| Error::Connect(Box::new(error.into())))?;
                let broker = Broker::connect(&url, name).await?;
                tracing::info!(name, "connected to the broker");
                work(&broker).await
            };
            let Err(error) = connected.await;
            if began.elapsed() > Duration::from_secs(30) {
                backoff.reset();
            }
            self.metrics.failed(error.reason());
            let pause = backoff.pause();
            tracing::warn!(name, error = telemetry::chain(&error), ?pause, "not connected to the broker");
            tokio::time::sleep(pause).await;
        }
    }
}
