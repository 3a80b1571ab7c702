//! The Secret of a namespace's agents: how they reach the broker, and the token that opens their live endpoint.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::ObjectMeta;

use super::COMPONENT;
use crate::{
    clients::broker_address::BrokerAddress,
    domain::{
        name::{AGENT_SECRET, secret_key},
        token::{MasterKey, Purpose},
    },
    operator::{broker::topology, labels},
};

/// The Secret. Created once; no owner, for every Pipeline of the namespace uses it.
pub fn secret(namespace: &str, broker: &BrokerAddress, master: &MasterKey) -> Secret {
    let user = topology::agent_user(namespace);
    let url = broker.url(&user, &master.derive(Purpose::Broker, namespace));
    let mut labels = labels::pipeline("", COMPONENT);
    labels.remove(labels::PIPELINE);
    Secret {
        metadata: ObjectMeta {
            name: Some(AGENT_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(
            [(secret_key::AMQP_URL, url), (secret_key::LIVE_TOKEN, master.derive(Purpose::Live, namespace))]
                .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                .into(),
        ),
        ..Secret::default()
    }
}

/// Says the Secret that is there what ours would say?
pub fn is_current(found: &Secret, wanted: &Secret) -> bool {
    let (Some(found), Some(wanted)) = (&found.data, &wanted.data) else { return false };
    wanted.iter().all(|(key, value)| found.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(host: &str) -> Secret {
        let broker = BrokerAddress { host: host.into(), port: 5672, vhost: "dsn".into() };
        secret("cams", &broker, &MasterKey::new("key"))
    }

    #[test]
    fn agent_secret() {
        let made = made("rabbitmq.dsn-system.svc");
        let data: std::collections::BTreeMap<_, _> = made
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
            .collect();
        insta::assert_yaml_snapshot!((&made.metadata, data));
    }

    #[test]
    fn another_broker_makes_it_stale() {
        assert!(is_current(&made("a"), &made("a")));
        assert!(!is_current(&made("a"), &made("b")));
    }
}
