//! From rows in any order to what a playlist lists: one footage for each moment, and every missing number by name.
//!
//! Not here: the text. Called by [`super::live`], [`super::dvr`] and [`super::replay`], which differ in what a hole
//! means to them.

use std::cmp::Reverse;

use jiff::SignedDuration;

use super::{Declared, Entry, PATIENCE};

/// More missing numbers in a row than this are not listed one by one.
const MAX_LISTED: u64 = 1_000;

/// One line of a playlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A segment that exists.
    Segment(&'a Entry),
    /// A sequence number that does not (`EXT-X-GAP`), in the folder of its neighbour.
    Missing {
        /// The segment before.
        beside: &'a Entry,
        /// The number.
        seq: u64,
        /// Its share of the time that is missing, µs.
        media_us: u64,
    },
}

impl<'a> Item<'a> {
    pub(super) fn entry(&self) -> Option<&'a Entry> {
        match self {
            Self::Segment(entry) => Some(entry),
            Self::Missing { .. } => None,
        }
    }
}

/// What a hole means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The list ends before it, while it may still be filled.
    AtHole,
    /// It is shown as it is.
    Never {
        /// Begin anew where the stored numbers jump: a sliding window cannot show a jump, a VOD need not.
        restart: bool,
    },
}

/// Do both belong to one capture run?
pub(super) fn same_session(a: &Entry, b: &Entry) -> bool {
    a.key.session == b.key.session && a.key.stream == b.key.stream
}

/// Sorts by time and leaves one footage for each moment: where sessions overlap (two agents for a moment, a camera
/// recorded by two pipelines), the newer session wins.
pub fn newest_wins(mut entries: Vec<Entry>) -> Vec<Entry> {
    // Sessions are UUIDv7: their order is the order of their begin.
    entries.sort_by_key(|entry| Reverse((entry.key.session, entry.key.stream, entry.key.seq)));
    entries.dedup_by(|a, b| a.key == b.key);
    let mut keep = Vec::with_capacity(entries.len());
    // Newest session first; `covered` holds what newer sessions already show.
    let mut covered: Vec<(jiff::Timestamp, jiff::Timestamp)> = Vec::new();
    for session in entries.chunk_by(same_session) {
        let mut span: Option<(jiff::Timestamp, jiff::Timestamp)> = None;
        for entry in session {
            let overlap: SignedDuration = covered
                .iter()
                .map(|(from, to)| entry.end.min(*to).duration_since(entry.start.max(*from)))
                .max()
                .unwrap_or_default();
            // The begin of a session is an estimate: a little overlap is no second footage, and dropping the last
            // segment before every restart would lose frames.
            let shown = overlap * 2 >= entry.end.duration_since(entry.start).max(SignedDuration::from_micros(1));
            keep.push(!shown);
            if !shown {
                let (from, to) = span.unwrap_or((entry.start, entry.end));
                span = Some((from.min(entry.start), to.max(entry.end)));
            }
        }
        covered.extend(span);
    }
    let mut keep = keep.into_iter();
    entries.retain(|_| keep.next().unwrap_or(true));
    entries.sort_by_key(|entry| (entry.start, entry.key.session, entry.key.seq));
    entries
}

/// The items of sorted `entries`, with every hole dealt with as `stop` says.
pub(super) fn timeline<'a>(entries: &'a [Entry], declared: &Declared, stop: Stop) -> Vec<Item<'a>> {
    let newest = entries.last().map(|entry| entry.end);
    let mut items: Vec<Item<'a>> = Vec::with_capacity(entries.len());
    let mut previous: Option<&'a Entry> = None;
    for entry in entries {
        if let Some(before) = previous {
            let impatient = newest.is_some_and(|newest| newest.duration_since(entry.start) > PATIENCE);
            let same = same_session(before, entry);
            let missing = if same { before.key.seq + 1..entry.key.seq.max(before.key.seq + 1) } else { 0..0 };
            let hole = if same {
                missing.clone().any(|seq| !declared.lost(entry.key.session, seq))
            } else {
                // Numbers count on over a change of session. A jump means that the tail of the session before is still
                // on its way, unless the break is declared to begin where our footage ends.
                entry.playlist_seq != before.playlist_seq + 1
                    && declared
                        .break_before(entry.key.session)
                        .is_none_or(|from| from.duration_since(before.end) > SignedDuration::from_millis(500))
            };
            if stop == Stop::AtHole && hole && !impatient {
                break;
            }
            let count = missing.end - missing.start;
            let expected = (
                before.playlist_seq + count + 1,
                if same { before.discontinuity_seq } else { before.discontinuity_seq + 1 },
            );
            let jump = expected != (entry.playlist_seq, entry.discontinuity_seq) || count > MAX_LISTED;
            if jump && stop != (Stop::Never { restart: false }) {
                items.clear();
            } else if count > 0 && count <= MAX_LISTED {
                let lost = u64::try_from(entry.start.duration_since(before.end).as_micros()).unwrap_or(0) / count;
                // A length of nothing would make the number invisible to a player.
                let media_us = if lost == 0 { u64::from(entry.target_seconds) * 1_000_000 } else { lost };
                items.extend(missing.map(|seq| Item::Missing { beside: before, seq, media_us }));
            }
        }
        items.push(Item::Segment(entry));
        previous = Some(entry);
    }
    items
}
