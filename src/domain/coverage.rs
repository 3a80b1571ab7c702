//! Where there is footage: many segments drawn as few spans, for the page's bar.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// A stretch of footage without a break longer than the tolerance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Begin.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
}

/// Joins spans sorted by their begin; breaks up to `tolerance` do not show.
pub fn merge(sorted: impl IntoIterator<Item = Span>, tolerance: SignedDuration) -> Vec<Span> {
    let mut merged: Vec<Span> = Vec::new();
    for span in sorted {
        match merged.last_mut() {
            Some(last) if span.start.duration_since(last.end) <= tolerance => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: i64, end: i64) -> Span {
        let at = |s| Timestamp::from_second(s).expect("in range");
        Span { start: at(start), end: at(end) }
    }

    #[test]
    fn neighbours_join_and_outages_stay() {
        let tolerance = SignedDuration::from_secs(1);
        let spans = [span(0, 4), span(4, 8), span(9, 12), span(20, 24), span(21, 22)];
        assert_eq!(merge(spans, tolerance), [span(0, 12), span(20, 24)]);
        assert!(merge([], tolerance).is_empty());
    }
}
