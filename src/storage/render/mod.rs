//! The configuration of a storage node's kubo and ipfs-cluster, as a pure function of what the node is.
//!
//! Rendered on every start of the pod, so that a new release or a new neighbour needs no hand; nothing of it is ever
//! edited in place. Figures and traps: each at its line.

pub mod cluster;
pub mod kubo;

use std::path::PathBuf;

use crate::domain::group::Peers;

/// All that a storage node is made of.
#[derive(Clone)]
pub struct NodeConfig {
    /// Name of the StorageNode.
    pub node: String,
    /// Machine it runs on: replicas go to different ones.
    pub host: String,
    /// Bytes kubo may take.
    pub storage_max: u64,
    /// kubo's RPC.
    pub socket: PathBuf,
    /// Where both listen.
    pub listen: Listen,
    /// Who they are.
    pub identity: NodeIdentity,
    /// What the group shares.
    pub secrets: GroupSecrets,
    /// Who else is there.
    pub peers: Peers,
}

/// Listening addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// IPv4 address of all three.
    pub address: std::net::Ipv4Addr,
    /// kubo's swarm.
    pub kubo: u16,
    /// ipfs-cluster's swarm.
    pub cluster: u16,
    /// ipfs-cluster's REST API.
    pub rest: u16,
}

/// The two libp2p hosts of a node, as they stand in its identity Secret.
#[derive(Clone)]
pub struct NodeIdentity {
    /// Peer id of kubo.
    pub kubo_id: String,
    /// Private key of kubo.
    pub kubo_key: String,
    /// Peer id of the cluster peer.
    pub cluster_id: String,
    /// Private key of the cluster peer.
    pub cluster_key: String,
}

/// What a group shares, as it stands in its Secret.
#[derive(Clone)]
pub struct GroupSecrets {
    /// kubo's swarm key file.
    pub swarm_key: String,
    /// ipfs-cluster's secret.
    pub cluster_secret: String,
    /// Password of ipfs-cluster's REST API.
    pub cluster_password: String,
}

#[cfg(test)]
pub mod fixture {
    //! A node of a group of two, with keys that anyone can make again.

    use super::*;
    use crate::domain::{
        group::{Endpoint, Node},
        identity::{self, Identity},
    };

    fn node(name: &str, seed: u8) -> Node {
        let endpoint = |seed, port| Endpoint { id: Identity::from_seed([seed; 32]).peer_id, port };
        Node {
            name: name.into(),
            host: format!("sn-{name}-0.sn-{name}.cams.svc"),
            kubo: endpoint(seed, 4001),
            cluster: endpoint(seed + 1, 9096),
        }
    }

    /// Node `disk-1` beside `disk-2`.
    pub fn config() -> NodeConfig {
        let (kubo, cluster) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        NodeConfig {
            node: "disk-1".into(),
            host: "machine-a".into(),
            storage_max: 85_000_000_000,
            socket: "/run/dsn/api.sock".into(),
            listen: Listen { address: [0, 0, 0, 0].into(), kubo: 4001, cluster: 9096, rest: 9094 },
            identity: NodeIdentity {
                kubo_id: kubo.peer_id.to_string(),
                kubo_key: kubo.private_key,
                cluster_id: cluster.peer_id.to_string(),
                cluster_key: cluster.private_key,
            },
            secrets: GroupSecrets {
                swarm_key: identity::swarm_key([3; 32]),
                cluster_secret: identity::cluster_secret([4; 32]),
                cluster_password: "password".into(),
            },
            peers: Peers::new([node("disk-1", 1), node("disk-2", 11)]),
        }
    }
}
