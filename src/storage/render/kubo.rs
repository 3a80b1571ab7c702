//! kubo's repo: `config`, `version`, `datastore_spec`, `swarm.key`. With these four, `ipfs init` is not needed.

use serde_json::{Value, json};

use super::NodeConfig;
use crate::domain::cid::CHUNK;

/// Layout of the repo that kubo 0.43 reads and writes. Given to a new repo only: an older kubo must refuse a newer repo.
pub const REPO_VERSION: &str = "18";

/// Where blocks (plain files) and the rest (`LevelDB`) lie. Written once with the repo, and the same in `config`.
fn datastore() -> Value {
    json!({
        "type": "mount",
        "mounts": [
            {"mountpoint": "/blocks", "path": "blocks", "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2", "type": "flatfs"},
            {"mountpoint": "/", "path": "datastore", "type": "levelds"},
        ],
    })
}

/// File `datastore_spec`: what of the datastore can never change.
pub fn datastore_spec() -> String {
    datastore().to_string()
}

/// File `config`.
pub fn config(node: &NodeConfig) -> Value {
    let mut spec = datastore();
    // A segment counts as stored once it is pinned, and then the camera's own copy goes: it has to be on the disk by then.
    spec["mounts"][0]["sync"] = json!(true);
    spec["mounts"][1]["compression"] = json!("none");
    json!({
        "Identity": {"PeerID": node.identity.kubo_id, "PrivKey": node.identity.kubo_key},
        "Addresses": {
            // TCP only: no other transport can be closed by a swarm key.
            "Swarm": [format!("/ip4/{}/tcp/{}", node.listen.address, node.listen.kubo)],
            // The RPC can do anything, so it is a socket that only this pod has. It stays without `API.Authorizations`,
            // which ipfs-cluster cannot answer. No gateway: the storage agent is one.
            "API": [format!("/unix{}", node.socket.display())],
            "Gateway": [], "Announce": [], "AppendAnnounce": [], "NoAnnounce": [],
        },
        "Datastore": {
            "Spec": spec,
            "StorageMax": format!("{}B", node.storage_max),
            // Collection is the storage agent's (`--enable-gc=false`): adding waits while it runs.
            "StorageGCWatermark": 90, "GCPeriod": "1h", "HashOnRead": false, "BloomFilterSize": 0,
        },
        "Peering": {
            "Peers": node.peers.others(&node.node)
                .map(|peer| json!({"ID": peer.kubo.id, "Addrs": [peer.multiaddr(&peer.kubo)]}))
                .collect::<Vec<_>>(),
        },
        // Nothing is announced, asked for or looked up outside (row V10).
        "AutoConf": {"Enabled": false},
        "Bootstrap": [],
        "Routing": {"Type": "none", "DelegatedRouters": []},
        "Ipns": {"DelegatedPublishers": []},
        "DNS": {"Resolvers": {}},
        "Provide": {"Enabled": false},
        "Discovery": {"MDNS": {"Enabled": false}},
        "AutoTLS": {"Enabled": false},
        "AutoNAT": {"ServiceMode": "disabled"},
        "HTTPRetrieval": {"Enabled": false},
        "Version": {"SwarmCheckEnabled": false},
        "Plugins": {"Plugins": {"telemetry": {"Disabled": true}}},
        // Not the `server` profile: it refuses private addresses, and pods have no others.
        "Swarm": {
            "AddrFilters": [],
            "DisableNatPortMap": true,
            "EnableHolePunching": false,
            "RelayClient": {"Enabled": false},
            "RelayService": {"Enabled": false},
            "Transports": {"Network": {
                "TCP": true, "QUIC": false, "WebTransport": false, "WebRTCDirect": false, "Websocket": false, "Relay": false,
            }},
        },
        "Gateway": {"NoFetch": true, "NoDNSLink": true},
        // What the agent says with each file anyway; here for whoever adds by hand.
        "Import": {"CidVersion": 1, "UnixFSRawLeaves": true, "UnixFSChunker": format!("size-{CHUNK}")},
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    #[test]
    fn config_of_a_node_in_a_group_of_two() {
        insta::assert_yaml_snapshot!(config(&fixture::config()));
    }

    #[test]
    fn the_datastore_says_the_same_in_both_files() {
        let mut spec = config(&fixture::config())["Datastore"]["Spec"].clone();
        for (mount, mutable) in [(0, "sync"), (1, "compression")] {
            spec["mounts"][mount].as_object_mut().expect("a mount").remove(mutable);
        }
        assert_eq!(spec.to_string(), datastore_spec());
    }
}
