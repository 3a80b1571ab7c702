//! Room on the volume: refuses uploads before the disk is full, and collects garbage when it fills up.
//!
//! kubo does neither by itself here: it takes files beyond `StorageMax`, and its own collector runs by the clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::{
    clients::ipfs::{Ipfs, RepoStat},
    telemetry,
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// Share of `StorageMax` beyond which garbage is collected, percent. Adding waits meanwhile, so not before.
const COLLECT_ABOVE: u64 = 90;
/// Share of `StorageMax` beyond which no file is taken, percent: pins must still find room.
const REFUSE_ABOVE: u64 = 97;
/// Time to let pass after a collection that freed nearly nothing: what is left is pinned.
const REST: Duration = Duration::from_secs(15 * 60);

/// How full the repo was at the last look.
#[derive(Clone, Default)]
pub struct Room(Arc<Figures>);

#[derive(Default)]
struct Figures {
    taken: AtomicU64,
    max: AtomicU64,
}

impl Room {
    /// Is there room for so many bytes more? Unknown counts as yes: kubo will say.
    pub fn admits(&self, bytes: u64) -> bool {
        let max = self.max();
        max == 0 || self.taken().saturating_add(bytes) <= share(max, REFUSE_ABOVE)
    }

    /// Bytes taken.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Bytes it may take.
    pub fn max(&self) -> u64 {
        self.0.max.load(Ordering::Relaxed)
    }

    /// A file was taken in since the last look.
    pub fn note(&self, bytes: u64) {
        self.0.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    fn set(&self, stat: RepoStat) {
        self.0.taken.store(stat.repo_size, Ordering::Relaxed);
        self.0.max.store(stat.storage_max, Ordering::Relaxed);
    }
}

fn share(max: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(max) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// Pure: shall garbage be collected now?
fn due(stat: RepoStat, rested: bool) -> bool {
    rested && stat.repo_size > share(stat.storage_max, COLLECT_ABOVE)
}

/// Pure: did a collection free so little that the next one can wait?
fn futile(before: RepoStat, after: RepoStat) -> bool {
    before.repo_size.saturating_sub(after.repo_size) < share(before.storage_max, 1)
}

/// Looks until shutdown.
pub async fn watch(room: Room, kubo: Ipfs, metrics: Metrics, shutdown: CancellationToken) {
    let mut rest_until: Option<Instant> = None;
    while !shutdown.is_cancelled() {
        let looked = async {
            let before = kubo.repo_stat().await?;
            room.set(before);
            if due(before, rest_until.is_none_or(|until| Instant::now() >= until)) {
                tracing::info!(bytes = before.repo_size, max = before.storage_max, "collecting garbage");
                metrics.collections.inc();
                kubo.collect_garbage().await?;
                let after = kubo.repo_stat().await?;
                room.set(after);
                rest_until = futile(before, after).then(|| Instant::now() + REST);
                tracing::info!(bytes = after.repo_size, "collected garbage");
            }
            metrics.repo_bytes.set(i64::try_from(room.taken()).unwrap_or(i64::MAX));
            metrics.repo_max_bytes.set(i64::try_from(room.max()).unwrap_or(i64::MAX));
            Ok::<_, crate::clients::ipfs::Error>(())
        };
        let looked = tokio::select! { () = shutdown.cancelled() => return, looked = looked => looked };
        if let Err(error) = looked {
            tracing::debug!("failed to look after kubo's room: {}", telemetry::chain(&error));
        }
        tokio::select! { () = shutdown.cancelled() => {}, () = tokio::time::sleep(EVERY) => {} }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(repo_size: u64) -> RepoStat {
        RepoStat { repo_size, storage_max: 1000 }
    }

    #[test]
    fn uploads_are_refused_before_the_disk_is_full() {
        let room = Room::default();
        assert!(room.admits(1), "nobody has looked yet");
        room.set(stat(960));
        assert!(room.admits(10) && !room.admits(11));
        room.note(10);
        assert!(!room.admits(1), "what came in since counts");
    }

    #[test]
    fn garbage_is_collected_only_when_it_is_late_and_helps() {
        assert!(!due(stat(900), true));
        assert!(due(stat(901), true));
        assert!(!due(stat(901), false), "the last one freed nothing");
        assert!(futile(stat(950), stat(945)) && !futile(stat(950), stat(800)));
    }
}
