//! Per-object pauses between attempts: growing, jittered, bounded.
//!
//! Not here: when to try at all (that is [`super::error::Retry`]). Called by the controllers' error policy, by the
//! checks of users' Secrets and by the broker's supervisor.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// First pause.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause: what a person waits at most after curing the cause without touching the object.
const LONGEST: Duration = Duration::from_secs(60);

/// The pause before attempt `attempt` (counted from 0): `FIRST`·2ⁿ up to `LONGEST`, of it a random half to whole.
pub fn pause(attempt: u32) -> Duration {
    jittered(FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST))
}

/// A random half to whole of `pause`: a thousand objects that failed together don't come back together.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// Counts failures per object.
#[derive(Debug, Default)]
pub struct Backoffs(Mutex<HashMap<String, Failing>>);

/// An object that failed.
#[derive(Debug)]
struct Failing {
    attempts: u32,
    /// End of its pause.
    until: Instant,
}

impl Backoffs {
    /// One more failure of `key`: how long to wait.
    ///
    /// Trap: what was written before a failure comes back as events, and each of them causes a look. Such a look within the
    /// pause is no attempt, or the first stumble of an object with many children would cost it the longest pause.
    pub fn failed(&self, key: &str, now: Instant) -> Duration {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = failing.entry(key.to_owned()).or_insert(Failing { attempts: 0, until: now });
        let left = failing.until.saturating_duration_since(now);
        if !left.is_zero() {
            return left;
        }
        let pause = pause(failing.attempts);
        *failing = Failing { attempts: failing.attempts.saturating_add(1), until: now + pause };
        pause
    }

    /// `key` did well, or is gone: the next failure starts from the beginning.
    pub fn reset(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        for attempt in 0..40 {
            let pause = pause(attempt);
            assert!(pause >= FIRST / 2 && pause <= LONGEST, "{attempt}: {pause:?}");
        }
        assert!(pause(10) >= LONGEST / 2);
    }

    #[test]
    fn a_success_starts_over() {
        let (backoffs, mut now) = (Backoffs::default(), Instant::now());
        for _ in 0..10 {
            now += backoffs.failed("a", now);
        }
        assert!(backoffs.failed("a", now) > FIRST);
        backoffs.reset("a");
        assert!(backoffs.failed("a", now) <= FIRST);
    }

    #[test]
    fn a_burst_of_events_makes_no_long_pause() {
        let (backoffs, now) = (Backoffs::default(), Instant::now());
        let pause = backoffs.failed("a", now);
        for _ in 0..10 {
            assert_eq!(backoffs.failed("a", now + pause / 2), pause.saturating_sub(pause / 2));
        }
        assert!(backoffs.failed("a", now + pause) <= 2 * FIRST);
    }
}
