//! How long to wait after something failed.

use std::time::Duration;

use rand::Rng;

/// Doubles from a start up to a limit, with jitter, until told that things go well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    start: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(start: Duration, limit: Duration) -> Self {
        Self { start, limit, next: start }
    }

    /// The next pause: between half of the present step and all of it.
    pub(super) fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.limit);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    pub(super) fn reset(&mut self) {
        self.next = self.start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_start_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        let pauses: Vec<_> = (0..6).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= Duration::from_secs(1) && pauses[5] >= Duration::from_secs(4));
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(8)));
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_secs(1));
    }
}
