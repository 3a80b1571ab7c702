//! `Capturing`: pictures arrive from every camera that is taken.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::Judged;
use crate::{
    api::{
        condition::{Truth, Verdict},
        pipeline::PipelineState,
    },
    operator::health::State,
};

/// Type of the condition.
pub const KIND: &str = "Capturing";

/// Reasons of which the status may keep saying what was said before.
const REASONS: [&str; 4] = ["AllCapturing", "SomeNotCapturing", "NoneCapturing", "Unknown"];

/// Concludes from the instances that stay.
pub fn condition(state: PipelineState, judged: &[Judged], previous: Option<&Condition>) -> Verdict {
    let verdict = |truth, reason, message: String| Verdict::new(KIND, truth, reason, message);
    match state {
        PipelineState::Running => {}
        PipelineState::Paused => {
            return verdict(Truth::False, "Paused", "paused: set spec.state to Running to go on".to_owned());
        }
        PipelineState::Stopped => {
            return verdict(Truth::False, "Stopped", "stopped: set spec.state to Running to go on".to_owned());
        }
    }
    if judged.is_empty() {
        return verdict(Truth::False, "NoCameras", "there is no camera to capture".to_owned());
    }
    if judged.iter().any(|judged| judged.health.state == State::Awaiting)
        && let Some(previous) = previous
        && REASONS.contains(&previous.reason.as_str())
    {
        return Verdict::again(KIND, previous);
    }
    let (total, running) = (judged.len(), judged.iter().filter(|judged| judged.health.state == State::Running).count());
    if running == total {
        return verdict(Truth::True, "AllCapturing", format!("{running} of {total} cameras are captured"));
    }
    // The worst first; the ones that run say nothing here.
    let worst = judged
        .iter()
        .filter(|judged| judged.health.state != State::Running)
        .min_by_key(|judged| (judged.health.state, &judged.instance.camera.name));
    let told = worst.map_or_else(String::new, |worst| {
        let what = worst.health.message.as_deref().unwrap_or(worst.health.state.as_str());
        format!("; {}: {what}", worst.instance.camera.name)
    });
    let message = format!("{running} of {total} cameras are captured{told}");
    let all_unknown = judged.iter().all(|judged| matches!(judged.health.state, State::Unknown));
    match (all_unknown, running) {
        (true, _) => verdict(Truth::Unknown, "Unknown", message),
        (false, 0) => verdict(Truth::False, "NoneCapturing", message),
        (false, _) => verdict(Truth::False, "SomeNotCapturing", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        fixture,
        health::Health,
        pipeline::plan::tests::{observed, plan},
    };

    #[test]
    fn truth_table() {
        use State::{Awaiting, Failing, Paused, Running, Starting, Unknown};
        let plan = plan(&fixture::pipeline("p").selecting_all(), &observed(&["a", "b"]));
        let table = [
            (PipelineState::Running, vec![Running, Running], Truth::True, "AllCapturing"),
            (PipelineState::Running, vec![Running, Failing], Truth::False, "SomeNotCapturing"),
            (PipelineState::Running, vec![Failing, Unknown], Truth::False, "NoneCapturing"),
            (PipelineState::Running, vec![Starting, Awaiting], Truth::False, "NoneCapturing"),
            (PipelineState::Running, vec![Unknown, Unknown], Truth::Unknown, "Unknown"),
            (PipelineState::Running, vec![], Truth::False, "NoCameras"),
            (PipelineState::Paused, vec![Paused, Paused], Truth::False, "Paused"),
            (PipelineState::Stopped, vec![Unknown, Paused], Truth::False, "Stopped"),
        ];
        for (state, states, truth, reason) in table {
            let judged: Vec<_> = states
                .iter()
                .zip(&plan.instances)
                .map(|(state, instance)| Judged {
                    instance,
                    uid: instance.uid,
                    role: crate::domain::id::Role::Capture,
                    health: Health { state: *state, reason: String::new(), message: None },
                })
                .collect();
            let found = condition(state, &judged, None);
            assert_eq!((found.truth, &*found.reason), (truth, reason), "{states:?}");
        }
    }
}
