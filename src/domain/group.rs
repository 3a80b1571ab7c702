//! What the operator tells every storage node about its group: the peers it shall know. Lives in the group's ConfigMap,
//! mounted as a file into each node; read by `dsn storage init` (configuration) and `dsn storage serve` (newcomers).

use serde::{Deserialize, Serialize};

use super::identity::PeerId;

/// Key of the group's ConfigMap.
pub const PEERS_KEY: &str = "peers.json";

/// Every node of a group, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// The nodes.
    pub peers: Vec<Node>,
}

/// One node of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Name of the StorageNode.
    pub name: String,
    /// DNS name or address of its pod.
    pub host: String,
    /// Its kubo.
    pub kubo: Endpoint,
    /// Its ipfs-cluster peer.
    pub cluster: Endpoint,
}

/// Where a libp2p host listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its identity.
    pub id: PeerId,
    /// Its TCP port.
    pub port: u16,
}

impl Peers {
    /// The nodes in a canonical order, so that equal groups are equal texts.
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut peers: Vec<_> = nodes.into_iter().collect();
        peers.sort();
        peers.dedup_by(|a, b| a.name == b.name);
        Self { peers }
    }

    /// Everyone but the node of that name.
    pub fn others<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Node> {
        self.peers.iter().filter(move |node| node.name != name)
    }
}

impl Node {
    /// Multiaddress of a libp2p host of this node, without its identity.
    pub fn multiaddr(&self, endpoint: &Endpoint) -> String {
        // A DNS name is looked up at every dial: a pod that moved is found again.
        let protocol = match self.host.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => "ip4",
            Ok(std::net::IpAddr::V6(_)) => "ip6",
            Err(_) => "dns",
        };
        format!("/{protocol}/{}/tcp/{}", self.host, endpoint.port)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::identity::Identity, *};

    fn node(name: &str, host: &str) -> Node {
        let id = Identity::from_seed([1; 32]).peer_id;
        Node {
            name: name.into(),
            host: host.into(),
            kubo: Endpoint { id: id.clone(), port: 4001 },
            cluster: Endpoint { id, port: 9096 },
        }
    }

    #[test]
    fn equal_groups_are_equal_texts() {
        let forth = Peers::new([node("a", "h"), node("b", "h")]);
        let back = Peers::new([node("b", "h"), node("a", "h"), node("a", "h")]);
        assert_eq!(forth, back);
        assert_eq!(forth.others("a").map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn names_are_dialled_by_name_and_addresses_by_address() {
        assert_eq!(node("a", "sn-a-0.sn-a.ns.svc").multiaddr(&node("a", "").kubo), "/dns/sn-a-0.sn-a.ns.svc/tcp/4001");
        assert_eq!(node("a", "10.0.0.1").multiaddr(&node("a", "").kubo), "/ip4/10.0.0.1/tcp/4001");
    }
}
