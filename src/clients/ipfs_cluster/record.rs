//! What ipfs-cluster says about pins and peers.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use super::{error::LostOption, options::PinOptions};
use crate::domain::{cid::Cid, identity::PeerId};

/// Go writes an empty list or map as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn cid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// A pin as the cluster has written it down.
#[derive(Clone, Debug, Deserialize)]
pub struct PinRecord {
    /// What is pinned.
    #[serde(deserialize_with = "cid")]
    pub cid: Cid,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Copies, at least.
    pub replication_factor_min: i64,
    /// Copies, at most.
    pub replication_factor_max: i64,
    /// Peers that hold it or shall hold it.
    #[serde(default, deserialize_with = "or_default")]
    pub allocations: Vec<PeerId>,
    /// When it ends; Go's year 1 stands for never.
    #[serde(default)]
    pub expire_at: Option<Timestamp>,
    /// Its metadata.
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// Where it was said to be found.
    #[serde(default, deserialize_with = "or_default")]
    pub origins: Vec<String>,
}

impl PinRecord {
    /// When the pin ends, if ever.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expire_at.filter(|at| *at > Timestamp::UNIX_EPOCH)
    }

    /// Is it what was asked for? Allocations may differ: the cluster keeps those of an earlier pin and passes over peers
    /// that are down.
    pub fn check(&self, cid: &Cid, asked: &PinOptions) -> Result<(), LostOption> {
        let same = |option, asked: String, has: String| {
            if asked == has { Ok(()) } else { Err(LostOption { option, asked, has }) }
        };
        same("cid", cid.to_string(), self.cid.to_string())?;
        same("name", asked.name.clone(), self.name.clone())?;
        let replicas = asked.replicas.to_string();
        same("replication-min", replicas.clone(), self.replication_factor_min.to_string())?;
        same("replication-max", replicas, self.replication_factor_max.to_string())?;
        let close = match (asked.expire_at, self.expires()) {
            (Some(asked), Some(has)) => asked.duration_since(has).abs() < SignedDuration::from_secs(1),
            (None, None) => true,
            _ => false,
        };
        if !close {
            same("expire-at", format!("{:?}", asked.expire_at), format!("{:?}", self.expires()))?;
        }
        same("metadata", format!("{:?}", asked.metadata), format!("{:?}", self.metadata))?;
        same("origins", asked.origins.len().to_string(), self.origins.len().to_string())
    }
}

/// Where a pin stands on every peer.
#[derive(Clone, Debug, Deserialize)]
pub struct PinStatus {
    /// What is pinned.
    #[serde(deserialize_with = "cid")]
    pub cid: Cid,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Peers that shall hold it.
    #[serde(default, deserialize_with = "or_default")]
    pub allocations: Vec<PeerId>,
    /// What each peer says.
    #[serde(default, deserialize_with = "or_default")]
    pub peer_map: BTreeMap<PeerId, PeerStatus>,
}

impl PinStatus {
    /// How many peers hold it now.
    pub fn pinned(&self) -> usize {
        self.on(TrackerStatus::Pinned).count()
    }

    /// The peers that hold it now.
    pub fn holders(&self) -> impl Iterator<Item = &PeerId> {
        self.on(TrackerStatus::Pinned)
    }

    /// Does the cluster know of the pin at all? Within the batch window it does not yet.
    pub fn is_known(&self) -> bool {
        self.peer_map.values().any(|peer| !matches!(peer.status, TrackerStatus::Unpinned | TrackerStatus::ClusterError))
    }

    /// What the first peer in trouble says.
    pub fn problem(&self) -> Option<(&PeerId, &str)> {
        self.peer_map.iter().find(|(_, peer)| peer.status.is_error()).map(|(id, peer)| (id, peer.error.as_str()))
    }

    fn on(&self, status: TrackerStatus) -> impl Iterator<Item = &PeerId> {
        self.peer_map.iter().filter(move |(_, peer)| peer.status == status).map(|(id, _)| id)
    }
}

/// What one peer says about a pin.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerStatus {
    /// Name of the peer: that of its StorageNode.
    #[serde(default)]
    pub peername: String,
    /// Its kubo.
    #[serde(default)]
    pub ipfs_peer_id: String,
    /// State.
    pub status: TrackerStatus,
    /// What is wrong.
    #[serde(default)]
    pub error: String,
    /// How often it was tried.
    #[serde(default)]
    pub attempt_count: u32,
}

/// State of a pin on one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackerStatus {
    /// Held.
    Pinned,
    /// Being fetched.
    Pinning,
    /// Waits to be fetched.
    PinQueued,
    /// Could not be fetched: no connected peer has it, or the disk is full.
    PinError,
    /// Not held and not asked for.
    Unpinned,
    /// Being let go.
    Unpinning,
    /// Waits to be let go.
    UnpinQueued,
    /// Could not be let go.
    UnpinError,
    /// Held by other peers, as it shall be.
    Remote,
    /// The peer did not answer.
    ClusterError,
    /// Should be held, and kubo says it is not.
    UnexpectedlyUnpinned,
    /// Anything else.
    #[serde(other)]
    Other,
}

impl TrackerStatus {
    /// Does somebody need to act?
    pub fn is_error(self) -> bool {
        matches!(self, Self::PinError | Self::UnpinError | Self::ClusterError | Self::UnexpectedlyUnpinned)
    }
}

/// A cluster peer about itself, or about another one.
#[derive(Clone, Debug, Deserialize)]
pub struct Id {
    /// Its identity.
    #[serde(deserialize_with = "text")]
    pub id: String,
    /// Its name: that of its StorageNode.
    #[serde(default)]
    pub peername: String,
    /// The peers it is connected to, itself included.
    #[serde(default, deserialize_with = "or_default")]
    pub cluster_peers: Vec<PeerId>,
    /// What is wrong with it.
    #[serde(default)]
    pub error: String,
    /// Its kubo.
    #[serde(default)]
    pub ipfs: IpfsId,
}

/// A peer's kubo, as the peer sees it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct IpfsId {
    /// Its identity.
    #[serde(default, deserialize_with = "or_default")]
    pub id: String,
    /// What is wrong with it.
    #[serde(default)]
    pub error: String,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    or_default(deserializer)
}

impl Id {
    /// Why the peer cannot work, if so. Trap: a peer whose kubo is dead answers everything else as if all were well.
    pub fn problem(&self) -> Option<&str> {
        [&self.error, &self.ipfs.error].into_iter().find(|error| !error.is_empty()).map(String::as_str)
    }
}
