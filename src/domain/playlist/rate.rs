//! What a master playlist says of the line that is needed: peak and mean of a playlist's bit rates (RFC 8216 §4.1).

use super::rounded_seconds;

/// Segments in a run, at most: what comes in such scraps is no video, and must not cost the square of their number.
const LONGEST_RUN: usize = 64;

/// One segment as far as its bit rate is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sized {
    /// Length in bytes.
    pub bytes: u64,
    /// Length by the media's own clock, µs.
    pub media_us: u64,
    /// `EXT-X-TARGETDURATION` of its session, seconds.
    pub target_seconds: u32,
}

/// Bit rates of a playlist, bit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// The largest of any run of segments that is half to one and a half target durations long.
    pub peak: u64,
    /// That of all segments together.
    pub mean: u64,
}

/// Measures the segments of a playlist, given in their order; never panics, whatever a capture pod says of them.
///
/// Not the largest of single segments: the last of a session may hold a keyframe and nothing else, and a player that took
/// such a one for the peak would stay away from a rendition that its line can well carry.
pub fn rates(segments: &[Sized]) -> Rates {
    let target = |segment: &Sized| rounded_seconds(segment.media_us).max(segment.target_seconds.into());
    let target_us = segments.iter().map(target).max().unwrap_or(0) * 1_000_000;
    let sum = |of: fn(&Sized) -> u64| segments.iter().map(of).fold(0, u64::saturating_add);
    let mean = rate(sum(|segment| segment.bytes), sum(|segment| segment.media_us));
    let all = (0..segments.len()).flat_map(|first| runs(&segments[first..], target_us));
    // Not below the mean, where scraps make up much of it.
    Rates { peak: all.fold(mean, u64::max), mean }
}

/// Rates of the runs that begin with the first segment and count.
fn runs(segments: &[Sized], target_us: u64) -> impl Iterator<Item = u64> {
    let grow = |(bytes, media_us): &mut (u64, u64), next: &Sized| {
        (*bytes, *media_us) = (bytes.saturating_add(next.bytes), media_us.saturating_add(next.media_us));
        Some((*bytes, *media_us))
    };
    let runs = segments.iter().take(LONGEST_RUN).scan((0, 0), grow);
    runs.take_while(move |(_, media_us)| *media_us <= target_us / 2 * 3)
        .filter(move |(_, media_us)| *media_us >= target_us / 2)
        .map(|(bytes, media_us)| rate(bytes, media_us))
}

fn rate(bytes: u64, media_us: u64) -> u64 {
    bytes.saturating_mul(8_000_000) / media_us.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peak and mean of segments of so many (bytes, ms).
    fn of(segments: &[(u64, u64)], target_seconds: u32) -> (u64, u64) {
        let sized = |(bytes, ms): &(u64, u64)| Sized { bytes: *bytes, media_us: ms * 1_000, target_seconds };
        let rates = rates(&segments.iter().map(sized).collect::<Vec<_>>());
        (rates.peak, rates.mean)
    }

    #[test]
    fn the_peak_is_that_of_the_largest_segment_among_equally_long_ones() {
        assert_eq!(of(&[(1_000, 4_000), (3_000, 4_000), (2_000, 4_000)], 4), (6_000, 4_000));
    }

    #[test]
    fn a_keyframe_alone_at_the_end_of_a_session_is_no_peak() {
        // 200 kbit/s by itself; with the segment before it, it counts.
        assert_eq!(of(&[(1_000, 4_000), (1_000, 40)], 4), (3_960, 3_960));
        // Too long together with any neighbour: then it counts in the mean only.
        assert_eq!(of(&[(2_000, 4_400), (850, 1_700), (1_000, 4_400)], 4), (3_636, 2_933));
    }

    #[test]
    fn what_is_shorter_than_half_a_target_is_its_own_peak() {
        assert_eq!(of(&[(1_000, 1_000)], 4), (8_000, 8_000));
        assert_eq!(of(&[], 4), (0, 0));
        assert_eq!(of(&[(1, 0)], 0), (8_000_000, 8_000_000));
    }
}
