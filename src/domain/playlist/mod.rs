//! Playlists as a pure function of rows: the same rows give the same text on every replica, for every viewer.
//!
//! Three kinds (RFC 8216): [`live`] and [`dvr`] are sliding windows, [`replay`] is a VOD over a range of time. Not here:
//! where the rows come from (the capture agent for live, the catalogue for the others) and who may see them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    container::Container,
    id::{SessionId, StreamId},
    segment::{Gap, SOURCE, SegmentKey},
    spool::segment_file,
};

mod rate;
mod rendition;
mod timeline;

#[cfg(test)]
mod tests;

pub use rate::{Rates, Sized, rates};
pub use rendition::{Lacking, rendition};
pub use timeline::newest_wins;
use timeline::{Item, Stop, timeline};

/// How far back the DVR window reaches.
pub const DVR_WINDOW: SignedDuration = SignedDuration::from_hours(2);
/// The live window in target durations; RFC 8216 §6.2.2 wants at least three.
const LIVE_TARGETS: u32 = 5;
/// A hole is waited for as long as this much newer footage has not been catalogued behind it: three rounds of the
/// re-announcement after five minutes. After that it counts as lost, or a spool that died would block DVR for good.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(15);
/// Distance of two `EXT-X-PROGRAM-DATE-TIME`.
const DATE_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// One segment as a playlist needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Identity.
    pub key: SegmentKey,
    /// Address of the folder that the segment and its init section are asked for in.
    pub folder: Arc<str>,
    /// Name of the init section in `folder`; absent for MPEG-TS.
    pub init: Option<Arc<str>>,
    /// Wall-clock begin.
    pub start: Timestamp,
    /// Wall-clock end.
    pub end: Timestamp,
    /// Length by the media's own clock, µs.
    pub media_us: u64,
    /// Stored `EXT-X-MEDIA-SEQUENCE`.
    pub playlist_seq: u64,
    /// Stored `EXT-X-DISCONTINUITY-SEQUENCE`.
    pub discontinuity_seq: u64,
    /// Stored `EXT-X-TARGETDURATION` of the session, seconds.
    pub target_seconds: u32,
    /// The rendition does not have it, the source does: listed as `EXT-X-GAP`.
    pub lacking: bool,
}

impl Entry {
    /// Lists number `seq` of its session, so many µs long.
    fn list(&self, out: &mut String, seq: u64, media_us: u64) {
        let (seconds, rest) = (media_us / 1_000_000, media_us % 1_000_000);
        let file = segment_file(seq, Container::of_init(self.init.as_ref()));
        let _ = writeln!(out, "#EXTINF:{seconds}.{rest:06},\n{}/{file}", self.folder);
    }
}

/// Media time rounded to whole seconds, as RFC 8216 §4.3.3.1 compares it with the target duration.
fn rounded_seconds(media_us: u64) -> u64 {
    (media_us + 500_000) / 1_000_000
}

/// What is known to be missing for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Sequence numbers that were lost.
    missing: BTreeSet<(SessionId, u64)>,
    /// End of the footage before a session, by that session.
    breaks: BTreeMap<SessionId, Timestamp>,
}

impl Declared {
    /// Sorts gaps into lost sequence numbers and breaks between sessions.
    pub fn new<'a>(gaps: impl IntoIterator<Item = &'a Gap>) -> Self {
        let mut declared = Self::default();
        for gap in gaps {
            if let Some(seq) = gap.seq {
                declared.missing.insert((gap.session, seq));
            } else {
                let begin = declared.breaks.entry(gap.session).or_insert(gap.from);
                *begin = gap.from.min(*begin);
            }
        }
        declared
    }

    fn lost(&self, session: SessionId, seq: u64) -> bool {
        self.missing.contains(&(session, seq))
    }

    fn break_before(&self, session: SessionId) -> Option<Timestamp> {
        self.breaks.get(&session).copied()
    }
}

/// The live window: the newest entries, at least three target durations of them where there are so many. `None` without
/// an entry.
pub fn live(entries: Vec<Entry>) -> Option<String> {
    // The agent numbers what it sealed: a number missing here is lost, there is nothing to wait for.
    let entries = newest_wins(entries);
    let items = timeline(&entries, &Declared::default(), Stop::Never { restart: true });
    let target = target_seconds(&items);
    let window = SignedDuration::from_secs(i64::from(LIVE_TARGETS) * i64::try_from(target).unwrap_or(i64::MAX / 8));
    let items = newest(&items, window);
    (!items.is_empty()).then(|| text(items, Kind::Sliding))
}

/// The DVR window: two hours over the contiguous prefix. A hole blocks until it is filled, declared lost, or
/// [`PATIENCE`] old. `None` without an entry.
pub fn dvr(entries: Vec<Entry>, declared: &Declared) -> Option<String> {
    let entries = newest_wins(entries);
    let items = timeline(&entries, declared, Stop::AtHole);
    let items = newest(&items, DVR_WINDOW);
    (!items.is_empty()).then(|| text(items, Kind::Sliding))
}

/// Replay of a range: a VOD that may span sessions and streams. `None` without an entry.
pub fn replay(entries: Vec<Entry>, declared: &Declared) -> Option<String> {
    let entries = newest_wins(entries);
    let items = timeline(&entries, declared, Stop::Never { restart: false });
    (!items.is_empty()).then(|| text(&items, Kind::Vod))
}

/// One variant of a master playlist: the source, or another rendition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Address of the media playlist.
    pub uri: String,
    /// Bit rates of its segments.
    pub rates: Rates,
    /// Frames per 1,000 s; left out when 0.
    pub frame_rate: u64,
    /// RFC 6381 codecs; left out when empty.
    pub codecs: String,
    /// Picture width; the resolution is left out when 0.
    pub width: u32,
    /// Picture height.
    pub height: u32,
}

/// A master playlist (RFC 8216 §4.3.4).
pub fn master(variants: &[Variant]) -> String {
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    for variant in variants {
        let peak = variant.rates.peak.max(1);
        let average = variant.rates.mean.clamp(1, peak);
        let _ = write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}");
        if !variant.codecs.is_empty() {
            // A quote would end the attribute: codecs come from the camera's stream.
            let codecs: String = variant.codecs.chars().filter(|c| !c.is_control() && *c != '"').collect();
            let _ = write!(out, ",CODECS=\"{codecs}\"");
        }
        if variant.width > 0 && variant.height > 0 {
            let _ = write!(out, ",RESOLUTION={}x{}", variant.width, variant.height);
        }
        if variant.frame_rate > 0 {
            let _ = write!(out, ",FRAME-RATE={}.{:03}", variant.frame_rate / 1_000, variant.frame_rate % 1_000);
        }
        let _ = writeln!(out, "\n{}", variant.uri);
    }
    out
}

/// Address of a media playlist in a rendition.
pub fn in_rendition(uri: &str, rendition: &str) -> String {
    if rendition == SOURCE {
        return uri.to_owned();
    }
    let mark = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{mark}rendition={rendition}")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sliding,
    Vod,
}

fn target_seconds(items: &[Item<'_>]) -> u64 {
    items
        .iter()
        .map(|item| match item {
            Item::Segment(entry) => rounded_seconds(entry.media_us).max(u64::from(entry.target_seconds)),
            Item::Missing { media_us, .. } => rounded_seconds(*media_us),
        })
        .max()
        .unwrap_or(1)
        .max(1)
}

/// The suffix that begins within `window` of the newest entry's end.
fn newest<'a, 'e>(items: &'a [Item<'e>], window: SignedDuration) -> &'a [Item<'e>] {
    let Some(end) = items.iter().rev().find_map(Item::entry).map(|entry| entry.end) else { return &[] };
    let begin =
        items.iter().position(|item| item.entry().is_some_and(|entry| end.duration_since(entry.start) <= window));
    // One segment longer than the window still is a playlist.
    let begin = begin.or_else(|| items.iter().rposition(|item| item.entry().is_some())).unwrap_or(0);
    &items[begin..]
}

/// Writes the playlist. The first item is always a segment.
fn text(items: &[Item<'_>], kind: Kind) -> String {
    let first = items.iter().find_map(Item::entry);
    let gaps = items.iter().any(|item| item.entry().is_none_or(|entry| entry.lacking));
    let mut out = String::with_capacity(128 + items.len() * 128);
    // EXT-X-MAP outside I-frame playlists needs version 6, EXT-X-GAP version 8 (RFC 8216bis §8).
    let _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{}", if gaps { 8 } else { 7 });
    let _ = writeln!(out, "#EXT-X-TARGETDURATION:{}", target_seconds(items));
    let _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.map_or(0, |entry| entry.playlist_seq));
    let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", first.map_or(0, |entry| entry.discontinuity_seq));
    out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    if kind == Kind::Vod {
        out.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n");
    }
    let mut previous: Option<&Entry> = None;
    let mut mapped: Option<(&str, &str)> = None;
    let mut dated: Option<Timestamp> = None;
    for item in items {
        match item {
            Item::Segment(entry) => {
                let same = previous.is_some_and(|previous| timeline::same_session(previous, entry));
                if previous.is_some() && !same {
                    out.push_str("#EXT-X-DISCONTINUITY\n");
                }
                if let Some(init) = entry.init.as_deref().filter(|_| !entry.lacking)
                    && mapped != Some((&entry.folder, init))
                {
                    let _ = writeln!(out, "#EXT-X-MAP:URI=\"{}/{init}\"", entry.folder);
                    mapped = Some((&entry.folder, init));
                }
                // A start that moved forward within a session (the media's clock ran slow) is dated too.
                let moved = previous.is_some_and(|previous| previous.end != entry.start);
                let due = dated.is_none_or(|dated| entry.start.duration_since(dated) >= DATE_EVERY);
                if !same || moved || due {
                    let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{:.3}", entry.start);
                    dated = Some(entry.start);
                }
                if entry.lacking {
                    out.push_str("#EXT-X-GAP\n");
                }
                entry.list(&mut out, entry.key.seq, entry.media_us);
                previous = Some(entry);
            }
            Item::Missing { beside, seq, media_us } => {
                out.push_str("#EXT-X-GAP\n");
                beside.list(&mut out, *seq, *media_us);
            }
        }
    }
    if kind == Kind::Vod {
        out.push_str("#EXT-X-ENDLIST\n");
    }
    out
}

/// Folder of the addresses of a stream's media: `/media` from the catalogue, `/live` from the capture agent.
pub fn folder(root: &str, stream: StreamId, session: SessionId, rendition: &str) -> String {
    format!("{root}/{stream}/{session}/{rendition}")
}
