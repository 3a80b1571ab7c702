//! A retention that was lengthened: the cluster's own expiry of pins already made would come before it.

use std::{num::NonZeroU32, time::Duration};

use jiff::Timestamp;

use super::{Recorder, backoff::Backoff, pin};
use crate::{
    catalogue::{self, Rollup},
    clients::{groups::Group, ipfs_cluster},
    telemetry,
};

/// Pins asked for anew in one go.
const BATCH: i64 = 1000;

impl Recorder {
    /// Looks once at start and then whenever a retention was lengthened.
    pub(super) async fn renew(&self) {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
        loop {
            match self.renew_round().await {
                Ok(true) => {
                    backoff.reset();
                    self.renewing.notified().await;
                }
                Ok(false) => tokio::time::sleep(backoff.pause()).await,
                Err(error) => {
                    self.troubled(&error);
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// True when no pin is left that ends too early.
    pub(super) async fn renew_round(&self) -> Result<bool, catalogue::Error> {
        // A group that does not answer holds up nobody else's.
        let mut down: Vec<(String, String)> = Vec::new();
        loop {
            let rollups = self.reader.rollups_to_renew(&down, BATCH).await?;
            if rollups.is_empty() {
                return Ok(down.is_empty());
            }
            for rollup in rollups {
                let group = (rollup.namespace.clone(), rollup.group.clone());
                if down.contains(&group) {
                    continue;
                }
                if let Err(error) = self.renew_one(&rollup).await? {
                    self.metrics.failed(error.reason());
                    tracing::warn!(error = telemetry::chain(&error), "cannot make a pin last longer yet");
                    down.push(group);
                }
            }
        }
    }

    async fn renew_one(&self, rollup: &Rollup) -> Result<Result<(), Box<ipfs_cluster::Error>>, catalogue::Error> {
        let group = Group { namespace: rollup.namespace.clone(), name: rollup.group.clone() };
        let replicas = rollup.replicas.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        // The peers that have it now: a renewal must not move anything.
        let holders = rollup.allocations.iter().filter_map(|peer| peer.parse().ok()).collect::<Vec<_>>();
        let holders = if holders.len() == replicas.get() as usize { holders } else { Vec::new() };
        let options = pin::options(rollup, replicas, holders, Timestamp::now());
        let Some(cid) = rollup.cid.as_deref().and_then(|cid| cid.parse().ok()) else { return Ok(Ok(())) };
        let cluster = match self.groups.cluster(&group) {
            Ok(cluster) => cluster,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = cluster.pin(&cid, &options).await {
            return Ok(Err(error.into()));
        }
        self.writer.pin_renewed(rollup.id, options.expire_at.unwrap_or(Timestamp::MAX)).await?;
        Ok(Ok(()))
    }
}
