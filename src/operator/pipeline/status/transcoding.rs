//! `Transcoding`: the other renditions are made, and made in time. Absent when the Pipeline wants none.
//!
//! Nothing else depends on it: capture, storage and the source rendition go on whatever it says.

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
pub const KIND: &str = "Transcoding";

/// Reasons of which the status may keep saying what was said before.
const REASONS: [&str; 5] = ["InTime", "Behind", "Failing", "Starting", "Unknown"];

/// Concludes from the transcoders that stay.
pub fn condition(state: PipelineState, judged: &[Judged], previous: Option<&Condition>) -> Option<Verdict> {
    if judged.is_empty() {
        return None;
    }
    let verdict = |truth, reason, message: String| Some(Verdict::new(KIND, truth, reason, message));
    match state {
        PipelineState::Running => {}
        PipelineState::Paused => return verdict(Truth::False, "Paused", "paused with the Pipeline".to_owned()),
        PipelineState::Stopped => return verdict(Truth::False, "Stopped", "stopped with the Pipeline".to_owned()),
    }
    if judged.iter().any(|judged| judged.health.state == State::Awaiting)
        && let Some(previous) = previous
        && REASONS.contains(&previous.reason.as_str())
    {
        return Some(Verdict::again(KIND, previous));
    }
    // The worst first: whoever runs and is behind stands above whoever runs and is in time.
    let rank = |judged: &&Judged| (judged.health.state, judged.health.message.is_none());
    let worst = judged.iter().min_by_key(|j| (rank(j), &j.instance.camera.name))?;
    let well = judged.iter().filter(|j| j.health.state == State::Running && j.health.message.is_none()).count();
    let told = worst.health.message.as_deref().unwrap_or(worst.health.state.as_str());
    let message = format!(
        "the renditions of {well} of {} cameras are made in time; {}: {told}",
        judged.len(),
        worst.instance.camera.name
    );
    match worst.health.state {
        State::Running if worst.health.message.is_none() => {
            verdict(Truth::True, "InTime", format!("the renditions of {well} cameras are made in time"))
        }
        State::Running => verdict(Truth::False, "Behind", message),
        State::Failing => verdict(Truth::False, "Failing", message),
        State::Starting | State::Awaiting | State::Draining | State::Paused => {
            verdict(Truth::Unknown, "Starting", message)
        }
        State::Unknown => verdict(Truth::Unknown, "Unknown", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::id::Role,
        operator::{
            fixture,
            health::Health,
            pipeline::plan::tests::{observed, plan},
        },
    };

    #[test]
    fn truth_table() {
        use State::{Awaiting, Failing, Running, Starting, Unknown};
        let plan = plan(&fixture::pipeline("p").selecting_all().transcoding(800), &observed(&["a", "b"]));
        let (well, behind) = (None, Some("100 s behind"));
        let table = [
            (PipelineState::Running, vec![(Running, well), (Running, well)], Truth::True, "InTime"),
            (PipelineState::Running, vec![(Running, well), (Running, behind)], Truth::False, "Behind"),
            (PipelineState::Running, vec![(Running, behind), (Failing, Some("died"))], Truth::False, "Failing"),
            (PipelineState::Running, vec![(Running, well), (Starting, Some("waiting"))], Truth::Unknown, "Starting"),
            (PipelineState::Running, vec![(Running, well), (Unknown, Some("silent"))], Truth::Unknown, "Unknown"),
            (PipelineState::Running, vec![(Running, well), (Awaiting, None)], Truth::Unknown, "Starting"),
            (PipelineState::Paused, vec![(Running, well)], Truth::False, "Paused"),
            (PipelineState::Stopped, vec![(Running, well)], Truth::False, "Stopped"),
        ];
        for (state, states, truth, reason) in table {
            let judged: Vec<_> = states
                .iter()
                .zip(&plan.instances)
                .map(|((state, message), instance)| Judged {
                    instance,
                    uid: instance.uid,
                    role: Role::Transcoder,
                    health: Health { state: *state, reason: String::new(), message: message.map(str::to_owned) },
                })
                .collect();
            let found = condition(state, &judged, None).expect("a ladder is wanted");
            assert_eq!((found.truth, &*found.reason), (truth, reason), "{states:?}");
        }
        assert_eq!(condition(PipelineState::Running, &[], None), None);
    }
}
