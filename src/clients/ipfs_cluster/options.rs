//! The options of a pin, checked here because the server half-accepts bad ones.

use std::{collections::BTreeMap, num::NonZeroU32};

use jiff::Timestamp;

use crate::domain::identity::PeerId;

/// How something is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinOptions {
    /// For people and for [`super::PinRecord::name`].
    pub name: String,
    /// Copies. Minimum and maximum are the same: with less as a minimum the cluster never makes up for a dead peer.
    pub replicas: NonZeroU32,
    /// Peers that shall hold it, chosen by [`crate::domain::pin::Spread`]; the cluster passes over one that is down.
    pub allocations: Vec<PeerId>,
    /// When the cluster unpins it by itself.
    pub expire_at: Option<Timestamp>,
    /// Words to find it by.
    pub metadata: BTreeMap<String, String>,
    /// Multiaddresses (with `/p2p/…`) of hosts that have it: no routing finds them here.
    pub origins: Vec<String>,
}

impl PinOptions {
    /// A pin with that name and so many copies, and nothing else.
    pub fn new(name: impl Into<String>, replicas: NonZeroU32) -> Self {
        Self {
            name: name.into(),
            replicas,
            allocations: Vec::new(),
            expire_at: None,
            metadata: BTreeMap::new(),
            origins: Vec::new(),
        }
    }

    /// Would the server take all of it?
    pub fn check(&self, now: Timestamp) -> Result<(), InvalidOptions> {
        if self.name.len() > 255 {
            return Err(InvalidOptions::Name(self.name.len()));
        }
        if !self.allocations.is_empty() && self.allocations.len() != self.replicas.get() as usize {
            return Err(InvalidOptions::Allocations { replicas: self.replicas.get(), peers: self.allocations.len() });
        }
        if self.expire_at.is_some_and(|at| at <= now) {
            return Err(InvalidOptions::Expired);
        }
        if let Some(key) = self.metadata.keys().find(|key| key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(InvalidOptions::Metadata(key.clone()));
        }
        if let Some(origin) = self.origins.iter().find(|origin| !is_origin(origin)) {
            return Err(InvalidOptions::Origin(origin.clone()));
        }
        Ok(())
    }

    pub(super) fn query(&self) -> Vec<(String, String)> {
        let replicas = self.replicas.to_string();
        let mut query = vec![
            ("name".to_owned(), self.name.clone()),
            ("replication-min".to_owned(), replicas.clone()),
            ("replication-max".to_owned(), replicas),
        ];
        if !self.allocations.is_empty() {
            query.push(("user-allocations".to_owned(), join(&self.allocations)));
        }
        if let Some(at) = self.expire_at {
            query.push(("expire-at".to_owned(), at.to_string()));
        }
        query.extend(self.metadata.iter().map(|(key, value)| (format!("meta-{key}"), value.clone())));
        if !self.origins.is_empty() {
            query.push(("origins".to_owned(), join(&self.origins)));
        }
        query
    }
}

/// `/protocol/value/…/p2p/<peer id>`, without the comma that would make two of it.
fn is_origin(text: &str) -> bool {
    let Some((address, id)) = text.rsplit_once("/p2p/") else { return false };
    address.starts_with('/') && !text.contains(',') && address.split('/').skip(1).all(|part| !part.is_empty()) && {
        id.parse::<PeerId>().is_ok()
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Why options are refused before they are sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidOptions {
    /// Name too long.
    #[error("the name of a pin has at most 255 bytes, not {0}")]
    Name(usize),
    /// Another number of peers than of replicas.
    #[error("{replicas} replicas need as many peers, not {peers}")]
    Allocations {
        /// Replicas asked for.
        replicas: u32,
        /// Peers named.
        peers: usize,
    },
    /// It would expire before it is made.
    #[error("the pin would expire in the past")]
    Expired,
    /// A key that does not travel in a URL parameter's name.
    #[error("{0:?} is no metadata key: use visible ASCII characters")]
    Metadata(String),
    /// Not a multiaddress with a peer id.
    #[error("{0:?} is no origin: it reads like /dns/host/tcp/4001/p2p/12D3KooW…")]
    Origin(String),
    /// Too much of everything.
    #[error("the options take {0} bytes in the address, the server reads about 4,000: shorten metadata or origins")]
    TooLong(usize),
}
