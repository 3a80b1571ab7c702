//! Another rendition in the shape of the source: the same segments, numbers and times, so that a player can change over
//! at any of them. What the rendition lacks is said (`EXT-X-GAP`).
//!
//! Called before [`super::live`], [`super::dvr`] and [`super::replay`], which do not know the difference.

use std::collections::HashMap;

use jiff::SignedDuration;

use super::{Entry, newest_wins};
use crate::domain::live::AWAITED;

/// A transcoder gives up what is older than five minutes; then it has to be sealed, uploaded and catalogued.
const MAY_STILL_COME: SignedDuration = SignedDuration::from_mins(7);

/// What it means that the rendition lacks a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// The newest are waited for ([`AWAITED`]); what lags more is a gap for good, and a rendition that lags more is over.
    Live,
    /// What may still come is waited for: a list that only grows must not change its mind.
    Dvr,
    /// It is shown as it is.
    Replay,
}

/// The entries of `source` as the rendition `name` has them. Empty when it has none of them,
/// and in live when it lags too far behind.
pub fn rendition(source: Vec<Entry>, name: &str, found: Vec<Entry>, lacking: Lacking) -> Vec<Entry> {
    let mut found: HashMap<_, _> =
        found.into_iter().map(|entry| ((entry.key.stream, entry.key.session, entry.key.seq), entry)).collect();
    let mut entries: Vec<Entry> = newest_wins(source)
        .into_iter()
        .map(|entry| {
            let key = (entry.key.stream, entry.key.session, entry.key.seq);
            found.remove(&key).unwrap_or_else(|| without(entry, name))
        })
        .collect();
    let made = entries.iter().rposition(|entry| !entry.lacking).map_or(0, |last| last + 1);
    // Trap: a live playlist that stands still is no error to a player, it waits for more until it freezes.
    if made == 0 || (lacking == Lacking::Live && made + AWAITED < entries.len()) {
        return Vec::new();
    }
    let newest = entries.last().map(|entry| entry.end);
    let end = match lacking {
        Lacking::Replay => entries.len(),
        Lacking::Live => {
            let awaited = entries.len().saturating_sub(AWAITED);
            entries.iter().skip(awaited).position(|entry| entry.lacking).map_or(entries.len(), |hole| awaited + hole)
        }
        Lacking::Dvr => {
            let hopeful =
                |entry: &Entry| newest.is_some_and(|newest| newest.duration_since(entry.end) < MAY_STILL_COME);
            entries.iter().position(|entry| entry.lacking && hopeful(entry)).unwrap_or(entries.len())
        }
    };
    entries.truncate(end);
    if entries.iter().all(|entry| entry.lacking) { Vec::new() } else { entries }
}

/// The place of a segment that the rendition does not have.
fn without(source: Entry, name: &str) -> Entry {
    let folder = source.folder.rsplit_once('/').map_or(name.into(), |(root, _)| format!("{root}/{name}").into());
    let mut key = source.key;
    name.clone_into(&mut key.rendition);
    Entry { key, folder, lacking: true, ..source }
}
