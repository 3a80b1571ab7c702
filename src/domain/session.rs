//! What a session promises to players: its target duration, its numbers, and which segments count as live.
//!
//! The agent gives every number once and durably; recorders and gateways only repeat them, so that every replica tells
//! the same story. Not here: times ([`super::clock`]) and files ([`super::spool`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    clock::{DRIFT_US, Sealed, SessionClock},
    id::SessionId,
    media::Media,
    segment::GapReason,
    spool::{Hindrance, SessionEnd},
};

/// Segments of a rendition that count as live and stay in the spool even when they are stored: RFC 8216 §6.2.2 wants
/// three target durations, players that begin late want some more.
pub const LIVE_SEGMENTS: usize = 10;

/// Numbers begin above the time since this instant (2020-01-01T00:00:00Z), so that an agent that lost its outbox goes on
/// above what it gave out before.
const NUMBERS_EPOCH: i64 = 1_577_836_800;

fn seconds_of_numbers(now: Timestamp) -> u64 {
    u64::try_from(now.as_second().saturating_sub(NUMBERS_EPOCH)).unwrap_or(0)
}

/// Where playlist numbers begin when nothing is known of earlier ones: no camera yields more than two segments a second
/// for years.
pub fn playlist_floor(now: Timestamp) -> u64 {
    seconds_of_numbers(now).saturating_mul(2)
}

/// Where discontinuity numbers begin when nothing is known of earlier ones: no camera breaks more than once an hour for
/// years.
///
/// They have to stay small: hls.js keeps an array that is as long as the number (`initPTS`) and walks it for every
/// segment and playlist; numbers in the hundreds of millions stop the page for ten seconds each time.
pub fn discontinuity_floor(now: Timestamp) -> u64 {
    seconds_of_numbers(now) / 3_600
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

/// Why footage is missing between two sessions for `lasted_ms`, and a sentence about it: what took the longest part of that
/// time, the end of the session before or something that hindered the next one.
///
/// Who gives a camera another address that nobody answers at looks for that, and not for his edit.
pub fn break_reason(before: Option<&SessionEnd>, hindrances: &[Hindrance], lasted_ms: u64) -> (GapReason, String) {
    let hindered_ms = hindrances.iter().fold(0_u64, |sum, hindrance| sum.saturating_add(hindrance.lasted_ms));
    let rest_ms = lasted_ms.saturating_sub(hindered_ms);
    let longest = hindrances.iter().max_by_key(|hindrance| hindrance.lasted_ms);
    match (longest.filter(|hindrance| hindrance.lasted_ms > rest_ms), before) {
        (Some(hindrance), _) => (hindrance.reason, hindrance.detail.clone()),
        (None, Some(end)) => (end.reason, end.detail.clone()),
        // A runner that could say nothing was killed with its pod or node.
        (None, None) => (GapReason::InstanceLost, "the capture pod or its node was gone".to_owned()),
    }
}

/// A jump of numbers beyond this is no lost segment but nonsense.
pub const MAX_MISSING: u64 = 1_000;

/// What a stream remembers from one session to the next. Durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamBook {
    /// Number of the next segment in the playlist.
    pub next_playlist_seq: u64,
    /// Breaks so far.
    pub discontinuity_seq: u64,
    /// The newest session and the end of its footage.
    pub last: Option<(SessionId, i64)>,
    /// Longest keyframe distance of the newest session, µs.
    pub gop_us: i64,
}

impl StreamBook {
    /// Of an agent that knows of nothing before it.
    pub fn new(now: Timestamp) -> Self {
        Self {
            next_playlist_seq: playlist_floor(now),
            discontinuity_seq: discontinuity_floor(now),
            last: None,
            gop_us: 0,
        }
    }
}

/// What a session remembers from one segment to the next. Durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionBook {
    /// The session.
    pub session: SessionId,
    /// Number that ffmpeg gives the next segment.
    pub next_seq: u64,
    /// Breaks before this session.
    pub discontinuity_seq: u64,
    /// `EXT-X-TARGETDURATION`, seconds.
    pub target_seconds: u32,
    /// Longest keyframe distance, µs.
    pub gop_us: i64,
    clock: SessionClock,
}

/// A finished segment, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// ffmpeg's number.
    pub seq: u64,
    /// What its bytes say.
    pub media: Media,
    /// Wall time at which it was complete, µs.
    pub sealed_us: i64,
}

impl Found {
    fn sealed(&self) -> Sealed {
        Sealed { media_start_us: self.media.start_us, media_us: self.media.media_us, sealed_us: self.sealed_us }
    }
}

/// The numbers and times a segment gets, once and for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// `EXT-X-MEDIA-SEQUENCE`.
    pub playlist_seq: u64,
    /// Breaks before it.
    pub discontinuity_seq: u64,
    /// Wall-clock begin, µs.
    pub start_us: i64,
    /// Wall-clock end, µs.
    pub end_us: i64,
    /// `EXT-X-TARGETDURATION`, seconds.
    pub target_seconds: u32,
    /// Footage missing before it: a number (none for the break between two sessions), from, to.
    pub missing: Vec<(Option<u64>, i64, i64)>,
    /// Do wall and media clock part more than they should?
    pub drifts: bool,
}

impl SessionBook {
    /// Opens a session with the finished segments that are there already, at least one.
    pub fn open(stream: &StreamBook, session: SessionId, segment_seconds: u32, first: &[Found]) -> Option<Self> {
        let sealed: Vec<Sealed> = first.iter().map(Found::sealed).collect();
        let clock = SessionClock::anchor(&sealed, stream.last.map(|(_, end)| end))?;
        let most = |value: fn(&Found) -> i64| first.iter().map(value).max().unwrap_or(0);
        // A first segment with a single keyframe says little about the next: the camera's habit counts too.
        let gop_us = most(|found| found.media.gop_us).max(stream.gop_us);
        Some(Self {
            session,
            // Without a memory nobody knows whether what is no longer there was lost or stored.
            next_seq: first
                .first()
                .map_or(0, |f| if stream.last.is_some() && f.seq <= MAX_MISSING { 0 } else { f.seq }),
            discontinuity_seq: stream.discontinuity_seq + u64::from(stream.last.is_some()),
            target_seconds: target_seconds(segment_seconds, gop_us, most(|found| found.media.media_us)),
            gop_us: most(|found| found.media.gop_us),
            clock,
        })
    }

    /// Numbers the next segment; both books move on. `None`: its number was given before, or is nonsense.
    pub fn number(&mut self, stream: &mut StreamBook, found: &Found) -> Option<Numbered> {
        if found.seq < self.next_seq || found.seq - self.next_seq > MAX_MISSING {
            return None;
        }
        let end_before = self.clock.end_us();
        let placed = self.clock.place(&found.sealed(), found.seq > self.next_seq);
        let mut missing = Vec::new();
        match stream.last {
            Some((session, end)) if session != self.session && placed.start_us > end => {
                missing.push((None, end, placed.start_us));
            }
            _ => {}
        }
        let lost = i64::try_from(found.seq - self.next_seq).unwrap_or(0);
        for (n, seq) in (0..).zip(self.next_seq..found.seq) {
            let at = |n: i64| end_before.saturating_add(placed.start_us.saturating_sub(end_before) / lost.max(1) * n);
            missing.push((Some(seq), at(n), if n + 1 == lost { placed.start_us } else { at(n + 1) }));
        }
        // Rounded, no segment may be longer than the target; raising it late is wrong, lying about it is worse.
        self.target_seconds = self.target_seconds.max(target_seconds(0, 0, found.media.media_us - 499_999));
        self.gop_us = self.gop_us.max(found.media.gop_us);
        self.next_seq = found.seq + 1;
        // A lost number takes its place in the playlist, or the timeline would see a jump. Those at a session's begin take
        // none: there the playlist counts on from the session before.
        let within = stream.last.is_some_and(|(session, _)| session == self.session);
        let playlist_seq = stream.next_playlist_seq + if within { u64::try_from(lost).unwrap_or(0) } else { 0 };
        *stream = StreamBook {
            next_playlist_seq: playlist_seq + 1,
            discontinuity_seq: self.discontinuity_seq,
            last: Some((self.session, placed.end_us)),
            gop_us: self.gop_us,
        };
        Some(Numbered {
            playlist_seq,
            discontinuity_seq: self.discontinuity_seq,
            start_us: placed.start_us,
            end_us: placed.end_us,
            target_seconds: self.target_seconds,
            missing,
            drifts: placed.drift_us.abs() > DRIFT_US || placed.moved_us > 0,
        })
    }
}

/// How long to wait for `stored` before a segment is announced for the next time, µs: 5 minutes, then twice as long
/// each time up to an hour, so that a long absence of the recorder doesn't fill its queue with repetitions.
pub fn announce_again_after_us(announcements: u32) -> i64 {
    let minutes = 5_i64 << announcements.saturating_sub(1).min(4);
    minutes.min(60) * 60_000_000
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
        let at = |text: &str| {
            let now = text.parse().expect("a time");
            (playlist_floor(now), discontinuity_floor(now))
        };
        let (before, after) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        assert!(after.0 - before.0 >= 86_400 && after.1 - before.1 >= 24);
        assert_eq!(at("1999-01-01T00:00:00Z"), (0, 0));
    }

    /// hls.js walks an array of this length for every segment and playlist: what it held for ten seconds was 434,862,898.
    #[test]
    fn discontinuity_numbers_stay_small_enough_for_browsers_for_a_lifetime() {
        assert!(discontinuity_floor("2100-01-01T00:00:00Z".parse().expect("a time")) < 1_000_000);
    }

    const S: i64 = 1_000_000;

    fn found(seq: u64, start_us: i64, media_us: i64) -> Found {
        let media = Media { start_us, media_us, frames: 1, gop_us: S, starts_with_keyframe: true, ..Media::default() };
        Found { seq, media, sealed_us: 1_000_000 * S + start_us + media_us }
    }

    fn stream() -> StreamBook {
        StreamBook { next_playlist_seq: 100, discontinuity_seq: 7, last: None, gop_us: 0 }
    }

    #[test]
    fn numbers_count_over_sessions_and_each_break_counts_one() {
        let mut stream = stream();
        let (first, second) = (SessionId::new(), SessionId::new());
        let mut book = SessionBook::open(&stream, first, 4, &[found(0, 0, 4 * S)]).expect("a segment");
        let one = book.number(&mut stream, &found(0, 0, 4 * S)).expect("new");
        let two = book.number(&mut stream, &found(1, 4 * S, 4 * S)).expect("new");
        assert_eq!((one.playlist_seq, two.playlist_seq), (100, 101));
        assert_eq!((one.discontinuity_seq, two.discontinuity_seq, one.target_seconds), (7, 7, 5));
        assert_eq!((one.end_us, one.missing), (two.start_us, vec![]));

        let later = Found { sealed_us: 1_000_030 * S, ..found(0, 0, 4 * S) };
        let mut book = SessionBook::open(&stream, second, 4, &[later]).expect("a segment");
        let three = book.number(&mut stream, &later).expect("new");
        assert_eq!((three.playlist_seq, three.discontinuity_seq), (102, 8));
        assert_eq!(three.missing, [(None, two.end_us, three.start_us)]);
    }

    #[test]
    fn a_number_is_given_once_and_missing_ones_share_the_hole() {
        let mut stream = stream();
        let mut book = SessionBook::open(&stream, SessionId::new(), 4, &[found(0, 0, 4 * S)]).expect("a segment");
        let first = book.number(&mut stream, &found(0, 0, 4 * S)).expect("new");
        assert_eq!(book.number(&mut stream, &found(0, 0, 4 * S)), None, "given before");
        assert_eq!(book.number(&mut stream, &found(5_000, 0, 4 * S)), None, "nonsense");
        let third = book.number(&mut stream, &found(3, 12 * S, 4 * S)).expect("new");
        let end = first.end_us;
        assert_eq!(third.missing, [(Some(1), end, end + 4 * S), (Some(2), end + 4 * S, end + 8 * S)]);
        assert_eq!(third.playlist_seq, first.playlist_seq + 3, "the lost ones have their places");
    }

    #[test]
    fn a_segment_longer_than_the_target_raises_it() {
        let mut stream = stream();
        let mut book = SessionBook::open(&stream, SessionId::new(), 4, &[found(0, 0, 4 * S)]).expect("a segment");
        book.number(&mut stream, &found(0, 0, 4 * S)).expect("new");
        assert_eq!(book.number(&mut stream, &found(1, 4 * S, 5_400_000)).expect("new").target_seconds, 5);
        assert_eq!(book.number(&mut stream, &found(2, 9_400_000, 20_600_000)).expect("new").target_seconds, 21);
    }

    #[test]
    fn announcements_are_repeated_ever_more_rarely() {
        let minutes: Vec<i64> = (0..8).map(|n| announce_again_after_us(n) / 60_000_000).collect();
        assert_eq!(minutes, [5, 5, 10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn a_gap_is_put_down_to_what_took_the_longer_part_of_it() {
        let end = |reason| Some(SessionEnd { at: Timestamp::UNIX_EPOCH, reason, detail: String::new() });
        let silent = |lasted_ms| Hindrance { reason: GapReason::CameraHung, lasted_ms, detail: String::new() };
        let booting = Hindrance { reason: GapReason::CameraUnreachable, lasted_ms: 20, detail: String::new() };
        for (before, hindrances, want) in [
            // A session without an end lost its pod.
            (None, vec![], GapReason::InstanceLost),
            (end(GapReason::Reconfigured), vec![], GapReason::Reconfigured),
            (end(GapReason::Reconfigured), vec![silent(55)], GapReason::CameraHung),
            (end(GapReason::Reconfigured), vec![silent(35), booting], GapReason::CameraHung),
            (None, vec![silent(55)], GapReason::CameraHung),
            // Paused for long, and then the first try failed.
            (end(GapReason::Paused), vec![silent(10)], GapReason::Paused),
        ] {
            let told = break_reason(before.as_ref(), &hindrances, 60);
            assert_eq!(told.0, want, "{before:?}, {hindrances:?}");
        }
    }
}
