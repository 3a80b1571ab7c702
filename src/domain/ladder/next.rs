//! Which sealed segment is transcoded next: the newest, so that live is served first; older ones when there is time, up
//! to a bound, and none for ever.

use crate::domain::{container::Container, id::SessionId};

use super::{BOUND_US, TRIES};

/// A finished segment of the source that lacks renditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its session.
    pub session: SessionId,
    /// Its number.
    pub seq: u64,
    /// What it is packed in.
    pub container: Container,
    /// When it was finished, µs since 1970.
    pub finished_us: i64,
    /// How often it was tried in vain.
    pub tries: u32,
}

/// What to do with what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next<'a> {
    /// Transcode this one now.
    pub job: Option<&'a Waiting>,
    /// These are too old: their renditions will not be made.
    pub too_old: Vec<&'a Waiting>,
    /// These failed too often.
    pub failed: Vec<&'a Waiting>,
    /// How long the oldest has been waiting, µs; 0 when none does.
    pub behind_us: i64,
}

/// Decides. A segment that failed before stands behind the untried ones: one damaged segment must not hold up the others.
/// What was finished before the ladder was asked for (`asked_us`) is older than it has been waiting.
pub fn next(waiting: &[Waiting], asked_us: i64, now_us: i64) -> Next<'_> {
    let mut next = Next::default();
    for segment in waiting {
        let since = |begin: i64| now_us.saturating_sub(begin).max(0);
        if segment.tries >= TRIES {
            next.failed.push(segment);
        } else if since(segment.finished_us) > BOUND_US {
            next.too_old.push(segment);
        } else {
            next.behind_us = next.behind_us.max(since(segment.finished_us.max(asked_us)));
            let rank = |segment: &Waiting| (TRIES - segment.tries.min(TRIES), segment.session, segment.seq);
            if next.job.is_none_or(|job| rank(segment) > rank(job)) {
                next.job = Some(segment);
            }
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;

    fn waiting(session: u128, seq: u64, age_seconds: i64, tries: u32) -> Waiting {
        let (session, container) = (SessionId(Uuid::from_u128(session)), Container::default());
        Waiting { session, seq, container, finished_us: NOW - age_seconds * 1_000_000, tries }
    }

    #[test]
    fn the_newest_first_and_what_failed_last() {
        let table = [
            (vec![], None),
            (vec![waiting(1, 3, 8, 0), waiting(1, 4, 4, 0)], Some((1, 4))),
            // A new session counts on from 0.
            (vec![waiting(1, 9, 8, 0), waiting(2, 0, 1, 0)], Some((2, 0))),
            (vec![waiting(1, 3, 8, 0), waiting(1, 4, 4, 1)], Some((1, 3))),
            (vec![waiting(1, 3, 8, 2), waiting(1, 4, 4, 1)], Some((1, 4))),
            (vec![waiting(1, 3, 301, 0)], None),
            (vec![waiting(1, 3, 8, 3)], None),
            // A clock that was set back makes nothing old.
            (vec![waiting(1, 3, -50, 0)], Some((1, 3))),
        ];
        for (waiting, want) in table {
            let job = next(&waiting, 0, NOW).job.map(|job| (job.session.0.as_u128(), job.seq));
            assert_eq!(job, want, "{waiting:?}");
        }
    }

    #[test]
    fn being_behind_is_the_age_of_what_still_waits() {
        let all = [waiting(1, 0, 400, 0), waiting(1, 1, 40, 0), waiting(1, 2, 4, 0), waiting(1, 3, 90, 3)];
        let found = next(&all, 0, NOW);
        assert_eq!((found.behind_us, found.too_old.len(), found.failed.len()), (40_000_000, 1, 1));
        // A ladder that was added to footage was behind from its first second on.
        assert_eq!(next(&all, NOW - 10_000_000, NOW).behind_us, 10_000_000);
    }

    proptest! {
        /// Whatever waits, each segment is worked on, given up or still waiting behind a newer or less tried one; and a
        /// transcoder that fails all the time comes to an end.
        #[test]
        fn nothing_waits_for_ever(segments in prop::collection::vec((1_u128..3, 0_u64..20, 0_i64..600, 0_u32..4), 0..30)) {
            let mut waiting: Vec<_> = segments.iter().map(|(s, q, a, t)| waiting(*s, *q, *a, *t)).collect();
            let mut rounds = 0;
            while !waiting.is_empty() {
                let now = next(&waiting, 0, NOW);
                let gone: Vec<_> = now.too_old.iter().chain(&now.failed).map(|w| (*w).clone()).collect();
                if let Some(job) = now.job {
                    for other in waiting.iter().filter(|w| !gone.contains(w)) {
                        let newer = (other.session, other.seq) > (job.session, job.seq);
                        prop_assert!(!newer || other.tries > job.tries);
                    }
                    let job = job.clone();
                    if let Some(tried) = waiting.iter_mut().find(|w| **w == job) {
                        tried.tries += 1;
                    }
                }
                waiting.retain(|w| !gone.contains(w));
                rounds += 1;
                prop_assert!(rounds < 200);
            }
        }
    }
}
