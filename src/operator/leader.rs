//! One operator leads, by a Lease; the others wait. A lost Lease ends the process: whatever it was doing, another one
//! may be doing it now.
//!
//! Not here: what the leader does. Called by [`super::run`].

use std::time::{Duration, Instant};

use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
pub const LEASE: &str = "dsn-operator";
/// How long a Lease holds.
const DURATION_SECONDS: u64 = 15;
/// How long before its end it is renewed.
const GRACE_SECONDS: u64 = 8;
/// How long renewals may fail before the Lease counts as lost: less than the grace, so that we stop before it ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// The Lease is somebody else's, or could not be renewed in time.
#[derive(Debug, thiserror::Error)]
#[error("the lease {LEASE} is lost: {0}")]
pub struct Lost(String);

/// A Lease to be waited for, held and released.
pub struct Leadership(LeaseManager);

impl Leadership {
    /// Prepares the Lease in `namespace`; creates it when there is none.
    pub async fn new(client: kube::Client, namespace: &str, identity: &str) -> Result<Self, LeaseManagerError> {
        LeaseManagerBuilder::new(client, LEASE)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS)
            // The field manager stays the library's, made of the identity: with one name for all replicas two of them
            // that lock at once would not conflict, and both would lead for a while.
            .build()
            .await
            .map(Self)
    }

    /// Waits until this process leads; `false` when it was told to stop before.
    pub async fn acquire(&self, shutdown: &CancellationToken) -> bool {
        let mut attempt = 0;
        loop {
            let changed = tokio::select! {
                changed = self.0.changed() => changed,
                () = shutdown.cancelled() => return false,
            };
            match changed {
                Ok(true) => return true,
                Ok(false) => attempt = 0,
                Err(error) => {
                    tracing::warn!(error = sentence(&error), "failed to ask for the lease; trying again");
                    let pause = super::backoff::pause(attempt).min(PATIENCE);
                    attempt += 1;
                    tokio::select! { () = tokio::time::sleep(pause) => {}, () = shutdown.cancelled() => return false }
                }
            }
        }
    }

    /// Renews the Lease until it is lost.
    pub async fn hold(&self) -> Lost {
        // `changed` renews silently and returns errors one by one: failures in a row for as long as a renewal is due
        // before the end of the Lease mean that it has run out.
        let mut failing_since: Option<(Instant, Instant)> = None;
        loop {
            match self.0.changed().await {
                Ok(true) => failing_since = None,
                Ok(false) => return Lost("another operator holds it".into()),
                Err(error) => {
                    let now = Instant::now();
                    let since = match failing_since {
                        Some((since, last)) if now - last < Duration::from_secs(GRACE_SECONDS) => since,
                        _ => now,
                    };
                    failing_since = Some((since, now));
                    tracing::warn!(error = sentence(&error), "failed to renew the lease");
                    if now - since >= PATIENCE {
                        return Lost(format!("it could not be renewed: {}", sentence(&error)));
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Lets the next one take over at once.
    pub async fn release(&self) {
        if let Err(error) = self.0.release().await {
            tracing::warn!(error = sentence(&error), "failed to release the lease; it runs out by itself");
        }
    }
}

/// The error without kube's debug dump of the whole answer.
fn sentence(error: &LeaseManagerError) -> String {
    match error {
        LeaseManagerError::KubeError(error) => super::error::short(error),
        other => other.to_string(),
    }
}
