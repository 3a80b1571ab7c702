//! What a session promises to players: its target duration, its numbers, and which segments count as live.
//!
//! The agent gives every number once and durably; recorders and gateways only repeat them, so that every replica tells
//! the same story. Not here: times ([`super::clock`]) and files ([`super::spool`]).

use jiff::Timestamp;

use super::segment::{Gap, GapReason};
use super::spool::SessionEnd;

/// Segments of a rendition that count as live and stay in the spool even when they are stored: RFC 8216 §6.2.2 wants
/// three target durations, players that begin late want some more.
pub const LIVE_SEGMENTS: usize = 10;

/// Numbers begin above the seconds since this instant (2020-01-01T00:00:00Z), so that an agent that lost its outbox
/// goes on above everything it ever gave out: no camera yields more than two segments a second for years.
const NUMBERS_EPOCH: i64 = 1_577_836_800;

/// Where playlist and discontinuity numbers begin when nothing is known of earlier ones.
pub fn number_floor(now: Timestamp) -> u64 {
    u64::try_from(now.as_second().saturating_sub(NUMBERS_EPOCH)).unwrap_or(0).saturating_mul(2)
}

/// `EXT-X-TARGETDURATION` of a session, seconds: no segment, rounded, may be longer (RFC 8216 §4.3.3.1).
///
/// ffmpeg cuts at the first keyframe after the target length, so a segment is shorter than target length + longest
/// distance of keyframes. `longest_us`: the longest of the segments seen so far.
pub fn target_seconds(segment_seconds: u32, gop_us: i64, longest_us: i64) -> u32 {
    let by_gop = i64::from(segment_seconds).saturating_mul(1_000_000).saturating_add(gop_us.max(0));
    let whole = by_gop.max(longest_us).saturating_add(999_999) / 1_000_000;
    u32::try_from(whole.clamp(1, 3_600)).unwrap_or(3_600)
}

/// Why footage is missing between two sessions, and a sentence about it.
pub fn break_reason(before: Option<&SessionEnd>) -> (GapReason, String) {
    before.map_or_else(
        // A runner that could say nothing was killed with its pod or node.
        || (GapReason::InstanceLost, "the capture pod or its node was gone".to_owned()),
        |end| (end.reason, end.detail.clone()),
    )
}

/// Is the stretch long enough to be called a gap? A new session may begin in the very microsecond the old one ended.
pub fn is_gap(gap: &Gap) -> bool {
    gap.to > gap.from || gap.seq.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_segment_may_exceed_the_target() {
        for (segment, gop, longest, want) in [
            (4, 1_000_000, 4_000_000, 5),
            (4, 2_466_666, 4_933_333, 7),
            (4, 12_000_000, 12_000_000, 16),
            (1, 0, 0, 1),
            (4, 0, 9_100_000, 10),
            (4, -5, i64::MAX, 3_600),
        ] {
            assert_eq!(target_seconds(segment, gop, longest), want, "{segment} {gop} {longest}");
        }
    }

    #[test]
    fn a_lost_outbox_resumes_above_every_number_given_before() {
        let at = |text: &str| number_floor(text.parse().expect("a time"));
        assert!(at("2026-01-02T00:00:00Z") - at("2026-01-01T00:00:00Z") >= 86_400);
        assert_eq!(at("1999-01-01T00:00:00Z"), 0);
    }

    #[test]
    fn a_session_without_an_end_lost_its_pod() {
        assert_eq!(break_reason(None).0, GapReason::InstanceLost);
    }
}
