//! How long to wait before the next try.

use std::time::Duration;

/// A camera that is back must be recorded within five seconds (row B4), so no wait is long.
const MOST: Duration = Duration::from_secs(2);
/// Cameras lock accounts after a few wrong logins: after those, less often.
const MOST_AFTER_REFUSED_LOGIN: Duration = Duration::from_secs(30);
const LEAST: Duration = Duration::from_millis(250);

/// Doubling, with jitter so that the cameras behind one switch are not all called at once.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait.
    pub fn next(&mut self, refused_login: bool) -> Duration {
        let (least, most) = if refused_login { (MOST, MOST_AFTER_REFUSED_LOGIN) } else { (LEAST, MOST) };
        let full = least.saturating_mul(1 << self.tries.min(8)).min(most);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_short_except_after_a_refused_login() {
        let mut backoff = Backoff::default();
        assert!((0..50).all(|_| backoff.next(false) <= MOST));
        let mut refused = Backoff::default();
        let waits: Vec<_> = (0..50).map(|_| refused.next(true)).collect();
        assert!(waits.iter().all(|wait| *wait <= MOST_AFTER_REFUSED_LOGIN));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(10)));
    }
}
