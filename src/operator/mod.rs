//! Role `operator`: reconciles Cameras, Pipelines and `StorageNodes`, declares queues, publishes assignments, folds what
//! the instances report into status.
//!
//! ```text
//! watch ──► triggers ──► reconcile: observe ─► plan ─► desired ─► apply ─► status
//!                ▲                       │ want               ▲ view
//!                └──────── broker ◄──── desk ─────────────────┘
//! ```
//!
//! Not here: video, footage, the catalogue. One replica leads; the others are warm. Losing it for an hour stops neither
//! recording nor viewing.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt,
    runtime::{
        applier,
        controller::{self, Action},
        reflector::Store,
    },
};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    context::{Config, Context, Images},
    error::{Error, Retry},
    watch::{Deleted, OnDeleted},
};
use crate::{
    clients::broker_address::BrokerAddress,
    telemetry::{self, Outcome},
};

pub mod apply;
pub mod backoff;
pub mod bootstrap;
pub mod broker;
pub mod camera;
pub mod claims;
mod concern;
mod containment;
pub mod context;
pub mod error;
pub mod events;
#[cfg(test)]
pub mod fixture;
pub mod health;
pub mod labels;
pub mod leader;
pub mod metrics;
pub mod pipeline;
pub mod rollout;
pub mod settling;
pub mod storage_node;
pub mod watch;

/// How many objects of one kind are reconciled at once, and how many children are written at once: without a bound an API
/// server has to choose whom it answers too late; with 8 it is left waiting, as a bare client shows (docs/benchmarks.md).
pub(crate) const AT_ONCE: usize = 32;
/// How many statuses are written at once.
const STATUSES_AT_ONCE: usize = 16;
/// How long one reconcile may take: an API server that swallows requests must not hold all of them for ever.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

/// Arguments of the role.
#[derive(clap::Args)]
pub struct Args {
    /// Namespace the operator runs in: its Lease and its Secrets live there.
    #[arg(long, env = "DSN_NAMESPACE")]
    namespace: String,
    /// Name of this pod: identity in the Lease and in Events.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Look after this namespace only.
    #[arg(long, env = "DSN_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// Host of the broker, as it resolves in every namespace (the agents are given it too).
    #[arg(long, env = "DSN_BROKER_HOST")]
    broker_host: String,
    /// AMQP port of the broker.
    #[arg(long, env = "DSN_BROKER_PORT", default_value_t = 5672)]
    broker_port: u16,
    /// Virtual host; made when it is missing.
    #[arg(long, env = "DSN_VHOST", default_value = "dsn")]
    vhost: String,
    /// Address of the broker's management API. Default: port 15672 of the broker's host.
    #[arg(long, env = "DSN_MANAGEMENT_URL")]
    management_url: Option<String>,
    /// Secret with username and password of the broker's administrator.
    #[arg(long, env = "DSN_BROKER_SECRET", default_value = bootstrap::BROKER_SECRET)]
    broker_secret: String,
    /// Image of agents and storage agents.
    #[arg(long, env = "DSN_IMAGE")]
    image: String,
    /// Image of the runner, with ffmpeg.
    #[arg(long, env = "DSN_CAPTURE_IMAGE")]
    capture_image: String,
    /// Image of the transcoder, with ffmpeg.
    #[arg(long, env = "DSN_TRANSCODER_IMAGE")]
    transcoder_image: String,
    /// Image of kubo.
    #[arg(long, env = "DSN_KUBO_IMAGE")]
    kubo_image: String,
    /// Image of ipfs-cluster.
    #[arg(long, env = "DSN_CLUSTER_IMAGE")]
    cluster_image: String,
    /// Pull policy of the images.
    #[arg(long, env = "DSN_IMAGE_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["IfNotPresent", "Always", "Never"])]
    image_pull_policy: String,
    /// Address of health and metrics.
    #[arg(long, env = "DSN_METRICS_LISTEN", default_value = "0.0.0.0:9090")]
    metrics_listen: SocketAddr,
}

impl Args {
    fn config(self) -> Config {
        let management_url = self.management_url.unwrap_or_else(|| format!("http://{}:15672", self.broker_host));
        Config {
            namespace: self.namespace,
            watch_namespace: self.watch_namespace.filter(|namespace| !namespace.is_empty()),
            images: Images {
                operator: self.image,
                capture: self.capture_image,
                transcoder: self.transcoder_image,
                kubo: self.kubo_image,
                cluster: self.cluster_image,
                pull_policy: self.image_pull_policy,
            },
            broker: BrokerAddress { host: self.broker_host, port: self.broker_port, vhost: self.vhost },
            management_url,
            broker_secret: self.broker_secret,
        }
    }
}

/// Runs the role until shutdown, or until the Lease is lost.
pub async fn run(args: Args) -> Outcome {
    let shutdown = telemetry::shutdown_token()?;
    let (listen, identity) = (args.metrics_listen, args.pod_name.clone().unwrap_or_else(fallback_identity));
    let config = args.config();

    let mut registry = Registry::default();
    let metrics = metrics::Metrics::new(&mut registry);
    let waiting = Arc::new(std::sync::Mutex::new(Some("starting".to_owned())));
    let health = telemetry::health_routes(Arc::new(registry), readiness(&waiting));
    // Not ended by `shutdown`: were it the first to end, it would take the release of the Lease with it.
    let serving = CancellationToken::new();
    let mut health = tokio::spawn(telemetry::serve(listen, health, serving.clone()));

    let outcome = tokio::select! {
        outcome = prepare_and_lead(config, identity, metrics, waiting, shutdown) => outcome,
        served = &mut health => match served {
            Ok(Ok(())) => Err("health and metrics are no longer served".into()),
            Ok(Err(error)) => Err(format!("failed to serve health and metrics on {listen}: {error}").into()),
            Err(error) => Err(error.into()),
        },
    };
    serving.cancel();
    outcome
}

/// Waits for what it needs and for the Lease, then leads.
async fn prepare_and_lead(
    config: Config,
    identity: String,
    metrics: metrics::Metrics,
    waiting: Arc<std::sync::Mutex<Option<String>>>,
    shutdown: CancellationToken,
) -> Outcome {
    let client = client(None).await?;
    let prepared = async {
        // Secrets first: broker and server wait for them.
        let master = bootstrap::until_done("for the installation's Secrets", async || {
            bootstrap::secrets(&client, &metrics, &config).await
        })
        .await;
        let namespace = config.watch_namespace.as_deref();
        bootstrap::until_done("for the kinds", async || bootstrap::kinds_served(&client, namespace).await).await;
        master
    };
    let master = tokio::select! { master = prepared => master, () = shutdown.cancelled() => return Ok(()) };
    *waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;

    // A client of its own, that gives up fast: a renewal that hangs must be noticed while the Lease still holds.
    let lease_client = self::client(Some(Duration::from_secs(2))).await?;
    let leadership = bootstrap::until_done("for the lease", async || {
        leader::Leadership::new(lease_client.clone(), &config.namespace, &identity).await
    });
    let leadership =
        tokio::select! { leadership = leadership => leadership, () = shutdown.cancelled() => return Ok(()) };
    tracing::info!(identity, "waiting for the lease");
    if !leadership.acquire(&shutdown).await {
        return Ok(());
    }
    tracing::info!(identity, "leading");
    metrics.leader.set(1);

    let work = CancellationToken::new();
    let led = tokio::select! {
        lost = leadership.hold() => Err(lost.into()),
        ended = lead(client, config, &identity, master, metrics, work.clone()) => ended,
        () = shutdown.cancelled() => Ok(()),
    };
    work.cancel();
    if led.is_ok() {
        leadership.release().await;
    }
    led
}

/// Watches, reconciles, talks to the broker; ends only with an error.
async fn lead(
    client: Client,
    config: Config,
    identity: &str,
    master: crate::domain::token::MasterKey,
    metrics: metrics::Metrics,
    shutdown: CancellationToken,
) -> Outcome {
    let (stores, writers) = watch::stores();
    let (triggers, queues) = watch::queues();
    let (events, telling) = events::Events::new(client.clone(), identity);
    let ctx = Arc::new(Context {
        events,
        stores: stores.clone(),
        master,
        metrics,
        known: context::Known::default(),
        desk: broker::Desk::new(Timestamp::now()),
        credentials: camera::credentials::Credentials::default(),
        backoffs: backoff::Backoffs::default(),
        settling: settling::Settling::default(),
        writes: tokio::sync::Semaphore::new(AT_ONCE),
        status_writes: tokio::sync::Semaphore::new(STATUSES_AT_ONCE),
        client: client.clone(),
        config,
    });
    let on_deleted: OnDeleted = {
        let ctx = ctx.clone();
        Arc::new(move |deleted| match deleted {
            Deleted::Pipeline(pipeline) => pipeline::deleted(&ctx, &pipeline),
            Deleted::Camera(camera) => camera::deleted(&ctx, &camera),
        })
    };
    let namespace = ctx.config.watch_namespace.clone();
    let mut tasks = watch::start(&client, namespace.as_deref(), writers, &stores, &triggers, &on_deleted);
    tasks.spawn(telling);
    let synced = {
        let stores = stores.clone();
        // Shared by the three controllers: nobody plans from half of what there is.
        futures::FutureExt::shared(futures::FutureExt::boxed(async move { watch::synced(&stores).await }))
    };
    tasks.spawn(control("camera", ctx.clone(), stores.cameras.clone(), queues.cameras, synced.clone(), |o, c| {
        Box::pin(camera::reconcile(o, c))
    }));
    tasks.spawn(control(
        "pipeline",
        ctx.clone(),
        stores.pipelines.store.clone(),
        queues.pipelines,
        synced.clone(),
        |o, c| Box::pin(pipeline::reconcile(o, c)),
    ));
    tasks.spawn(control(
        "storagenode",
        ctx.clone(),
        stores.storage_nodes.clone(),
        queues.storage_nodes,
        synced.clone(),
        |o, c| Box::pin(storage_node::reconcile(o, c)),
    ));
    {
        let (ctx, triggers) = (ctx.clone(), triggers.clone());
        tasks.spawn(async move { match ctx.settling.wake(&triggers).await {} });
    }
    tasks.spawn(broker::supervisor::run(ctx, triggers, shutdown));
    supervise(tasks).await
}

/// A task that ends takes the process with it: half an operator is worse than none.
async fn supervise(mut tasks: JoinSet<()>) -> Outcome {
    match tasks.join_next().await {
        Some(Err(error)) => Err(format!("a task of the operator failed: {error}").into()),
        Some(Ok(())) | None => Err("a task of the operator ended".into()),
    }
}

type Reconciling = std::pin::Pin<Box<dyn Future<Output = Result<Action, Error>> + Send>>;
type Synced = futures::future::Shared<futures::future::BoxFuture<'static, ()>>;

/// Runs one controller.
async fn control<K>(
    name: &'static str,
    ctx: Arc<Context>,
    store: Store<K>,
    queue: futures::channel::mpsc::Receiver<kube::runtime::reflector::ObjectRef<K>>,
    synced: Synced,
    reconcile: fn(Arc<K>, Arc<Context>) -> Reconciling,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    synced.await;
    tracing::info!(controller = name, objects = store.len(), "controller starts");
    let run = move |object: Arc<K>, ctx: Arc<Context>| -> Reconciling {
        Box::pin(async move {
            let began = std::time::Instant::now();
            ctx.metrics.reconcile_begins(name);
            let key = key(name, &*object);
            let result = tokio::time::timeout(RECONCILE_TIMEOUT, reconcile(object, ctx.clone()))
                .await
                .unwrap_or(Err(Error::Timeout { seconds: RECONCILE_TIMEOUT.as_secs() }));
            ctx.metrics.reconcile_ended(name, began.elapsed(), result.as_ref().err().map(Error::reason));
            if result.is_ok() {
                ctx.backoffs.reset(&key);
            }
            result
        })
    };
    let on_error = move |object: Arc<K>, error: &Error, ctx: Arc<Context>| {
        let key = key(name, &*object);
        if error.is_conflict() {
            tracing::debug!(object = key, %error, "reconcile met a newer state; looking again");
        } else {
            tracing::warn!(object = key, reason = error.reason(), %error, "reconcile failed");
        }
        match error.retry() {
            Retry::Backoff => Action::requeue(ctx.backoffs.failed(&key, std::time::Instant::now())),
            Retry::OnChange => Action::await_change(),
        }
    };
    let config = controller::Config::default().concurrency(u16::try_from(AT_ONCE).expect("a small number"));
    // Errors were told by `on_error`; an object that is gone by its turn is no error.
    applier(run, on_error, ctx, store, watch::requests(queue), config).for_each(|_| std::future::ready(())).await;
}

fn key<K: Resource<DynamicType = ()>>(controller: &str, object: &K) -> String {
    format!("{controller} {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn readiness(waiting: &Arc<std::sync::Mutex<Option<String>>>) -> telemetry::Readiness {
    let waiting = waiting.clone();
    Arc::new(move || {
        let waiting = waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        waiting.as_ref().map_or(Ok(()), |what| Err(format!("{what}: waiting for the API server and the CRDs")))
    })
}

/// A client that gives up: kube's default retries 429 and 503 for minutes, inside of a reconcile.
///
/// Without `answer_within` a read may take as long as a watch is silent; reconciles have [`RECONCILE_TIMEOUT`].
async fn client(answer_within: Option<Duration>) -> Result<Client, Box<dyn std::error::Error>> {
    let mut config = kube::Config::infer().await?;
    config.connect_timeout = Some(answer_within.unwrap_or(Duration::from_secs(5)));
    config.read_timeout = answer_within;
    config.write_timeout = Some(answer_within.unwrap_or(Duration::from_secs(15)));
    config.reset_reader_on_write = true;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn fallback_identity() -> String {
    std::fs::read_to_string("/etc/hostname")
        .map_or_else(|_| format!("dsn-operator-{}", std::process::id()), |name| name.trim().to_owned())
}
