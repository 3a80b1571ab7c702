//! The volumes of a storage node's pod, and what each container sees of them: its own half of the disk, and those keys
//! of the group's Secret that it needs.

use k8s_openapi::{
    api::core::v1::{ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, SecretVolumeSource, Volume, VolumeMount},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{super::Plan, VOLUME};
use crate::domain::name::{self, secret_key};

/// The volume, in the init step.
const DATA: &str = "/data";
/// kubo's repo.
pub const REPO: &str = "/data/ipfs";
/// ipfs-cluster's folder.
pub const CLUSTER: &str = "/data/cluster";
/// Scratch, memory only.
pub const TMP: &str = "/tmp";
/// kubo's socket. Not on the disk: it is nobody's data, and not every file system knows sockets.
const RUN: &str = "/run/dsn";
/// Mounted Secret of the group.
const GROUP: &str = "/etc/dsn/group";
/// Mounted Secret of the node.
const IDENTITY: &str = "/etc/dsn/identity";
/// Mounted list of nodes.
const PEERS: &str = "/etc/dsn/peers";

/// All but the one of the claim template.
pub fn all(plan: &Plan) -> Vec<Volume> {
    let group = name::storage_group(&plan.group);
    vec![
        empty_dir("run", "1Mi"),
        empty_dir("tmp-kubo", "64Mi"),
        empty_dir("tmp-cluster", "64Mi"),
        secret(
            "group-keys",
            &group,
            &[secret_key::SWARM_KEY, secret_key::CLUSTER_SECRET, secret_key::CLUSTER_PASSWORD],
        ),
        secret(
            "group-tokens",
            &group,
            &[secret_key::CLUSTER_PASSWORD, secret_key::UPLOAD_TOKEN, secret_key::SERVER_TOKEN],
        ),
        secret(
            "identity",
            &name::storage_identity_secret(&plan.node),
            &[secret_key::KUBO_ID, secret_key::KUBO_KEY, secret_key::CLUSTER_ID, secret_key::CLUSTER_KEY],
        ),
        Volume {
            name: "peers".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: group, ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
    ]
}

/// What the init step sees.
pub fn of_init() -> Vec<VolumeMount> {
    vec![
        mount(VOLUME, DATA),
        mount("run", RUN),
        read_only("group-keys", GROUP),
        read_only("identity", IDENTITY),
        read_only("peers", PEERS),
    ]
}

/// What kubo sees.
pub fn of_kubo() -> Vec<VolumeMount> {
    vec![part(VOLUME, REPO, "ipfs"), mount("run", RUN), mount("tmp-kubo", TMP)]
}

/// What ipfs-cluster sees.
pub fn of_cluster() -> Vec<VolumeMount> {
    vec![part(VOLUME, CLUSTER, "cluster"), mount("run", RUN), mount("tmp-cluster", TMP)]
}

/// What the storage agent sees.
pub fn of_agent() -> Vec<VolumeMount> {
    vec![mount("run", RUN), read_only("group-tokens", GROUP), read_only("peers", PEERS)]
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn part(name: &str, path: &str, folder: &str) -> VolumeMount {
    VolumeMount { sub_path: Some(folder.to_owned()), ..mount(name, path) }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(name, path) }
}

fn empty_dir(name: &str, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(limit.to_owned())) }),
        ..Volume::default()
    }
}

fn secret(name: &str, secret: &str, keys: &[&str]) -> Volume {
    let items = keys.iter().map(|key| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None });
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items: Some(items.collect()),
            // Readable through the pod's group only.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
