//! The picture's times: 33 bits of a 90 kHz clock, in the order of decoding.

use super::Malformed;
use crate::domain::media::Media;

/// Ticks per second.
const CLOCK: i64 = 90_000;
/// The clock begins anew after 2^33 ticks, 26.5 hours.
const PERIOD: i64 = 1 << 33;
/// The same in µs, less a fraction.
pub const PERIOD_US: i64 = PERIOD * 1_000_000 / CLOCK;
/// As many as in the other container.
const MAX_FRAMES: i64 = 1_000_000;
/// Length of a single frame of which nobody says how long it is.
const ANY_FRAME_US: i64 = 40_000;
/// No frame is longer.
const MAX_FRAME_US: i64 = 60_000_000;

/// Sums over all frames, in ticks. All but `begin` count from the first frame.
#[derive(Debug, Default)]
pub(super) struct Times {
    begin: Option<i64>,
    frames: i64,
    last: i64,
    least: i64,
    most: i64,
    first_shown: i64,
    last_shown: i64,
    longest_step: i64,
    last_keyframe: Option<i64>,
    longest_gop: i64,
    starts_with_keyframe: bool,
}

impl Times {
    /// Takes the next frame by its times of decoding and of showing. The latter jump back and forth where there are
    /// B-frames; decode times count up, and are what the other container's lengths are made of.
    pub(super) fn frame(&mut self, ticks: u64, shown: u64, key: bool) -> Result<(), Malformed> {
        let ticks = i64::try_from(ticks).map_err(|_| Malformed::Excessive("ticks"))? % PERIOD;
        let shown = i64::try_from(shown).map_err(|_| Malformed::Excessive("ticks"))? % PERIOD;
        if self.frames == MAX_FRAMES {
            return Err(Malformed::Excessive("frames"));
        }
        let begin = *self.begin.get_or_insert(ticks);
        // The shorter way round the clock: a wrap within the segment is a step forward like any other.
        let way = |from: i64, to: i64| (to - from + PERIOD / 2).rem_euclid(PERIOD) - PERIOD / 2;
        let step = way((begin + self.last).rem_euclid(PERIOD), ticks);
        // At most 10^6 steps of at most 2^32 ticks: no overflow.
        self.last += step;
        let shown = self.last + way(ticks, shown);
        if self.frames == 0 {
            (self.first_shown, self.last_shown) = (shown, shown);
        }
        (self.first_shown, self.last_shown) = (self.first_shown.min(shown), self.last_shown.max(shown));
        self.longest_step = self.longest_step.max(step);
        (self.least, self.most) = (self.least.min(self.last), self.most.max(self.last));
        if key {
            self.starts_with_keyframe |= self.frames == 0;
            if let Some(last) = self.last_keyframe.replace(self.last) {
                self.longest_gop = self.longest_gop.max(self.last - last);
            }
        }
        self.frames += 1;
        Ok(())
    }

    /// What the frames amount to; `frame_us`: the length of one, if somebody knows.
    ///
    /// A transport stream does not say how long its last frame is. The mean of the others stands for it: exact where
    /// they are all the same (the other container says the nominal length, which then is the same), and without a bias
    /// where they are not, so that the lengths of a session add up to what its clock says.
    pub(super) fn media(&self, frame_us: Option<i64>) -> Result<Media, Malformed> {
        let begin = self.begin.ok_or(Malformed::Missing("picture"))?;
        let span = self.most - self.least;
        let last = match self.frames - 1 {
            0 => frame_us.unwrap_or(ANY_FRAME_US).clamp(0, MAX_FRAME_US) * CLOCK / 1_000_000,
            steps => (span + steps / 2) / steps,
        };
        let start = (begin + self.least).rem_euclid(PERIOD);
        let end = start + span + last;
        let first_shown = (begin + self.first_shown).rem_euclid(PERIOD);
        let gop = self.last_keyframe.map_or(0, |key| (self.most + last - key).max(self.longest_gop));
        let us = |ticks: i64| {
            i64::try_from(i128::from(ticks) * 1_000_000 / i128::from(CLOCK)).map_err(|_| Malformed::Excessive("ticks"))
        };
        // End minus begin, each rounded the same way: lengths add up without a rest over a whole session.
        Ok(Media {
            start_us: us(start)?,
            media_us: us(end)? - us(start)?,
            first_shown_us: us(first_shown)?,
            last_shown_us: us(first_shown + self.last_shown - self.first_shown)?,
            frames: u64::try_from(self.frames).unwrap_or(0),
            longest_step_us: us(self.longest_step)?,
            gop_us: us(gop)?,
            starts_with_keyframe: self.starts_with_keyframe,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn media(frames: &[(u64, bool)]) -> Result<Media, Malformed> {
        let mut times = Times::default();
        for (ticks, key) in frames {
            times.frame(*ticks, *ticks, *key)?;
        }
        times.media(None)
    }

    #[test]
    fn lengths_are_those_of_the_other_container() {
        let frames: Vec<(u64, bool)> = (0..74).map(|n| (126_000 + n * 6_000, n % 37 == 0)).collect();
        let want = Media {
            start_us: 1_400_000,
            media_us: 4_933_333,
            first_shown_us: 1_400_000,
            last_shown_us: 6_266_666,
            frames: 74,
            longest_step_us: 66_666,
            gop_us: 2_466_666,
            starts_with_keyframe: true,
        };
        assert_eq!(media(&frames), Ok(want));
        assert_eq!(media(&[]), Err(Malformed::Missing("picture")));
        assert_eq!(media(&frames[1..]).map(|media| media.starts_with_keyframe), Ok(false));
    }

    #[test]
    fn a_single_frame_is_as_long_as_the_camera_says() {
        let mut times = Times::default();
        times.frame(90_000, 90_000, true).expect("a frame");
        assert_eq!(times.media(Some(1_000_000)).map(|media| media.media_us), Ok(1_000_000));
        assert_eq!(times.media(None).map(|media| media.media_us), Ok(ANY_FRAME_US));
    }

    #[test]
    fn the_clock_begins_anew_after_26_hours_and_no_length_shows_it() {
        let at = |n: u64| ((1 << 33) - 9_000 + n * 3_600) % (1 << 33);
        let frames: Vec<(u64, bool)> = (0..100).map(|n| (at(n), n == 0)).collect();
        let wrapped = media(&frames).expect("well-formed");
        assert_eq!((wrapped.media_us, wrapped.gop_us, wrapped.frames), (4_000_000, 4_000_000, 100));
        assert_eq!(wrapped.start_us, PERIOD_US - 100_000);
        assert_eq!(media(&frames[3..]).map(|media| media.start_us), Ok(20_000), "the next one begins after the turn");
    }

    proptest! {
        /// Whatever the frame rate and wherever the clock stands: consecutive segments line up.
        #[test]
        fn lengths_add_up_to_the_difference_of_the_begins(
            begin in 0_u64..(1 << 33), step in 300_u64..90_000, counts in prop::collection::vec(2_u64..200, 2..10),
        ) {
            let (mut n, mut segments) = (0, Vec::new());
            for count in counts {
                let frames: Vec<(u64, bool)> =
                    (n..n + count).map(|n| ((begin + n * step) % (1 << 33), true)).collect();
                segments.push(media(&frames).expect("well-formed"));
                n += count;
            }
            for pair in segments.windows(2) {
                let apart = (pair[0].start_us + pair[0].media_us - pair[1].start_us).rem_euclid(PERIOD_US);
                prop_assert!(apart.min(PERIOD_US - apart) <= 1, "{pair:?}");
            }
        }

        #[test]
        fn hostile_times_never_panic(frames in prop::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 0..50), frame_us in any::<i64>()) {
            let mut times = Times::default();
            for (ticks, shown, key) in frames {
                let _ = times.frame(ticks, shown, key);
            }
            let _ = times.media(Some(frame_us));
        }
    }
}
