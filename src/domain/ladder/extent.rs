//! Does a rendition's segment line up with the source's? If not, a player that switches would jump.

use crate::domain::{media::Media, segment::Segment};

/// Frames that a decoder may hold back until those between them have come; more are allowed, and sent by no camera.
const REORDERED: i64 = 2;
/// Rounding, and clocks that tick in other steps, µs.
const ROUNDING_US: i64 = 1_000;

/// What is known of the source's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Frames.
    pub frames: u64,
    /// When the first and the last of them are shown, µs; only the segment's file knows.
    pub shown_us: Option<(i64, i64)>,
    /// Length by the clock of decoding, µs.
    pub media_us: i64,
}

impl From<&Media> for Extent {
    fn from(media: &Media) -> Self {
        let shown_us = Some((media.first_shown_us, media.last_shown_us));
        Self { frames: media.frames, shown_us, media_us: media.media_us }
    }
}

impl From<&Segment> for Extent {
    fn from(segment: &Segment) -> Self {
        let media_us = i64::try_from(segment.media_us).unwrap_or(i64::MAX);
        Self { frames: segment.frames, shown_us: None, media_us }
    }
}

/// Has the rendition as many frames as the source, at the same times, and can playback begin with it?
///
/// Trap: times are those of showing. Where the source has B-frames, its first one is decoded a few frames before it is
/// shown; the rendition has none, so that its decode times begin later.
pub fn lines_up(source: &Extent, made: &Media) -> bool {
    let Some(frames) = i64::try_from(source.frames).ok().filter(|frames| *frames > 0) else { return false };
    let frame_us = source.media_us.max(0) / frames;
    let times_agree = if let Some((first, last)) = source.shown_us {
        let bound = (frame_us + ROUNDING_US).unsigned_abs();
        first.abs_diff(made.first_shown_us).max(last.abs_diff(made.last_shown_us)) <= bound
    } else {
        // Trap: the encoder gives the last frame a length of its own, and lengths by the clock of decoding begin and end
        // with other frames where some are reordered. They differ by the longest of them where frames come irregularly.
        let longest_us = made.longest_step_us.max(frame_us);
        let bound = longest_us.saturating_mul(1 + REORDERED).saturating_add(ROUNDING_US);
        source.media_us.abs_diff(made.media_us) <= bound.unsigned_abs()
    };
    made.frames == source.frames && made.starts_with_keyframe && times_agree
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 frames of 25 a second.
    const SOURCE: Media = Media {
        start_us: 8_000_000,
        media_us: 4_000_000,
        first_shown_us: 8_000_000,
        last_shown_us: 11_960_000,
        frames: 100,
        longest_step_us: 40_000,
        gop_us: 2_000_000,
        starts_with_keyframe: true,
    };

    /// As the transcoder knows the source, and as the agent does.
    fn extents(source: &Media) -> [Extent; 2] {
        let known = Extent::from(source);
        [known, Extent { shown_us: None, ..known }]
    }

    #[test]
    fn the_last_frame_may_have_a_length_of_its_own() {
        for source in extents(&SOURCE) {
            assert!(lines_up(&source, &SOURCE));
            for last_us in [0, 1, 80_000] {
                let made = Media { media_us: 3_960_000 + last_us, ..SOURCE };
                assert!(lines_up(&source, &made), "{source:?} {last_us}");
            }
        }
    }

    #[test]
    fn a_frame_more_or_less_does_not_line_up() {
        for source in extents(&SOURCE) {
            for frames in [0, 99, 101] {
                assert!(!lines_up(&source, &Media { frames, ..SOURCE }), "{source:?} {frames}");
            }
        }
    }

    #[test]
    fn nothing_lines_up_with_no_frames() {
        let nothing = Media { frames: 0, media_us: 0, ..SOURCE };
        for source in extents(&nothing) {
            assert!(!lines_up(&source, &nothing) && !lines_up(&source, &SOURCE));
        }
    }

    #[test]
    fn it_begins_and_ends_where_the_source_does() {
        let source = Extent::from(&SOURCE);
        let moved = |first: i64, last: i64| Media {
            start_us: SOURCE.start_us + first,
            first_shown_us: SOURCE.first_shown_us + first,
            last_shown_us: SOURCE.last_shown_us + last,
            ..SOURCE
        };
        // To a frame: the first one's time is rounded on the way through ffmpeg.
        assert!(lines_up(&source, &moved(-40_000, -40_000)));
        for (first, last) in [(-60_000, 0), (60_000, 60_000), (0, 60_000), (-8_000_000, -8_000_000)] {
            assert!(!lines_up(&source, &moved(first, last)), "{first} {last}");
        }
        assert!(!lines_up(&source, &Media { starts_with_keyframe: false, ..SOURCE }));
        let [_, sealed] = extents(&SOURCE);
        assert!(!lines_up(&sealed, &Media { media_us: 4_200_000, ..SOURCE }));
    }

    /// B-frames, and a rate that falls from 25 to 5 a second in the middle: the two that are decoded before the first is
    /// shown count in at the begin and out at the end.
    #[test]
    fn a_source_with_b_frames_is_decoded_before_it_is_shown() {
        let source = Media { start_us: 7_920_000, media_us: 3_680_000, longest_step_us: 200_000, ..SOURCE };
        let made = Media { longest_step_us: 200_000, ..SOURCE };
        for source in extents(&source) {
            assert!(lines_up(&source, &made), "{source:?}");
        }
    }
}
