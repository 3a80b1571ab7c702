//! What the nodes of a group share: the keys that close their network, and the credentials that open them to others.

use data_encoding::HEXLOWER;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use sha2::{Digest, Sha256};

use super::{COMPONENT, secret_metadata, text};
use crate::{
    domain::{
        identity,
        name::{self, secret_key},
        token::{self, MasterKey, Purpose},
    },
    operator::{error::Error, labels},
};

/// Credentials that the server derives for itself, so they must be the derived ones.
const DERIVED: [(&str, Purpose); 3] = [
    (secret_key::CLUSTER_PASSWORD, Purpose::ClusterRest),
    (secret_key::UPLOAD_TOKEN, Purpose::Upload),
    (secret_key::SERVER_TOKEN, Purpose::Server),
];

/// The Secret, with random bytes for what nobody else needs to know.
pub fn secret(
    namespace: &str,
    group: &str,
    master: &MasterKey,
    swarm_random: [u8; 32],
    cluster_random: [u8; 32],
) -> Secret {
    let scope = scope(namespace, group);
    let random = [
        (secret_key::SWARM_KEY, identity::swarm_key(swarm_random)),
        (secret_key::CLUSTER_SECRET, identity::cluster_secret(cluster_random)),
    ];
    let derived = DERIVED.map(|(key, purpose)| (key, master.derive(purpose, &scope)));
    let data = random.into_iter().chain(derived);
    Secret {
        metadata: secret_metadata(namespace, name::storage_group(group), labels::storage_group(group, COMPONENT)),
        type_: Some("Opaque".to_owned()),
        data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()),
        ..Secret::default()
    }
}

fn scope(namespace: &str, group: &str) -> String {
    format!("{namespace}/{group}")
}

/// Can the group's nodes and the server work with this Secret, whoever made it?
pub fn check(found: &Secret, namespace: &str, group: &str, master: &MasterKey) -> Result<(), Error> {
    let name = name::storage_group(group);
    for key in [secret_key::SWARM_KEY, secret_key::CLUSTER_SECRET] {
        if text(found, key).is_none() {
            return Err(Error::Lost {
                reason: "GroupSecretInvalid",
                message: format!(
                    "Secret {name:?} lacks the key {key:?}: restore it, or delete the Secret to have it made anew"
                ),
            });
        }
    }
    let scope = scope(namespace, group);
    let differs = |(key, purpose): &(&str, Purpose)| {
        !token::matches(text(found, key).unwrap_or_default(), &master.derive(*purpose, &scope))
    };
    match DERIVED.iter().find(|credential| differs(credential)) {
        None => Ok(()),
        Some((key, _)) => Err(Error::Lost {
            reason: "GroupKeyMismatch",
            message: format!(
                "Secret {name:?}, key {key:?}, does not belong to this installation's Secret \"dsn-master\": restore that one, \
                 or delete {name:?} to have it made anew (footage stays; the group's pods restart)"
            ),
        }),
    }
}

/// Tells one Secret from another without telling what is in it.
pub fn fingerprint(secret: &Secret) -> String {
    let mut digest = Sha256::new();
    for (key, value) in secret.data.iter().flatten() {
        digest.update((key.len() as u64).to_be_bytes());
        digest.update(key.as_bytes());
        digest.update((value.0.len() as u64).to_be_bytes());
        digest.update(&value.0);
    }
    HEXLOWER.encode(&digest.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(master: &str) -> Secret {
        secret("cams", "default", &MasterKey::new(master), [1; 32], [2; 32])
    }

    #[test]
    fn group_secret() {
        let secret = made("master");
        let texts: std::collections::BTreeMap<_, _> =
            secret.data.iter().flatten().map(|(key, value)| (key, String::from_utf8_lossy(&value.0))).collect();
        insta::assert_yaml_snapshot!((&secret.metadata, texts));
    }

    #[test]
    fn a_secret_of_another_master_key_is_noticed() {
        let check = |secret: &Secret| check(secret, "cams", "default", &MasterKey::new("master"));
        assert!(check(&made("master")).is_ok());
        let error = check(&made("other")).expect_err("another installation");
        assert_eq!(error.reason(), "GroupKeyMismatch");
        assert!(!error.to_string().contains(&MasterKey::new("master").derive(Purpose::Upload, "cams/default")));

        let mut holed = made("master");
        holed.data.as_mut().and_then(|data| data.remove("swarm.key"));
        assert_eq!(check(&holed).expect_err("no swarm key").reason(), "GroupSecretInvalid");
    }

    #[test]
    fn another_secret_has_another_fingerprint() {
        assert_eq!(fingerprint(&made("a")), fingerprint(&made("a")));
        assert_ne!(fingerprint(&made("a")), fingerprint(&made("b")));
        assert_eq!(fingerprint(&made("a")).len(), 16);
    }
}
