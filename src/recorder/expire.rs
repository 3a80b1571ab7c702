//! The end of retention, and of pipelines that take their footage along: tombstone → unpin → confirm.
//!
//! Trap: a `DELETE` within the cluster's batch window answers 404 and the pin still comes. So an unpin counts only when
//! the cluster's own list, looked at two batch ages later, no longer has it.

use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{
    Recorder,
    backoff::Backoff,
    roll::{earlier, until},
};
use crate::{
    catalogue::{self, Tombstone},
    clients::{groups::Group, ipfs_cluster},
    domain::pin::BATCH_AGE,
    telemetry,
};

/// Longest sleep: a clock that was set shows by then.
const LONGEST: Duration = Duration::from_secs(3600);
/// Tombstones read in one go.
const BATCH: u64 = 500;

impl Recorder {
    /// Removes what has to go, as long as the recorder runs.
    pub(super) async fn expire(&self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let pause = match self.expiry_round(Timestamp::now()).await {
                Ok(Outcome { open: false, next }) => {
                    backoff.reset();
                    next.unwrap_or(LONGEST).min(LONGEST)
                }
                Ok(Outcome { open: true, .. }) => backoff.pause().max(confirmed_after()),
                Err(error) => {
                    self.troubled(&error);
                    backoff.pause()
                }
            };
            drop(tokio::time::timeout(pause, self.expiring.notified()).await);
        }
    }

    /// One look at retention and at every tombstone.
    pub(super) async fn expiry_round(&self, now: Timestamp) -> Result<Outcome, catalogue::Error> {
        self.writer.expire(now).await?;
        let next = self.reader.next_expiry().await?.map(|at| until(at, now));
        // Side by side: a group that is gone for good holds up nobody, neither by its timeouts nor by its number.
        let groups = self.reader.tombstone_groups().await?.into_iter();
        let rounds = groups.map(|(namespace, name)| self.expire_group(Group { namespace, name }, now));
        let mut open = false;
        for left in join_all(rounds).await {
            open |= left?;
        }
        Ok(Outcome { open, next: earlier(next, None) })
    }

    /// One look at the tombstones of a group; true when some are left.
    async fn expire_group(&self, group: Group, now: Timestamp) -> Result<bool, catalogue::Error> {
        let (mut open, mut after) = (false, 0);
        loop {
            let tombstones = self.reader.tombstones(&group.namespace, &group.name, after, BATCH).await?;
            let Some(last) = tombstones.last() else { return Ok(open) };
            after = last.id;
            for tombstone in tombstones {
                match self.unpin(&group, &tombstone, now).await? {
                    Ok(done) => open |= !done,
                    Err(error) => {
                        self.metrics.failed(error.reason());
                        tracing::warn!(%group, error = telemetry::chain(&error), "cannot unpin yet");
                        // The rest of this group would only wait for the same timeout.
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// One step of a tombstone; true when nothing is left of it.
    async fn unpin(
        &self,
        group: &Group,
        tombstone: &Tombstone,
        now: Timestamp,
    ) -> Result<Result<bool, Box<ipfs_cluster::Error>>, catalogue::Error> {
        // Counted before it is unpinned: another roll-up with the same content keeps it.
        let cid = tombstone.cid.as_deref().filter(|_| !tombstone.shared).and_then(|cid| cid.parse().ok());
        let Some(cid) = cid else {
            self.writer.unpinned(tombstone.id, now).await?;
            return Ok(Ok(true));
        };
        let cluster = match self.groups.cluster(group) {
            Ok(cluster) => cluster,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(asked) = tombstone.asked() {
            let settled = SignedDuration::try_from(confirmed_after()).unwrap_or(SignedDuration::from_secs(2));
            if now.duration_since(asked) < settled {
                return Ok(Ok(false));
            }
            match cluster.allocation(&cid).await {
                Ok(None) => {
                    self.writer.unpinned(tombstone.id, now).await?;
                    self.metrics.unpinned.inc();
                    return Ok(Ok(true));
                }
                Ok(Some(_)) => {}
                Err(error) => return Ok(Err(error.into())),
            }
        }
        if let Err(error) = cluster.unpin(&cid).await {
            return Ok(Err(error.into()));
        }
        self.writer.unpin_asked(tombstone.id, Timestamp::now().max(now)).await?;
        Ok(Ok(false))
    }
}

/// What a round left behind.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Tombstones are not done yet.
    pub(super) open: bool,
    /// Until the next end of retention.
    pub(super) next: Option<Duration>,
}

/// After which time an unpin can be believed.
fn confirmed_after() -> Duration {
    BATCH_AGE * 2 + Duration::from_secs(1)
}
