//! The storage agent's HTTP API: how the capture agent uploads, and how the server rolls up and reads.
//!
//! Whatever comes back is checked against the hash that was asked for: the agent's host is not trusted with that.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Body, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::domain::{
    cid::{self, Cid, Directory, Entry, FileDigest, MAX_FILE},
    upload::{PATH_HEADER, Problem, RolledUp, Rollup, RollupEntry, SHA256_HEADER, Status, Uploaded},
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one file may take.
const TRANSFER: Duration = Duration::from_secs(60);

/// What can go wrong with a storage agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers, or the connection broke.
    #[error("failed to reach the storage agent")]
    Transport(#[source] reqwest::Error),
    /// No answer in time.
    #[error("the storage agent did not answer in time")]
    Timeout(#[source] reqwest::Error),
    /// The token is not the group's.
    #[error("the storage agent refused the token")]
    Unauthorized,
    /// No node of the group has it.
    #[error("no storage node has {0}")]
    Missing(Cid),
    /// The node has no room.
    #[error("the storage node is full")]
    Full,
    /// Another answer than success.
    #[error("the storage agent answered {status}: {problem}")]
    Refused {
        /// Status.
        status: StatusCode,
        /// Its words.
        problem: String,
    },
    /// An answer that cannot be read.
    #[error("failed to read the storage agent's answer: {0}")]
    Garbled(String),
    /// The bytes are not those that were asked for.
    #[error("the storage agent has other content for {0}")]
    OtherContent(Cid),
}

impl Error {
    fn of_transport(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout(error) } else { Self::Transport(error) }
    }

    /// Stable word for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Transport(_) => "StorageUnreachable",
            Self::Timeout(_) => "StorageTimeout",
            Self::Unauthorized => "StorageUnauthorized",
            Self::Missing(_) => "ContentMissing",
            Self::Full => "StorageFull",
            Self::Refused { .. } => "StorageRefused",
            Self::Garbled(_) => "StorageAnswerInvalid",
            Self::OtherContent(_) => "ContentMismatch",
        }
    }

    /// May the same request succeed later without anybody changing anything?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => !status.is_client_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => true,
        }
    }
}

/// Any storage agent of a group.
#[derive(Clone)]
pub struct StorageAgent {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl StorageAgent {
    /// The agent at `base`, e.g. `http://dsn-group-default.cams.svc:8081`, with the group's upload or server token.
    pub fn new(base: impl Into<String>, token: impl Into<String>) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Upload tokens go to the node that answers, so connections are spread anew after a while.
            .pool_idle_timeout(Duration::from_secs(10))
            .build()
            .map_err(Error::Transport)?;
        Ok(Self { http, base: base.into().trim_end_matches('/').to_owned(), token: token.into() })
    }

    /// Uploads a file whose digest is known; the agent recomputes it, and its CID must be ours.
    pub async fn put_file(&self, path: &str, digest: &FileDigest, body: impl Into<Body>) -> Result<(), Error> {
        let request = self
            .authorised(self.http.put(format!("{}/v1/files", self.base)))
            .header(SHA256_HEADER, &digest.sha256)
            .header(PATH_HEADER, path)
            .header("content-length", digest.bytes)
            .body(body);
        let uploaded: Uploaded = json(send(request, None).await?).await?;
        if uploaded.cid == digest.cid.to_string() && uploaded.size == digest.bytes {
            Ok(())
        } else {
            Err(Error::OtherContent(digest.cid))
        }
    }

    /// Does the group have the bytes of a file? An error is neither yes nor no.
    pub async fn has(&self, cid: &Cid) -> Result<bool, Error> {
        let request = self.authorised(self.http.head(format!("{}/v1/files/{cid}", self.base)));
        match send(request, Some(cid)).await {
            Ok(_) => Ok(true),
            Err(Error::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory of a roll-up, so that one pin covers its files.
    pub async fn put_directory(&self, directory: &Directory) -> Result<(), Error> {
        let entries = directory.entries.iter().map(|Entry { name, cid, size }| RollupEntry {
            name: name.clone(),
            cid: cid.to_string(),
            size: *size,
        });
        let rollup = Rollup { entries: entries.collect() };
        let request = self.authorised(self.http.post(format!("{}/v1/rollups", self.base))).json(&rollup);
        let rolled_up: RolledUp = json(send(request, None).await?).await?;
        if rolled_up.cid == directory.cid.to_string() { Ok(()) } else { Err(Error::OtherContent(directory.cid)) }
    }

    /// All bytes of a file, checked against its CID before the first one is handed on.
    pub async fn get(&self, cid: &Cid) -> Result<Bytes, Error> {
        let request = self.authorised(self.http.get(format!("{}/ipfs/{cid}", self.base)));
        let bytes = bounded(send(request, Some(cid)).await?).await?;
        if cid::of(&bytes) == *cid { Ok(bytes) } else { Err(Error::OtherContent(*cid)) }
    }

    /// How the node that answers is doing.
    pub async fn status(&self) -> Result<Status, Error> {
        json(send(self.authorised(self.http.get(format!("{}/v1/status", self.base))), None).await?).await
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(&self.token).timeout(TRANSFER)
    }
}

impl std::fmt::Debug for StorageAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StorageAgent({})", self.base)
    }
}

async fn send(request: RequestBuilder, wanted: Option<&Cid>) -> Result<Response, Error> {
    let response = request.send().await.map_err(Error::of_transport)?;
    match (response.status(), wanted) {
        (status, _) if status.is_success() => Ok(response),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Err(Error::Unauthorized),
        (StatusCode::NOT_FOUND, Some(cid)) => Err(Error::Missing(*cid)),
        (StatusCode::INSUFFICIENT_STORAGE, _) => Err(Error::Full),
        (status, _) => {
            let body = bounded(response).await.unwrap_or_default();
            let problem = serde_json::from_slice(&body).map_or_else(
                |_| String::from_utf8_lossy(&body).chars().take(200).collect(),
                |problem: Problem| problem.error,
            );
            Err(Error::Refused { status, problem })
        }
    }
}

/// The body, as long as it is no longer than a file may be.
async fn bounded(mut response: Response) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(Error::of_transport)? {
        if (bytes.len() + piece.len()) as u64 > MAX_FILE {
            return Err(Error::Garbled(format!("more than {MAX_FILE} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

async fn json<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
    serde_json::from_slice(&bounded(response).await?).map_err(|error| Error::Garbled(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{bearer_token, header, method, path},
    };

    use super::*;
    use crate::domain::cid::FileHasher;

    async fn server() -> (MockServer, StorageAgent) {
        let server = MockServer::start().await;
        let agent = StorageAgent::new(server.uri(), "token").expect("a client");
        (server, agent)
    }

    fn digest(bytes: &[u8]) -> FileDigest {
        let mut hasher = FileHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    #[tokio::test]
    async fn an_upload_carries_its_hash_and_believes_only_the_same_cid() {
        let (server, agent) = server().await;
        let footage = digest(b"footage");
        Mock::given(method("PUT"))
            .and(path("/v1/files"))
            .and(bearer_token("token"))
            .and(header("sha256", footage.sha256.as_str()))
            .and(header("content-length", "7"))
            .respond_with(ResponseTemplate::new(200).set_body_json(json!({"cid": footage.cid.to_string(), "size": 7})))
            .mount(&server)
            .await;
        agent.put_file("s/source/0.m4s", &footage, &b"footage"[..]).await.expect("stored");
        server.reset().await;
        Mock::given(method("PUT"))
            .respond_with(ResponseTemplate::new(200).set_body_json(json!({"cid": "bafkother", "size": 7})))
            .mount(&server)
            .await;
        let error = agent.put_file("s/source/0.m4s", &footage, &b"footage"[..]).await.expect_err("another CID");
        assert_eq!(error.reason(), "ContentMismatch");
    }

    #[tokio::test]
    async fn altered_footage_is_never_handed_on() {
        let (server, agent) = server().await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(200).set_body_bytes(b"altered"))
            .mount(&server)
            .await;
        assert_eq!(agent.get(&cid::of(b"footage")).await.expect_err("altered").reason(), "ContentMismatch");
        assert_eq!(agent.get(&cid::of(b"altered")).await.expect("as asked for"), "altered");
    }

    #[tokio::test]
    async fn only_a_clear_no_says_that_nobody_has_it() {
        let (server, agent) = server().await;
        let cid = cid::of(b"footage");
        for (status, answer) in [(200, Some(true)), (404, Some(false)), (503, None), (403, None), (405, None)] {
            server.reset().await;
            Mock::given(method("HEAD"))
                .and(path(format!("/v1/files/{cid}")))
                .and(bearer_token("token"))
                .respond_with(ResponseTemplate::new(status))
                .mount(&server)
                .await;
            assert_eq!(agent.has(&cid).await.ok(), answer, "{status}");
        }
        let nobody = StorageAgent::new("http://127.0.0.1:1", "token").expect("a client");
        assert!(nobody.has(&cid).await.is_err());
    }

    #[tokio::test]
    async fn refusals_have_their_words() {
        let (server, agent) = server().await;
        for (status, reason, transient) in [
            (401, "StorageUnauthorized", true),
            (404, "ContentMissing", true),
            (507, "StorageFull", true),
            (422, "StorageRefused", false),
            (503, "StorageRefused", true),
        ] {
            server.reset().await;
            Mock::given(method("GET")).respond_with(ResponseTemplate::new(status)).mount(&server).await;
            let error = agent.get(&cid::of(b"footage")).await.expect_err("refused");
            assert_eq!((error.reason(), error.is_transient()), (reason, transient), "{status}");
        }
    }
}
