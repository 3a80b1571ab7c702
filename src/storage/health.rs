//! Does the node work? Asked of kubo over its socket and of ipfs-cluster about its kubo, again and again.
//!
//! Also removes the socket that a killed kubo leaves behind: its container restarts alone, without the init step, and
//! would fail on the file for ever.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::{
    clients::{ipfs::Ipfs, ipfs_cluster::IpfsCluster},
    telemetry,
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Time between two looks at a socket without a listener: the kubelet starts kubo again within a second, and a kubo that
/// finds the socket ends, to be started again with growing pauses.
const SUSPICION: Duration = Duration::from_millis(250);

/// What was last seen.
#[derive(Clone)]
pub struct Health(Arc<RwLock<Result<(), String>>>);

impl Health {
    /// Nobody has looked yet.
    pub fn unknown() -> Self {
        Self(Arc::new(RwLock::new(Err("kubo has not been asked yet".to_owned()))))
    }

    /// What was last seen; `Err` says in a sentence what does not work.
    pub fn get(&self) -> Result<(), String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, seen: Result<(), String>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &seen) {
            (Err(_), Ok(())) => tracing::info!("kubo and ipfs-cluster work"),
            (before, Err(problem)) if *before != seen => tracing::warn!("{problem}"),
            _ => {}
        }
        *known = seen;
    }
}

/// Looks until shutdown.
pub async fn watch(
    health: Health,
    kubo: Ipfs,
    cluster: IpfsCluster,
    socket: PathBuf,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let seen = tokio::select! { () = shutdown.cancelled() => return, seen = look(&kubo, &cluster) => seen };
        metrics.ready.set(i64::from(seen.is_ok()));
        health.set(seen);
        if let Some(suspect) = remove_orphan(&socket, None) {
            tokio::time::sleep(SUSPICION).await;
            remove_orphan(&socket, Some(suspect));
        }
        tokio::select! { () = shutdown.cancelled() => {}, () = tokio::time::sleep(EVERY) => {} }
    }
}

async fn look(kubo: &Ipfs, cluster: &IpfsCluster) -> Result<(), String> {
    kubo.id().await.map_err(|error| telemetry::chain(&error))?;
    // `/health` of ipfs-cluster would say yes here even with kubo dead.
    let id = cluster.id().await.map_err(|error| telemetry::chain(&error))?;
    id.problem().map_or(Ok(()), |problem| Err(format!("ipfs-cluster cannot use kubo: {problem}")))
}

/// Removes a socket that nobody listens to, the second time the same one is found; returns the one to look at again.
fn remove_orphan(socket: &Path, suspect: Option<u64>) -> Option<u64> {
    let found = match std::os::unix::net::UnixStream::connect(socket) {
        // Refused: there is a file, and nobody behind it. It may be a kubo that is just about to listen.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::symlink_metadata(socket).ok().map(|file| file.ino())
        }
        _ => None,
    };
    match (found, suspect) {
        (Some(inode), Some(before)) if inode == before => {
            match std::fs::remove_file(socket) {
                Ok(()) => tracing::warn!("removed the socket of a kubo that was killed"),
                Err(error) => tracing::warn!("failed to remove the socket of a kubo that was killed: {error}"),
            }
            None
        }
        (found, _) => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_without_a_listener_is_removed_and_only_at_the_second_look() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("api.sock");
        assert_eq!(remove_orphan(&socket, None), None, "nothing there");

        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        assert_eq!(remove_orphan(&socket, None), None, "somebody listens");
        drop(listener);

        let suspect = remove_orphan(&socket, None);
        assert!(suspect.is_some() && socket.exists(), "left alone at the first look");
        assert_eq!(remove_orphan(&socket, suspect), None);
        assert!(!socket.exists());
    }
}
