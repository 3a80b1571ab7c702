//! `Ready`: the spec is accepted and rolled out. Also when paused, stopped, unused, or when a camera is unplugged: Flux
//! and Helm wait for it.

use crate::{
    api::{
        condition::{Truth, Verdict},
        pipeline::PipelineState,
    },
    domain::control::Problem,
    operator::{error::Error, pipeline::plan::Plan, rollout::PODS_REFUSED},
};

/// Type of the condition.
pub const KIND: &str = "Ready";

/// Concludes from the plan, the failure of plan or apply, and what a Deployment waits for.
pub fn condition(plan: Option<&Plan>, failure: Option<&Error>, waiting: Option<&Problem>) -> Verdict {
    let verdict = |truth, reason, message: &str| Verdict::new(KIND, truth, reason, message);
    if let Some(error) = failure {
        // Of a conflict nobody can do anything: the next look settles it.
        let truth = if error.is_conflict() { Truth::Unknown } else { Truth::False };
        return verdict(truth, error.reason(), &error.to_string());
    }
    if let Some(waiting) = waiting {
        // Waiting does not help here.
        let reason = if waiting.reason == PODS_REFUSED { PODS_REFUSED } else { "RollingOut" };
        return verdict(Truth::False, reason, &waiting.message);
    }
    match plan {
        Some(plan) if plan.instances.is_empty() => {
            verdict(Truth::True, "Unused", "accepted; there is no camera to capture")
        }
        Some(Plan { state: PipelineState::Paused, .. }) => verdict(Truth::True, "Paused", "accepted; paused"),
        Some(Plan { state: PipelineState::Stopped, .. }) => verdict(Truth::True, "Stopped", "accepted; scaled to zero"),
        Some(_) => verdict(Truth::True, "RolledOut", "accepted and rolled out"),
        None => verdict(Truth::Unknown, "Planning", "not planned yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        error::Verb,
        fixture,
        pipeline::plan::tests::{observed, plan},
    };

    fn api_error(code: u16) -> Error {
        let status = kube::core::Status::failure("no", "No").with_code(code);
        Error::api(Verb::Apply, "Deployment", "d", kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn truth_table() {
        let of =
            |state, cameras: &[&str]| plan(&fixture::pipeline("p").selecting_all().state(state), &observed(cameras));
        let running = of(PipelineState::Running, &["a"]);
        let paused = of(PipelineState::Paused, &["a"]);
        let stopped = of(PipelineState::Stopped, &["a"]);
        let unused = of(PipelineState::Running, &[]);
        let waiting = Problem { reason: "ImagePullBackOff".into(), message: "no image".into() };
        let forbidden = Problem { reason: PODS_REFUSED.into(), message: "exceeded quota".into() };
        let (refused, conflict) = (api_error(422), api_error(409));
        for (plan, failure, waiting, truth, reason) in [
            (Some(&running), None, None, Truth::True, "RolledOut"),
            (Some(&paused), None, None, Truth::True, "Paused"),
            (Some(&stopped), None, None, Truth::True, "Stopped"),
            (Some(&unused), None, None, Truth::True, "Unused"),
            (Some(&running), None, Some(&waiting), Truth::False, "RollingOut"),
            (Some(&running), None, Some(&forbidden), Truth::False, "PodsRefused"),
            (Some(&running), Some(&refused), None, Truth::False, "Rejected"),
            (Some(&running), Some(&conflict), None, Truth::Unknown, "Conflict"),
            (None, None, None, Truth::Unknown, "Planning"),
        ] {
            let found = condition(plan, failure, waiting);
            assert_eq!((found.truth, &*found.reason), (truth, reason));
        }
    }
}
