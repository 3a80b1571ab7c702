//! Step 5, pure: what the Pipeline's status says, on both branches. One file a condition, each with its truth table.
//!
//! Status rests: coarse words only, and while nothing is known yet after a start of operator or broker, what was said
//! before stays.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;

use super::{
    Applied,
    observe::Observed,
    plan::{Instance, Plan},
};
use crate::{
    api::{
        Pipeline, PipelineStatus,
        condition::{Truth, Verdict, find, merge},
        pipeline::{InstanceRow, PipelineState},
    },
    domain::id::{InstanceUid, Role},
    operator::{
        camera::credentials,
        error::Error,
        health::{self, Health, Signs, State},
        rollout,
    },
};

mod cameras_accepted;
mod capturing;
mod control_plane;
mod drained;
mod ready;
mod stored;
mod transcoding;

/// How many instances a status lists.
const ROWS: usize = 20;

/// One instance with how it is.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    instance: &'a Instance,
    uid: InstanceUid,
    role: Role,
    health: Health,
}

/// The status.
pub fn pipeline(
    pipeline: &Pipeline,
    observed: &Observed,
    plan: Option<&Plan>,
    applied: Result<&Applied, &Error>,
) -> PipelineStatus {
    let previous = pipeline.status.clone().unwrap_or_default();
    let generation = pipeline.metadata.generation;
    let Some(plan) = plan else {
        let verdicts = [ready::condition(None, applied.err(), None)];
        let message = Some(verdicts[0].message.clone());
        return PipelineStatus {
            observed_generation: generation,
            state: Some(pipeline.spec.effective_state()),
            message,
            conditions: merge(&previous.conditions, &verdicts, generation, observed.now),
            ..PipelineStatus::default()
        };
    };
    let judged: Vec<_> = plan.instances.iter().map(|instance| judge(plan, instance, observed)).collect();
    let transcoders: Vec<_> =
        plan.instances.iter().filter_map(|instance| judge_transcoder(plan, instance, observed)).collect();
    let (rows, running) = rows(judged.iter().chain(&transcoders), &previous);
    let staying: Vec<_> = judged.iter().filter(|judged| !judged.instance.leaving).cloned().collect();
    let laddered: Vec<_> = transcoders.into_iter().filter(|judged| !judged.instance.leaving).collect();
    let mut verdicts = vec![
        ready::condition(Some(plan), applied.err(), waiting(plan, observed).as_ref()),
        cameras_accepted::condition(plan),
        capturing::condition(plan.state, &staying, find(&previous.conditions, capturing::KIND)),
    ];
    verdicts.extend(transcoding::condition(plan.state, &laddered, find(&previous.conditions, transcoding::KIND)));
    verdicts.extend([
        stored::condition(plan, observed, find(&previous.conditions, stored::KIND)),
        control_plane::condition(
            plan,
            observed,
            applied.is_ok_and(|applied| applied.agent_secret_stale),
            // Trap: said of an older spec, it would hold before the instances are told of the new one.
            find(&previous.conditions, control_plane::KIND).filter(|said| said.observed_generation == generation),
        ),
    ]);
    verdicts.extend(drained::condition(plan, &judged, observed));
    let total = staying.len();
    PipelineStatus {
        observed_generation: generation,
        state: Some(plan.state),
        cameras: Some(format!("{total}/{}", plan.selected)),
        running: Some(format!("{running}/{total}")),
        message: Some(worst(plan, &verdicts, running, total)),
        effective: Some(plan.settings.clone()),
        instances: rows,
        conditions: merge(&previous.conditions, &verdicts, generation, observed.now),
    }
}

fn judge<'a>(plan: &Plan, instance: &'a Instance, observed: &Observed) -> Judged<'a> {
    let awaiting = crate::operator::broker::fleet::View::Awaiting;
    let view = observed.views.get(&instance.uid).map_or(&awaiting, |view| &view.view);
    let camera = observed.cameras.iter().find(|camera| camera.uid().as_deref() == Some(&instance.camera.uid));
    let health = health::of(&Signs {
        activity: instance.assignment.envelope.data.activity,
        pipeline: plan.state,
        view,
        pod: rollout::obstacle(deployment_of(observed, instance), pods_of(observed, instance)),
        secret: camera.and_then(|camera| credentials::problem_in(camera)),
        broker: observed.trouble.as_ref().map(|trouble| trouble.reason),
        deployment: instance.name.clone(),
        namespace: plan.pipeline.namespace.clone(),
    });
    Judged { instance, uid: instance.uid, role: Role::Capture, health }
}

fn judge_transcoder<'a>(plan: &Plan, instance: &'a Instance, observed: &Observed) -> Option<Judged<'a>> {
    let told = &instance.assignment.ladder.as_ref()?.envelope.data;
    let awaiting = crate::operator::broker::fleet::View::Awaiting;
    let view = observed.views.get(&told.instance).map_or(&awaiting, |view| &view.view);
    let health = health::of_transcoder(told.activity, plan.state, view);
    Some(Judged { instance, uid: told.instance, role: Role::Transcoder, health })
}

/// The worst instances first, and how many run. An instance of which nothing is known yet keeps its former row.
fn rows<'a>(judged: impl Iterator<Item = &'a Judged<'a>>, previous: &PipelineStatus) -> (Vec<InstanceRow>, usize) {
    let former: BTreeMap<_, _> = previous.instances.iter().map(|row| (row.uid.as_str(), row)).collect();
    let mut rows: Vec<_> = judged
        .map(|Judged { instance, uid, role, health }| {
            let uid = uid.to_string();
            match former.get(uid.as_str()) {
                Some(row) if health.state == State::Awaiting => (order(&row.state), (*row).clone(), instance.leaving),
                _ => {
                    let row = InstanceRow {
                        uid,
                        camera: instance.camera.name.clone(),
                        role: role.as_str().to_owned(),
                        state: health.state.as_str().to_owned(),
                        message: health.message.clone(),
                    };
                    (health.state, row, instance.leaving)
                }
            }
        })
        .collect();
    let captures = |row: &InstanceRow| row.role == Role::Capture.as_str();
    let running =
        rows.iter().filter(|(state, row, leaving)| *state == State::Running && !leaving && captures(row)).count();
    // By role before uid: what is the same must look the same wherever it is made.
    rows.sort_by(|(a, x, _), (b, y, _)| (a, &x.camera, &x.role, &x.uid).cmp(&(b, &y.camera, &y.role, &y.uid)));
    (rows.into_iter().take(ROWS).map(|(_, row, _)| row).collect(), running)
}

/// The state a former row speaks of.
fn order(word: &str) -> State {
    [State::Failing, State::Unknown, State::Draining, State::Paused, State::Running]
        .into_iter()
        .find(|state| state.as_str() == word)
        .unwrap_or(State::Starting)
}

fn deployment_of<'a>(observed: &'a Observed, instance: &Instance) -> Option<&'a Deployment> {
    observed.deployments.get(&instance.uid).map(|deployment| &**deployment)
}

fn pods_of<'a>(observed: &'a Observed, instance: &Instance) -> &'a [Arc<Pod>] {
    observed.pods.get(&instance.uid).map_or(&[], Vec::as_slice)
}

/// The first Deployment that is not rolled out.
fn waiting(plan: &Plan, observed: &Observed) -> Option<crate::domain::control::Problem> {
    plan.instances.iter().filter(|instance| !instance.leaving).find_map(|instance| {
        rollout::waits_for(&instance.name, deployment_of(observed, instance), pods_of(observed, instance))
    })
}

/// What a person should look at first.
fn worst(plan: &Plan, verdicts: &[Verdict], running: usize, total: usize) -> String {
    // In the order of the verdicts: what isn't rolled out can't capture, what isn't captured can't be stored.
    let resting = [capturing::KIND, transcoding::KIND];
    let wanted = |verdict: &&Verdict| {
        (plan.state == PipelineState::Running || !resting.contains(&verdict.kind))
            && verdict.reason != drained::ON_ITS_WAY
    };
    let bad = |truth: Truth| verdicts.iter().filter(wanted).find(move |verdict| verdict.truth == truth);
    if let Some(verdict) = bad(Truth::False).or_else(|| bad(Truth::Unknown)) {
        return verdict.message.clone();
    }
    match plan.state {
        PipelineState::Running => format!("{running} of {total} cameras are captured"),
        PipelineState::Paused => "paused: set spec.state to Running to go on".to_owned(),
        PipelineState::Stopped => "stopped: set spec.state to Running to go on".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::control::{InstanceReport, Phase, Problem, StreamSummary, Summary},
        operator::{
            broker::{
                InstanceView,
                fleet::{Link, SeenSummary, View},
                wanted::Control,
            },
            fixture::{self, at},
            pipeline::plan::tests::{carried_out, observed, plan},
        },
    };

    fn report(observed: &mut Observed, instance: &Instance, phase: Phase, problem: Option<&str>) {
        let report = InstanceReport {
            phase,
            revision: instance.assignment.envelope.revision,
            problem: problem.map(|text| Problem { reason: "Unauthorized".into(), message: text.into() }),
            ..InstanceReport::default()
        };
        let view = InstanceView { view: View::Fresh(Box::new(report)), control: Control::InPlace, applied: u64::MAX };
        observed.views.insert(instance.uid, view);
    }

    #[test]
    fn the_worst_instance_comes_first_and_its_message_is_the_pipelines() {
        let fixture = fixture::pipeline("p").selecting_all();
        let plan = plan(&fixture, &observed(&["a", "b"]));
        let mut seen = carried_out(&plan, &observed(&["a", "b"]));
        report(&mut seen, &plan.instances[0], Phase::Running, None);
        report(&mut seen, &plan.instances[1], Phase::Failing, Some("RTSP 401; check Secret \"b-login\""));
        let status = pipeline(&fixture.0, &seen, Some(&plan), Ok(&Applied::default()));
        assert_eq!(status.running.as_deref(), Some("1/2"));
        assert_eq!(status.instances[0].camera, "b");
        let capturing = find(&status.conditions, "Capturing").expect("there");
        assert_eq!(capturing.message, "1 of 2 cameras are captured; b: RTSP 401; check Secret \"b-login\"");
    }

    #[test]
    fn a_new_leader_keeps_what_was_said_until_it_knows_better() {
        let mut fixture = fixture::pipeline("p").selecting_all();
        let plan = plan(&fixture, &observed(&["a"]));
        let mut seen = carried_out(&plan, &observed(&["a"]));
        report(&mut seen, &plan.instances[0], Phase::Running, None);
        let stream = StreamSummary {
            stream: plan.instances[0].assignment.stream.stream,
            camera: plan.instances[0].camera.clone(),
            catalogued_until: Some(at(0)),
            stored_until: Some(at(0)),
            problem: None,
        };
        let summary = Summary { pipeline: plan.pipeline.clone(), streams: vec![stream] };
        seen.summary = Some(SeenSummary { summary, received_at: at(0) });
        let before = pipeline(&fixture.0, &seen, Some(&plan), Ok(&Applied::default()));
        let said = |status: &PipelineStatus, kind| find(&status.conditions, kind).map(|c| c.reason.clone());
        assert_eq!(said(&before, "ControlPlane").as_deref(), Some("InPlace"));
        assert_eq!(said(&before, "Stored").as_deref(), Some("Stored"));
        fixture.0.status = Some(before.clone());
        // Nobody has been heard yet: first without the broker, then before the queues are declared again.
        seen.views.clear();
        seen.summary = None;
        for (link, second) in [(Link::Down(at(1000)), 1000), (Link::Up(at(1001)), 1001), (Link::Up(at(1001)), 1180)] {
            (seen.link, seen.now) = (link, at(second));
            let after = pipeline(&fixture.0, &seen, Some(&plan), Ok(&Applied::default()));
            assert_eq!(after, before, "{second}: nothing is written");
        }
        let mut edited = fixture.0.clone();
        edited.metadata.generation = Some(2);
        let after = pipeline(&edited, &seen, Some(&plan), Ok(&Applied::default()));
        assert_eq!(said(&after, "ControlPlane").as_deref(), Some("Pending"), "nobody has been told");
        // By then the recorder would have spoken.
        seen.now = at(1182);
        let after = pipeline(&fixture.0, &seen, Some(&plan), Ok(&Applied::default()));
        assert_eq!(said(&after, "Stored").as_deref(), Some("RecorderSilent"));
    }

    #[test]
    fn an_invalid_spec_says_what_to_write() {
        let error = Error::Invalid { reason: "InvalidSelector", message: "write this".into() };
        let status = pipeline(&fixture::pipeline("p").0, &observed(&[]), None, Err(&error));
        let ready = find(&status.conditions, "Ready").expect("there");
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "InvalidSelector"));
        assert_eq!(status.message.as_deref(), Some("write this"));
    }
}
