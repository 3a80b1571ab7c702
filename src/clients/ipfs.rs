//! kubo's RPC over its unix socket: add, look, read, roll up, know the neighbours, collect garbage.
//!
//! Narrow and typed; it decides nothing. Only the storage agent calls it: kubo's RPC can do anything, so nobody else may
//! reach the socket.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{Body, RequestBuilder, Response};
use serde::{Deserialize, de::DeserializeOwned};

use crate::domain::{
    cid::{CHUNK, Cid, Directory, FileDigest, FileHasher},
    identity::PeerId,
};

mod answers;
mod error;
#[cfg(test)]
mod tests;

use answers::{Added, FileStat, Id, PeerList, Pong, Put, Removed};
pub use error::Error;

/// Patience for what kubo knows by heart.
const QUICK: Duration = Duration::from_secs(10);
/// Patience for the bytes of one file to pass.
const TRANSFER: Duration = Duration::from_secs(60);
/// Patience for a garbage collection: 3,460 blocks took 1.1 s.
const COLLECT: Duration = Duration::from_secs(15 * 60);
/// Boundary of the multipart body; the bytes of a file are never searched for it, the length says where they end.
const BOUNDARY: &str = "dsn-4b1f0c6ce7d24a3c9d41b8a7";

/// May kubo ask its neighbours for blocks it does not have?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only what is in the repo.
    Local,
    /// Also what connected peers have, within this time.
    Neighbours(Duration),
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// CID of what the path leads to.
    pub cid: Cid,
    /// Bytes of the file.
    pub size: u64,
    /// A directory has no bytes to read.
    pub is_directory: bool,
}

/// How full the repo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RepoStat {
    /// Bytes taken.
    pub repo_size: u64,
    /// Bytes it may take; kubo itself does not refuse beyond.
    pub storage_max: u64,
}

/// kubo's RPC.
#[derive(Clone, Debug)]
pub struct Ipfs {
    http: reqwest::Client,
    base: String,
}

impl Ipfs {
    /// The RPC behind a unix socket; it may appear later.
    pub fn over_socket(socket: &Path) -> Result<Self, Error> {
        Self::build(reqwest::Client::builder().unix_socket(socket), "http://kubo")
    }

    fn build(builder: reqwest::ClientBuilder, base: &str) -> Result<Self, Error> {
        let http = builder.no_proxy().redirect(reqwest::redirect::Policy::none()).build().map_err(Error::Transport)?;
        Ok(Self { http, base: base.to_owned() })
    }

    /// Adds a file as it streams by, unpinned. Comes back with what the bytes really were, and fails when kubo made
    /// another CID of them.
    pub async fn add<S, E>(&self, bytes: S) -> Result<FileDigest, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let hasher = Arc::new(Mutex::new(FileHasher::default()));
        let watched = bytes.inspect_ok({
            let hasher = hasher.clone();
            move |piece| hasher.lock().unwrap_or_else(PoisonError::into_inner).update(piece)
        });
        let chunker = format!("size-{CHUNK}");
        let request = self.call("add", TRANSFER).query(&[
            ("pin", "false"),
            ("cid-version", "1"),
            ("raw-leaves", "true"),
            ("chunker", &chunker),
            ("quieter", "true"),
            ("progress", "false"),
        ]);
        let added: Added = last_document("add", &succeed("add", form(request, watched)).await?)?;
        let digest = std::mem::take(&mut *hasher.lock().unwrap_or_else(PoisonError::into_inner)).finish();
        if digest.cid.to_string() == added.hash {
            Ok(digest)
        } else {
            Err(Error::OtherCid { ours: digest.cid, theirs: added.hash })
        }
    }

    /// Puts a roll-up: a directory of files that are already there. A recursive pin of it covers them all.
    pub async fn put_directory(&self, directory: &Directory) -> Result<(), Error> {
        // dag/put: 2 ms for 15 files. MFS takes 45 ms, and object/patch fails when the files exceed 2 MiB.
        let request = self.call("dag/put", QUICK).query(&[
            ("store-codec", "dag-pb"),
            ("input-codec", "dag-json"),
            ("pin", "false"),
            ("hash", "sha2-256"),
        ]);
        let node = serde_json::json!({
            "Data": {"/": {"bytes": "CAE"}},
            "Links": directory.entries.iter().map(|entry| serde_json::json!({
                "Name": entry.name, "Hash": {"/": entry.cid.to_string()}, "Tsize": entry.size,
            })).collect::<Vec<_>>(),
        });
        let text = Bytes::from(node.to_string());
        let body = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(text) });
        let put: Put = last_document("dag/put", &succeed("dag/put", form(request, body)).await?)?;
        if put.cid.cid == directory.cid.to_string() {
            Ok(())
        } else {
            Err(Error::OtherCid { ours: directory.cid, theirs: put.cid.cid })
        }
    }

    /// Is this very block in the repo? Asks nobody else.
    pub async fn has_block(&self, cid: &Cid) -> Result<bool, Error> {
        let request = self.call("block/stat", QUICK).query(&[("arg", cid.to_string()), ("offline", "true".into())]);
        match succeed("block/stat", request).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What `/ipfs/<path>` leads to.
    pub async fn stat(&self, path: &str, reach: Reach) -> Result<Stat, Error> {
        let answer: FileStat =
            decode("files/stat", &succeed("files/stat", self.reading("files/stat", path, reach)).await?)?;
        Ok(Stat {
            cid: answer.hash.parse().map_err(|_| Error::Garbled { what: "files/stat", detail: answer.hash.clone() })?,
            size: answer.size,
            is_directory: answer.kind == "directory",
        })
    }

    /// The bytes of a file, from `offset`, at most `length`.
    pub async fn cat(
        &self,
        path: &str,
        offset: u64,
        length: u64,
        reach: Reach,
    ) -> Result<impl Stream<Item = Result<Bytes, reqwest::Error>> + Send + 'static, Error> {
        let range = [("offset", offset.to_string()), ("length", length.to_string())];
        let response = open("cat", self.reading("cat", path, reach).query(&range).timeout(TRANSFER)).await?;
        Ok(response.bytes_stream())
    }

    /// One block as it is.
    pub async fn block(&self, path: &str, reach: Reach) -> Result<Bytes, Error> {
        succeed("block/get", self.reading("block/get", path, reach)).await
    }

    /// The daemon's own identity: it is up and knows who it is.
    pub async fn id(&self) -> Result<PeerId, Error> {
        Ok(decode::<Id>("id", &succeed("id", self.call("id", QUICK)).await?)?.id)
    }

    /// How full the repo is.
    pub async fn repo_stat(&self) -> Result<RepoStat, Error> {
        // size-only: without it kubo counts every block.
        decode("repo/stat", &succeed("repo/stat", self.call("repo/stat", QUICK).query(&[("size-only", "true")])).await?)
    }

    /// Frees every block that is not pinned. Adding waits while it runs.
    pub async fn collect_garbage(&self) -> Result<(), Error> {
        let request = self.call("repo/gc", COLLECT).query(&[("quiet", "true"), ("stream-errors", "true")]);
        let body = succeed("repo/gc", request).await?;
        // Trap: 200 is sent before the work begins; what failed stands in the lines.
        for line in serde_json::Deserializer::from_slice(&body).into_iter::<Removed>() {
            let line = line.map_err(|error| Error::Garbled { what: "repo/gc", detail: error.to_string() })?;
            if !line.error.is_empty() {
                return Err(Error::Refused { what: "repo/gc", message: line.error });
            }
        }
        Ok(())
    }

    /// Peers that kubo is connected to.
    pub async fn connected(&self) -> Result<Vec<PeerId>, Error> {
        let body = succeed("swarm/peers", self.call("swarm/peers", QUICK)).await?;
        Ok(decode::<PeerList>("swarm/peers", &body)?.ids())
    }

    /// Peers that kubo keeps a connection to.
    pub async fn peered(&self) -> Result<Vec<PeerId>, Error> {
        let body = succeed("swarm/peering/ls", self.call("swarm/peering/ls", QUICK)).await?;
        Ok(decode::<PeerList>("swarm/peering/ls", &body)?.ids())
    }

    /// Does this peer answer now? Trap: kubo takes one whose machine lost power for connected for the better part of a
    /// minute.
    pub async fn answers(&self, id: &PeerId) -> Result<bool, Error> {
        let request = self.call("ping", QUICK).query(&[("arg", id.as_str()), ("count", "1"), ("timeout", "5s")]);
        let body = match succeed("ping", request).await {
            Ok(body) => body,
            Err(Error::Refused { .. } | Error::NotFound { .. } | Error::Timeout { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut lines = serde_json::Deserializer::from_slice(&body).into_iter::<Pong>();
        Ok(lines.any(|line| line.is_ok_and(|pong| pong.success && pong.time > 0)))
    }

    /// Keep a connection to this peer (until the daemon ends: the configuration is another's).
    pub async fn peer_with(&self, address: &str, id: &PeerId) -> Result<(), Error> {
        let request = self.call("swarm/peering/add", QUICK).query(&[("arg", format!("{address}/p2p/{id}"))]);
        succeed("swarm/peering/add", request).await.map(drop)
    }

    /// Keep no connection to this peer any more.
    pub async fn part_with(&self, id: &PeerId) -> Result<(), Error> {
        let request = self.call("swarm/peering/rm", QUICK).query(&[("arg", id.as_str())]);
        succeed("swarm/peering/rm", request).await.map(drop)
    }

    /// Dial this peer now: peering by itself waits up to ten minutes after failures.
    pub async fn connect(&self, address: &str, id: &PeerId) -> Result<(), Error> {
        let request = self.call("swarm/connect", QUICK).query(&[("arg", format!("{address}/p2p/{id}"))]);
        succeed("swarm/connect", request).await.map(drop)
    }

    fn call(&self, command: &str, patience: Duration) -> RequestBuilder {
        self.http.post(format!("{}/api/v0/{command}", self.base)).timeout(patience)
    }

    fn reading(&self, command: &str, path: &str, reach: Reach) -> RequestBuilder {
        let request = self.call(command, QUICK).query(&[("arg", format!("/ipfs/{path}"))]);
        match reach {
            Reach::Local => request.query(&[("offline", "true")]),
            // kubo's own timeout: it forgets the search, and says why.
            Reach::Neighbours(time) => {
                request.query(&[("timeout", format!("{}ms", time.as_millis()))]).timeout(time + QUICK)
            }
        }
    }
}

/// A request whose body is one file of a form, streamed.
fn form<S, E>(request: RequestBuilder, bytes: S) -> RequestBuilder
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    let piece = |text: String| futures::stream::once(async move { Ok(Bytes::from(text)) });
    request
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(Body::wrap_stream(piece(head).chain(bytes).chain(piece(tail))))
}

async fn open(what: &'static str, request: RequestBuilder) -> Result<Response, Error> {
    let response = request.send().await.map_err(|error| Error::of_transport(what, error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    Err(Error::of_answer(what, status, &body))
}

async fn succeed(what: &'static str, request: RequestBuilder) -> Result<Bytes, Error> {
    open(what, request).await?.bytes().await.map_err(|error| Error::of_transport(what, error))
}

fn decode<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Garbled { what, detail: error.to_string() })
}

/// The last of the documents in a body. Trap: an error in mid-work comes as a document behind a 200, or as none at all.
fn last_document<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, Error> {
    let last = serde_json::Deserializer::from_slice(body).into_iter::<serde_json::Value>().last();
    let value = match last {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(Error::Garbled { what, detail: error.to_string() }),
        None => return Err(Error::Garbled { what, detail: "no answer behind a 200".to_owned() }),
    };
    if let (Some("error"), Some(message)) = (value["Type"].as_str(), value["Message"].as_str()) {
        return Err(Error::Refused { what, message: message.to_owned() });
    }
    serde_json::from_value(value).map_err(|error| Error::Garbled { what, detail: error.to_string() })
}
