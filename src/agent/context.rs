//! What the tasks of the agent share: the assignment in effect, the outbox, the spool, who wakes whom.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Args, assignment::Applied, ladder::Ladder, live::Live, metrics::Metrics, outbox::Outbox, spool::Spool};
use crate::domain::{
    control::{InstanceReport, Problem, Wanted},
    segment::SegmentKey,
};

/// More segments that nobody knows are not asked about at once.
const MAX_UNKNOWN: usize = 1_000;

/// Shared by all tasks of the agent.
pub struct Context {
    /// Arguments.
    pub args: Args,
    /// The assignment in effect; none before the first.
    pub assignment: watch::Sender<Option<Applied>>,
    /// The transcoder of the same pod.
    pub ladder: Ladder,
    /// The durable memory.
    pub outbox: Outbox,
    /// The spool.
    pub spool: Spool,
    /// The live window.
    pub live: Live,
    /// Counters.
    pub metrics: Metrics,
    /// What we say of ourselves.
    pub report: watch::Sender<InstanceReport>,
    /// The mounted assignment may have changed.
    pub to_look: Signal,
    /// The spool may hold something new.
    pub to_scan: Signal,
    /// A segment was sealed, or must be uploaded again.
    pub to_add: Signal,
    /// Something is to be announced.
    pub to_announce: Signal,
    /// Something was stored or sealed: perhaps there is something to trim.
    pub to_trim: Signal,
    /// Something that the report tells has changed.
    pub to_report: Signal,
    /// The role ends: finish what is open, then stop.
    pub shutdown: CancellationToken,
    /// Everything is finished: every task ends.
    pub finished: CancellationToken,
    problems: Mutex<BTreeMap<Part, Problem>>,
    busy: Mutex<Vec<SegmentKey>>,
    unknown: Mutex<Vec<Wanted>>,
    seen: Mutex<Seen>,
    taking: Mutex<()>,
    /// Held from choosing a segment until it is taken, so that no two uploads choose the same.
    pub picking: tokio::sync::Mutex<()>,
}

/// Wakes everybody who listens, now or when they listen next; raised twice it wakes once.
#[derive(Debug)]
pub struct Signal(watch::Sender<()>);

impl Default for Signal {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Signal {
    /// Wakes everybody.
    pub fn raise(&self) {
        self.0.send_replace(());
    }

    /// Hears everything raised from now on.
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// What the newest segment shows of the camera.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Longest keyframe distance, µs.
    pub gop_us: i64,
    /// Frames per second.
    pub fps: f64,
    /// When wall and media clock last parted more than they should.
    pub drifted: Option<Instant>,
}

/// Parts of the agent that can have a problem of their own, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The assignment.
    Assignment,
    /// The spool or the outbox.
    Spool,
    /// The storage agents.
    Storage,
}

impl Context {
    /// Nothing is known yet.
    pub fn new(args: Args, outbox: Outbox, spool: Spool, live: Live, shutdown: CancellationToken) -> Self {
        Self {
            args,
            assignment: watch::Sender::new(None),
            ladder: Ladder::default(),
            outbox,
            spool,
            live,
            metrics: Metrics::default(),
            report: watch::Sender::new(InstanceReport::default()),
            to_look: Signal::default(),
            to_scan: Signal::default(),
            to_add: Signal::default(),
            to_announce: Signal::default(),
            to_trim: Signal::default(),
            to_report: Signal::default(),
            shutdown,
            finished: CancellationToken::new(),
            problems: Mutex::default(),
            busy: Mutex::default(),
            unknown: Mutex::default(),
            seen: Mutex::default(),
            taking: Mutex::default(),
            picking: tokio::sync::Mutex::new(()),
        }
    }

    /// The assignment in effect.
    pub fn applied(&self) -> Option<Applied> {
        self.assignment.borrow().clone()
    }

    /// Notes or clears the problem of a part.
    pub fn problem(&self, part: Part, problem: Option<Problem>) {
        let mut problems = lock(&self.problems);
        let before = problems.get(&part).cloned();
        if before == problem {
            return;
        }
        match problem {
            Some(problem) => {
                tracing::warn!(reason = problem.reason, "{}", problem.message);
                problems.insert(part, problem);
            }
            None => {
                problems.remove(&part);
            }
        }
        self.to_report.raise();
    }

    /// The worst problem of ours.
    pub fn worst_problem(&self) -> Option<Problem> {
        lock(&self.problems).values().next().cloned()
    }

    /// Takes a segment for oneself; gives it back when dropped.
    pub fn take(&self, key: &SegmentKey) -> Taken<'_> {
        lock(&self.busy).push(key.clone());
        Taken { context: self, key: key.clone() }
    }

    /// One assignment is taken at a time. For a thread that may wait.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.taking)
    }

    /// Segments that somebody is at.
    pub fn busy(&self) -> Vec<SegmentKey> {
        lock(&self.busy).clone()
    }

    /// Notes a segment that the recorder wants and nobody here knows: storage is asked whether it is lost. Not durable,
    /// because the recorder asks again.
    pub fn ask_about(&self, wanted: Wanted) {
        let mut unknown = lock(&self.unknown);
        if unknown.len() < MAX_UNKNOWN && !unknown.contains(&wanted) {
            unknown.push(wanted);
        }
    }

    /// The next of those.
    pub fn unknown(&self) -> Option<Wanted> {
        lock(&self.unknown).pop()
    }

    /// What the newest segment shows of the camera.
    pub fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    /// See [`Self::seen`].
    pub fn set_seen(&self, seen: Seen) {
        *lock(&self.seen) = seen;
    }

    /// Path of a mounted key.
    pub fn agent_secret(&self, key: &str) -> PathBuf {
        self.args.agent_secret.join(key)
    }
}

/// Now, in the resolution of everything that is published.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// A segment that somebody is at.
pub struct Taken<'a> {
    context: &'a Context,
    key: SegmentKey,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.context.busy).retain(|key| *key != self.key);
    }
}

/// A panic elsewhere leaves these small values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
