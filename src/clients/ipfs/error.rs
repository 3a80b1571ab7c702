//! What can go wrong with kubo.

use reqwest::StatusCode;
use serde::Deserialize;

use crate::domain::cid::Cid;

/// What can go wrong with kubo.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the socket, or the connection broke.
    #[error("failed to reach kubo")]
    Transport(#[source] reqwest::Error),
    /// No answer in time.
    #[error("kubo did not finish {what} in time")]
    Timeout {
        /// Command.
        what: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The block, or one below it, is not where it was looked for.
    #[error("kubo has not what {what} asks for: {message}")]
    NotFound {
        /// Command.
        what: &'static str,
        /// Its words.
        message: String,
    },
    /// The path leads nowhere or to the wrong kind of thing.
    #[error("kubo refused {what}: {message}")]
    Refused {
        /// Command.
        what: &'static str,
        /// Its words.
        message: String,
    },
    /// An answer that cannot be read.
    #[error("failed to read kubo's answer to {what}: {detail}")]
    Garbled {
        /// Command.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// kubo made another CID of the same bytes: its import settings are not ours.
    #[error("kubo's CID {theirs} is not ours, {ours}")]
    OtherCid {
        /// CID computed here.
        ours: Cid,
        /// CID that kubo computed.
        theirs: String,
    },
}

impl Error {
    pub(super) fn of_transport(what: &'static str, error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout { what, source: error } } else { Self::Transport(error) }
    }

    /// kubo answers 500 to whatever goes wrong; only its words tell a missing block from a broken disk.
    pub(super) fn of_answer(what: &'static str, status: StatusCode, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Refusal {
            message: String,
        }
        let message = serde_json::from_slice(body).map_or_else(
            |_| format!("{status} {}", String::from_utf8_lossy(body).chars().take(200).collect::<String>()),
            |refusal: Refusal| refusal.message,
        );
        let missing = ["not found", "could not find", "no link named", "context deadline exceeded"];
        if missing.iter().any(|words| message.contains(words)) {
            Self::NotFound { what, message }
        } else {
            Self::Refused { what, message }
        }
    }

    /// Stable word for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Transport(_) => "KuboUnreachable",
            Self::Timeout { .. } => "KuboTimeout",
            Self::NotFound { .. } => "ContentMissing",
            Self::Refused { .. } => "KuboRefused",
            Self::Garbled { .. } => "KuboAnswerInvalid",
            Self::OtherCid { .. } => "CidMismatch",
        }
    }

    /// May the same request succeed later without anybody changing anything?
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::OtherCid { .. })
    }
}
