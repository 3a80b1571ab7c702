//! Identities and keys of the private IPFS network: what `ipfs init`, `ipfs-cluster-service init` and
//! `ipfs-swarm-key-gen` would make, from random bytes that the caller brings.
//!
//! Not here: where the bytes come from and where the keys are kept (create-only Secrets, written by the operator).

use std::{fmt, str::FromStr};

use cid::multibase::Base;
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Deserializer, Serialize};

/// Protobuf of a libp2p private key: type Ed25519, 64 bytes follow (seed, then public key).
const PRIVATE_KEY_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x40];
/// Identity multihash of a protobuf public key: type Ed25519, 32 bytes follow.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Public name of a libp2p host, e.g. `12D3KooW…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PeerId(String);

/// Why a text is no peer id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a peer id: it reads like 12D3KooW… or Qm…")]
pub struct InvalidPeerId(String);

impl PeerId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    /// Takes a base58 multihash: the identity of an Ed25519 key, or the SHA-256 of an older kind of key.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Base::Base58Btc.decode(text).as_deref() {
            Ok([0x00 | 0x12, length, rest @ ..]) if usize::from(*length) == rest.len() => Ok(Self(text.to_owned())),
            _ => Err(InvalidPeerId(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A libp2p host: its private key in the encoding of kubo's and ipfs-cluster's files, and the name that follows from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Public name.
    pub peer_id: PeerId,
    /// Private key: base64 of the protobuf.
    pub private_key: String,
}

impl Identity {
    /// The host whose Ed25519 key grows from these 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let public = key.verifying_key().to_bytes();
        Self {
            peer_id: PeerId(Base::Base58Btc.encode([&PEER_ID_PREFIX[..], &public].concat())),
            private_key: BASE64.encode(&[&PRIVATE_KEY_PREFIX[..], &seed, &public].concat()),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id)
    }
}

/// kubo's `swarm.key` around 32 random bytes: only hosts with the same file can speak to each other (row V10).
pub fn swarm_key(random: [u8; 32]) -> String {
    format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", HEXLOWER.encode(&random))
}

/// ipfs-cluster's `secret` around 32 random bytes.
pub fn cluster_secret(random: [u8; 32]) -> String {
    HEXLOWER.encode(&random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_rfc_8032_has_the_peer_id_of_libp2p() {
        // RFC 8032 §7.1 test 1; `ipfs key import` of the same key gives the same name (checked again in tests/storage.rs).
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed: [u8; 32] = HEXLOWER.decode(seed.as_bytes()).expect("hex").try_into().expect("32 bytes");
        let identity = Identity::from_seed(seed);
        insta::assert_snapshot!(format!("{}\n{}", identity.peer_id, identity.private_key));
    }

    #[test]
    fn a_private_key_never_shows_in_a_debug_print() {
        let identity = Identity::from_seed([7; 32]);
        assert!(!format!("{identity:?}").contains(&identity.private_key));
    }

    #[test]
    fn peer_ids_are_read_back_and_others_refused() {
        let id = Identity::from_seed([1; 32]).peer_id;
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert!("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse::<PeerId>().is_ok());
        for bad in ["", "12D3KooW", "not a peer", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"] {
            assert!(bad.parse::<PeerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_swarm_key_is_the_file_of_libp2p() {
        assert_eq!(swarm_key([0xab; 32]), format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "ab".repeat(32)));
        assert_eq!(cluster_secret([0; 32]), "0".repeat(64));
    }
}
