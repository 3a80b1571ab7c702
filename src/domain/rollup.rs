//! Which segments form which roll-up: one directory, one pin, for what a stream sealed within a minute or so.
//!
//! Pure: the recorder asks with rows and a clock and is told what to close now and when to look again. A segment that
//! comes after its window was closed forms a further part of it (window, part); nothing closed is ever reopened.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// Once the stream's own time has passed a window, its stragglers get this long after the last arrival.
const SETTLE: SignedDuration = SignedDuration::from_secs(3);
/// When the stream has fallen silent, a window stays open this long after its end and after the last arrival.
const SILENCE: SignedDuration = SignedDuration::from_secs(30);
/// Links of one directory: its block stays far below IPFS's limit of 1 MiB (about 110 bytes a link).
pub const MAX_MEMBERS: usize = 1_000;

/// A catalogued segment that belongs to no roll-up yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Row in the catalogue.
    pub row: i64,
    /// Wall-clock begin.
    pub start: Timestamp,
    /// When the announcement arrived.
    pub received: Timestamp,
}

/// Members of one roll-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Begin of the window.
    pub window: Timestamp,
    /// Rows of its segments, in the order given.
    pub rows: Vec<i64>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Windows to close now, oldest first.
    pub close: Vec<Closing>,
    /// When the next window may close by the clock alone; `None` when nothing is open.
    pub look_again: Option<Timestamp>,
}

/// What is known of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Length of a window, seconds; 0 = every segment for itself.
    pub rollup_seconds: u32,
    /// End of the newest catalogued segment of the stream.
    pub newest_end: Timestamp,
    /// The stream records no more.
    pub ended: bool,
}

/// Begin of the window that `start` falls into.
fn window_of(start: Timestamp, rollup_seconds: u32) -> Timestamp {
    if rollup_seconds == 0 {
        return start;
    }
    let length = i64::from(rollup_seconds) * 1_000_000;
    let begin = start.as_microsecond().div_euclid(length) * length;
    Timestamp::from_microsecond(begin).unwrap_or(start)
}

/// Decides which windows of `open` are closed at `now`.
pub fn close(open: &[Open], progress: Progress, now: Timestamp) -> Verdict {
    let mut windows: BTreeMap<Timestamp, Vec<Open>> = BTreeMap::new();
    for segment in open {
        windows.entry(window_of(segment.start, progress.rollup_seconds)).or_default().push(*segment);
    }
    let mut verdict = Verdict::default();
    for (window, members) in windows {
        let end = window.saturating_add(SignedDuration::from_secs(progress.rollup_seconds.into())).unwrap_or(window);
        let arrived = members.iter().map(|member| member.received).max().unwrap_or(now);
        let passed = progress.ended || progress.newest_end >= end;
        let closes = if progress.rollup_seconds == 0 {
            arrived
        } else if passed {
            arrived.saturating_add(SETTLE).unwrap_or(now)
        } else {
            arrived.max(end).saturating_add(SILENCE).unwrap_or(now)
        };
        // A clock that was set back must not keep a window open: arrivals in the future count as now.
        if closes <= now || members.len() >= MAX_MEMBERS || (passed && arrived > now) {
            verdict.close.extend(
                members
                    .chunks(MAX_MEMBERS)
                    .map(|members| Closing { window, rows: members.iter().map(|member| member.row).collect() }),
            );
        } else {
            verdict.look_again = Some(verdict.look_again.map_or(closes, |at: Timestamp| at.min(closes)));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_323_040 + seconds).expect("in range")
    }

    fn open(row: i64, start: i64, received: i64) -> Open {
        Open { row, start: at(start), received: at(received) }
    }

    fn progress(newest_end: i64) -> Progress {
        Progress { rollup_seconds: 60, newest_end: at(newest_end), ended: false }
    }

    #[test]
    fn a_minute_stays_open_until_the_stream_has_passed_it() {
        let rows = [open(1, 0, 5), open(2, 56, 61)];
        let waiting = close(&rows, progress(58), at(62));
        assert!(waiting.close.is_empty());
        assert_eq!(waiting.look_again, Some(at(91)));
        let passed = close(&rows, progress(60), at(62));
        assert_eq!((passed.close.len(), passed.look_again), (0, Some(at(64))));
        let closed = close(&rows, progress(60), at(64));
        assert_eq!(closed.close, [Closing { window: at(0), rows: vec![1, 2] }]);
        assert_eq!(closed.look_again, None);
    }

    #[test]
    fn a_stream_that_fell_silent_is_closed_by_the_clock() {
        assert_eq!(close(&[open(1, 10, 15)], progress(14), at(89)).look_again, Some(at(90)));
        assert_eq!(close(&[open(1, 10, 15)], progress(14), at(90)).close.len(), 1);
    }

    #[test]
    fn a_stream_that_ended_needs_no_grace_for_its_minute() {
        let ended = Progress { ended: true, ..progress(14) };
        assert_eq!(close(&[open(1, 10, 15)], ended, at(18)).close.len(), 1);
    }

    #[test]
    fn a_backlog_closes_minute_by_minute() {
        let rows: Vec<_> = (0..30).map(|i| open(i, i * 4, 1000)).collect();
        let verdict = close(&rows, progress(124), at(1003));
        assert_eq!(verdict.close.iter().map(|c| c.rows.len()).collect::<Vec<_>>(), [15, 15]);
    }

    #[test]
    fn without_a_length_every_segment_is_its_own() {
        let single = Progress { rollup_seconds: 0, ..progress(14) };
        assert_eq!(close(&[open(1, 0, 5), open(2, 4, 9)], single, at(9)).close.len(), 2);
    }

    proptest! {
        #[test]
        fn every_row_is_closed_once_or_waited_for(
            rows in prop::collection::vec((0i64..600, 0i64..700), 0..60), newest in 0i64..700, now in 0i64..1500,
        ) {
            let rows: Vec<_> = (0i64..).zip(rows).map(|(row, (start, received))| open(row, start, received)).collect();
            let verdict = close(&rows, progress(newest), at(now));
            let mut closed: Vec<_> = verdict.close.iter().flat_map(|c| c.rows.clone()).collect();
            let count = closed.len();
            closed.sort_unstable();
            closed.dedup();
            prop_assert_eq!(closed.len(), count);
            prop_assert_eq!(verdict.look_again.is_none(), count == rows.len());
            prop_assert!(verdict.look_again.is_none_or(|again| again > at(now)));
        }

        #[test]
        fn in_the_end_everything_closes(rows in prop::collection::vec((0i64..600, 0i64..700), 0..60)) {
            let rows: Vec<_> = (0i64..).zip(rows).map(|(row, (start, received))| open(row, start, received)).collect();
            prop_assert_eq!(close(&rows, progress(0), at(800)).look_again, None);
        }
    }
}
