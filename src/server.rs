//! Role `server`: recorder and gateway in one process, around one catalogue.
//!
//! One process because `SQLite` has one writer; the two share nothing but the catalogue, the clients of the storage
//! groups and the map of cameras. Viewing needs no broker, recording no viewer.

use std::{future::IntoFuture, net::SocketAddr, path::PathBuf, sync::Arc};

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    catalogue,
    clients::{broker_address::BrokerAddress, groups::Groups},
    domain::token::MasterKey,
    gateway::{self, Access, Gateway, LiveSource, Roster},
    recorder::{BrokerLogin, Metrics, Recorder},
    telemetry::{self, Outcome, Readiness},
};

/// Arguments of the role.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the catalogue: a volume of its own, never on NFS.
    #[arg(long, env = "DSN_DATA_DIR", default_value = "/var/lib/dsn")]
    data_dir: PathBuf,
    /// Where page, playlists and footage are served.
    #[arg(long, env = "DSN_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Where metrics and health are served without login.
    #[arg(long, env = "DSN_METRICS_LISTEN", default_value = "0.0.0.0:9090")]
    metrics_listen: SocketAddr,
    /// Host of the broker.
    #[arg(long, env = "DSN_BROKER_HOST", default_value = "rabbitmq")]
    broker_host: String,
    /// Port of the broker.
    #[arg(long, env = "DSN_BROKER_PORT", default_value_t = 5672)]
    broker_port: u16,
    /// Virtual host of the broker.
    #[arg(long, env = "DSN_VHOST", default_value = "dsn")]
    vhost: String,
    /// Folder with the broker's `username` and `password`.
    #[arg(long, env = "DSN_BROKER_DIR", default_value = "/etc/dsn/broker")]
    broker_dir: PathBuf,
    /// File with the installation's master key.
    #[arg(long, env = "DSN_MASTER_KEY_FILE", default_value = "/etc/dsn/master/master-key")]
    master_key_file: PathBuf,
    /// Folder with the administrator's `username` and `password`.
    #[arg(long, env = "DSN_ADMIN_DIR", default_value = "/etc/dsn/admin")]
    admin_dir: PathBuf,
    /// Address of a group's storage agents, with {group} and {namespace}; only tests change it.
    #[arg(
        long,
        env = "DSN_STORAGE_URL_TEMPLATE",
        hide = true,
        default_value = "http://dsn-group-{group}.{namespace}.svc:8081"
    )]
    storage_url_template: String,
    /// Address of a group's ipfs-cluster, with {group} and {namespace}; only tests change it.
    #[arg(
        long,
        env = "DSN_CLUSTER_URL_TEMPLATE",
        hide = true,
        default_value = "http://dsn-group-{group}.{namespace}.svc:9094"
    )]
    cluster_url_template: String,
}

/// Why the role did not start.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read the master key {path}: it is the key master-key of the Secret dsn-master")]
    MasterKey {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the master key {path} is empty")]
    EmptyMasterKey { path: PathBuf },
}

/// Runs the role until shutdown.
pub async fn run(args: Args) -> Outcome {
    let shutdown = telemetry::shutdown_token()?;
    let master = master_key(&args.master_key_file)?;
    let (writer, reader) = catalogue::open(&args.data_dir).await?;

    let groups = Arc::new(Groups::new(master.clone(), args.storage_url_template, args.cluster_url_template));
    let roster = Arc::new(Roster::default());
    roster.load(&reader).await?;

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let recorder = Recorder::new(writer, reader.apart(), Arc::clone(&groups), metrics, {
        let roster = Arc::clone(&roster);
        move |recorded| roster.heard(recorded)
    });
    let broker = BrokerLogin {
        address: BrokerAddress { host: args.broker_host, port: args.broker_port, vhost: args.vhost },
        credentials: args.broker_dir,
    };
    let gateway = Gateway {
        catalogue: reader,
        groups,
        roster,
        live: LiveSource::new(master.clone())?,
        access: Access::new(args.admin_dir, master),
    };

    // The catalogue is open and migrated. The broker does not count: viewing goes on without it.
    let ready: Readiness = Arc::new(|| Ok(()));
    let registry = Arc::new(registry);
    let routes = gateway::routes(gateway, Arc::clone(&registry), Arc::clone(&ready));
    let metrics = telemetry::health_routes(registry, ready);
    tracing::info!(listen = %args.listen, "serving");
    let ((), served, measured) = tokio::join!(
        Box::pin(recorder.run(&broker, &shutdown)),
        ending(serve(args.listen, routes, shutdown.clone()), &shutdown),
        ending(telemetry::serve(args.metrics_listen, metrics, shutdown.clone()), &shutdown),
    );
    served?;
    measured?;
    Ok(())
}

fn master_key(path: &std::path::Path) -> Result<MasterKey, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::MasterKey { path: path.to_owned(), source })?;
    // Without the line end, as the operator takes it: both must derive the same credentials.
    match bytes.trim_ascii() {
        [] => Err(Error::EmptyMasterKey { path: path.to_owned() }),
        key => Ok(MasterKey::new(key)),
    }
}

/// One part that ends, ends all: a server without its port must not look alive.
async fn ending(part: impl Future<Output = std::io::Result<()>>, shutdown: &CancellationToken) -> std::io::Result<()> {
    let ended = part.await;
    shutdown.cancel();
    ended
}

/// As [`telemetry::serve`], and handlers know who connects; a viewer's open connection does not hold up the end.
async fn serve(address: SocketAddr, routes: axum::Router, shutdown: CancellationToken) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let stop = shutdown.clone();
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move { stop.cancelled().await });
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    };
    tokio::select! {
        served = serving.into_future() => served,
        () = patience => Ok(()),
    }
}
