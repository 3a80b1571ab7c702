//! The task that holds the connection to the broker: listens, has the desk worked off and what is left over swept up, side
//! by side, and connects again for ever.
//!
//! Not here: what is to be said (reconciles decide) and what it means (the desk knows). Run by the leading operator only.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::Stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Concerned, Desk, Trouble, sweep, topology};
use crate::{
    clients::{
        broker::{self, Broker, Delivery, Publish},
        broker_admin::{self, BrokerAdmin},
    },
    domain::{
        control::{
            CONTROL_EXCHANGE, Envelope, HEARTBEAT_QUEUE, INSTANCE_QUEUE_PREFIX, OPERATOR_QUEUE, RECORDER_HELLO_KEY,
        },
        token::Purpose,
    },
    operator::{backoff, context::Context, error::short, watch::Triggers},
    telemetry::chain,
};

/// Longest pause between two attempts to connect.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
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
pub(super) enum SessionError {
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
    let mut supervisor = Supervisor { ctx, triggers, suspects: Mutex::default(), credentials: None };
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

pub(super) struct Supervisor {
    pub(super) ctx: Arc<Context>,
    triggers: Triggers,
    /// Kept over sessions: its two looks lie ten minutes apart.
    suspects: Mutex<sweep::Suspects>,
    /// As last read: the API server may be away when the broker comes back.
    credentials: Option<(String, String)>,
}

/// What a session works with.
pub(super) struct Session {
    pub(super) broker: Broker,
    pub(super) admin: BrokerAdmin,
    pub(super) queue_type: &'static str,
}

/// A consumer's messages.
trait Deliveries: Stream<Item = Result<Delivery, broker::Error>> + Unpin {}
impl<S: Stream<Item = Result<Delivery, broker::Error>> + Unpin> Deliveries for S {}

impl Supervisor {
    pub(super) fn desk(&self) -> &Desk {
        &self.ctx.desk
    }

    /// One connection, until it is of no use any more.
    async fn session(&mut self) -> Result<Infallible, SessionError> {
        let session = self.connect().await?;
        let events = session.broker.consume(OPERATOR_QUEUE, 100).await?;
        let heartbeats = session.broker.consume(HEARTBEAT_QUEUE, 500).await?;
        self.desk().connected(Timestamp::now());
        self.ctx.metrics.broker_connected.set(1);
        tracing::info!(vhost = self.ctx.config.broker.vhost, "connected to the broker");
        self.trigger(self.desk().all()).await;
        let this = &*self;
        tokio::select! {
            ended = this.listen(&session, events, heartbeats) => ended,
            ended = this.work(&session) => ended,
            ended = this.sweep(&session) => ended,
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
        // Trap: a broker short of memory or disk lets everybody in and takes no message. Called connected, it would be given
        // up with the first job, again and again, and every Pipeline told each time. No queue takes this one.
        let probe = Envelope::unordered("operator", "probe", Timestamp::now(), json!({}));
        broker.publish(CONTROL_EXCHANGE, "probe", &probe, Publish::default()).await?;
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

    /// Hears everybody, and sees who falls silent.
    async fn listen(
        &self,
        session: &Session,
        mut events: impl Deliveries,
        mut heartbeats: impl Deliveries,
    ) -> Result<Infallible, SessionError> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                delivery = broker::next(&mut events) => {
                    let delivery = delivery?;
                    if delivery.key == RECORDER_HELLO_KEY {
                        // It says so whenever it begins anew: also when somebody deleted its queue.
                        self.furnish(&session.broker, session.queue_type).await?;
                    }
                    self.hear(delivery).await?;
                }
                delivery = broker::next(&mut heartbeats) => self.hear(delivery?).await?,
                _ = tick.tick() => {
                    self.tick().await;
                    if !session.broker.is_open() {
                        return Err(broker::Error::Ended.into());
                    }
                }
            }
        }
    }

    /// Takes in one message.
    async fn hear(&self, delivery: Delivery) -> Result<(), SessionError> {
        let concerned = self.desk().hear(&delivery.key, delivery.user.as_deref(), &delivery.body, Timestamp::now());
        self.trigger(concerned).await;
        delivery.ack().await?;
        Ok(())
    }

    /// Looks for what is left of objects that are gone.
    async fn sweep(&self, session: &Session) -> Result<Infallible, SessionError> {
        let mut suspects = self.suspects.lock().await;
        let mut sweep = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP / 10, SWEEP);
        loop {
            sweep.tick().await;
            let looked = sweep::sweep(&self.ctx, self.desk(), &session.admin, &mut suspects, Timestamp::now());
            match tokio::time::timeout(SWEEP_TIMEOUT, looked).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::info!(error = chain(&error), "the sweep ended early; it comes again"),
                Err(_) => tracing::info!("the sweep took too long; it comes again"),
            }
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

    pub(super) async fn trigger(&self, concerned: Concerned) {
        self.triggers.all(concerned).await;
    }
}
