//! `Drained`: cameras that left this Pipeline have handed over their footage. Spoken of only while one has not.

use super::Judged;
use crate::{
    api::condition::{Truth, Verdict},
    domain::quantity,
    operator::{
        broker::fleet::View,
        pipeline::{
            observe::Observed,
            plan::{DRAIN_BOUND, Plan},
        },
    },
};

/// Type of the condition.
pub const KIND: &str = "Drained";
/// Reason while all goes well: nobody needs to do anything.
pub const ON_ITS_WAY: &str = "Draining";

/// Concludes from the instances that leave; the one that has most to lose is named.
pub fn condition(plan: &Plan, judged: &[Judged], observed: &Observed) -> Option<Verdict> {
    let leaving: Vec<_> = judged.iter().filter(|judged| judged.instance.leaving).collect();
    let is_late = |judged: &Judged| observed.now >= judged.instance.assignment.envelope.issued_at + DRAIN_BOUND;
    let report = |judged: &Judged| match observed.views.get(&judged.instance.uid).map(|view| &view.view) {
        Some(View::Fresh(report)) => Some(report),
        Some(View::Awaiting | View::Silent) | None => None,
    };
    // Nobody knows how much one holds that says nothing: it counts most.
    let waiting = |judged: &Judged| {
        report(judged).map_or(u64::MAX, |report| report.backlog.unannounced.saturating_add(report.backlog.unstored))
    };
    let worst = leaving.iter().copied().max_by_key(|judged| (is_late(judged), waiting(judged)))?;
    let (camera, late) = (&worst.instance.camera.name, is_late(worst));
    let more = match leaving.len() {
        1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let what = if let Some(report) = report(worst) {
        let why = report.problem.as_ref().filter(|_| late).map_or_else(String::new, |p| format!(" ({})", p.message));
        let spool = quantity::spoken(report.backlog.bytes);
        format!("{} segments are not stored yet, {spool} are in its spool{why}", waiting(worst))
    } else {
        let word = worst.health.message.as_deref().unwrap_or(worst.health.state.as_str());
        format!("nobody knows whether all of its footage is stored: {word}")
    };
    let (reason, todo) = if late {
        let todo = format!(
            "; its pod and volume stay until all is stored; to give that footage up: kubectl -n {} delete pvc {}",
            plan.pipeline.namespace, worst.instance.name
        );
        ("DrainStuck", todo)
    } else {
        (ON_ITS_WAY, String::new())
    };
    Some(Verdict::new(KIND, Truth::False, reason, format!("{camera}{more} leaves this Pipeline: {what}{todo}")))
}

#[cfg(test)]
mod tests {
    use super::{super::judge, *};
    use crate::{
        domain::control::{Backlog, InstanceReport, Phase, Problem},
        operator::{
            broker::{InstanceView, wanted::Control},
            fixture::{self, at},
            pipeline::plan::tests::{claim, left_long_ago, observed, plan},
        },
    };

    fn found(seen: &Observed) -> Option<Verdict> {
        let plan = plan(&fixture::pipeline("p").selecting_all(), seen);
        let judged: Vec<_> = plan.instances.iter().map(|instance| judge(&plan, instance, seen)).collect();
        condition(&plan, &judged, seen)
    }

    fn told(seen: &mut Observed, view: View) {
        let uid = *seen.held.keys().next().expect("dock");
        seen.views.insert(uid, InstanceView { view, control: Control::InPlace, applied: 0 });
    }

    #[test]
    fn a_drain_that_is_stuck_says_what_waits_and_how_to_give_it_up() {
        let report = InstanceReport {
            phase: Phase::Draining,
            backlog: Backlog { unannounced: 300, unstored: 50, bytes: 1_234_000_000, oldest: Some(at(0)) },
            problem: Some(Problem { reason: "StorageUnreachable".into(), message: "no storage agent".into() }),
            ..InstanceReport::default()
        };
        let mut seen = left_long_ago(Some(claim("Bound")));
        for (now, view, reason, words) in [
            (at(60), View::Fresh(Box::new(report.clone())), "Draining", "350 segments are not stored yet, 1.2 GB"),
            (seen.now, View::Fresh(Box::new(report)), "DrainStuck", "no storage agent"),
            (seen.now, View::Silent, "DrainStuck", "nobody knows"),
        ] {
            seen.now = now;
            told(&mut seen, view);
            let found = found(&seen).expect("dock leaves");
            assert_eq!((found.truth, &*found.reason), (Truth::False, reason), "{}", found.message);
            assert!(
                found.message.starts_with("dock leaves this Pipeline") && found.message.contains(words),
                "{found:?}"
            );
            assert_eq!(found.message.contains("kubectl -n cams delete pvc p-dock-"), reason == "DrainStuck");
        }
    }

    #[test]
    fn nobody_leaves_nothing_is_said() {
        assert_eq!(found(&observed(&["a"])), None);
    }
}
