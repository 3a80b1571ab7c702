//! ipfs-cluster's `service.json` and `identity.json`.

use serde_json::{Value, json};

use super::NodeConfig;
use crate::domain::{name::CLUSTER_REST_USER, pin::BATCH_AGE};

/// File `identity.json`; asked for even when the environment names the same.
pub fn identity(node: &NodeConfig) -> Value {
    json!({"id": node.identity.cluster_id, "private_key": node.identity.cluster_key})
}

/// File `service.json`. What is left out takes the default; `ipfsproxy` and `pinsvcapi` are left out on purpose: a section
/// that is not there is a listener that is not there.
pub fn service(node: &NodeConfig) -> Value {
    let listen = &node.listen;
    json!({
        "cluster": {
            "peername": node.node,
            "secret": node.secrets.cluster_secret,
            "leave_on_shutdown": false,
            "listen_multiaddress": [format!("/ip4/{}/tcp/{}", listen.address, listen.cluster)],
            "peer_addresses": node.peers.others(&node.node)
                .map(|peer| format!("{}/p2p/{}", peer.multiaddr(&peer.cluster), peer.cluster.id))
                .collect::<Vec<_>>(),
            // Each pin brings its own numbers; these are for pins made by hand.
            "replication_factor_min": 2, "replication_factor_max": 2,
            // A peer that died gives up its pins to others (only where minimum = maximum).
            "disable_repinning": false,
            "pin_only_on_trusted_peers": true,
            "state_sync_interval": "1m0s", "pin_recover_interval": "2m0s",
            "monitor_ping_interval": "5s", "peer_watch_interval": "5s",
            "mdns_interval": "0s",
            "enable_relay_hop": false,
        },
        "consensus": {"crdt": {
            "cluster_name": "dsn",
            // Whoever has the secret is trusted. A list would have to name each newcomer, and restart every peer for it.
            "trusted_peers": ["*"],
            // A minute's roll-ups of all cameras come at once: one commit for them, and not one each.
            "batching": {"max_batch_size": 300, "max_batch_age": format!("{}ms", BATCH_AGE.as_millis())},
            "repair_interval": "1h0m0s",
        }},
        "api": {"restapi": {
            "http_listen_multiaddress": [format!("/ip4/{}/tcp/{}", listen.address, listen.rest)],
            "basic_auth_credentials": {CLUSTER_REST_USER: node.secrets.cluster_password},
            "read_timeout": "0s", "read_header_timeout": "5s", "write_timeout": "0s", "idle_timeout": "2m0s",
            "max_header_bytes": 8192,
            "http_log_file": "",
        }},
        "ipfs_connector": {"ipfshttp": {
            "node_multiaddress": format!("/unix{}", node.socket.display()),
            // kubo's neighbours are kept by its peering and by the storage agent.
            "connect_swarms_delay": "0s",
            "ipfs_request_timeout": "1m0s",
            // Without progress for so long, a pin is an error, and is tried again by pin_recover.
            "pin_timeout": "30s",
            "unpin_timeout": "1m0s",
            "repogc_timeout": "24h0m0s",
        }},
        "pin_tracker": {"stateless": {"concurrent_pins": 10, "priority_pin_max_age": "24h0m0s", "priority_pin_max_retries": 5}},
        "monitor": {"pubsubmon": {"check_interval": "5s"}},
        // Where the cluster must choose by itself (after a death), it goes by host first. It sees only peers that send
        // *all* of these measurements, so the list names what `informer` sends.
        "allocator": {"balanced": {"allocate_by": ["tag:host", "freespace"]}},
        "informer": {
            "disk": {"metric_ttl": "10s", "metric_type": "freespace"},
            "tags": {"metric_ttl": "10s", "tags": {"host": node.host}},
        },
        // The defaults would take 1 GiB of memory.
        "datastore": {"pebble": {"pebble_options": {"cache_size_bytes": 16_777_216, "mem_table_size": 4_194_304}}},
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    #[test]
    fn service_of_a_node_in_a_group_of_two() {
        insta::assert_yaml_snapshot!(service(&fixture::config()));
    }

    #[test]
    fn the_identity_is_that_of_the_secret() {
        insta::assert_yaml_snapshot!(identity(&fixture::config()));
    }
}
