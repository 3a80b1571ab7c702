//! What the instance says of itself: the runner's report and our own state, as one.

use std::{sync::Arc, time::Duration, time::SystemTime};

use super::{
    context::{Context, Seen},
    ladder,
};
use crate::{
    domain::{
        control::{Activity, Backlog, InstanceReport, Phase, Problem},
        spool::{REPORT_TOUCH_SECONDS, RunnerReport},
    },
    telemetry,
};

/// A runner whose report is older is gone.
const SILENT: Duration = Duration::from_secs(3 * REPORT_TOUCH_SECONDS);
/// Silence makes no event: look now and then.
const LOOK: Duration = Duration::from_secs(REPORT_TOUCH_SECONDS);
/// Clocks that part show it only now and then, between two corrections: the word stays for a while.
const DRIFT_STAYS: Duration = Duration::from_secs(120);

/// Keeps the report up to date.
pub async fn run(context: Arc<Context>) {
    let mut woken = context.to_report.listen();
    loop {
        match compose(&context).await {
            Ok(said) => {
                context.metrics.reported(&said);
                context.report.send_if_modified(|before| {
                    let changed = *before != said;
                    *before = said;
                    changed
                });
            }
            Err(error) => tracing::warn!("{}", telemetry::chain(&error)),
        }
        tokio::select! {
            _ = woken.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = context.finished.cancelled() => return,
        }
    }
}

async fn compose(context: &Context) -> Result<InstanceReport, super::outbox::Error> {
    let runner = context.spool.report().map(|(report, modified)| {
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        (report, age)
    });
    let ladder_done = ladder::report(context);
    let backlog = context.outbox.backlog().await?;
    let activity = context.applied().map(|applied| (applied.revision, applied.assignment.activity));
    let is_draining = activity.is_some_and(|(_, activity)| activity == Activity::Draining);
    let drained = is_draining && ladder_done && nothing_waits(context).await?;
    Ok(merge(runner, context.worst_problem(), activity, backlog, drained, context.seen()))
}

/// Is all footage stored?
///
/// Trap: whoever says "drained" is deleted with the volume. No time that has passed makes a copy superfluous: storage, broker
/// and server may be away for longer. What is not sealed is asked first: a moment later it may be sealed, and wait.
async fn nothing_waits(context: &Context) -> Result<bool, super::outbox::Error> {
    Ok(super::is_sealed(context, None).await?
        && context.outbox.waiting().await? == (0, 0)
        && context.outbox.untold_gaps().await? == 0)
}

/// The runner's word, unless it is silent, stands in the way of ours, or we are draining.
fn merge(
    runner: Option<(RunnerReport, Duration)>,
    ours: Option<Problem>,
    wanted: Option<(u64, Activity)>,
    backlog: Backlog,
    drained: bool,
    seen: Seen,
) -> InstanceReport {
    let mut report = InstanceReport { backlog, problem: ours, ..InstanceReport::default() };
    let Some((runner, age)) = runner else { return report };
    if age > SILENT {
        report.phase = Phase::Failing;
        report.problem = Some(Problem {
            reason: "RunnerSilent".to_owned(),
            message: "the runner does not report: look at the container runner of the pod".to_owned(),
        });
        return report;
    }
    report.revision = runner.revision;
    report.phase = runner.phase;
    report.session = runner.session;
    report.starts = runner.starts;
    report.video = runner.video.map(|mut video| {
        if seen.gop_us > 0 {
            video.gop_seconds = Some(rounded(seen.gop_us));
        }
        if video.fps == 0.0 && seen.fps > 0.0 {
            video.fps = (seen.fps * 10.0).round() / 10.0;
        }
        video
    });
    if runner.problem.is_some() {
        report.problem = runner.problem;
    } else if report.problem.is_none()
        && runner.phase == Phase::Running
        && seen.drifted.is_some_and(|at| at.elapsed() < DRIFT_STAYS)
    {
        report.problem = Some(Problem {
            reason: "ClockDrift".to_owned(),
            message: "the camera's clock runs at another speed than ours: check its frame rate and NTP settings"
                .to_owned(),
        });
    }
    if let Some((revision, Activity::Draining)) = wanted {
        let stopped = runner.phase == Phase::Paused && runner.revision >= revision;
        report.phase = if stopped && drained { Phase::Drained } else { Phase::Draining };
    }
    report
}

/// Tenths of a second: what moves less is no change of the camera.
fn rounded(us: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a length for people")]
    let seconds = us as f64 / 1e6;
    (seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        agent::{fixture, outbox::tests::sealed},
        domain::{container::Container, id::SessionId, spool},
    };

    fn problem(reason: &str) -> Problem {
        Problem { reason: reason.into(), message: String::new() }
    }

    fn running() -> RunnerReport {
        RunnerReport { revision: 3, phase: Phase::Running, ..RunnerReport::default() }
    }

    fn merged(
        runner: RunnerReport,
        age: u64,
        ours: Option<Problem>,
        activity: Activity,
        drained: bool,
    ) -> (Phase, Option<String>) {
        let runner = Some((runner, Duration::from_secs(age)));
        let report = merge(runner, ours, Some((3, activity)), Backlog::default(), drained, Seen::default());
        (report.phase, report.problem.map(|problem| problem.reason))
    }

    #[test]
    fn the_worst_is_said_first() {
        let storage = Some(problem("StorageUnreachable"));
        let failing = RunnerReport { phase: Phase::Failing, problem: Some(problem("Unauthorized")), ..running() };
        for (runner, age, ours, want) in [
            (running(), 0, None, (Phase::Running, None)),
            (running(), 0, storage.clone(), (Phase::Running, Some("StorageUnreachable".to_owned()))),
            (failing, 0, storage.clone(), (Phase::Failing, Some("Unauthorized".to_owned()))),
            (running(), 60, storage, (Phase::Failing, Some("RunnerSilent".to_owned()))),
        ] {
            assert_eq!(merged(runner, age, ours, Activity::Running, false), want);
        }
    }

    #[tokio::test]
    async fn nothing_is_drained_while_a_segment_is_not_stored_however_long_ago_it_was_announced() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Draining, "http://127.0.0.1:1").await;
        let stopped = RunnerReport { phase: Phase::Paused, ..running() };
        let report = |report: &RunnerReport| {
            let text = serde_json::to_vec(report).expect("JSON");
            std::fs::write(folder.path().join("spool").join(spool::REPORT_FILE), text).expect("writes");
        };
        let phase = async || compose(&context).await.expect("reads").phase;
        report(&stopped);
        let key = sealed(&context.outbox, 1).await.remove(0);
        context.outbox.added(&key).await.expect("writes");
        context.outbox.announced(&key, Timestamp::UNIX_EPOCH).await.expect("writes");
        assert_eq!(phase().await, Phase::Draining);
        context.outbox.stored(&key).await.expect("writes");
        assert_eq!(phase().await, Phase::Drained);
        // A session that is not sealed yet.
        std::fs::create_dir(folder.path().join("spool").join(SessionId::new().to_string())).expect("a folder");
        assert_eq!(phase().await, Phase::Draining);
    }

    #[tokio::test]
    async fn nothing_is_drained_while_a_session_that_has_ended_is_not_sealed() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Draining, "http://127.0.0.1:1").await;
        let spool = context.spool.path();
        let stopped = RunnerReport { phase: Phase::Paused, ..running() };
        std::fs::write(spool.join(spool::REPORT_FILE), serde_json::to_vec(&stopped).expect("JSON")).expect("writes");
        let phase = async || compose(&context).await.expect("reads").phase;
        assert_eq!(phase().await, Phase::Drained);
        // The agent was killed before it saw any of it.
        let source = fixture::session(&context, SessionId::new(), true);
        std::fs::write(source.join(spool::segment_file(0, Container::MpegTs)), "footage").expect("writes");
        assert_eq!(phase().await, Phase::Draining);
        // Nor does it help that a newer one is closed: the clock was set back.
        let newer = sealed(&context.outbox, 1).await.remove(0);
        context.outbox.added(&newer).await.expect("writes");
        context.outbox.stored(&newer).await.expect("writes");
        context.outbox.close(newer.session, None).await.expect("writes");
        std::fs::create_dir(spool.join(newer.session.to_string())).expect("a folder");
        assert_eq!(phase().await, Phase::Draining);
    }

    #[test]
    fn drained_is_said_only_when_ffmpeg_has_stopped_and_nothing_is_open() {
        let stopped = RunnerReport { phase: Phase::Paused, ..running() };
        let stale = RunnerReport { revision: 2, ..stopped.clone() };
        for (runner, drained, want) in [
            (stopped.clone(), true, Phase::Drained),
            (stopped, false, Phase::Draining),
            (stale, true, Phase::Draining),
            (running(), true, Phase::Draining),
        ] {
            assert_eq!(merged(runner, 0, None, Activity::Draining, drained).0, want);
        }
    }
}
