//! What is said over the storage agent's HTTP API; the same on a storage node and, later, on an edge box.

use serde::{Deserialize, Serialize};

/// Header of an upload: SHA-256 of the bytes, 64 hex digits. The agent refuses bytes that are others.
pub const SHA256_HEADER: &str = "sha256";
/// Header of an upload: name of the file, for the log.
pub const PATH_HEADER: &str = "path";
/// Header of an upload: [`Ticket::ticket`], when one was asked for.
pub const TICKET_HEADER: &str = "ticket";

/// Answer to `PUT /v1/files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// CID of the file.
    pub cid: String,
    /// Its length.
    pub size: u64,
}

/// Body of `POST /v1/rollups`: files that are already in the group, to be pinned as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollup {
    /// The files; their order does not matter.
    pub entries: Vec<RollupEntry>,
}

/// One file of a [`Rollup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollupEntry {
    /// Name within the roll-up, without `/`.
    pub name: String,
    /// CID of the file.
    pub cid: String,
    /// Its length.
    pub size: u64,
}

/// Answer to `POST /v1/rollups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledUp {
    /// CID of the directory; follows from the entries alone.
    pub cid: String,
}

/// Body of `POST /v1/publish`: may I send so much?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Who asks.
    pub publisher: String,
    /// How many bytes.
    pub bytes: u64,
    /// Seconds within which they will be sent.
    pub ttl: u64,
}

/// Answer to `POST /v1/publish` when there is room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Always true; a refusal is a [`Problem`].
    pub accepted: bool,
    /// To be sent along with the files.
    pub ticket: String,
}

/// Body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable `CamelCase` word.
    pub reason: String,
    /// A sentence for a person.
    pub error: String,
}

/// Answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Does everything work?
    pub ready: bool,
    /// What does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Bytes taken.
    pub repo_bytes: u64,
    /// Bytes it may take.
    pub max_bytes: u64,
    /// Peers of the group that kubo is connected to.
    pub connected: Vec<String>,
    /// Peers of the group that it should be connected to and is not.
    pub missing: Vec<String>,
}
