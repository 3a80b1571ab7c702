//! Conditions in the form of kstatus: `Ready` = the spec is accepted and rolled out; health has conditions of its own.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Three-valued truth of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The state holds.
    True,
    /// The state does not hold; the message says what to do.
    False,
    /// Nobody has reported yet, or the reporter is out of reach.
    Unknown,
}

impl Truth {
    /// The word Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What a status function concludes; becomes a [`Condition`] by [`merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Condition type, e.g. `Capturing`.
    pub kind: &'static str,
    /// Does it hold?
    pub truth: Truth,
    /// Stable `CamelCase` word.
    pub reason: Cow<'static, str>,
    /// A sentence for a person; says what to do when something is wrong.
    pub message: String,
}

impl Verdict {
    /// A verdict of type `kind`.
    pub fn new(
        kind: &'static str,
        truth: Truth,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, truth, reason: reason.into(), message: message.into() }
    }

    /// What was said before, once more: nothing is known that speaks against it.
    pub fn again(kind: &'static str, said: &Condition) -> Self {
        let truth = match said.status.as_str() {
            "True" => Truth::True,
            "False" => Truth::False,
            _ => Truth::Unknown,
        };
        Self::new(kind, truth, said.reason.clone(), said.message.clone())
    }
}

/// Folds verdicts into the conditions an object already carries: `lastTransitionTime` moves only when the truth does,
/// order is that of the verdicts, conditions nobody speaks about any more are dropped.
pub fn merge(previous: &[Condition], verdicts: &[Verdict], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    verdicts
        .iter()
        .map(|verdict| {
            let unchanged = previous.iter().find(|c| c.type_ == verdict.kind && c.status == verdict.truth.as_str());
            Condition {
                type_: verdict.kind.to_owned(),
                status: verdict.truth.as_str().to_owned(),
                reason: verdict.reason.clone().into_owned(),
                message: verdict.message.clone(),
                observed_generation: generation,
                last_transition_time: unchanged.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

/// The condition of a type, if the object carries it.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}
