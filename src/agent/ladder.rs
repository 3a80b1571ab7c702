//! The transcoder of the same pod as a participant of its own: its queue, its assignment, its word. It holds no token, so
//! the agent speaks for it; what the two exchange are files (`domain::spool`).
//!
//! Absent as long as the Pipeline wants no other renditions. Nothing of the capture waits for anything here.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use super::{
    assignment::{self, Taken, decide, hand, one_by_one},
    context::{Context, now},
};
use crate::domain::{
    control::{Activity, Envelope, InstanceReport, Phase, Problem},
    id::InstanceUid,
    ladder::LadderAssignment,
    spool::{self, REPORT_TOUCH_SECONDS, TranscoderReport},
};

/// A transcoder whose report is older is gone.
const SILENT: Duration = Duration::from_secs(3 * REPORT_TOUCH_SECONDS);

/// What is said of it then.
const SILENT_REASON: &str = "TranscoderSilent";

/// An assignment in effect.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedLadder {
    /// Its revision.
    pub revision: u64,
    /// What it says.
    pub assignment: LadderAssignment,
    /// Since when we know of a transcoder.
    pub since: Instant,
}

/// What is known of the transcoder.
#[derive(Debug)]
pub struct Ladder {
    /// What it was told; none without a ladder.
    pub told: watch::Sender<Option<AppliedLadder>>,
    /// What it says, in the words of an instance.
    pub report: watch::Sender<InstanceReport>,
}

impl Default for Ladder {
    fn default() -> Self {
        Self { told: watch::Sender::new(None), report: watch::Sender::new(InstanceReport::default()) }
    }
}

impl Ladder {
    /// The assignment in effect.
    pub fn applied(&self) -> Option<AppliedLadder> {
        self.told.borrow().clone()
    }

    /// Is this the transcoder's uid?
    pub fn is(&self, uid: InstanceUid) -> bool {
        self.told.borrow().as_ref().is_some_and(|applied| applied.assignment.instance == uid)
    }
}

/// Takes an assignment if it is newer than the one in effect, and hands it to the transcoder.
pub async fn take(context: &Arc<Context>, envelope: Envelope<LadderAssignment>) -> Result<Taken, assignment::Error> {
    one_by_one(context, move |context| {
        let Envelope { revision, data: assignment, .. } = &envelope;
        let current = context.ladder.applied();
        let known = current.as_ref().map(|known| (known.assignment.instance, known.revision));
        let taken = decide(known, assignment.instance, *revision);
        if taken != Taken::New {
            return Ok(taken);
        }
        hand(context, spool::LADDER_FILE, &envelope)?;
        let since = current.map_or_else(Instant::now, |known| known.since);
        let applied = AppliedLadder { revision: *revision, assignment: assignment.clone(), since };
        context.ladder.told.send_replace(Some(applied));
        tracing::info!(revision, activity = ?assignment.activity, "assignment of the transcoder applied");
        context.to_report.raise();
        context.to_trim.raise();
        Ok(taken)
    })
    .await
}

/// `remove` without a whole assignment: the one in effect, draining.
pub async fn drain(context: &Arc<Context>, revision: u64) -> Result<Taken, assignment::Error> {
    let Some(applied) = context.ladder.applied() else { return Ok(Taken::Older) };
    let assignment = LadderAssignment { activity: Activity::Draining, ..applied.assignment };
    let mut envelope = Envelope::unordered(assignment.instance.to_string(), "remove", now(), assignment);
    envelope.revision = revision;
    take(context, envelope).await
}

/// Reads an assignment file; one that is not there says nothing.
pub async fn look(context: &Arc<Context>, file: &std::path::Path) {
    let Ok(text) = std::fs::read(file) else { return };
    let taken = match serde_json::from_slice(&text) {
        Ok(envelope) => take(context, envelope).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = taken {
        tracing::warn!("the assignment of the transcoder: {}", crate::telemetry::chain(&error));
    }
}

/// Brings the transcoder's report up to date. Has it nothing left to make?
pub fn report(context: &Context) -> bool {
    let Some(applied) = context.ladder.applied() else { return true };
    let said = context.spool.transcoder_report().map(|(report, modified)| {
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        (report, age)
    });
    let report = compose(said, applied.since.elapsed());
    // One that is gone makes nothing more.
    let gone = report.problem.as_ref().is_some_and(|problem| problem.reason == SILENT_REASON);
    let done = gone || (report.phase == Phase::Drained && report.revision >= applied.revision);
    context.ladder.report.send_if_modified(|before| {
        let changed = *before != report;
        *before = report;
        changed
    });
    done
}

/// One that never said anything is silent too, `known` for too long: a pod must not wait for it when it drains.
fn compose(said: Option<(TranscoderReport, Duration)>, known: Duration) -> InstanceReport {
    let (said, age) = said.unwrap_or((TranscoderReport::default(), known));
    if age > SILENT {
        return InstanceReport {
            phase: Phase::Failing,
            problem: Some(Problem {
                reason: SILENT_REASON.to_owned(),
                message: "the transcoder does not report: look at the container transcoder of the pod".to_owned(),
            }),
            ..InstanceReport::default()
        };
    }
    InstanceReport {
        revision: said.revision,
        phase: said.phase,
        problem: said.problem,
        starts: said.starts,
        ..InstanceReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcoder_that_says_nothing_is_called_silent() {
        let said = TranscoderReport { revision: 4, phase: Phase::Running, ..TranscoderReport::default() };
        let long = Duration::from_secs(60);
        let fresh = compose(Some((said.clone(), Duration::from_secs(1))), long);
        assert_eq!((fresh.revision, fresh.phase, fresh.problem), (4, Phase::Running, None));
        for silent in [compose(Some((said, long)), long), compose(None, long)] {
            assert_eq!(silent.phase, Phase::Failing);
            assert_eq!(silent.problem.map(|problem| problem.reason).as_deref(), Some("TranscoderSilent"));
        }
        assert_eq!(compose(None, Duration::from_secs(1)), InstanceReport::default(), "it is starting");
    }
}
