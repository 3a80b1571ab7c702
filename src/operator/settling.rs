//! Children first: when a status waits for the children that are being made.
//!
//! What is written comes back as events, each of them with something new to say: told at once it would be three writes of
//! status where one is enough, and where a thousand Pipelines are created, these would keep the children of the last from
//! being made. So a status waits for a lull, in which nobody has written a child. Called by the reconciles; errors are
//! told at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Nobody has written a child for so long: a lull.
const LULL: Duration = Duration::from_secs(1);
/// The longest time that a status waits for one.
const LONGEST: Duration = Duration::from_secs(10);

/// What was written comes back by the watches within so long, in as many events as there are children, and each of them
/// asks for a look at all of them.
const ECHO: Duration = Duration::from_secs(1);

/// Whose status waits.
#[derive(Debug, Default)]
pub struct Settling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// For what, by uid.
    waiting: HashMap<String, Waiting>,
    /// When anybody wrote a child.
    last_write: Option<Instant>,
    /// When children of this object were written, by uid.
    echoes: HashMap<String, Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// For a lull, since then.
    Lull(Instant),
    /// For the broker's answer, until then.
    Answer(Instant),
}

impl State {
    /// How much longer.
    fn left(&self, waiting: Waiting, now: Instant) -> Option<Duration> {
        let until = match waiting {
            Waiting::Lull(since) => {
                let lull = self.last_write.map_or(since, |write| write.max(since)) + LULL;
                lull.min(since + LONGEST)
            }
            Waiting::Answer(until) => until,
        };
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

impl Settling {
    /// A child was written.
    pub fn wrote(&self, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_write = Some(now);
    }

    /// How long it takes until children that were written for `uid` are seen by the watches: a look before that would find
    /// them missing and write them again. `again`: they were just now, or the look that was just taken was too early.
    pub fn echo(&self, uid: &str, again: bool, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if again {
            state.echoes.insert(uid.to_owned(), now);
        }
        let left = (*state.echoes.get(uid)? + ECHO).checked_duration_since(now).filter(|left| !left.is_zero());
        if left.is_none() {
            state.echoes.remove(uid);
        }
        left
    }

    /// How much longer the status of the object `uid` waits; `begins`: it is new or its children were written just now.
    ///
    /// Trap: counted from the first time in a row, or a second writer who fights over a child would keep the status from
    /// ever saying so.
    pub fn wait(&self, uid: &str, begins: bool, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = if begins {
            *state.waiting.entry(uid.to_owned()).or_insert(Waiting::Lull(now))
        } else {
            *state.waiting.get(uid)?
        };
        let left = state.left(waiting, now);
        if left.is_none() {
            state.waiting.remove(uid);
        }
        left
    }

    /// May the broker be asked for what is new of the object `uid`, or does that wait as its status does? `wrote`: its
    /// children were written just now.
    ///
    /// A queue is needed when its pod runs, seconds later; a broker that declares a thousand of them takes the processor
    /// that the API server needs to make the children of the last.
    pub fn may_ask(&self, uid: &str, wrote: bool, now: Instant) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.get(uid).map_or(!wrote, |waiting| state.left(*waiting, now).is_none())
    }

    /// The broker was just asked for what is new of the object `uid`: how long its status waits for the answer.
    ///
    /// Trap: it waits so once, or cameras that come one by one would keep the status from ever being told.
    pub fn wait_for_answer(&self, uid: &str, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Waiting::Answer(_)) = state.waiting.insert(uid.to_owned(), Waiting::Answer(now + LULL)) {
            state.waiting.remove(uid);
            return None;
        }
        Some(LULL)
    }

    /// `uid` is gone.
    pub fn forget(&self, uid: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.remove(uid);
        state.echoes.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_waits_until_nobody_has_written_a_child_for_a_second() {
        let (settling, begin) = (Settling::default(), Instant::now());
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let left = |milliseconds| Some(Duration::from_millis(milliseconds));
        assert_eq!(settling.wait("a", false, at(0)), None, "nothing was written");
        settling.wrote(at(0));
        assert_eq!(settling.wait("a", true, at(0)), left(1_000));
        assert_eq!(settling.wait("b", false, at(0)), None, "another object, which has nothing new");
        settling.wrote(at(700));
        assert_eq!(settling.wait("c", true, at(700)), left(1_000));
        assert_eq!(settling.wait("a", false, at(800)), left(900), "somebody else's child");
        assert_eq!(settling.wait("a", false, at(1_700)), None);
        assert_eq!(settling.wait("a", false, at(1_800)), None, "it has been told");
        settling.forget("c");
        assert_eq!(settling.wait("c", false, at(900)), None);
    }

    #[test]
    fn the_broker_is_asked_for_what_is_new_when_the_status_is_told() {
        let (settling, begin) = (Settling::default(), Instant::now());
        assert!(settling.may_ask("a", false, begin), "nothing was written: a restart");
        assert!(!settling.may_ask("a", true, begin));
        settling.wrote(begin);
        assert_eq!(settling.wait("a", true, begin), Some(LULL));
        let almost = begin + LULL / 2;
        assert!(!settling.may_ask("a", false, almost));
        // Trap: at the same moment both say the same, or a status would be told of what nobody has asked for.
        for now in [begin + LULL, begin + LONGEST] {
            assert!(settling.may_ask("a", true, now));
        }
        assert_eq!(settling.wait("a", false, begin + LULL), None);
    }

    #[test]
    fn a_status_waits_once_for_the_brokers_answer_whatever_comes_meanwhile() {
        let (settling, begin) = (Settling::default(), Instant::now());
        assert_eq!(settling.wait("a", true, begin), Some(LULL));
        assert_eq!(settling.wait_for_answer("a", begin + LULL), Some(LULL));
        // Another camera comes, and somebody writes children all the time.
        let between = begin + LULL + LULL / 2;
        settling.wrote(between);
        assert!(!settling.may_ask("a", true, between));
        assert_eq!(settling.wait("a", true, between), Some(LULL / 2));
        let then = begin + 2 * LULL;
        assert!(settling.may_ask("a", false, then));
        assert_eq!(settling.wait_for_answer("a", then), None, "it is told now");
        // The next one is a row of its own.
        assert_eq!(settling.wait_for_answer("a", then), Some(LULL));
        assert_eq!(settling.wait("a", false, then + LULL), None);
    }

    #[test]
    fn a_status_waits_ten_seconds_at_most_however_many_children_are_written() {
        let (settling, begin) = (Settling::default(), Instant::now());
        for second in 0..10 {
            let now = begin + Duration::from_secs(second);
            settling.wrote(now);
            assert!(settling.wait("a", true, now).is_some(), "{second}");
        }
        let now = begin + LONGEST;
        settling.wrote(now);
        assert_eq!(settling.wait("a", true, now), None);
        assert_eq!(settling.wait("a", true, now), Some(LULL), "the next row");
    }

    #[test]
    fn nobody_looks_at_children_before_the_watches_have_seen_them() {
        let (settling, begin) = (Settling::default(), Instant::now());
        assert_eq!(settling.echo("a", false, begin), None, "nothing was written");
        assert_eq!(settling.echo("a", true, begin), Some(ECHO));
        assert_eq!(settling.echo("b", false, begin), None, "another object");
        assert_eq!(settling.echo("a", false, begin + ECHO / 4), Some(ECHO / 4 * 3));
        assert_eq!(settling.echo("a", false, begin + ECHO), None);
        assert_eq!(settling.echo("a", false, begin), None, "it has been seen");
    }

    #[test]
    fn what_is_new_waits_for_whom_it_may_concern() {
        let (settling, begin) = (Settling::default(), Instant::now());
        assert_eq!(settling.wait("camera", true, begin), Some(LULL));
        assert_eq!(settling.wait("camera", true, begin + LULL), None);
    }
}
