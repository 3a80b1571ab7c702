//! Names of everything that hangs on a resource: Kubernetes children, host names, ports. One place for each.

use sha2::{Digest, Sha256};

/// Port of the capture agent's live endpoint.
pub const LIVE_PORT: u16 = 8080;
/// Port of the storage agent.
pub const STORAGE_PORT: u16 = 8081;
/// Port of health and metrics of operator and agents.
pub const METRICS_PORT: u16 = 9090;
/// Port of ipfs-cluster's REST API.
pub const CLUSTER_REST_PORT: u16 = 9094;
/// Port of ipfs-cluster's own swarm.
pub const CLUSTER_SWARM_PORT: u16 = 9096;
/// Port of kubo's swarm.
pub const KUBO_SWARM_PORT: u16 = 4001;
/// Port of the server (gateway).
pub const SERVER_PORT: u16 = 8080;

/// User that recorder and operator present to ipfs-cluster's REST API.
pub const CLUSTER_REST_USER: &str = "dsn";

/// Secret in each namespace with Pipelines: broker address and live token of its instances. Keys: see [`secret_key`].
pub const AGENT_SECRET: &str = "dsn-agent";

/// Keys of the Secrets the operator creates.
pub mod secret_key {
    /// In `dsn-agent`: AMQP address with user, password and vhost.
    pub const AMQP_URL: &str = "amqp-url";
    /// In `dsn-agent`: token that opens the live endpoint (the gateway presents it).
    pub const LIVE_TOKEN: &str = "live-token";
    /// In a group's Secret: kubo's swarm key, in the file format of libp2p.
    pub const SWARM_KEY: &str = "swarm.key";
    /// In a group's Secret: ipfs-cluster's secret, 64 hex digits.
    pub const CLUSTER_SECRET: &str = "cluster-secret";
    /// In a group's Secret: password of [`super::CLUSTER_REST_USER`].
    pub const CLUSTER_PASSWORD: &str = "cluster-password";
    /// In a group's Secret: token that allows uploads to the storage agents.
    pub const UPLOAD_TOKEN: &str = "upload-token";
    /// In a group's Secret: token that allows reads, roll-ups and re-adds (the server presents it).
    pub const SERVER_TOKEN: &str = "server-token";
    /// In a StorageNode's identity Secret: private key of its kubo.
    pub const KUBO_KEY: &str = "kubo-key";
    /// In a StorageNode's identity Secret: peer id of its kubo.
    pub const KUBO_ID: &str = "kubo-id";
    /// In a StorageNode's identity Secret: private key of its ipfs-cluster peer.
    pub const CLUSTER_KEY: &str = "cluster-key";
    /// In a StorageNode's identity Secret: peer id of its ipfs-cluster peer.
    pub const CLUSTER_ID: &str = "cluster-id";
}

/// First eight hex digits of the SHA-256 of `text`: tells apart what truncation would make equal.
pub fn short_hash(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..4])
}

/// At most `max` characters of a Kubernetes name as part of a DNS label: dots become dashes, no dash at the end.
fn label_part(name: &str, max: usize) -> String {
    let cut: String = name.replace('.', "-").chars().take(max).collect();
    cut.trim_end_matches('-').to_owned()
}

/// Name of what belongs to one instance (Deployment, ConfigMap, volume claim, host name); a DNS label.
pub fn instance(pipeline: &str, camera: &str, instance_uid: &str) -> String {
    // The hash of the uid keeps a recreated Pipeline from meeting the terminating children of the old one.
    format!("{}-{}-{}", label_part(pipeline, 24), label_part(camera, 24), short_hash(instance_uid))
}

/// Name of the headless Service over a Pipeline's capture pods.
pub fn live_service(pipeline: &str, pipeline_uid: &str) -> String {
    format!("{}-live-{}", label_part(pipeline, 40), short_hash(pipeline_uid))
}

/// Address of the live endpoint of one instance.
pub fn live_url(instance: &str, service: &str, namespace: &str) -> String {
    format!("http://{instance}.{service}.{namespace}.svc:{LIVE_PORT}")
}

/// Name of a StorageNode's children (StatefulSet, headless Service); a recreated node finds its disk again by it.
pub fn storage_node(node: &str) -> String {
    format!("sn-{node}")
}

/// Secret with the two libp2p identities of a StorageNode.
pub fn storage_identity_secret(node: &str) -> String {
    format!("sn-{node}-identity")
}

/// Stable host name of a StorageNode's pod.
pub fn storage_host(node: &str, namespace: &str) -> String {
    format!("sn-{node}-0.sn-{node}.{namespace}.svc")
}

/// Name of what a group of StorageNodes shares: Secret, ConfigMap of peers, Service, disruption budget.
pub fn storage_group(group: &str) -> String {
    format!("dsn-group-{group}")
}

/// Address of any storage agent of a group.
pub fn storage_url(group: &str, namespace: &str) -> String {
    format!("http://{}.{namespace}.svc:{STORAGE_PORT}", storage_group(group))
}

/// Address of any ipfs-cluster REST API of a group.
pub fn cluster_url(group: &str, namespace: &str) -> String {
    format!("http://{}.{namespace}.svc:{CLUSTER_REST_PORT}", storage_group(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_still_fit_a_dns_label() {
        let long = "n".repeat(52);
        assert!(instance(&long, &long, "uid").len() <= 63);
        assert!(live_service(&long, "uid").len() <= 63);
        assert!(storage_identity_secret(&"n".repeat(40)).len() <= 63);
        // A StatefulSet's pods carry the label controller-revision-hash = name + dash + 10 characters.
        assert!(storage_node(&"n".repeat(40)).len() + 11 <= 63);
        assert!(storage_group(&"g".repeat(40)).len() <= 63);
    }

    #[test]
    fn a_dotted_camera_name_gives_a_host_name() {
        assert!(!instance("p", "cam.lobby.", "uid").contains('.'));
    }
}
