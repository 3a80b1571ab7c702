//! kubo's answers, as far as they are read.

use serde::Deserialize;

use crate::domain::identity::PeerId;

/// `add`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Added {
    /// CID of the file.
    pub hash: String,
}

/// `dag/put`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Put {
    /// CID of the node.
    pub cid: Link,
}

/// A CID as dag-json writes it.
#[derive(Deserialize)]
pub struct Link {
    /// The CID.
    #[serde(rename = "/")]
    pub cid: String,
}

/// `files/stat`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileStat {
    /// CID of what the path leads to.
    pub hash: String,
    /// Bytes of the file.
    pub size: u64,
    /// `file` or `directory`.
    #[serde(rename = "Type")]
    pub kind: String,
}

/// `id`.
#[derive(Deserialize)]
pub struct Id {
    /// The daemon's identity.
    #[serde(rename = "ID")]
    pub id: PeerId,
}

/// A line of `repo/gc`: what was removed, or why something was not.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Removed {
    /// What went wrong.
    #[serde(default)]
    pub error: String,
}

/// A line of `ping`: announcements and sums have no time.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pong {
    /// Did it go well?
    pub success: bool,
    /// Nanoseconds.
    pub time: i64,
}

/// `swarm/peers` and `swarm/peering/ls`; no list when nobody is there.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PeerList {
    /// The peers.
    pub peers: Option<Vec<Peer>>,
}

/// One of them.
#[derive(Deserialize)]
pub struct Peer {
    /// Its identity: the two commands name it differently.
    #[serde(rename = "Peer", alias = "ID")]
    pub id: PeerId,
}

impl PeerList {
    /// The identities.
    pub fn ids(self) -> Vec<PeerId> {
        self.peers.unwrap_or_default().into_iter().map(|peer| peer.id).collect()
    }
}
