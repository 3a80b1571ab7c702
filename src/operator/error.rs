//! What can go wrong in a reconcile, the word for it, and when trying again makes sense.
//!
//! "Not ready yet" is not here: it is a status value. Called by every controller; [`Error::reason`] feeds conditions,
//! events and metric labels.

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("failed to {verb} {kind} {name:?}: {}", short(source))]
    Api {
        /// What was tried.
        verb: Verb,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object of that name exists and belongs to somebody else; it is never seized.
    #[error("{kind} {name:?} exists and belongs to {owner}; rename or delete it, then it is created")]
    Foreign {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Whose it is, as far as it says.
        owner: String,
    },
    /// The spec can't be carried out, whatever is tried.
    #[error("{message}")]
    Invalid {
        /// Stable word for the condition.
        reason: &'static str,
        /// What to write instead.
        message: String,
    },
    /// The API server swallowed a request.
    #[error("gave up after {seconds} s without an answer")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
    /// A Secret that others depend on is gone or not what it should be; only a person can tell what is right.
    #[error("{message}")]
    Lost {
        /// Stable word for the condition.
        reason: &'static str,
        /// What to do about it.
        message: String,
    },
    /// An object could not be written as JSON.
    #[error("failed to encode an object")]
    Encode(#[from] serde_json::Error),
}

/// A request to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read.
    Get,
    /// POST.
    Create,
    /// Server-side apply.
    Apply,
    /// Server-side apply of the status.
    ApplyStatus,
    /// Delete with preconditions.
    Delete,
}

impl Verb {
    /// The word in messages and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Apply => "apply",
            Self::ApplyStatus => "apply status of",
            Self::Delete => "delete",
        }
    }

    /// The word in metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::ApplyStatus => "apply_status",
            other => other.as_str(),
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// With growing, jittered pauses.
    Backoff,
    /// Not before something changed.
    OnChange,
}

impl Error {
    /// Wraps what the client said.
    pub fn api(verb: Verb, kind: impl Into<String>, name: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { verb, kind: kind.into(), name: name.into(), source: Box::new(source) }
    }

    /// Stable `CamelCase` word for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => match status.code {
                    403 => "Forbidden",
                    404 => "NotFound",
                    409 => "Conflict",
                    422 | 400 => "Rejected",
                    429 => "Throttled",
                    _ => "ApiServerFailed",
                },
                _ => "ApiServerUnreachable",
            },
            Self::Foreign { .. } => "ForeignObject",
            Self::Invalid { reason, .. } | Self::Lost { reason, .. } => reason,
            Self::Timeout { .. } => "Timeout",
            Self::Encode(_) => "EncodingFailed",
        }
    }

    /// When trying again makes sense.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Invalid { .. } => Retry::OnChange,
            // A foreign object isn't watched (it lacks our labels), nor is a Secret: only asking again finds out.
            Self::Api { .. } | Self::Foreign { .. } | Self::Timeout { .. } | Self::Lost { .. } | Self::Encode(_) => {
                Retry::Backoff
            }
        }
    }

    /// A conflict is the ordinary outcome of a stale cache: the next look settles it.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(s) if s.code == 409))
    }
}

/// The API server's sentence, without kube's debug dump of the whole answer.
pub fn short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_follow_the_answer() {
        for (code, reason) in [(403, "Forbidden"), (409, "Conflict"), (422, "Rejected"), (500, "ApiServerFailed")] {
            let status = kube::core::Status::failure("no", "No").with_code(code);
            let error = Error::api(Verb::Apply, "ConfigMap", "x", kube::Error::Api(Box::new(status)));
            assert_eq!(error.reason(), reason);
            assert_eq!(error.retry(), Retry::Backoff);
        }
    }

    #[test]
    fn the_message_is_the_servers_own_sentence() {
        let status = kube::core::Status::failure("quota exceeded", "Forbidden").with_code(403);
        let error = Error::api(Verb::Apply, "Deployment", "p-c", kube::Error::Api(Box::new(status)));
        assert_eq!(error.to_string(), "failed to apply Deployment \"p-c\": quota exceeded");
    }
}
