//! Wall-clock times of segments: a session is anchored once, then every segment begins where the one before ended.
//!
//! Media time is what the camera stamps, wall time is ours; the two part slowly (a camera that says 25 fps and sends
//! 21) or suddenly. Published times never change and never run backwards: what must move, moves forward, with the next
//! segment. Not here: reading any clock; the caller says when a segment was sealed. All times in µs.

use serde::{Deserialize, Serialize};

use super::mpegts::PERIOD_US;

/// Wall and media may part by this much before the next segment moves forward.
pub const DRIFT_US: i64 = 1_000_000;
/// Beyond this the session is of no use any more.
pub const STEP_US: i64 = 10_000_000;
/// Drift counts when this many segments in a row agree: one late segment is a slow network, not a slow clock.
const AGREEING: usize = 3;
/// Nothing a camera sends makes a segment longer than this; a hostile duration must not overflow anything.
const MAX_MEDIA_US: i64 = 3_600_000_000;

/// Where a sealed segment lies by the media's own clock, and when it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Begin, by the media's own clock.
    pub media_start_us: i64,
    /// Length, by the media's own clock.
    pub media_us: i64,
    /// Wall time at which it was complete.
    pub sealed_us: i64,
}

/// Published times of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Begin; equals the end of the segment before unless `moved_us` or a missing number says otherwise.
    pub start_us: i64,
    /// End = begin + media length.
    pub end_us: i64,
    /// How far it was moved forward for drift.
    pub moved_us: i64,
    /// Wall minus media, as far as the last segments agree: what a person sees as clock drift.
    pub drift_us: i64,
}

impl Placed {
    /// Did the clocks part so far that a new session should begin?
    pub fn is_step(&self) -> bool {
        self.drift_us.abs() > STEP_US || self.moved_us > STEP_US
    }
}

/// The clock of one session; survives a restart of the agent as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the name of every time")]
pub struct SessionClock {
    /// End of the last published segment, wall time; at first: where the session may begin.
    end_us: i64,
    /// End of the last published segment, media time.
    media_end_us: i64,
    /// Sealed minus end of the last segments, newest last.
    lags_us: Vec<i64>,
}

impl SessionClock {
    /// Anchors a session at the smallest (seal − media) of its first segments: each seal is late by some unknown delay,
    /// so the least late one is nearest to the truth. `not_before_us` is the end of the footage before.
    ///
    /// `None` without any segment.
    pub fn anchor(first: &[Sealed], not_before_us: Option<i64>) -> Option<Self> {
        let begin = first.first()?;
        let offset =
            first.iter().map(|s| s.sealed_us.saturating_sub(s.media_start_us.saturating_add(length(s)))).min()?;
        let start = offset.saturating_add(begin.media_start_us);
        Some(Self {
            end_us: not_before_us.map_or(start, |floor| floor.max(start)),
            media_end_us: begin.media_start_us,
            lags_us: Vec::new(),
        })
    }

    /// Gives the next segment its times. `after_missing`: numbers are missing before it, so the media clock says how
    /// long the hole is.
    pub fn place(&mut self, segment: &Sealed, after_missing: bool) -> Placed {
        let hole =
            if after_missing { passed(self.media_end_us, segment.media_start_us).clamp(0, MAX_MEDIA_US) } else { 0 };
        let moved = match self.agreed_drift() {
            Some(drift) if drift > DRIFT_US => drift.min(MAX_MEDIA_US),
            _ => 0,
        };
        // A hole that the wall clock already counts as drift is not counted twice.
        let start = self.end_us.saturating_add(hole.max(moved));
        let end = start.saturating_add(length(segment));
        if moved > 0 || hole > 0 {
            self.lags_us.clear();
        }
        self.lags_us.push(segment.sealed_us.saturating_sub(end));
        if self.lags_us.len() > AGREEING {
            self.lags_us.remove(0);
        }
        self.end_us = end;
        self.media_end_us = segment.media_start_us.saturating_add(length(segment));
        Placed { start_us: start, end_us: end, moved_us: moved, drift_us: self.agreed_drift().unwrap_or(0) }
    }

    /// End of the last published segment.
    pub fn end_us(&self) -> i64 {
        self.end_us
    }

    /// What all of the last segments agree on: the least lag when all are late, the least lead when all are early.
    fn agreed_drift(&self) -> Option<i64> {
        if self.lags_us.len() < AGREEING {
            return None;
        }
        let (least, most) = (self.lags_us.iter().min()?, self.lags_us.iter().max()?);
        Some(if *least > 0 { *least } else { (*most).min(0) })
    }
}

/// From one media time to a later one. A clock that fell back by half a day has not gone back: that of a transport stream
/// has come round.
fn passed(from: i64, to: i64) -> i64 {
    let passed = to.saturating_sub(from);
    if passed < -PERIOD_US / 2 { passed.saturating_add(PERIOD_US) } else { passed }
}

fn length(segment: &Sealed) -> i64 {
    segment.media_us.clamp(0, MAX_MEDIA_US)
}

/// Tells a jump of the media clock or of the wall clock from slow drift, second by second.
///
/// Fed by ffmpeg's progress reports: over any [`Self::WINDOW_US`] neither media time nor wall time may part from
/// monotonic time by more than [`STEP_US`]. A camera with a wrong frame rate drifts a few seconds in that window and
/// passes.
#[derive(Debug, Default)]
pub struct StepWatch {
    samples: std::collections::VecDeque<[i64; 3]>,
}

impl StepWatch {
    const WINDOW_US: i64 = 20_000_000;

    /// Takes what the three clocks say now; `true` = one of them jumped.
    pub fn jumped(&mut self, monotonic_us: i64, media_us: i64, wall_us: i64) -> bool {
        while self.samples.front().is_some_and(|[then, ..]| monotonic_us.saturating_sub(*then) > Self::WINDOW_US) {
            self.samples.pop_front();
        }
        let parted = |from: [i64; 3], clock: usize, now: i64| {
            now.saturating_sub(from[clock]).saturating_sub(monotonic_us.saturating_sub(from[0])).saturating_abs()
                > STEP_US
        };
        let jumped = self.samples.iter().any(|from| parted(*from, 1, media_us) || parted(*from, 2, wall_us));
        self.samples.push_back([monotonic_us, media_us, wall_us]);
        jumped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: i64 = 1_000_000;

    fn sealed(media_start_us: i64, media_us: i64, sealed_us: i64) -> Sealed {
        Sealed { media_start_us, media_us, sealed_us }
    }

    #[test]
    fn a_session_is_anchored_at_the_least_late_seal() {
        let first = [sealed(0, 4 * S, 1_004 * S + 300_000), sealed(4 * S, 4 * S, 1_008 * S + 50_000)];
        let mut clock = SessionClock::anchor(&first, None).expect("has segments");
        let placed = clock.place(&first[0], false);
        assert_eq!((placed.start_us, placed.end_us), (1_000 * S + 50_000, 1_004 * S + 50_000));
    }

    #[test]
    fn a_session_never_begins_before_the_end_of_the_one_before() {
        let first = [sealed(0, 4 * S, 1_004 * S)];
        let mut clock = SessionClock::anchor(&first, Some(1_002 * S)).expect("has segments");
        assert_eq!(clock.place(&first[0], false).start_us, 1_002 * S);
    }

    #[test]
    fn a_camera_that_says_25_fps_and_sends_21_is_moved_forward_in_steps() {
        let (mut media, mut wall) = (0, 1_000 * S);
        let mut clock = None;
        let mut moved = 0;
        for _ in 0..100 {
            // 100 frames stamped as 4 s take 4.76 s to arrive.
            wall += 100 * S / 21;
            let segment = sealed(media, 4 * S, wall);
            media += 4 * S;
            let clock = clock.get_or_insert_with(|| SessionClock::anchor(&[segment], None).expect("one segment"));
            let placed = clock.place(&segment, false);
            moved += placed.moved_us;
            assert!(!placed.is_step(), "{placed:?}");
            assert!((wall - placed.end_us).abs() < 5 * S, "{} behind", wall - placed.end_us);
        }
        assert!(moved > 60 * S, "{moved}");
    }

    #[test]
    fn one_late_segment_is_a_slow_network_not_a_slow_clock() {
        let mut clock = SessionClock::anchor(&[sealed(0, 4 * S, 4 * S)], None).expect("one segment");
        for (n, late) in [0, 0, 3 * S, 0, 0, 0].into_iter().enumerate() {
            let start = i64::try_from(n).expect("small") * 4 * S;
            assert_eq!(clock.place(&sealed(start, 4 * S, start + 4 * S + late), false).moved_us, 0);
        }
    }

    #[test]
    fn a_missing_number_leaves_a_hole_as_long_as_the_media_clock_says() {
        let mut clock = SessionClock::anchor(&[sealed(0, 4 * S, 104 * S)], None).expect("one segment");
        clock.place(&sealed(0, 4 * S, 104 * S), false);
        let placed = clock.place(&sealed(8 * S, 4 * S, 112 * S), true);
        assert_eq!((placed.start_us, placed.end_us), (108 * S, 112 * S));
    }

    #[test]
    fn a_missing_number_where_the_media_clock_comes_round_is_as_long_as_any_other() {
        let before = sealed(PERIOD_US - 3 * S, 4 * S, 104 * S);
        let mut clock = SessionClock::anchor(&[before], None).expect("one segment");
        clock.place(&before, false);
        let placed = clock.place(&sealed(5 * S, 4 * S, 112 * S), true);
        assert_eq!((placed.start_us, placed.end_us), (108 * S, 112 * S));
    }

    #[test]
    fn jumps_of_media_and_wall_are_told_from_drift() {
        let mut slow = StepWatch::default();
        assert!((0..600).all(|t| !slow.jumped(t * S, t * S * 21 / 25, t * S)), "21 for 25 fps is drift");
        for (name, jump) in [("media forth", [0, 60]), ("media back", [0, -60]), ("wall forth", [60, 0])] {
            let mut watch = StepWatch::default();
            let mut at = |t: i64, wall: i64, media: i64| watch.jumped(t * S, (t + media) * S, (t + wall) * S);
            assert!((0..30).all(|t| !at(t, 0, 0)), "{name}");
            assert!(at(30, jump[0], jump[1]), "{name}");
        }
        let mut stuck = StepWatch::default();
        let noticed = (0..60).find(|t| stuck.jumped(t * S, (*t).min(30) * S + *t, t * S));
        assert!(noticed.is_some_and(|t| t <= 42), "a media clock that crawls: {noticed:?}");
    }

    proptest! {
        #[test]
        fn no_gap_no_overlap_and_published_times_never_change(
            segments in proptest::collection::vec((0_i64..30 * S, -2 * S..20 * S), 1..60),
            restart_after in 0_usize..60,
        ) {
            let (mut media, mut wall) = (0, 5_000 * S);
            let rows: Vec<Sealed> = segments.iter().map(|(length, late)| {
                let row = sealed(media, *length, wall + length + late);
                media += length;
                wall += length;
                row
            }).collect();
            let mut clock = SessionClock::anchor(&rows[..1], None).expect("has segments");
            let mut published: Vec<Placed> = Vec::new();
            for (n, row) in rows.iter().enumerate() {
                if n == restart_after {
                    let kept = serde_json::to_string(&clock).expect("serialises");
                    clock = serde_json::from_str(&kept).expect("reads what it wrote");
                }
                let placed = clock.place(row, false);
                prop_assert_eq!(placed.end_us, placed.start_us + row.media_us);
                if let Some(before) = published.last() {
                    prop_assert_eq!(placed.start_us, before.end_us + placed.moved_us);
                }
                prop_assert!(placed.moved_us == 0 || placed.moved_us > DRIFT_US);
                published.push(placed);
            }
            // The same segments, placed in one go without a restart, get the same times.
            let mut again = SessionClock::anchor(&rows[..1], None).expect("has segments");
            let replayed: Vec<Placed> = rows.iter().map(|row| again.place(row, false)).collect();
            prop_assert_eq!(published, replayed);
        }

        #[test]
        fn hostile_numbers_never_panic(rows in proptest::collection::vec((any::<i64>(), any::<i64>(), any::<i64>(), any::<bool>()), 1..20)) {
            let mut clock = SessionClock::anchor(&[sealed(rows[0].0, rows[0].1, rows[0].2)], Some(rows[0].2)).expect("one");
            let mut watch = StepWatch::default();
            for (start, length, at, missing) in rows {
                clock.place(&sealed(start, length, at), missing);
                watch.jumped(start, length, at);
            }
        }
    }
}
