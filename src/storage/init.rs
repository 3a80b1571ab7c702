//! `dsn storage init`: writes the configuration of kubo and ipfs-cluster before they start.
//!
//! Runs at every start of the pod and is idempotent; a repo that is already there keeps its version and its blocks. It
//! talks to nobody: what it needs is mounted.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::render::{self, GroupSecrets, Listen, NodeConfig, NodeIdentity};
use crate::domain::{
    group::Peers,
    name::{CLUSTER_REST_PORT, CLUSTER_SWARM_PORT, KUBO_SWARM_PORT, secret_key},
};

/// Arguments of `dsn storage init`.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the StorageNode.
    #[arg(long, env = "DSN_NODE")]
    node: String,
    /// Machine the node runs on; replicas go to different ones.
    #[arg(long, env = "DSN_HOST")]
    host: String,
    /// The volume: kubo's repo in `ipfs`, ipfs-cluster's folder in `cluster`.
    #[arg(long, env = "DSN_DATA_DIR", default_value = "/data")]
    data_dir: PathBuf,
    /// kubo's RPC.
    #[arg(long, env = "DSN_SOCKET", default_value = "/run/dsn/api.sock")]
    socket: PathBuf,
    /// Mounted Secret of the group.
    #[arg(long, env = "DSN_GROUP_DIR", default_value = "/etc/dsn/group")]
    group_dir: PathBuf,
    /// Mounted Secret with the node's identities.
    #[arg(long, env = "DSN_IDENTITY_DIR", default_value = "/etc/dsn/identity")]
    identity_dir: PathBuf,
    /// Mounted list of the group's nodes.
    #[arg(long, env = "DSN_PEERS_FILE", default_value = "/etc/dsn/peers/peers.json")]
    peers_file: PathBuf,
    /// Bytes kubo may take.
    #[arg(long, env = "DSN_STORAGE_MAX")]
    storage_max: u64,
    /// Address that all three listen on.
    #[arg(long, default_value = "0.0.0.0")]
    listen: std::net::Ipv4Addr,
    /// Port of kubo's swarm.
    #[arg(long, default_value_t = KUBO_SWARM_PORT)]
    kubo_port: u16,
    /// Port of ipfs-cluster's swarm.
    #[arg(long, default_value_t = CLUSTER_SWARM_PORT)]
    cluster_port: u16,
    /// Port of ipfs-cluster's REST API.
    #[arg(long, default_value_t = CLUSTER_REST_PORT)]
    rest_port: u16,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The list of nodes is not what the operator writes.
    #[error("failed to understand {}", path.display())]
    Peers {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Writes everything.
pub fn run(args: &Args) -> Result<(), Error> {
    let node = load(args)?;
    let (repo, cluster) = (args.data_dir.join("ipfs"), args.data_dir.join("cluster"));
    for folder in [&repo, &cluster] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| Error::Write { path: folder.clone(), source })?;
    }
    write_once(&repo.join("version"), render::kubo::REPO_VERSION)?;
    write_once(&repo.join("datastore_spec"), &render::kubo::datastore_spec())?;
    write(&repo.join("swarm.key"), &node.secrets.swarm_key)?;
    write_json(&repo.join("config"), &render::kubo::config(&node))?;
    write_json(&cluster.join("identity.json"), &render::cluster::identity(&node))?;
    write_json(&cluster.join("service.json"), &render::cluster::service(&node))?;
    // A kubo that was killed leaves its socket behind, and the next one fails on it: "address already in use".
    match fs::remove_file(&args.socket) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Write { path: args.socket.clone(), source })
        }
        _ => Ok(()),
    }
}

fn load(args: &Args) -> Result<NodeConfig, Error> {
    let secret = |folder: &Path, key| read(&folder.join(key)).map(|text| text.trim_end().to_owned());
    Ok(NodeConfig {
        node: args.node.clone(),
        host: args.host.clone(),
        storage_max: args.storage_max,
        socket: args.socket.clone(),
        listen: Listen { address: args.listen, kubo: args.kubo_port, cluster: args.cluster_port, rest: args.rest_port },
        identity: NodeIdentity {
            kubo_id: secret(&args.identity_dir, secret_key::KUBO_ID)?,
            kubo_key: secret(&args.identity_dir, secret_key::KUBO_KEY)?,
            cluster_id: secret(&args.identity_dir, secret_key::CLUSTER_ID)?,
            cluster_key: secret(&args.identity_dir, secret_key::CLUSTER_KEY)?,
        },
        secrets: GroupSecrets {
            swarm_key: read(&args.group_dir.join(secret_key::SWARM_KEY))?,
            cluster_secret: secret(&args.group_dir, secret_key::CLUSTER_SECRET)?,
            cluster_password: secret(&args.group_dir, secret_key::CLUSTER_PASSWORD)?,
        },
        peers: read_peers(&args.peers_file)?,
    })
}

/// The nodes of the group, as mounted now.
pub fn read_peers(path: &Path) -> Result<Peers, Error> {
    serde_json::from_str(&read(path)?).map_err(|source| Error::Peers { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn write_once(path: &Path, text: &str) -> Result<(), Error> {
    if path.exists() { Ok(()) } else { write(path, text) }
}

fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    write(path, &format!("{value:#}\n"))
}

/// Writes beside and renames: a pod killed in mid-write starts from a whole file. Private keys: nobody else may read.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let attempt = || {
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    attempt().map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::render::fixture, *};

    fn args(root: &Path) -> Args {
        let node = fixture::config();
        let put = |folder: &str, key: &str, text: &str| {
            fs::create_dir_all(root.join(folder)).expect("a folder");
            fs::write(root.join(folder).join(key), text).expect("a file");
        };
        put("group", secret_key::SWARM_KEY, &node.secrets.swarm_key);
        put("group", secret_key::CLUSTER_SECRET, &node.secrets.cluster_secret);
        put("group", secret_key::CLUSTER_PASSWORD, &node.secrets.cluster_password);
        put("identity", secret_key::KUBO_ID, &node.identity.kubo_id);
        put("identity", secret_key::KUBO_KEY, &node.identity.kubo_key);
        put("identity", secret_key::CLUSTER_ID, &node.identity.cluster_id);
        put("identity", secret_key::CLUSTER_KEY, &node.identity.cluster_key);
        put("peers", "peers.json", &serde_json::to_string(&node.peers).expect("JSON"));
        Args {
            node: node.node,
            host: node.host,
            data_dir: root.join("data"),
            socket: root.join("api.sock"),
            group_dir: root.join("group"),
            identity_dir: root.join("identity"),
            peers_file: root.join("peers/peers.json"),
            storage_max: node.storage_max,
            listen: node.listen.address,
            kubo_port: node.listen.kubo,
            cluster_port: node.listen.cluster,
            rest_port: node.listen.rest,
        }
    }

    #[test]
    fn a_second_start_renders_anew_and_keeps_the_repo() {
        let root = tempfile::tempdir().expect("a folder");
        let args = args(root.path());
        fs::write(&args.socket, "stale").expect("a stale socket");
        run(&args).expect("the first start");
        let repo = args.data_dir.join("ipfs");
        assert!(!args.socket.exists(), "the stale socket is gone");
        assert_eq!(fs::metadata(repo.join("config")).expect("written").permissions().mode() & 0o777, 0o600);

        fs::write(repo.join("version"), "19").expect("a newer kubo has migrated the repo");
        fs::write(repo.join("config"), "tampered").expect("somebody edited");
        run(&args).expect("the second start");
        assert_eq!(fs::read_to_string(repo.join("version")).expect("kept"), "19");
        assert!(fs::read_to_string(repo.join("config")).expect("rendered").contains("PeerID"));
    }

    #[test]
    fn what_is_not_mounted_is_named() {
        let root = tempfile::tempdir().expect("a folder");
        let args = args(root.path());
        fs::remove_file(root.path().join("group/swarm.key")).expect("it was there");
        let error = run(&args).expect_err("no swarm key");
        assert!(error.to_string().contains("group/swarm.key"), "{error}");
    }
}
