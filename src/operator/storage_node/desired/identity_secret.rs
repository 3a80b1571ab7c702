//! Who a node is: the libp2p identities of its kubo and its cluster peer. Made once, kept as long as its disk.

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{COMPONENT, secret_metadata, text};
use crate::{
    domain::{
        identity::{Identity, PeerId},
        name::{self, secret_key},
    },
    operator::{error::Error, labels},
};

/// The Secret.
pub fn secret(namespace: &str, node: &str, group: &str, kubo: &Identity, cluster: &Identity) -> Secret {
    let data = [
        (secret_key::KUBO_ID, kubo.peer_id.as_str()),
        (secret_key::KUBO_KEY, &kubo.private_key),
        (secret_key::CLUSTER_ID, cluster.peer_id.as_str()),
        (secret_key::CLUSTER_KEY, &cluster.private_key),
    ];
    Secret {
        metadata: secret_metadata(
            namespace,
            name::storage_identity_secret(node),
            labels::storage_node(node, group, COMPONENT),
        ),
        type_: Some("Opaque".to_owned()),
        // The cluster knows the node's copies by its identity: another one would be another, empty node.
        immutable: Some(true),
        data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).into()),
        ..Secret::default()
    }
}

/// The two peer ids that a Secret holds.
pub fn peer_ids(secret: &Secret) -> Result<(PeerId, PeerId), Error> {
    let id = |key| {
        text(secret, key).and_then(|id| id.parse().ok()).ok_or_else(|| Error::Lost {
            reason: "IdentityInvalid",
            message: format!(
                "Secret {:?} holds no peer id under {key:?}: restore it from a backup",
                secret.metadata.name.as_deref().unwrap_or_default()
            ),
        })
    };
    Ok((id(secret_key::KUBO_ID)?, id(secret_key::CLUSTER_ID)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_secret_of_disk_1() {
        let (kubo, cluster) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let secret = secret("cams", "disk-1", "default", &kubo, &cluster);
        insta::assert_yaml_snapshot!(secret.metadata);
        assert_eq!(peer_ids(&secret).expect("both"), (kubo.peer_id, cluster.peer_id));
        assert_eq!(peer_ids(&Secret::default()).expect_err("empty").reason(), "IdentityInvalid");
    }
}
