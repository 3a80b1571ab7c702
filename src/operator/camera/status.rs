//! What the Camera's status says: pure, one truth table for each condition.

use kube::ResourceExt;

use super::observe::Observed;
use crate::{
    api::{
        Camera, CameraStatus, Pipeline,
        camera::Claim,
        condition::{Truth, Verdict, find, merge},
        pipeline::PipelineState,
    },
    domain::{
        control::Activity,
        id::{InstanceUid, Role},
        name,
        source::{Address, Invalid},
    },
    operator::{
        broker::fleet::View,
        health::{self, Signs, State},
        rollout,
    },
};

/// Type of the condition that says whether the spec is accepted.
pub const READY: &str = "Ready";
/// Type of the condition that says whether pictures arrive.
pub const CAPTURING: &str = "Capturing";

/// The status.
pub fn camera(camera: &Camera, observed: &Observed) -> CameraStatus {
    let previous = camera.status.clone().unwrap_or_default();
    let claimed_by = observed
        .claimant
        .as_ref()
        .map(|pipeline| Claim { name: pipeline.name_any(), uid: pipeline.uid().unwrap_or_default() });
    // What a camera sent is still what it is when nobody watches; forgotten only with the claim.
    let video = match &observed.view {
        View::Fresh(report) if report.video.is_some() => report.video.as_ref().map(ToString::to_string),
        _ if claimed_by.is_some() => previous.video.clone(),
        _ => None,
    };
    let same_claim = previous.claimed_by == claimed_by;
    let verdicts = [ready(camera), capturing(camera, observed, same_claim)];
    CameraStatus {
        observed_generation: camera.metadata.generation,
        claimed_by,
        video,
        conditions: merge(&previous.conditions, &verdicts, camera.metadata.generation, observed.now),
    }
}

/// Is the spec accepted? Also when nobody records the camera, or it is unplugged.
fn ready(camera: &Camera) -> Verdict {
    match Address::parse(&camera.spec.source.url) {
        Ok(_) => Verdict::new(READY, Truth::True, "Accepted", "accepted"),
        Err(invalid) => {
            Verdict::new(READY, Truth::False, invalid_reason(&invalid), format!("spec.source.url: {invalid}"))
        }
    }
}

fn invalid_reason(invalid: &Invalid) -> &'static str {
    match invalid {
        Invalid::UserInfo => "PasswordInAddress",
        _ => "InvalidAddress",
    }
}

/// Do pictures arrive?
fn capturing(camera: &Camera, observed: &Observed, same_claim: bool) -> Verdict {
    let verdict = |truth, reason: &str, message: String| Verdict::new(CAPTURING, truth, legal(reason), message);
    let Some(pipeline) = &observed.claimant else {
        return match &observed.secret {
            Some(problem) => verdict(Truth::False, &problem.reason, problem.message.clone()),
            None => verdict(
                Truth::False,
                "NotSelected",
                "no Pipeline selects this Camera: name it in spec.cameras.names of a Pipeline, or give it the labels of a \
                 Pipeline's spec.cameras.selector"
                    .to_owned(),
            ),
        };
    };
    let name = pipeline.name_any();
    let state = pipeline.spec.effective_state();
    let health = health::of(&signs(camera, observed, pipeline, state));
    let said = camera.status.as_ref().and_then(|status| find(&status.conditions, CAPTURING));
    match (state, health.state) {
        (PipelineState::Paused, State::Paused | State::Starting | State::Awaiting) => verdict(
            Truth::False,
            "Paused",
            format!("Pipeline {name:?} is paused: set its spec.state to Running to go on"),
        ),
        (PipelineState::Stopped, _) => verdict(
            Truth::False,
            "Stopped",
            format!("Pipeline {name:?} is stopped: set its spec.state to Running to go on"),
        ),
        // Not known yet after a start of the operator or the broker: what was said still holds.
        (_, State::Awaiting)
            if same_claim && said.is_some_and(|said| said.status != "Unknown" && is_health(&said.reason)) =>
        {
            let (truth, reason, message) = said.map_or((Truth::Unknown, "Starting", String::new()), |said| {
                (Truth::from(said.status == "True"), said.reason.as_str(), said.message.clone())
            });
            verdict(truth, reason, message)
        }
        (_, State::Running) => verdict(
            Truth::True,
            "Capturing",
            health.message.unwrap_or_else(|| format!("pictures arrive; recorded by Pipeline {name:?}")),
        ),
        (_, State::Unknown) => verdict(Truth::Unknown, &health.reason, health.message.unwrap_or_default()),
        (_, State::Failing | State::Starting | State::Awaiting | State::Draining | State::Paused) => {
            verdict(Truth::False, &health.reason, health.message.unwrap_or_default())
        }
    }
}

/// Is this the reason of a health, not of a claim or a wish?
fn is_health(reason: &str) -> bool {
    !["NotSelected", "Paused", "Stopped"].contains(&reason)
}

fn signs<'a>(camera: &Camera, observed: &'a Observed, pipeline: &Pipeline, state: PipelineState) -> Signs<'a> {
    let uid = InstanceUid::of(&pipeline.uid().unwrap_or_default(), &camera.uid().unwrap_or_default(), Role::Capture, 0);
    Signs {
        activity: if state == PipelineState::Running { Activity::Running } else { Activity::Paused },
        pipeline: state,
        view: &observed.view,
        pod: rollout::obstacle(observed.deployment.as_deref(), &observed.pods),
        secret: observed.secret.clone(),
        broker: observed.trouble.as_ref().map(|trouble| trouble.reason),
        deployment: name::instance(&pipeline.name_any(), &camera.name_any(), &uid.to_string()),
        namespace: camera.namespace().unwrap_or_default(),
    }
}

/// Reasons come from reports as texts; the API server wants them CamelCase, and a hostile one must not break the status.
fn legal(reason: &str) -> String {
    let fits = !reason.is_empty()
        && reason.len() <= 64
        && reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.chars().all(|c| c.is_ascii_alphanumeric());
    if fits { reason.to_owned() } else { "CaptureFailing".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        domain::control::{InstanceReport, Phase, Problem, VideoInfo},
        operator::{
            broker::{Trouble, fleet::Link},
            fixture::{self, at},
        },
    };

    fn seen(pipeline: Option<PipelineState>, view: View) -> Observed {
        Observed {
            claimant: pipeline.map(|state| fixture::pipeline("main").selecting_all().state(state).arc()),
            view,
            deployment: None,
            pods: Vec::new(),
            secret: None,
            again: None,
            link: Link::Up(at(0)),
            trouble: None,
            now: at(0),
        }
    }

    fn report(phase: Phase, problem: Option<(&str, &str)>) -> View {
        View::Fresh(Box::new(InstanceReport {
            phase,
            problem: problem.map(|(reason, message)| Problem { reason: reason.into(), message: message.into() }),
            video: Some(VideoInfo { codec: "h264".into(), width: 640, height: 360, fps: 25.0, ..VideoInfo::default() }),
            ..InstanceReport::default()
        }))
    }

    #[test]
    fn truth_table() {
        use PipelineState::{Paused, Running, Stopped};
        let missing = Problem { reason: "SecretMissing".into(), message: "create Secret \"lobby-login\"".into() };
        let with_secret = |mut observed: Observed| {
            observed.secret = Some(missing.clone());
            observed
        };
        let without_broker = |mut observed: Observed| {
            observed.trouble = Some(Trouble { reason: "BrokerUnreachable", message: "no".into() });
            observed
        };
        let unplugged = ("CameraUnreachable", "10.0.0.8:554 refuses: is it plugged in?");
        let table = [
            (seen(None, View::Awaiting), "False", "NotSelected"),
            (seen(Some(Running), report(Phase::Running, None)), "True", "Capturing"),
            (seen(Some(Running), report(Phase::Failing, Some(unplugged))), "False", "CameraUnreachable"),
            (seen(Some(Running), report(Phase::Failing, Some(("no word!", "x")))), "False", "CaptureFailing"),
            (seen(Some(Running), View::Awaiting), "False", "Starting"),
            (seen(Some(Running), View::Silent), "Unknown", "Silent"),
            (without_broker(seen(Some(Running), View::Silent)), "Unknown", "BrokerUnreachable"),
            (with_secret(seen(Some(Running), View::Awaiting)), "False", "SecretMissing"),
            (with_secret(seen(Some(Running), report(Phase::Failing, None))), "False", "SecretMissing"),
            (with_secret(seen(None, View::Awaiting)), "False", "SecretMissing"),
            (seen(Some(Paused), report(Phase::Paused, None)), "False", "Paused"),
            (seen(Some(Stopped), View::Silent), "False", "Stopped"),
        ];
        for (observed, truth, reason) in table {
            let status = camera(&fixture::camera("lobby"), &observed);
            let capturing = find(&status.conditions, CAPTURING).expect("there");
            assert_eq!((capturing.status.as_str(), capturing.reason.as_str()), (truth, reason));
            assert_eq!(
                find(&status.conditions, READY).map(|c| c.status.as_str()),
                Some("True"),
                "accepted all the same"
            );
        }
    }

    #[test]
    fn a_new_leader_keeps_what_was_said_until_it_knows_better() {
        let mut lobby = fixture::camera("lobby");
        let before = camera(&lobby, &seen(Some(PipelineState::Running), report(Phase::Running, None)));
        lobby.status = Some(before.clone());
        let mut later = seen(Some(PipelineState::Running), View::Awaiting);
        later.now = at(20);
        assert_eq!(camera(&lobby, &later), before);
        assert_eq!(before.video.as_deref(), Some("h264 640x360 25fps"));
    }

    #[test]
    fn another_claim_starts_from_the_beginning() {
        let mut lobby = fixture::camera("lobby");
        lobby.status = Some(camera(&lobby, &seen(Some(PipelineState::Running), report(Phase::Running, None))));
        let mut moved = seen(Some(PipelineState::Running), View::Awaiting);
        moved.claimant = Some(Arc::new(fixture::pipeline("other").0));
        let status = camera(&lobby, &moved);
        assert_eq!(find(&status.conditions, CAPTURING).map(|c| c.reason.as_str()), Some("Starting"));
    }

    #[test]
    fn an_address_that_slipped_through_is_named() {
        let mut lobby = fixture::camera("lobby");
        lobby.spec.source.url = "rtsp://u:p@host/".into();
        let status = camera(&lobby, &seen(None, View::Awaiting));
        let ready = find(&status.conditions, READY).expect("there");
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "PasswordInAddress"));
        assert!(!ready.message.contains("u:p"));
    }
}
