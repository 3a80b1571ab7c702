//! `dsn storage serve`: starts the tasks of the storage agent and ends them together.

use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc};

use super::{
    access::Tokens,
    api::{self, Agent},
    health::{self, Health},
    metrics::Metrics,
    neighbours,
    room::{self, Room},
};
use crate::{
    clients::{ipfs::Ipfs, ipfs_cluster::IpfsCluster},
    domain::name::{CLUSTER_REST_PORT, METRICS_PORT, STORAGE_PORT, secret_key},
    telemetry::{self, Outcome},
};

/// Arguments of `dsn storage serve`.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the StorageNode.
    #[arg(long, env = "DSN_NODE")]
    node: String,
    /// Where uploads and reads come in.
    #[arg(long, env = "DSN_LISTEN", default_value_t = SocketAddr::from(([0, 0, 0, 0], STORAGE_PORT)))]
    listen: SocketAddr,
    /// Where health and metrics are asked for.
    #[arg(long, env = "DSN_METRICS_LISTEN", default_value_t = SocketAddr::from(([0, 0, 0, 0], METRICS_PORT)))]
    metrics_listen: SocketAddr,
    /// kubo's RPC.
    #[arg(long, env = "DSN_SOCKET", default_value = "/run/dsn/api.sock")]
    socket: PathBuf,
    /// REST API of the ipfs-cluster peer beside.
    #[arg(long, env = "DSN_CLUSTER_URL", default_value_t = format!("http://127.0.0.1:{CLUSTER_REST_PORT}"))]
    cluster_url: String,
    /// Mounted Secret of the group.
    #[arg(long, env = "DSN_GROUP_DIR", default_value = "/etc/dsn/group")]
    group_dir: PathBuf,
    /// Mounted list of the group's nodes.
    #[arg(long, env = "DSN_PEERS_FILE", default_value = "/etc/dsn/peers/peers.json")]
    peers_file: PathBuf,
}

/// A mounted file that is not there.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {}", path.display())]
struct Unmounted {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Runs until shutdown.
pub async fn run(args: Args) -> Outcome {
    let secret = |key| {
        let path = args.group_dir.join(key);
        fs::read_to_string(&path).map(|text| text.trim_end().to_owned()).map_err(|source| Unmounted { path, source })
    };
    let tokens = Tokens { upload: secret(secret_key::UPLOAD_TOKEN)?, server: secret(secret_key::SERVER_TOKEN)? };
    let cluster = IpfsCluster::new(&args.cluster_url, secret(secret_key::CLUSTER_PASSWORD)?)?;
    let kubo = Ipfs::over_socket(&args.socket)?;
    let (metrics, registry) = Metrics::new();
    let (health, room, neighbours) = (Health::unknown(), Room::default(), neighbours::Shared::default());
    let shutdown = telemetry::shutdown_token()?;

    let agent = Agent {
        node: args.node.clone(),
        tokens,
        kubo: kubo.clone(),
        health: health.clone(),
        room: room.clone(),
        neighbours: neighbours.clone(),
        metrics: metrics.clone(),
    };
    let ready = {
        let health = health.clone();
        telemetry::health_routes(Arc::new(registry), Arc::new(move || health.get()))
    };
    tracing::info!(node = args.node, listen = %args.listen, "storage agent starts");
    let (routes, monitoring, (), (), ()) = tokio::join!(
        stop_all(&shutdown, telemetry::serve(args.listen, api::routes(Arc::new(agent)), shutdown.clone())),
        stop_all(&shutdown, telemetry::serve(args.metrics_listen, ready, shutdown.clone())),
        health::watch(health, kubo.clone(), cluster, args.socket, metrics.clone(), shutdown.clone()),
        neighbours::follow(args.node, args.peers_file, kubo.clone(), neighbours, metrics.clone(), shutdown.clone()),
        room::watch(room, kubo, metrics, shutdown.clone()),
    );
    Ok(routes.and(monitoring)?)
}

/// When a listener ends, for whatever reason, so does everything else: half an agent looks like a whole one.
async fn stop_all<T>(shutdown: &tokio_util::sync::CancellationToken, task: impl Future<Output = T>) -> T {
    let outcome = task.await;
    shutdown.cancel();
    outcome
}
