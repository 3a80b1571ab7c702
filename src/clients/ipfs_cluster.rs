//! ipfs-cluster's REST API: pin with every option, look at pins, unpin, know the peers.
//!
//! Narrow and typed; it decides nothing. Its traps (read in the source of 1.1.6 and seen) are closed here, each marked at
//! its line: options are checked before they are sent, because the server answers 400 to a bad one *and pins anyway*, and
//! its echo is compared with what was asked for. Called by the recorder (pins) and the storage agent (readiness).

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use crate::domain::{cid::Cid, identity::PeerId, name::CLUSTER_REST_USER, pin::Peer};

mod error;
mod options;
mod record;
#[cfg(test)]
mod tests;

pub use error::{Error, LostOption};
pub use options::{InvalidOptions, PinOptions};
pub use record::{Id, IpfsId, PeerStatus, PinRecord, PinStatus, TrackerStatus};

/// Longest request: the server refuses headers beyond 4,096 bytes, and options travel in the URL.
const MAX_URL: usize = 3_500;
/// CIDs asked for at once; 50 of them fill a URL.
const MAX_CIDS: usize = 50;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take: a dead peer holds up a status by its dial timeout.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What became of an unpin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpin {
    /// The cluster will unpin; blocks are freed by a later garbage collection.
    Accepted,
    /// The cluster has no such pin **yet, or any more**: within a batch window a pin that was just made is not seen, and
    /// comes afterwards. Believe it only after the pin was seen, or after two [`crate::domain::pin::BATCH_AGE`].
    NotThere,
}

/// A peer's REST API.
#[derive(Clone)]
pub struct IpfsCluster {
    http: reqwest::Client,
    base: Url,
    password: String,
}

impl IpfsCluster {
    /// The API at `base`, e.g. `http://dsn-group-default.cams.svc:9094`, with the group's password.
    pub fn new(base: &str, password: impl Into<String>) -> Result<Self, Error> {
        Self::with_timeout(base, password, TIMEOUT)
    }

    /// As [`Self::new`] with another patience.
    pub fn with_timeout(base: &str, password: impl Into<String>, timeout: Duration) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(timeout)
            // The peers are ours and near: neither a proxy of the environment nor a redirect has a place here.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::Transport)?;
        let base = Url::parse(base).map_err(|_| Error::Address(base.to_owned()))?;
        Ok(Self { http, base, password: password.into() })
    }

    /// Asks for a pin. The answer means *accepted into a batch*: it counts only once [`Self::status`] shows it pinned
    /// (a peer killed within the batch window forgets it). Asking again is harmless and changes options only.
    pub async fn pin(&self, cid: &Cid, options: &PinOptions) -> Result<PinRecord, Error> {
        // Trap: the server answers 400 to a bad expire-at or origins and still pins with what it had read until then.
        options.check(jiff::Timestamp::now())?;
        let request = self.request(Method::POST, &["pins", &cid.to_string()]).query(&options.query());
        let record: PinRecord = match self.send(request).await {
            Ok(body) => decode("the pin", &body)?,
            // Whatever was refused may have been pinned with half its options: say so, the caller must look or unpin.
            Err(Error::Refused { status: StatusCode::BAD_REQUEST, message }) => {
                return Err(Error::PinRefused { cid: *cid, message });
            }
            Err(error) => return Err(error),
        };
        record.check(cid, options).map_err(|lost| Error::OptionsLost { cid: *cid, lost: Box::new(lost) })?;
        Ok(record)
    }

    /// What the cluster has written down about a pin; `None` when there is none, or none *yet* (batch window).
    pub async fn allocation(&self, cid: &Cid) -> Result<Option<PinRecord>, Error> {
        match self.send(self.request(Method::GET, &["allocations", &cid.to_string()])).await {
            Ok(body) => Ok(Some(decode("the allocation", &body)?)),
            Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where each CID stands. Every CID asked for is in the answer; one without a pin has no peer with it.
    pub async fn status(&self, cids: &[Cid]) -> Result<BTreeMap<Cid, PinStatus>, Error> {
        let mut found = BTreeMap::new();
        for some in cids.chunks(MAX_CIDS) {
            let list = some.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let body = self.send(self.request(Method::GET, &["pins"]).query(&[("cids", list)])).await?;
            for status in lines::<PinStatus>("a pin's status", &body)? {
                found.insert(status.cid, status);
            }
            // Trap: an error in the middle of a stream is a trailer behind a 200, so the list just ends early.
            if let Some(missing) = some.iter().find(|cid| !found.contains_key(*cid)) {
                return Err(Error::Incomplete { missing: *missing });
            }
        }
        Ok(found)
    }

    /// Takes a pin off.
    pub async fn unpin(&self, cid: &Cid) -> Result<Unpin, Error> {
        match self.send(self.request(Method::DELETE, &["pins", &cid.to_string()])).await {
            Ok(_) => Ok(Unpin::Accepted),
            Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(Unpin::NotThere),
            Err(error) => Err(error),
        }
    }

    /// Asks the allocated peers to try a failed pin again now.
    pub async fn recover(&self, cid: &Cid) -> Result<(), Error> {
        self.send(self.request(Method::POST, &["pins", &cid.to_string(), "recover"])).await.map(drop)
    }

    /// Every pin the cluster has written down, as recorded.
    pub async fn allocations(&self) -> Result<Vec<PinRecord>, Error> {
        lines("an allocation", &self.send(self.request(Method::GET, &["allocations"])).await?)
    }

    /// The peer itself. It is ready when [`Id::problem`] says nothing; `/health` proves nothing (it does not see kubo).
    pub async fn id(&self) -> Result<Id, Error> {
        decode("the peer", &self.send(self.request(Method::GET, &["id"])).await?)
    }

    /// All peers that this one knows, also those in trouble.
    pub async fn peers(&self) -> Result<Vec<Id>, Error> {
        lines("a peer", &self.send(self.request(Method::GET, &["peers"])).await?)
    }

    /// The peers that can be given pins, with host and room: what [`crate::domain::pin::Spread`] chooses from. A peer
    /// whose kubo is dead is not among them (its measurement has expired).
    pub async fn live_peers(&self) -> Result<Vec<Peer>, Error> {
        let room = self.metrics("freespace").await?;
        let hosts: BTreeMap<PeerId, String> =
            self.metrics("tag:host").await?.into_iter().map(|metric| (metric.peer, metric.value)).collect();
        Ok(room
            .into_iter()
            .filter(|metric| metric.valid)
            .filter_map(|metric| {
                Some(Peer {
                    // A peer that names no host counts as a host of its own.
                    host: hosts.get(&metric.peer).cloned().unwrap_or_else(|| metric.peer.to_string()),
                    free: metric.value.parse().ok()?,
                    id: metric.peer,
                })
            })
            .collect())
    }

    async fn metrics(&self, name: &str) -> Result<Vec<Metric>, Error> {
        // An empty list is `null`, as Go writes it.
        let body = self.send(self.request(Method::GET, &["monitor", "metrics", name])).await?;
        Ok(decode::<Option<Vec<Metric>>>("the metrics", &body)?.unwrap_or_default())
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.http.request(method, url).basic_auth(CLUSTER_REST_USER, Some(&self.password))
    }

    /// Sends and returns the body of a success; 204 is an empty one.
    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, Error> {
        let request = request.build().map_err(Error::Transport)?;
        if request.url().as_str().len() > MAX_URL {
            return Err(Error::Invalid(InvalidOptions::TooLong(request.url().as_str().len())));
        }
        let response = self.http.execute(request).await.map_err(Error::of_transport)?;
        let status = response.status();
        let body = response.bytes().await.map_err(Error::of_transport)?;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Unauthorized),
            _ if status.is_success() => Ok(body.into()),
            _ => Err(Error::Refused { status, message: message_of(&body) }),
        }
    }
}

impl std::fmt::Debug for IpfsCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IpfsCluster({})", self.base)
    }
}

/// One measurement of one peer.
#[derive(Deserialize)]
struct Metric {
    peer: PeerId,
    #[serde(default)]
    value: String,
    #[serde(default)]
    valid: bool,
}

/// The sentence of an error answer. A refused pin carries a second document behind the first: only the first counts.
fn message_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let first = serde_json::Deserializer::from_slice(body).into_iter::<Refusal>().next();
    match first {
        Some(Ok(refusal)) => refusal.message,
        _ => String::from_utf8_lossy(body).chars().take(200).collect::<String>().trim().to_owned(),
    }
}

fn decode<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, Error> {
    // Also here a second document may follow; it is not looked at.
    match serde_json::Deserializer::from_slice(body).into_iter().next() {
        Some(document) => document.map_err(|source| Error::Garbled { what, source }),
        None => serde_json::from_slice(b"null").map_err(|source| Error::Garbled { what, source }),
    }
}

/// Lists are one JSON document per line, and nothing at all (204) when empty.
fn lines<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<Vec<T>, Error> {
    serde_json::Deserializer::from_slice(body)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Garbled { what, source })
}
