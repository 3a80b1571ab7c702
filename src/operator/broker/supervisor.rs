//! The task that holds the connection to the broker: declares, publishes what reconciles left on the desk, listens, and
//! connects again for ever.
//!
//! Not here: what is to be said (reconciles decide) and what it means (the desk knows). Run by the leading operator only.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Concerned, Desk, Trouble, sweep, topology, wanted::Job};
use crate::{
    clients::{
        broker::{self, Broker, Delivery, Publish},
        broker_admin::{self, BrokerAdmin},
    },
    domain::{
        control::{
            Ack, CONTROL_EXCHANGE, EVENTS_EXCHANGE, Envelope, HEARTBEAT_QUEUE, Hello, INSTANCE_QUEUE_PREFIX,
            InstanceReport, KNOWN_CAMERAS_KEY, KnownCameras, OPERATOR_QUEUE, RECORDER_HELLO_KEY, SUMMARY_KEY,
            StreamOrphaned, Summary, camera_config_key, instance_key, instance_queue, stream_config_key,
            stream_orphaned_key,
        },
        id::InstanceUid,
        token::Purpose,
    },
    operator::{backoff, context::Context, error::short, watch::Triggers},
    telemetry::chain,
};

/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What we are called in the broker's list of connections.
const NAME: &str = "dsn operator";
/// How often silence and lag are looked for.
const TICK: Duration = Duration::from_secs(5);
/// How often orphans are looked for.
const SWEEP: Duration = Duration::from_secs(300);
/// Longest sweep.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a session with the broker ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error("{0}")]
    Credentials(String),
    #[error(
        "the vhost {vhost:?} belongs to another installation of dsn; choose another vhost, or delete its queue \
         {OPERATOR_QUEUE:?} when that installation is gone"
    )]
    Foreign { vhost: String },
}

impl SessionError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Broker(error) => error.reason(),
            Self::Credentials(_) => "BrokerSecretMissing",
            Self::Foreign { .. } => "ForeignVhost",
        }
    }
}

/// Works until shutdown.
pub async fn run(ctx: Arc<Context>, triggers: Triggers, shutdown: CancellationToken) {
    let mut supervisor = Supervisor { ctx, triggers, suspects: sweep::Suspects::default(), credentials: None };
    let mut attempt = 0;
    loop {
        let began = std::time::Instant::now();
        let ended = tokio::select! {
            ended = supervisor.session() => ended,
            () = shutdown.cancelled() => return,
        };
        let Err(error) = ended;
        supervisor.ctx.metrics.broker_connected.set(0);
        let trouble = Trouble { reason: error.reason(), message: chain(&error) };
        if supervisor.desk().disconnected(trouble.clone(), Timestamp::now()) {
            tracing::warn!(reason = trouble.reason, error = trouble.message, "no connection to the broker");
            supervisor.trigger(supervisor.desk().all()).await;
        }
        // A session that lasted makes the next attempt a first one.
        attempt = if began.elapsed() > Duration::from_secs(60) { 0 } else { attempt + 1 };
        let pause = tokio::time::sleep(backoff::pause(attempt).min(LONGEST_PAUSE));
        tokio::pin!(pause);
        // Without a broker silence still grows.
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = tick.tick() => supervisor.tick().await,
                () = shutdown.cancelled() => return,
            }
        }
    }
}

struct Supervisor {
    ctx: Arc<Context>,
    triggers: Triggers,
    suspects: sweep::Suspects,
    /// As last read: the API server may be away when the broker comes back.
    credentials: Option<(String, String)>,
}

/// What a session works with.
struct Session {
    broker: Broker,
    admin: BrokerAdmin,
    queue_type: &'static str,
}

impl Supervisor {
    fn desk(&self) -> &Desk {
        &self.ctx.desk
    }

    async fn session(&mut self) -> Result<std::convert::Infallible, SessionError> {
        let session = self.connect().await?;
        let mut events = session.broker.consume(OPERATOR_QUEUE, 100).await?;
        let mut heartbeats = session.broker.consume(HEARTBEAT_QUEUE, 500).await?;
        self.desk().connected(Timestamp::now());
        self.ctx.metrics.broker_connected.set(1);
        tracing::info!(vhost = self.ctx.config.broker.vhost, "connected to the broker");
        self.trigger(self.desk().all()).await;

        let mut tick = tokio::time::interval(TICK);
        let mut sweep = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP / 10, SWEEP);
        let mut failures = 0;
        let mut retry_at = None;
        loop {
            // Everything that makes work wakes the desk; what failed waits for its time, whatever is heard meanwhile.
            tokio::select! {
                () = self.desk().woken() => {}
                () = sleep_until(retry_at) => {}
                delivery = broker::next(&mut events) => {
                    let delivery = delivery?;
                    if delivery.key == RECORDER_HELLO_KEY {
                        // It says so whenever it begins anew: also when somebody deleted its queue.
                        self.furnish(&session.broker, session.queue_type).await?;
                    }
                    self.hear(delivery).await?;
                    continue;
                }
                delivery = broker::next(&mut heartbeats) => {
                    self.hear(delivery?).await?;
                    continue;
                }
                _ = tick.tick() => {
                    self.tick().await;
                    if !session.broker.is_open() {
                        return Err(broker::Error::Timeout.into());
                    }
                    continue;
                }
                _ = sweep.tick() => {
                    let looked =
                        sweep::sweep(&self.ctx, &self.ctx.desk, &session.admin, &mut self.suspects, Timestamp::now());
                    // Nothing is heard meanwhile: an API server that swallows a request must not stop the control plane.
                    match tokio::time::timeout(SWEEP_TIMEOUT, looked).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::info!(error = chain(&error), "the sweep ended early; it comes again");
                        }
                        Err(_) => tracing::info!("the sweep took too long; it comes again"),
                    }
                    continue;
                }
            }
            failures = if self.work(&session).await? { 0 } else { failures + 1 };
            retry_at =
                (failures > 0).then(|| tokio::time::Instant::now() + backoff::pause(failures).min(LONGEST_PAUSE));
        }
    }

    /// Connects, and brings the broker's standing furniture in place.
    async fn connect(&mut self) -> Result<Session, SessionError> {
        let (user, password) = self.credentials().await?;
        let config = &self.ctx.config;
        let unusable = |error: &broker_admin::Error| SessionError::Credentials(chain(error));
        let admin = BrokerAdmin::new(&config.management_url, &user, &password, &config.broker.vhost)
            .map_err(|error| unusable(&error))?;
        let url = config.broker.url(&user, &password);
        let broker = match Broker::connect(&url, NAME).await {
            Ok(broker) => broker,
            // Perhaps only the vhost is missing.
            Err(error) => match admin.ensure_vhost().await {
                Ok(()) => Broker::connect(&url, NAME).await?,
                Err(_) => return Err(error.into()),
            },
        };
        self.refuse_foreign(&admin).await?;
        let nodes = admin.nodes().await.unwrap_or_else(|error| {
            tracing::info!(error = chain(&error), "can't count the broker's nodes; taking one");
            1
        });
        let queue_type = topology::queue_type(nodes);
        self.furnish(&broker, queue_type).await?;
        // A bound for the case that nobody listens for weeks; everything in these queues is said again when asked.
        let bound = json!({"max-length": 10_000, "overflow": "drop-head"});
        let pattern = format!("^{}", INSTANCE_QUEUE_PREFIX.replace('.', "\\."));
        if let Err(error) = admin.ensure_policy(topology::INSTANCE_POLICY, &pattern, &bound).await {
            tracing::info!(error = chain(&error), "can't bound the instances' queues");
        }
        Ok(Session { broker, admin, queue_type })
    }

    /// Exchanges and queues that do not depend on what people declare; what is there stays as it is.
    async fn furnish(&self, broker: &Broker, queue_type: &str) -> Result<(), broker::Error> {
        topology::declare(broker, queue_type, &self.installation()).await
    }

    /// User and password as they stand in the Secret now, or as they last did.
    async fn credentials(&mut self) -> Result<(String, String), SessionError> {
        let (namespace, name) = (&self.ctx.config.namespace, &self.ctx.config.broker_secret);
        let api = Api::<Secret>::namespaced(self.ctx.client.clone(), namespace);
        let read = tokio::time::timeout(LONGEST_PAUSE, api.get_opt(name)).await;
        let secret = match (read, &self.credentials) {
            (Ok(Ok(secret)), _) => secret,
            (_, Some(last)) => return Ok(last.clone()),
            (Ok(Err(error)), None) => {
                return Err(SessionError::Credentials(format!("failed to read Secret {name:?}: {}", short(&error))));
            }
            (Err(_), None) => return Err(SessionError::Credentials(format!("failed to read Secret {name:?} in time"))),
        };
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let key = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok());
        match (key("username"), key("password")) {
            (Some(user), Some(password)) => {
                let credentials = (user.trim().to_owned(), password.trim().to_owned());
                self.credentials = Some(credentials.clone());
                Ok(credentials)
            }
            _ => Err(SessionError::Credentials(format!(
                "create Secret {name:?} in namespace {namespace:?} with the keys username and password of the broker"
            ))),
        }
    }

    /// A word that tells installations apart and tells nothing of the key it comes from.
    fn installation(&self) -> String {
        self.ctx.master.derive(Purpose::Broker, "installation")[..16].to_owned()
    }

    async fn refuse_foreign(&self, admin: &BrokerAdmin) -> Result<(), SessionError> {
        match admin.queue(OPERATOR_QUEUE).await {
            Ok(Some(queue)) => {
                let marker = queue.arguments.get(topology::INSTALLATION_ARGUMENT).and_then(|m| m.as_str());
                if marker.is_some_and(|marker| marker != self.installation()) {
                    return Err(SessionError::Foreign { vhost: self.ctx.config.broker.vhost.clone() });
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::info!(error = chain(&error), "can't see whose the vhost is; taking it for ours");
                Ok(())
            }
        }
    }

    /// Works off the desk; `false` when something has to be tried again.
    async fn work(&self, session: &Session) -> Result<bool, SessionError> {
        use broker_admin::Error::{Answer, Request};
        let mut concerned = Concerned::default();
        let mut well = true;
        for job in self.desk().jobs() {
            let result = self.job(session, &job).await;
            match &job {
                Job::Declare(instance) | Job::Assign(instance) => {
                    concerned.pipelines.insert(instance.pipeline.clone());
                }
                Job::User(namespace) => concerned.pipelines.extend(self.desk().pipelines_in(namespace)),
                Job::Stream(..) | Job::Orphan(_) | Job::Camera(..) | Job::DeleteQueue(_) => {}
            }
            match result {
                Ok(()) => {
                    self.desk().done(&job);
                    self.ctx.metrics.published(job.word());
                }
                Err(JobError::Broker(error)) if !session.broker.is_open() => return Err(error.into()),
                Err(error) => {
                    well = false;
                    tracing::warn!(job = job.word(), error = chain(&error), "failed at the broker; trying again");
                    match (&job, &error) {
                        (Job::Assign(instance), JobError::Broker(broker::Error::Unroutable { .. })) => {
                            self.desk().queue_missing(instance.uid);
                        }
                        // It passes, and as a rule the user is there and its agents are at work.
                        (Job::User(_), JobError::Admin(Request { .. } | Answer { .. })) => {}
                        _ => self.desk().failed(&job, &chain(&error)),
                    }
                }
            }
        }
        self.trigger(concerned).await;
        Ok(well)
    }

    async fn job(&self, session: &Session, job: &Job) -> Result<(), JobError> {
        let now = Timestamp::now();
        let broker = &session.broker;
        match job {
            Job::User(namespace) => {
                let password = self.ctx.master.derive(Purpose::Broker, namespace);
                let user = topology::agent_user(namespace);
                let permissions = topology::agent_permissions();
                session.admin.ensure_user(&user, &password, topology::AGENT_TAG, &permissions).await?;
            }
            Job::Declare(instance) => topology::declare_instance(broker, session.queue_type, instance).await?,
            Job::Assign(instance) => {
                let key = instance_key(instance.uid, instance.command);
                broker.publish_text(CONTROL_EXCHANGE, &key, instance.text.as_bytes(), Publish::mandatory()).await?;
            }
            Job::Stream(config, revision) => {
                let mut message = Envelope::unordered(config.stream.to_string(), "stream", now, config);
                message.revision = *revision;
                let key = stream_config_key(config.stream);
                broker.publish(EVENTS_EXCHANGE, &key, &message, Publish::mandatory()).await?;
            }
            Job::Orphan(stream) => {
                let message =
                    Envelope::unordered(stream.to_string(), "orphan", now, StreamOrphaned { stream: *stream });
                broker.publish(EVENTS_EXCHANGE, &stream_orphaned_key(*stream), &message, Publish::mandatory()).await?;
            }
            Job::Camera(config, revision) => {
                let mut message = Envelope::unordered(config.camera.uid.clone(), "camera", now, config);
                message.revision = *revision;
                let key = camera_config_key(&config.camera.uid);
                broker.publish(EVENTS_EXCHANGE, &key, &message, Publish::mandatory()).await?;
            }
            Job::DeleteQueue(uid) => broker.delete_queue(&instance_queue(*uid)).await?,
        }
        Ok(())
    }

    /// Takes in one message.
    async fn hear(&self, delivery: Delivery) -> Result<(), SessionError> {
        let concerned = self.take(&delivery.key, &delivery.body);
        self.trigger(concerned).await;
        delivery.ack().await?;
        Ok(())
    }

    fn take(&self, key: &str, body: &[u8]) -> Concerned {
        let now = Timestamp::now();
        if key == SUMMARY_KEY {
            return parse::<Summary>(key, body).map(|s| self.desk().summarised(s, now)).unwrap_or_default();
        }
        if key == KNOWN_CAMERAS_KEY {
            if let Some(known) = parse::<KnownCameras>(key, body) {
                self.desk().cameras_known(known.cameras);
            }
            return Concerned::default();
        }
        if key == RECORDER_HELLO_KEY {
            tracing::info!("the recorder asks for every configuration");
            self.desk().recorder_asks();
            return Concerned::default();
        }
        let mut words = key.split('.');
        let (Some("evt"), Some(uid), Some(event), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Concerned::default();
        };
        let Ok(uid) = uid.parse::<InstanceUid>() else { return Concerned::default() };
        match event {
            "hello" => {
                if let Some(hello) = parse::<Hello>(key, body) {
                    let known = self.desk().instance_asks(uid);
                    tracing::info!(%uid, revision = hello.revision, known, "an agent says hello");
                }
                Concerned::default()
            }
            "ack" => {
                parse::<Ack>(key, body).map(|ack| self.desk().acknowledged(uid, ack.revision, now)).unwrap_or_default()
            }
            "state" | "heartbeat" => parse::<InstanceReport>(key, body)
                .map(|report| self.desk().reported(uid, report, now))
                .unwrap_or_default(),
            _ => Concerned::default(),
        }
    }

    async fn tick(&self) {
        let now = Timestamp::now();
        let metrics = &self.ctx.metrics;
        let gauges = [&metrics.instances_running, &metrics.instances_wanted, &metrics.instances];
        for (gauge, count) in gauges.into_iter().zip(self.desk().counts(now)) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.trigger(self.desk().tick(now)).await;
    }

    async fn trigger(&self, concerned: Concerned) {
        for pipeline in concerned.pipelines {
            self.triggers.pipeline(&pipeline.namespace, &pipeline.name).await;
        }
        for camera in concerned.cameras {
            self.triggers.camera(&camera.namespace, &camera.name).await;
        }
    }
}

/// Until then; for ever when there is no such time.
async fn sleep_until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Why one job failed.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    Admin(#[from] broker_admin::Error),
}

/// The data of a message; one that can't be read is said and dropped, for it would come again and again.
fn parse<T: DeserializeOwned>(key: &str, body: &[u8]) -> Option<T> {
    serde_json::from_slice::<Envelope<T>>(body)
        .map(|envelope| envelope.data)
        .map_err(|error| tracing::warn!(key, %error, "dropping a message that can't be read"))
        .ok()
}
