//! Open segments → roll-ups → pins → stored. Woken by news and by the earliest deadline; at rest it sleeps.
//!
//! Membership is committed before anything is built, and what the cluster is asked for is written down before it is
//! asked: whatever is killed, the next round reads from the catalogue where it was.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{
    Recorder,
    backoff::Backoff,
    pin::{GroupPins, Left},
};
use crate::{
    catalogue::{self, PinState, Rollup},
    clients::groups::Group,
    domain::{control::Problem, id::StreamId, rollup},
};

/// How often a pin that was asked for is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How often, when it takes long.
const WATCH_SLOW: Duration = Duration::from_secs(5);
/// Least rest between two rounds: news within this time are one.
const GATHER: Duration = Duration::from_millis(250);
/// How long to wait after the catalogue failed.
const RETRY: Duration = Duration::from_secs(5);

/// What the loop remembers of a group; nothing of it has to survive.
struct GroupState {
    pins: GroupPins,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Whatever is heard, pins that were asked for are not looked at again before.
    watch_at: Option<Instant>,
}

impl GroupState {
    fn new() -> Self {
        Self {
            pins: GroupPins::default(),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            not_before: None,
            watch_at: None,
        }
    }
}

/// Roll-ups and their groups' state, for as long as the recorder runs.
#[derive(Default)]
pub(super) struct Rolling {
    groups: HashMap<Group, GroupState>,
}

impl Recorder {
    /// Closes windows, builds roll-ups, pins them, watches the pins.
    pub(super) async fn roll(&self) {
        let mut rolling = Rolling::default();
        loop {
            let pause = match self.round(&mut rolling).await {
                Ok(pause) => pause,
                Err(error) => {
                    self.troubled(&error);
                    Some(RETRY)
                }
            };
            let rested = tokio::time::Instant::now() + GATHER;
            match pause {
                Some(pause) => drop(tokio::time::timeout(pause, self.rolled.notified()).await),
                None => self.rolled.notified().await,
            }
            // A hundred cameras bring news all the time: several of them are one round. What comes alone is not kept waiting.
            tokio::time::sleep_until(rested).await;
        }
    }

    /// Does what can be done now; how long until there is more, if there is anything open.
    pub(super) async fn round(&self, rolling: &mut Rolling) -> Result<Option<Duration>, catalogue::Error> {
        let mut pause = self.close_windows(Timestamp::now()).await?;
        let unstored = self.reader.unstored_rollups().await?;
        self.metrics.waiting.set(i64::try_from(unstored.len()).unwrap_or(i64::MAX));
        let mut by_group: BTreeMap<Group, Vec<Rollup>> = BTreeMap::new();
        for rollup in unstored {
            let group = Group { namespace: rollup.namespace.clone(), name: rollup.group.clone() };
            by_group.entry(group).or_default().push(rollup);
        }
        rolling.groups.retain(|group, _| by_group.contains_key(group));
        for group in by_group.keys() {
            rolling.groups.entry(group.clone()).or_insert_with(GroupState::new);
        }
        // One after the other, a group whose nodes are gone would hold up the others by its timeouts.
        let steps = rolling.groups.iter_mut().filter_map(|(group, state)| {
            let rollups = by_group.remove(group)?;
            Some(self.group_round(group.clone(), state, rollups))
        });
        let mut problems: HashMap<StreamId, Problem> = HashMap::new();
        for outcome in join_all(steps).await {
            let (next, found) = outcome?;
            problems.extend(found);
            pause = earlier(pause, next);
        }
        self.note(problems);
        Ok(pause)
    }

    /// Commits the membership of every window that is closed.
    async fn close_windows(&self, now: Timestamp) -> Result<Option<Duration>, catalogue::Error> {
        let mut pause = None;
        for stream in self.reader.open_streams().await? {
            let progress = rollup::Progress {
                rollup_seconds: stream.config.rollup_seconds,
                newest_end: stream.newest,
                ended: stream.config.deleted,
            };
            let verdict = rollup::close(&stream.segments, progress, now);
            for closing in verdict.close {
                self.writer.commit_rollup(&stream, closing.window, &closing.rows).await?;
            }
            if let Some(again) = verdict.look_again {
                pause = earlier(pause, Some(until(again, now)));
            }
        }
        Ok(pause)
    }

    /// One group's share of a round: when to look again, and what is wrong with which stream.
    async fn group_round(
        &self,
        group: Group,
        state: &mut GroupState,
        rollups: Vec<Rollup>,
    ) -> Result<(Option<Duration>, HashMap<StreamId, Problem>), catalogue::Error> {
        // News of a hundred cameras come all the time, and bring no pin about any sooner.
        let only_watched = rollups.iter().all(|rollup| rollup.state == PinState::Pinning);
        let not_before = state.not_before.max(state.watch_at.filter(|_| only_watched));
        let left = not_before.map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Ok((Some(left), state.pins.problems.clone()));
        }
        let left = self.advance(&group, &mut state.pins, rollups).await?;
        let pause = match left {
            Left::Failed => {
                let pause = state.backoff.pause();
                state.not_before = Some(Instant::now() + pause);
                return Ok((Some(pause), state.pins.problems.clone()));
            }
            Left::Slow => Some(WATCH_SLOW),
            Left::Pending => Some(WATCH),
            Left::Nothing => None,
        };
        state.backoff.reset();
        state.not_before = None;
        state.watch_at = Some(Instant::now() + WATCH);
        Ok((pause, state.pins.problems.clone()))
    }

    /// Keeps what is wrong for the summaries, and tells the operator at once when it changed.
    fn note(&self, problems: HashMap<StreamId, Problem>) {
        let mut known = self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *known != problems {
            *known = problems;
            self.changed.notify_one();
        }
    }
}

/// The sooner of two pauses; `None` is none.
pub(super) fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    [a, b].into_iter().flatten().min()
}

/// From `now` until `at`, at least a moment so that rounding never makes a loop spin.
pub(super) fn until(at: Timestamp, now: Timestamp) -> Duration {
    let left = at.duration_since(now).max(SignedDuration::from_millis(50));
    Duration::try_from(left).unwrap_or(Duration::from_millis(50))
}
