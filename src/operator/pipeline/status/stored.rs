//! `Stored`: footage reaches as many `StorageNodes` as the spec asks for, without falling behind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        condition::{Truth, Verdict},
        pipeline::PipelineState,
    },
    operator::{
        broker::fleet::{self, RECORDER_SILENCE, View},
        pipeline::{observe::Observed, plan::Plan},
    },
};

/// Type of the condition.
pub const KIND: &str = "Stored";

/// Reasons that come from the recorder's word, which a new leader has not heard yet.
const HEARD: [&str; 4] = ["Stored", "Lagging", "NotStoring", "RecorderSilent"];

/// Concludes from the group, the spools and the recorder's word.
pub fn condition(plan: &Plan, observed: &Observed, previous: Option<&Condition>) -> Verdict {
    let verdict = |truth, reason, message: String| Verdict::new(KIND, truth, reason, message);
    let (group, replicas) = (&plan.settings.group, plan.settings.replicas);
    if plan.nodes == 0 {
        return verdict(
            Truth::False,
            "StorageGroupMissing",
            format!(
                "there is no StorageNode in group {group:?} of namespace {:?}: create {replicas}, or name another group \
                 in spec.storage.groupRef; capture goes on and waits in the spool",
                plan.pipeline.namespace
            ),
        );
    }
    if plan.nodes < usize::try_from(replicas).unwrap_or(0) {
        return verdict(
            Truth::False,
            "TooFewStorageNodes",
            format!(
                "spec.storage.replicas is {replicas} and group {group:?} has {} StorageNode(s): create {} more, or lower \
                 replicas; capture goes on and footage is stored once there are enough",
                plan.nodes,
                replicas.unsigned_abs() as usize - plan.nodes
            ),
        );
    }
    let lagging_spool = plan.instances.iter().find(|instance| {
        observed.views.get(&instance.uid).is_some_and(|view| match &view.view {
            View::Fresh(report) => fleet::backlog_lags(report, observed.now),
            View::Awaiting | View::Silent => false,
        })
    });
    let summary = observed.summary.as_ref();
    let stale = summary.is_some_and(|seen| seen.is_stale(observed.now));
    if let Some(seen) = summary.filter(|_| !stale) {
        let streams = &seen.summary.streams;
        if let Some((stream, problem)) = streams.iter().find_map(|s| s.problem.as_ref().map(|problem| (s, problem))) {
            return verdict(Truth::False, "NotStoring", format!("{}: {}", stream.camera.name, problem.message));
        }
        if let Some(stream) = streams.iter().find(|stream| fleet::lags(stream)) {
            return verdict(
                Truth::False,
                "Lagging",
                format!(
                    "footage of {} has been waiting for more than 5 minutes to be on {replicas} StorageNodes; see \
                     kubectl -n {} get sn",
                    stream.camera.name, plan.pipeline.namespace
                ),
            );
        }
    }
    if let Some(instance) = lagging_spool {
        return verdict(
            Truth::False,
            "Lagging",
            format!(
                "footage of {} has been waiting in its spool for more than 5 minutes; see kubectl -n {} get sn",
                instance.camera.name, plan.pipeline.namespace
            ),
        );
    }
    let heard = previous.filter(|said| summary.is_none() && HEARD.contains(&said.reason.as_str()));
    let silent = observed.now.duration_since(observed.link.since()) > RECORDER_SILENCE;
    if let Some(said) = heard.filter(|_| !silent) {
        return Verdict::again(KIND, said);
    }
    match summary {
        _ if stale || heard.is_some() => verdict(
            Truth::Unknown,
            "RecorderSilent",
            "no word from dsn-server for more than 3 minutes; capture goes on".to_owned(),
        ),
        Some(seen) if seen.summary.streams.iter().any(|stream| stream.stored_until.is_some()) => {
            verdict(Truth::True, "Stored", format!("footage is on {replicas} StorageNodes"))
        }
        _ if plan.state == PipelineState::Running => {
            verdict(Truth::Unknown, "Pending", "the first footage is not stored yet".to_owned())
        }
        _ => verdict(Truth::Unknown, "Pending", "there is no footage yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::pipeline::Storage,
        domain::control::{Backlog, InstanceReport, Problem, StreamSummary, Summary},
        operator::{
            broker::{InstanceView, fleet::SeenSummary, wanted::Control},
            fixture::{self, at},
            pipeline::plan::tests::{observed, plan},
        },
    };

    #[derive(Default)]
    struct Case {
        nodes: Option<usize>,
        replicas: Option<i32>,
        /// (received, catalogued, stored) at second.
        summary: Option<(i64, i64, Option<i64>)>,
        problem: bool,
        oldest_in_spool: Option<i64>,
    }

    #[test]
    fn truth_table() {
        let table = [
            (Case { nodes: Some(0), ..Case::default() }, Truth::False, "StorageGroupMissing"),
            (Case { replicas: Some(3), ..Case::default() }, Truth::False, "TooFewStorageNodes"),
            (Case::default(), Truth::Unknown, "Pending"),
            (Case { summary: Some((990, 980, Some(900))), ..Case::default() }, Truth::True, "Stored"),
            (Case { summary: Some((990, 980, None)), ..Case::default() }, Truth::Unknown, "Pending"),
            (Case { summary: Some((990, 980, Some(600))), ..Case::default() }, Truth::False, "Lagging"),
            (Case { summary: Some((800, 790, Some(790))), ..Case::default() }, Truth::Unknown, "RecorderSilent"),
            (
                Case { summary: Some((990, 980, Some(900))), problem: true, ..Case::default() },
                Truth::False,
                "NotStoring",
            ),
            (Case { oldest_in_spool: Some(600), ..Case::default() }, Truth::False, "Lagging"),
            (
                Case { summary: Some((990, 980, Some(900))), oldest_in_spool: Some(800), ..Case::default() },
                Truth::True,
                "Stored",
            ),
        ];
        for (row, (case, truth, reason)) in table.into_iter().enumerate() {
            let storage = Storage { replicas: case.replicas, ..Storage::default() };
            let mut seen = observed(&["lobby"]);
            seen.storage_nodes.truncate(case.nodes.unwrap_or(2));
            seen.now = at(1000);
            let plan = plan(&fixture::pipeline("p").selecting_all().storage(storage), &seen);
            let instance = &plan.instances[0];
            seen.summary = case.summary.map(|(received, catalogued, stored)| SeenSummary {
                received_at: at(received),
                summary: Summary {
                    pipeline: plan.pipeline.clone(),
                    streams: vec![StreamSummary {
                        stream: instance.assignment.stream.stream,
                        camera: instance.camera.clone(),
                        catalogued_until: Some(at(catalogued)),
                        stored_until: stored.map(at),
                        problem: case.problem.then(|| Problem { reason: "Full".into(), message: "no room".into() }),
                    }],
                },
            });
            let backlog = Backlog { oldest: case.oldest_in_spool.map(at), ..Backlog::default() };
            let report = InstanceReport { backlog, ..InstanceReport::default() };
            let view = InstanceView { view: View::Fresh(Box::new(report)), control: Control::InPlace, applied: 0 };
            seen.views.insert(instance.uid, view);
            let found = condition(&plan, &seen, None);
            assert_eq!((found.truth, &*found.reason), (truth, reason), "row {row}: {}", found.message);
        }
    }
}
