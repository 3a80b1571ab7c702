//! What must be there before the operator can lead: its Secrets, the API server, the CRDs.
//!
//! Waits instead of crashing, and says what it waits for. Secrets are made by POST and never applied over: chart and
//! Git know nothing of them, so nothing drifts, and a reinstallation finds its keys again.

use std::time::Duration;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, Resource,
    api::{ListParams, ObjectMeta},
};
use serde::de::DeserializeOwned;

use super::{apply, backoff, context::Config, error::Error, labels, metrics::Metrics};
use crate::{
    api::{Camera, Pipeline, StorageNode},
    domain::token::MasterKey,
};

/// Secret with the key all credentials are derived from.
pub const MASTER_SECRET: &str = "dsn-master";
/// Its one key.
pub const MASTER_KEY: &str = "master-key";
/// Secret with the first login of the page.
pub const ADMIN_SECRET: &str = "dsn-admin";
/// Secret with the administrator of the bundled broker.
pub const BROKER_SECRET: &str = "dsn-broker";
/// Longest pause between two looks for the CRDs.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Random bytes as hex digits.
fn random_hex(bytes: usize) -> String {
    // The thread's generator is cryptographic and seeded by the system.
    let buffer: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
    data_encoding::HEXLOWER.encode(&buffer)
}

fn secret(namespace: &str, name: &str, type_: &str, data: &[(&str, String)]) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(labels::NAME.to_owned(), labels::DSN.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(type_.to_owned()),
        data: Some(
            data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.clone().into_bytes()))).collect(),
        ),
        ..Secret::default()
    }
}

/// Makes what is missing of the installation's Secrets; returns the master key.
pub async fn secrets(client: &Client, metrics: &Metrics, config: &Config) -> Result<MasterKey, Error> {
    let namespace = &config.namespace;
    let once = async |name: &str, type_: &str, data: &[(&str, String)]| {
        apply::secret_once_with(client, metrics, namespace, name, || secret(namespace, name, type_, data)).await
    };
    let master = once(MASTER_SECRET, "Opaque", &[(MASTER_KEY, random_hex(32))]).await?;
    let basic = "kubernetes.io/basic-auth";
    once(ADMIN_SECRET, basic, &[("username", "admin".into()), ("password", random_hex(12))]).await?;
    // A Secret of another name is a person's, of another broker: it is waited for.
    if config.broker_secret == BROKER_SECRET {
        let password = random_hex(24);
        let conf = format!("default_user = dsn\ndefault_pass = {password}\n");
        let data = [("username", "dsn".into()), ("password", password), ("10-default-user.conf", conf)];
        once(BROKER_SECRET, "Opaque", &data).await?;
    }
    let key = master.data.and_then(|mut data| data.remove(MASTER_KEY)).map(|key| key.0).unwrap_or_default();
    if key.is_empty() {
        return Err(Error::Invalid {
            reason: "MasterKeyMissing",
            message: format!("Secret {MASTER_SECRET:?} in namespace {namespace:?} lacks the key {MASTER_KEY:?}"),
        });
    }
    // As the server reads it from the mounted file: without the newline an editor may have left.
    Ok(MasterKey::new(key.trim_ascii()))
}

/// Tries until it succeeds; says each new reason once.
pub async fn until_done<T, E: std::fmt::Display>(what: &str, mut work: impl AsyncFnMut() -> Result<T, E>) -> T {
    let (mut attempt, mut said) = (0, String::new());
    loop {
        let worked = tokio::time::timeout(PATIENCE, work()).await;
        match worked {
            Ok(Ok(done)) => return done,
            failed => {
                let error = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {} s", PATIENCE.as_secs()),
                };
                if error != said {
                    tracing::warn!(error, "waiting: {what}");
                    said = error;
                }
                tokio::time::sleep(backoff::pause(attempt).min(LONGEST_PAUSE)).await;
                attempt += 1;
            }
        }
    }
}

/// Are the three kinds served? Found out by listing one object of each, so no rights on CRDs are needed.
pub async fn kinds_served(client: &Client, namespace: Option<&str>) -> Result<(), String> {
    served::<Camera>(client, namespace).await?;
    served::<Pipeline>(client, namespace).await?;
    served::<StorageNode>(client, namespace).await
}

async fn served<K>(client: &Client, namespace: Option<&str>) -> Result<(), String>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let crd = format!("{}.{}", K::plural(&()), crate::api::GROUP);
            Err(format!("the CustomResourceDefinition {crd} is not installed yet"))
        }
        Err(error) => Err(format!("the API server does not answer: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_random_and_long_enough() {
        assert_eq!(random_hex(32).len(), 64);
        assert_ne!(random_hex(32), random_hex(32));
    }
}
