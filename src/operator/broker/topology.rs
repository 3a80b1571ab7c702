//! Exchanges and queues: only the operator declares them (invariant of [`crate`]).
//!
//! Not here: messages. Called by the supervisor at each connection, and for each instance that is wanted.

use std::collections::BTreeMap;

use super::wanted::WantedInstance;
use crate::{
    clients::{
        broker::{Argument, Broker, Error},
        broker_admin::Permissions,
    },
    domain::control::{
        AGENT_USER_PREFIX, CONTROL_EXCHANGE, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, EVENTS_EXCHANGE, HEARTBEAT_KEY,
        HEARTBEAT_QUEUE, INSTANCE_QUEUE_PREFIX, OPERATOR_KEYS, OPERATOR_QUEUE, OWNER_ARGUMENT, ObjectRef,
        RECORDER_KEYS, RECORDER_QUEUE, instance_queue,
    },
};

/// Argument of [`OPERATOR_QUEUE`] that says whose the vhost is.
pub const INSTALLATION_ARGUMENT: &str = "x-dsn-installation";
/// Tag of the users made for agents, by which the sweep knows them.
pub const AGENT_TAG: &str = "dsn-agent";
/// Policy over the instances' queues.
pub const INSTANCE_POLICY: &str = "dsn-instances";
/// Heartbeats older than this say nothing any more.
const HEARTBEAT_TTL_MS: i64 = 60_000;

/// How many nodes a broker needs for quorum queues to be worth it.
const QUORUM_NODES: usize = 3;

/// `quorum` where the broker has nodes enough, else `classic`.
pub fn queue_type(nodes: usize) -> &'static str {
    if nodes >= QUORUM_NODES { "quorum" } else { "classic" }
}

fn text(value: impl Into<String>) -> Argument {
    Argument::Text(value.into())
}

fn arguments<const N: usize>(pairs: [(&str, Argument); N]) -> BTreeMap<String, Argument> {
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// Declares what every installation has.
pub async fn declare(broker: &Broker, kind: &str, installation: &str) -> Result<(), Error> {
    for exchange in [CONTROL_EXCHANGE, EVENTS_EXCHANGE, DEAD_LETTER_EXCHANGE] {
        broker.declare_exchange(exchange).await?;
    }
    broker
        .declare_queue(
            DEAD_LETTER_QUEUE,
            &arguments([("x-queue-type", text(kind))]),
            DEAD_LETTER_EXCHANGE,
            &keys(&["#"]),
        )
        .await?;
    let recorder = arguments([("x-queue-type", text(kind)), ("x-dead-letter-exchange", text(DEAD_LETTER_EXCHANGE))]);
    broker.declare_queue(RECORDER_QUEUE, &recorder, EVENTS_EXCHANGE, &keys(&RECORDER_KEYS)).await?;
    let operator = arguments([
        ("x-queue-type", text(kind)),
        ("x-single-active-consumer", Argument::Flag(true)),
        // While no operator runs: what it misses it asks for, or hears again, when it is back.
        ("x-message-ttl", Argument::Number(3_600_000)),
        (INSTALLATION_ARGUMENT, text(installation)),
    ]);
    broker.declare_queue(OPERATOR_QUEUE, &operator, EVENTS_EXCHANGE, &keys(&OPERATOR_KEYS)).await?;
    let heartbeat = arguments([
        ("x-queue-type", text("classic")),
        ("x-max-length", Argument::Number(10_000)),
        ("x-overflow", text("drop-head")),
        ("x-message-ttl", Argument::Number(HEARTBEAT_TTL_MS)),
    ]);
    broker.declare_queue(HEARTBEAT_QUEUE, &heartbeat, EVENTS_EXCHANGE, &keys(&[HEARTBEAT_KEY])).await
}

/// Declares and binds the queue of one instance (row C1).
pub async fn declare_instance(broker: &Broker, kind: &str, instance: &WantedInstance) -> Result<(), Error> {
    let arguments = arguments([
        ("x-queue-type", text(kind)),
        // Two agents of one instance may overlap for a moment while a pod moves.
        ("x-single-active-consumer", Argument::Flag(true)),
        (OWNER_ARGUMENT, text(owner(&instance.pipeline))),
    ]);
    let keys = [format!("inst.{}.#", instance.uid), "all.#".to_owned()];
    broker.declare_queue(&instance_queue(instance.uid), &arguments, CONTROL_EXCHANGE, &keys).await
}

/// The owner as it stands in the queue's argument.
pub fn owner(pipeline: &ObjectRef) -> String {
    format!("{}/{}/{}", pipeline.namespace, pipeline.name, pipeline.uid)
}

/// Reads [`owner`] back.
pub fn parse_owner(text: &str) -> Option<ObjectRef> {
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(namespace), Some(name), Some(uid), None) => {
            Some(ObjectRef { namespace: namespace.into(), name: name.into(), uid: uid.into() })
        }
        _ => None,
    }
}

/// Name of the user of a namespace's agents.
pub fn agent_user(namespace: &str) -> String {
    format!("{AGENT_USER_PREFIX}{namespace}")
}

/// What the agents of a namespace may do.
pub fn agent_permissions() -> Permissions {
    let literal = |name: &str| name.replace('.', "\\.");
    Permissions {
        configure: "^$".into(),
        write: format!("^{}$", literal(EVENTS_EXCHANGE)),
        read: format!("^{}", literal(INSTANCE_QUEUE_PREFIX)),
        topic: Some((EVENTS_EXCHANGE.into(), "^evt\\.".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_back() {
        let pipeline = ObjectRef { namespace: "n".into(), name: "p".into(), uid: "u-1".into() };
        assert_eq!(parse_owner(&owner(&pipeline)), Some(pipeline));
        assert_eq!(parse_owner("a/b"), None);
        assert_eq!(parse_owner("a/b/c/d"), None);
    }

    #[test]
    fn agents_publish_events_and_read_instance_queues_and_nothing_else() {
        let permissions = agent_permissions();
        assert_eq!(permissions.write, r"^dsn\.events$");
        assert_eq!(permissions.read, r"^dsn\.ctl\.");
        assert_eq!(permissions.topic, Some(("dsn.events".into(), r"^evt\.".into())));
    }
}
