//! Is a camera's Secret there, with the keys it needs? Asked by `get` with growing pauses, never watched: an operator
//! that may watch Secrets may read all of them.
//!
//! The bytes are never kept, only what is missing. Called by the Camera's `observe`; the Pipeline reads the outcome from
//! the Camera's condition.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::{
    api::{Camera, condition::find},
    domain::{control::Problem, diagnosis::SECRET_MISSING},
    operator::{
        backoff,
        context::Context,
        error::{Error, Verb},
    },
};

/// Reason when it lacks a key.
pub const SECRET_INCOMPLETE: &str = "SecretIncomplete";

/// Keys a camera's Secret must have.
const KEYS: [&str; 2] = ["username", "password"];
/// Longest pause between two looks at a Secret that is missing: how long its creator waits at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What was found out about Secrets, and when to ask again.
#[derive(Debug, Default)]
pub struct Credentials(Mutex<HashMap<(String, String), Looked>>);

#[derive(Clone, Debug)]
struct Looked {
    problem: Option<Problem>,
    attempt: u32,
    next: Instant,
}

/// What is known of a Secret now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is missing.
    pub problem: Option<Problem>,
    /// When to ask again; `None` = it is all right.
    pub again: Option<Duration>,
}

impl Credentials {
    /// Looks at a Secret, or says what the last look said when it isn't time yet. `doubted`: somebody who uses it says
    /// that something is missing.
    pub async fn check(&self, ctx: &Context, namespace: &str, name: &str, doubted: bool) -> Result<Check, Error> {
        let key = (namespace.to_owned(), name.to_owned());
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let now = Instant::now();
        if let Some(last) = &last {
            let settled = last.problem.is_none() && !doubted;
            if settled || now < last.next {
                let again = (!settled).then(|| last.next.saturating_duration_since(now));
                return Ok(Check { problem: last.problem.clone(), again });
            }
        }
        ctx.metrics.api_request(Verb::Get, "Secret");
        let secret = Api::<Secret>::namespaced(ctx.client.clone(), namespace)
            .get_opt(name)
            .await
            .map_err(|e| Error::api(Verb::Get, "Secret", name, e))?;
        let problem = judge(namespace, name, secret.as_ref());
        let attempt = last.map_or(0, |last| last.attempt.saturating_add(1));
        let attempt = if problem.is_none() && !doubted { 0 } else { attempt };
        let pause = backoff::pause(attempt).min(LONGEST_PAUSE);
        let again = (problem.is_some() || doubted).then_some(pause);
        let looked = Looked { problem: problem.clone(), attempt, next: now + pause };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, looked);
        Ok(Check { problem, again })
    }
}

/// What is missing.
fn judge(namespace: &str, name: &str, secret: Option<&Secret>) -> Option<Problem> {
    let Some(secret) = secret else {
        return Some(Problem {
            reason: SECRET_MISSING.into(),
            message: format!(
                "create Secret {name:?} in namespace {namespace:?} with the keys username and password of the camera \
                 (type kubernetes.io/basic-auth)"
            ),
        });
    };
    let missing: Vec<_> = KEYS
        .into_iter()
        .filter(|key| secret.data.as_ref().and_then(|data| data.get(*key)).is_none_or(|value| value.0.is_empty()))
        .collect();
    (!missing.is_empty()).then(|| Problem {
        reason: SECRET_INCOMPLETE.into(),
        message: format!("Secret {name:?} in namespace {namespace:?} lacks {}: add it", missing.join(" and ")),
    })
}

/// What a Camera's own condition says about its Secret.
pub fn problem_in(camera: &Camera) -> Option<Problem> {
    let status = camera.status.as_ref()?;
    let condition = find(&status.conditions, super::status::CAPTURING)?;
    [SECRET_MISSING, SECRET_INCOMPLETE]
        .contains(&condition.reason.as_str())
        .then(|| Problem { reason: condition.reason.clone(), message: condition.message.clone() })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn truth_table() {
        let secret = |keys: &[&str]| Secret {
            data: Some(keys.iter().map(|key| ((*key).to_owned(), ByteString(b"x".to_vec()))).collect()),
            ..Secret::default()
        };
        for (secret, reason) in [
            (None, Some(SECRET_MISSING)),
            (Some(Secret::default()), Some(SECRET_INCOMPLETE)),
            (Some(secret(&["username"])), Some(SECRET_INCOMPLETE)),
            (Some(secret(&["username", "password"])), None),
        ] {
            assert_eq!(judge("n", "lobby", secret.as_ref()).map(|p| p.reason).as_deref(), reason);
        }
        let named = judge("n", "lobby", Some(&secret(&["username"]))).map(|p| p.message);
        assert_eq!(named.as_deref(), Some("Secret \"lobby\" in namespace \"n\" lacks password: add it"));
    }
}
