//! Keeps kubo connected to the nodes of its group as the list changes, so that a new node restarts nobody.
//!
//! The list is a mounted ConfigMap: a change of the folder is a hint, a look every few seconds the truth. ipfs-cluster
//! needs no such care: newcomers dial the peers they were configured with, and peers tell each other.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use notify::Watcher;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{init::read_peers, metrics::Metrics};
use crate::{
    clients::ipfs::{Error, Ipfs},
    domain::{
        group::{Node, Peers},
        identity::PeerId,
    },
    telemetry,
};

/// Time between two looks without a hint.
const EVERY: Duration = Duration::from_secs(10);

/// Names of the group's other nodes, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connected to kubo.
    pub connected: Vec<String>,
    /// Not connected.
    pub missing: Vec<String>,
}

/// What was last seen, for the status.
pub type Shared = Arc<RwLock<Seen>>;

/// What to tell kubo.
#[derive(Debug, Default, PartialEq, Eq)]
struct Orders<'a> {
    /// Keep a connection from now on.
    befriend: Vec<&'a Node>,
    /// Dial now.
    dial: Vec<&'a Node>,
    /// Keep a connection no longer.
    part: Vec<&'a PeerId>,
}

/// Pure: who is on the list, whom kubo keeps, whom it is connected to → what to do.
fn orders<'a>(others: &[&'a Node], peered: &'a [PeerId], connected: &[PeerId]) -> Orders<'a> {
    let listed: BTreeSet<&PeerId> = others.iter().map(|node| &node.kubo.id).collect();
    Orders {
        befriend: others.iter().copied().filter(|node| !peered.contains(&node.kubo.id)).collect(),
        dial: others.iter().copied().filter(|node| !connected.contains(&node.kubo.id)).collect(),
        // An empty list is a group of one, or a file that is not there yet: nobody is sent away for it.
        part: peered.iter().filter(|id| !listed.is_empty() && !listed.contains(id)).collect(),
    }
}

/// Follows the list until shutdown.
pub async fn follow(
    node: String,
    file: PathBuf,
    kubo: Ipfs,
    shared: Shared,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let (hint, mut hints) = mpsc::channel(1);
    // Lost hints cost one interval: the watcher may fail (no inotify left) without harm.
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Trap: opening the file to read it is an event too.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = hint.try_send(());
        }
    })
    .ok();
    if let (Some(watcher), Some(folder)) = (&mut watcher, file.parent())
        && let Err(error) = watcher.watch(folder, notify::RecursiveMode::NonRecursive)
    {
        tracing::debug!("failed to watch {}: {error}", folder.display());
    }
    while !shutdown.is_cancelled() {
        match read_peers(&file) {
            Ok(peers) => {
                let looked = tokio::select! {
                    () = shutdown.cancelled() => return,
                    looked = once(&node, &peers, &kubo) => looked,
                };
                match looked {
                    Ok(seen) => {
                        metrics.missing_peers.set(i64::try_from(seen.missing.len()).unwrap_or(i64::MAX));
                        *shared.write().unwrap_or_else(PoisonError::into_inner) = seen;
                    }
                    Err(error) => tracing::debug!("failed to look after neighbours: {}", telemetry::chain(&error)),
                }
            }
            Err(error) => tracing::warn!("{}", telemetry::chain(&error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
            Some(()) = hints.recv() => {}
        }
    }
}

async fn once(node: &str, peers: &Peers, kubo: &Ipfs) -> Result<Seen, Error> {
    let others: Vec<&Node> = peers.others(node).collect();
    let (peered, connected) = (kubo.peered().await?, kubo.connected().await?);
    let orders = orders(&others, &peered, &connected);
    for id in orders.part {
        tracing::info!(peer = %id, "left the group");
        kubo.part_with(id).await?;
    }
    for neighbour in orders.befriend {
        tracing::info!(node = neighbour.name, "joined the group");
        kubo.peer_with(&neighbour.multiaddr(&neighbour.kubo), &neighbour.kubo.id).await?;
    }
    // All at once: one that is down takes its whole timeout.
    let dialled = futures::future::join_all(orders.dial.iter().map(|neighbour| async {
        let outcome = kubo.connect(&neighbour.multiaddr(&neighbour.kubo), &neighbour.kubo.id).await;
        if let Err(error) = &outcome {
            tracing::debug!(node = neighbour.name, "failed to connect: {}", telemetry::chain(error));
        }
        (neighbour.name.clone(), outcome.is_ok())
    }))
    .await;
    let missing: Vec<String> = dialled.into_iter().filter(|(_, reached)| !reached).map(|(name, _)| name).collect();
    let connected =
        others.iter().map(|neighbour| neighbour.name.clone()).filter(|name| !missing.contains(name)).collect();
    Ok(Seen { connected, missing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{group::Endpoint, identity::Identity};

    fn id(seed: u8) -> PeerId {
        Identity::from_seed([seed; 32]).peer_id
    }

    fn node(seed: u8) -> Node {
        let endpoint = Endpoint { id: id(seed), port: 4001 };
        Node { name: format!("disk-{seed}"), host: "h".into(), kubo: endpoint.clone(), cluster: endpoint }
    }

    #[test]
    fn a_newcomer_is_befriended_and_dialled_and_a_leaver_let_go() {
        let (known, new) = (node(1), node(2));
        let (others, peered, connected) = ([&known, &new], [id(1), id(3)], [id(1)]);
        let orders = orders(&others, &peered, &connected);
        assert_eq!(orders.befriend, [&new]);
        assert_eq!(orders.dial, [&new]);
        assert_eq!(orders.part, [&id(3)]);
    }

    #[test]
    fn an_empty_list_sends_nobody_away() {
        assert_eq!(orders(&[], &[id(1)], &[id(1)]), Orders::default());
    }

    #[test]
    fn a_friend_that_is_away_is_dialled_again() {
        let known = node(1);
        let (others, peered) = ([&known], [id(1)]);
        let orders = orders(&others, &peered, &[]);
        assert_eq!((orders.befriend.len(), orders.dial), (0, vec![&known]));
    }
}
