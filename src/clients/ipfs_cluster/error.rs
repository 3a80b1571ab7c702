//! What can go wrong with ipfs-cluster, and when trying again makes sense.

use reqwest::StatusCode;

use super::options::InvalidOptions;
use crate::domain::cid::Cid;

/// An option that the cluster did not take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostOption {
    /// Name of the option.
    pub option: &'static str,
    /// What was asked for.
    pub asked: String,
    /// What the cluster has written down.
    pub has: String,
}

impl std::fmt::Display for LostOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {:?} instead of {:?}", self.option, self.has, self.asked)
    }
}

/// What can go wrong with ipfs-cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No URL.
    #[error("{0:?} is not an address of an ipfs-cluster REST API")]
    Address(String),
    /// Nobody answers, or the connection broke.
    #[error("failed to reach ipfs-cluster")]
    Transport(#[source] reqwest::Error),
    /// No answer in time.
    #[error("ipfs-cluster did not answer in time")]
    Timeout(#[source] reqwest::Error),
    /// The password is not the group's.
    #[error("ipfs-cluster refused the password")]
    Unauthorized,
    /// Options that the server would half accept; nothing was sent.
    #[error("the options of the pin are invalid")]
    Invalid(#[from] InvalidOptions),
    /// The server refused a pin **and may have made it** with half its options.
    #[error("ipfs-cluster refused the pin of {cid} ({message}) and may have made it nonetheless")]
    PinRefused {
        /// What was to be pinned.
        cid: Cid,
        /// Its words.
        message: String,
    },
    /// The server accepted the pin with other options.
    #[error("ipfs-cluster pinned {cid}, but {lost}")]
    OptionsLost {
        /// What was pinned.
        cid: Cid,
        /// Which option.
        lost: Box<LostOption>,
    },
    /// Another answer than success.
    #[error("ipfs-cluster answered {status}: {message}")]
    Refused {
        /// Status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// An answer that cannot be read.
    #[error("failed to read {what} in the answer of ipfs-cluster")]
    Garbled {
        /// What was expected.
        what: &'static str,
        /// Why it cannot be read.
        #[source]
        source: serde_json::Error,
    },
    /// A list that ended early.
    #[error("ipfs-cluster's answer ended before {missing}")]
    Incomplete {
        /// First item that was asked for and not answered.
        missing: Cid,
    },
}

impl Error {
    pub(super) fn of_transport(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout(error) } else { Self::Transport(error) }
    }

    /// Stable word for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Address(_) => "ClusterAddressInvalid",
            Self::Transport(_) => "ClusterUnreachable",
            Self::Timeout(_) => "ClusterTimeout",
            Self::Unauthorized => "ClusterUnauthorized",
            Self::Invalid(_) => "PinInvalid",
            Self::PinRefused { .. } => "PinRefused",
            Self::OptionsLost { .. } => "PinOptionsLost",
            Self::Refused { message, .. } if message.contains("not enough peers to allocate") => "TooFewStorageNodes",
            Self::Refused { .. } => "ClusterRefused",
            Self::Garbled { .. } | Self::Incomplete { .. } => "ClusterAnswerInvalid",
        }
    }

    /// May the same request succeed later without anybody changing anything?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport(_) | Self::Timeout(_) | Self::Garbled { .. } | Self::Incomplete { .. } => true,
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Address(_)
            | Self::Unauthorized
            | Self::Invalid(_)
            | Self::PinRefused { .. }
            | Self::OptionsLost { .. } => false,
        }
    }
}
