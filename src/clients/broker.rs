//! AMQP 0-9-1 for every role: a connection has one confirmed channel to publish on, and one channel per consumer.
//!
//! Not here: reconnecting. lapin's own recovery leaves channel errors to the caller, so each role runs a supervisor
//! that calls [`Broker::connect`] again (`loop { connect; work until error; back off }`). Topology is declared by the
//! operator only.

use std::{collections::BTreeMap, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::Serialize;

use crate::domain::control::Envelope;

/// How long connecting, a confirm or a declaration may take before the connection counts as lost.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What can go wrong with the broker. Everything but [`Error::Unroutable`] means: connect again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker did not let us in or could not be reached.
    #[error("failed to connect to the broker")]
    Connect(#[source] Box<lapin::Error>),
    /// An operation on an open connection failed.
    #[error("failed to {what}")]
    Operation {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<lapin::Error>,
    },
    /// A mandatory message found no queue: whoever owns the queue must declare it.
    #[error("no queue takes messages with the key {key:?}")]
    Unroutable {
        /// Routing key of the returned message.
        key: String,
    },
    /// The broker refused to take responsibility for the message.
    #[error("the broker refused the message with the key {key:?}")]
    Refused {
        /// Routing key of the message.
        key: String,
    },
    /// No answer in time.
    #[error("the broker did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// Nothing is delivered any more.
    #[error("the broker delivers nothing any more: the connection was lost, or somebody deleted the queue")]
    Ended,
    /// The broker takes no messages from anybody for now. Trap: on the connection of one who tried, it hears nothing else
    /// either, acknowledgements included.
    #[error("the broker takes no messages: look at its resource alarms, it is short of memory or disk")]
    Blocked,
    /// The message could not be written as JSON.
    #[error("failed to encode a message")]
    Encode(#[from] serde_json::Error),
}

impl Error {
    /// Stable word for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "BrokerUnreachable",
            Self::Operation { .. } => "BrokerOperationFailed",
            Self::Unroutable { .. } => "QueueMissing",
            Self::Refused { .. } => "BrokerRefused",
            Self::Timeout => "BrokerTimeout",
            Self::Ended => "BrokerLost",
            Self::Blocked => "BrokerBlocked",
            Self::Encode(_) => "MessageInvalid",
        }
    }
}

/// How a message is published.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// A message that no queue takes is an [`Error::Unroutable`].
    pub mandatory: bool,
    /// Forgotten by the queue after this time; also makes the message transient.
    pub ttl: Option<Duration>,
    /// Correlation id, for `ping` and `pong`.
    pub correlation_id: Option<String>,
}

impl Publish {
    /// Persistent, returned when no queue takes it.
    pub fn mandatory() -> Self {
        Self { mandatory: true, ..Self::default() }
    }
}

/// An open connection; closes when dropped.
pub struct Broker {
    connection: Connection,
    publisher: Channel,
}

/// A received message; it stays the broker's until [`Delivery::ack`].
pub struct Delivery {
    /// Routing key.
    pub key: String,
    /// Body, as sent.
    pub body: Vec<u8>,
    /// Was it delivered before?
    pub redelivered: bool,
    /// Correlation id, if any.
    pub correlation_id: Option<String>,
    /// The broker user that sent it, if it said so; then the broker has made sure of it.
    pub user: Option<String>,
    inner: lapin::message::Delivery,
}

impl Delivery {
    /// Hands responsibility over to us.
    pub async fn ack(self) -> Result<(), Error> {
        self.acknowledge(BasicAckOptions::default()).await
    }

    /// As [`Self::ack`], for everything that its consumer was given before, too.
    pub async fn ack_so_far(self) -> Result<(), Error> {
        self.acknowledge(BasicAckOptions { multiple: true }).await
    }

    async fn acknowledge(self, options: BasicAckOptions) -> Result<(), Error> {
        let key = self.key;
        let acknowledging = self.inner.acker.ack(options);
        within(async { acknowledging.await.map(|_| ()).map_err(operation(|| format!("acknowledge {key}"))) }).await
    }
}

impl Broker {
    /// Connects to `url` (`amqp[s]://user:password@host:port/vhost`) under a name that shows in the broker's lists.
    pub async fn connect(url: &str, name: &str) -> Result<Self, Error> {
        let properties = ConnectionProperties::default().with_connection_name(name.to_owned().into());
        let connecting = async {
            // The size of frames is the broker's to say. Trap: the headers of a message come in one frame, as large as the
            // broker allowed its sender; who asked for less would lose the connection at every delivery of it.
            let connection = Connection::connect(url, properties).await.map_err(|e| Error::Connect(Box::new(e)))?;
            let publisher = connection.create_channel().await.map_err(operation(|| "open a channel".to_owned()))?;
            publisher
                .confirm_select(ConfirmSelectOptions::default())
                .await
                .map_err(operation(|| "turn on publisher confirms".to_owned()))?;
            Ok(Self { connection, publisher })
        };
        within(connecting).await
    }

    /// Is the connection still open, as far as we know?
    pub fn is_open(&self) -> bool {
        self.connection.status().connected() && self.publisher.status().connected()
    }

    /// Publishes an envelope and waits for the broker's confirm.
    pub async fn publish<T: Serialize>(
        &self,
        exchange: &str,
        key: &str,
        message: &Envelope<T>,
        how: Publish,
    ) -> Result<(), Error> {
        self.publish_text(exchange, key, &serde_json::to_vec(message)?, how).await
    }

    /// Publishes a JSON text as it is and waits for the broker's confirm.
    pub async fn publish_text(&self, exchange: &str, key: &str, body: &[u8], how: Publish) -> Result<(), Error> {
        // Delivery mode 2 = persistent, 1 = transient (AMQP 0-9-1 §4.2.6).
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            // The broker refuses a message under another name than the connection's: who hears it knows whose it is.
            .with_user_id(self.connection.status().username().into())
            .with_delivery_mode(if how.ttl.is_some() { 1 } else { 2 });
        if let Some(ttl) = how.ttl {
            properties = properties.with_expiration(ttl.as_millis().to_string().into());
        }
        if let Some(id) = how.correlation_id {
            properties = properties.with_correlation_id(id.into());
        }
        let options = BasicPublishOptions { mandatory: how.mandatory, ..BasicPublishOptions::default() };
        let publishing = async {
            self.publisher
                .basic_publish(exchange.into(), key.into(), options, body, properties)
                .await
                .map_err(operation(|| format!("publish {key}")))?
                .await
                .map_err(operation(|| format!("publish {key}")))
        };
        let confirmation = match within(publishing).await {
            Err(Error::Timeout) if self.connection.status().blocked() => return Err(Error::Blocked),
            confirmation => confirmation?,
        };
        if confirmation.is_nack() {
            return Err(Error::Refused { key: key.to_owned() });
        }
        match confirmation.take_message() {
            Some(_returned) => Err(Error::Unroutable { key: key.to_owned() }),
            None => Ok(()),
        }
    }

    /// Consumes a queue on a channel of its own. The stream ends, or yields an error, when the queue or the connection
    /// is gone.
    pub async fn consume(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<impl Stream<Item = Result<Delivery, Error>> + Send + Unpin + use<>, Error> {
        let (_, consumer) = self.open_consumer(queue, prefetch).await?;
        Ok(deliveries(consumer, queue))
    }

    /// As [`Self::consume`], for a consumer that may want to stop taking messages without giving back those it has.
    pub async fn subscribe(&self, queue: &str, prefetch: u16) -> Result<Subscription, Error> {
        let (channel, consumer) = self.open_consumer(queue, prefetch).await?;
        let consuming = Consuming { channel, tag: consumer.tag() };
        Ok(Subscription { deliveries: deliveries(consumer, queue).boxed(), consumer: consuming })
    }

    /// A consumer on a channel of its own.
    async fn open_consumer(&self, queue: &str, prefetch: u16) -> Result<(Channel, Consumer), Error> {
        within(async {
            let channel = self.connection.create_channel().await.map_err(operation(|| "open a channel".to_owned()))?;
            channel
                .basic_qos(prefetch, BasicQosOptions::default())
                .await
                .map_err(operation(|| format!("set the prefetch of {queue}")))?;
            let consumer = channel
                .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(operation(|| format!("consume {queue}")))?;
            Ok((channel, consumer))
        })
        .await
    }

    /// Declares a durable topic exchange.
    pub async fn declare_exchange(&self, name: &str) -> Result<(), Error> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        within(async {
            let channel = self.scratch_channel().await?;
            channel
                .exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default())
                .await
                .map_err(operation(|| format!("declare the exchange {name}")))
        })
        .await
    }

    /// Declares a durable queue with `arguments` and binds it to each of `keys` on `exchange`.
    pub async fn declare_queue(
        &self,
        name: &str,
        arguments: &BTreeMap<String, Argument>,
        exchange: &str,
        keys: &[String],
    ) -> Result<(), Error> {
        let mut table = FieldTable::default();
        for (key, value) in arguments {
            table.insert(ShortString::from(key.clone()), value.clone().into());
        }
        within(async {
            let channel = self.scratch_channel().await?;
            channel
                .queue_declare(name.into(), QueueDeclareOptions::durable(), table)
                .await
                .map_err(operation(|| format!("declare the queue {name}")))?;
            for key in keys {
                channel
                    .queue_bind(
                        name.into(),
                        exchange.into(),
                        key.as_str().into(),
                        QueueBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await
                    .map_err(operation(|| format!("bind the queue {name} to {key}")))?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes a queue; one that does not exist is no error (RabbitMQ since 3.2).
    pub async fn delete_queue(&self, name: &str) -> Result<(), Error> {
        within(async {
            let channel = self.scratch_channel().await?;
            channel
                .queue_delete(name.into(), QueueDeleteOptions::default())
                .await
                .map(|_| ())
                .map_err(operation(|| format!("delete the queue {name}")))
        })
        .await
    }

    /// A channel whose failure (a declaration with other arguments closes it) must not take the publisher with it.
    async fn scratch_channel(&self) -> Result<Channel, Error> {
        self.connection.create_channel().await.map_err(operation(|| "open a channel".to_owned()))
    }
}

/// A consumer that can be cancelled.
pub struct Subscription {
    /// What is delivered. After [`Consuming::cancel`] it yields what had already arrived, and ends.
    pub deliveries: BoxStream<'static, Result<Delivery, Error>>,
    /// The consumer.
    pub consumer: Consuming,
}

/// The broker's side of a [`Subscription`].
pub struct Consuming {
    channel: Channel,
    tag: ShortString,
}

impl Consuming {
    /// No more messages, please. Those delivered stay ours and can still be acknowledged.
    pub async fn cancel(&self) -> Result<(), Error> {
        within(async {
            self.channel
                .basic_cancel(self.tag.clone(), BasicCancelOptions::default())
                .await
                .map_err(operation(|| "cancel a consumer".to_owned()))
        })
        .await
    }
}

/// A consumer's messages in our words.
fn deliveries(consumer: Consumer, queue: &str) -> impl Stream<Item = Result<Delivery, Error>> + Send + Unpin + use<> {
    let queue = queue.to_owned();
    consumer.map_err(operation(move || format!("consume {queue}"))).map_ok(|inner| Delivery {
        key: inner.routing_key.to_string(),
        body: inner.data.clone(),
        redelivered: inner.redelivered,
        correlation_id: inner.properties.correlation_id().as_ref().map(ToString::to_string),
        user: inner.properties.user_id().as_ref().map(ToString::to_string),
        inner,
    })
}

/// Value of a queue argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<Argument> for AMQPValue {
    fn from(argument: Argument) -> Self {
        match argument {
            Argument::Text(text) => Self::LongString(text.into()),
            Argument::Number(number) => Self::LongLongInt(number),
            Argument::Flag(flag) => Self::Boolean(flag),
        }
    }
}

fn operation(what: impl Fn() -> String) -> impl Fn(lapin::Error) -> Error {
    move |source| Error::Operation { what: what(), source: Box::new(source) }
}

async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or(Err(Error::Timeout))
}

/// The next delivery of a consumer, or the error that ended it.
pub async fn next(deliveries: &mut (impl Stream<Item = Result<Delivery, Error>> + Unpin)) -> Result<Delivery, Error> {
    deliveries.next().await.unwrap_or(Err(Error::Ended))
}
