//! Credentials derived from the installation's master key, so that two roles that hold the key agree on them without
//! ever sending them to each other (the server needs no Kubernetes token to reach a group's storage agents).

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a derived credential opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Uploads to the storage agents of a group; scope `namespace/group`.
    Upload,
    /// Reads, roll-ups and re-adds at the storage agents of a group; scope `namespace/group`.
    Server,
    /// The REST API of a group's ipfs-cluster; scope `namespace/group`.
    ClusterRest,
    /// The live endpoints of a namespace's capture agents; scope `namespace`.
    Live,
    /// The signature under the cookies of the gateway; scope: hash of the password.
    Session,
    /// The broker user of a namespace's agents; scope `namespace`.
    Broker,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Server => "server",
            Self::ClusterRest => "cluster-rest",
            Self::Live => "live",
            Self::Session => "session",
            Self::Broker => "broker",
        }
    }
}

/// The installation's master key.
#[derive(Clone)]
pub struct MasterKey(Vec<u8>);

impl MasterKey {
    /// Takes the bytes as they stand in the Secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The credential for `purpose` within `scope`: HMAC-SHA256 as 64 hex digits.
    pub fn derive(&self, purpose: Purpose, scope: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose.word().as_bytes());
        mac.update(b"\0");
        mac.update(scope.as_bytes());
        HEXLOWER.encode(&mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Compares a presented token with the right one in a time that does not depend on where they differ.
pub fn matches(presented: &str, expected: &str) -> bool {
    let (a, b) = (presented.as_bytes(), expected.as_bytes());
    !expected.is_empty()
        && a.len() == b.len()
        && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_scopes_never_share_a_credential() {
        let key = MasterKey::new("k");
        assert_ne!(key.derive(Purpose::Upload, "a/b"), key.derive(Purpose::Server, "a/b"));
        assert_ne!(key.derive(Purpose::Upload, "a/b"), key.derive(Purpose::Upload, "a/c"));
        assert_eq!(key.derive(Purpose::Upload, "a/b").len(), 64);
    }

    #[test]
    fn an_empty_expected_token_opens_nothing() {
        assert!(!matches("", ""));
        assert!(matches("x", "x"));
        assert!(!matches("x", "y"));
    }
}
