//! What a camera has within a range of time: the segments of a playlist, gaps, coverage.
//!
//! Segments come out of `SQLite` many in one value, as JSON: every row costs a trip between the thread of its connection
//! and ours, which takes longer than to read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Camera, Error, Reader, number, sql, time};
use crate::domain::{
    coverage::Span,
    id::{SessionId, StreamId},
    playlist::{self, Entry},
    segment::{Gap, SOURCE, SegmentKey},
};

/// A segment is never longer: bounds the search for one that began before a range and reaches into it.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// All segments of a range, by time; each names its session and its init section by the numbers of their rows.
///
/// Trap: every column of a segment asked for here or in [`SPANS`] stands in the index `segments_by_time`. One that does
/// not would be fetched from the table, a page of the file for each segment. And no `GROUP BY`: it would sort what the
/// index holds in order.
const SEGMENTS: &str = "
    SELECT json_group_array(json_array(session_id, init_id, seq, start_us, end_us, media_us, playlist_seq,
      discontinuity_seq, target_seconds)) FROM segments
    WHERE camera_id = ?1 AND rendition = ?2 AND start_us >= ?3 AND start_us < ?4 AND end_us > ?5";

/// What the pairs of session and init section are called; of those there are few.
const RUNS: &str = "
    SELECT e.id AS session_id, i.id AS init_id, s.uid AS stream, e.uid AS session, i.cid AS init_cid,
      i.sha256 AS init_sha256
    FROM json_each(?1) pair JOIN sessions e ON e.id = pair.value ->> 0 JOIN streams s ON s.id = e.stream_id
      JOIN inits i ON i.id = pair.value ->> 1";

/// Begin and end of each segment.
const SPANS: &str = "
    SELECT json_group_array(json_array(start_us, end_us)) FROM segments
    WHERE camera_id = ?1 AND rendition = ?2 AND start_us >= ?3 AND start_us < ?4 AND end_us > ?5";

/// In the order of the columns in [`SEGMENTS`].
#[derive(Deserialize)]
struct SegmentRow {
    session_id: i64,
    init_id: i64,
    seq: i64,
    start_us: i64,
    end_us: i64,
    media_us: i64,
    playlist_seq: i64,
    discontinuity_seq: i64,
    target_seconds: u32,
}

impl SegmentRow {
    /// What [`RUNS`] is asked about.
    fn run(&self) -> (i64, i64) {
        (self.session_id, self.init_id)
    }
}

#[derive(sqlx::FromRow)]
struct RunRow {
    session_id: i64,
    init_id: i64,
    stream: String,
    session: String,
    init_cid: String,
    init_sha256: String,
}

/// What the segments of one session and one init section share.
struct Run {
    stream: StreamId,
    session: SessionId,
    folder: Arc<str>,
    init: Option<Arc<str>>,
}

impl RunRow {
    fn into_run(self, rendition: &str) -> Result<((i64, i64), Run), Error> {
        let stream: StreamId = self.stream.parse().map_err(|_| Error::Unreadable { what: "stream" })?;
        let session: SessionId = self.session.parse().map_err(|_| Error::Unreadable { what: "session" })?;
        let folder = playlist::folder("/media", stream, session, rendition).into();
        let init = (!self.init_cid.is_empty()).then(|| init_file(&self.init_sha256).into());
        Ok(((self.session_id, self.init_id), Run { stream, session, folder, init }))
    }
}

impl Run {
    fn entry(&self, row: &SegmentRow, rendition: &str) -> Entry {
        Entry {
            folder: self.folder.clone(),
            init: self.init.clone(),
            key: SegmentKey {
                stream: self.stream,
                rendition: rendition.to_owned(),
                session: self.session,
                seq: number(row.seq),
            },
            start: time(row.start_us),
            end: time(row.end_us),
            media_us: number(row.media_us),
            playlist_seq: number(row.playlist_seq),
            discontinuity_seq: number(row.discontinuity_seq),
            target_seconds: row.target_seconds,
            lacking: false,
        }
    }
}

/// Reads many rows that came as one value.
pub(super) fn unpack<T: DeserializeOwned>(rows: &str) -> Result<Vec<T>, Error> {
    serde_json::from_str(rows).map_err(|_| Error::Unreadable { what: "list of segments" })
}

#[derive(sqlx::FromRow)]
struct GapRow {
    stream: String,
    camera: String,
    session: String,
    seq: Option<i64>,
    from_us: i64,
    to_us: i64,
    reason: String,
    detail: String,
}

impl GapRow {
    fn into_gap(self) -> Result<Gap, Error> {
        Ok(Gap {
            stream: self.stream.parse().map_err(|_| Error::Unreadable { what: "stream" })?,
            camera: self.camera,
            session: self.session.parse().map_err(|_| Error::Unreadable { what: "session" })?,
            rendition: None,
            seq: self.seq.map(number),
            from: time(self.from_us),
            to: time(self.to_us),
            reason: serde_json::from_value(self.reason.into())
                .map_err(|_| Error::Unreadable { what: "reason of a gap" })?,
            detail: self.detail,
        })
    }
}

/// Name of an init section in the gateway's addresses: by its hash, since a session may have two.
fn init_file(sha256: &str) -> String {
    format!("init-{}.mp4", sha256.get(..16).unwrap_or(sha256))
}

/// The least begin that a segment which reaches into a range from here on may have.
pub(super) fn earliest(from: Timestamp) -> i64 {
    from.saturating_sub(LONGEST).unwrap_or(Timestamp::MIN).as_microsecond()
}

impl Reader {
    /// Segments of a camera that reach into a range, by time.
    pub async fn entries(
        &self,
        camera: &Camera,
        rendition: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for row in &camera.rows {
            let rows: String = sqlx::query_scalar(SEGMENTS)
                .bind(row)
                .bind(rendition)
                .bind(earliest(from))
                .bind(to.as_microsecond())
                .bind(from.as_microsecond())
                .fetch_one(&self.pool)
                .await
                .map_err(sql("read a range"))?;
            let rows: Vec<SegmentRow> = unpack(&rows)?;
            let runs = self.runs(rows.iter().map(SegmentRow::run).collect(), rendition).await?;
            // A session that was forgotten between the two questions had nothing left in this range.
            entries.extend(rows.iter().filter_map(|row| Some(runs.get(&row.run())?.entry(row, rendition))));
        }
        entries.sort_by_key(|entry| entry.start);
        Ok(entries)
    }

    /// What pairs of rows of session and init section stand for.
    async fn runs(&self, pairs: BTreeSet<(i64, i64)>, rendition: &str) -> Result<BTreeMap<(i64, i64), Run>, Error> {
        if pairs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let pairs = serde_json::to_string(&pairs).expect("numbers are JSON");
        let runs: Vec<RunRow> =
            sqlx::query_as(RUNS).bind(pairs).fetch_all(&self.pool).await.map_err(sql("read the runs of a range"))?;
        runs.into_iter().map(|run| run.into_run(rendition)).collect()
    }

    /// Gaps of a camera that reach into a range, by time.
    pub async fn gaps(&self, camera: &Camera, from: Timestamp, to: Timestamp) -> Result<Vec<Gap>, Error> {
        let mut gaps = Vec::new();
        for row in &camera.rows {
            let rows: Vec<GapRow> = sqlx::query_as(
                "SELECT s.uid AS stream, c.uid AS camera, e.uid AS session, g.seq, g.from_us, g.to_us, g.reason, g.detail
                 FROM gaps g JOIN streams s ON s.id = g.stream_id JOIN cameras c ON c.id = g.camera_id
                   JOIN sessions e ON e.id = g.session_id
                 WHERE g.camera_id = ?1 AND g.from_us < ?2 AND g.to_us >= ?3 ORDER BY g.from_us",
            )
            .bind(row)
            .bind(to.as_microsecond())
            .bind(from.as_microsecond())
            .fetch_all(&self.pool)
            .await
            .map_err(sql("read gaps"))?;
            for row in rows {
                gaps.push(row.into_gap()?);
            }
        }
        gaps.sort_by_key(|gap| gap.from);
        Ok(gaps)
    }

    /// Where a camera has footage within a range, by time.
    pub async fn spans(&self, camera: &Camera, from: Timestamp, to: Timestamp) -> Result<Vec<Span>, Error> {
        let mut spans = Vec::new();
        for row in &camera.rows {
            let rows: String = sqlx::query_scalar(SPANS)
                .bind(row)
                .bind(SOURCE)
                .bind(earliest(from))
                .bind(to.as_microsecond())
                .bind(from.as_microsecond())
                .fetch_one(&self.pool)
                .await
                .map_err(sql("read coverage"))?;
            let rows: Vec<(i64, i64)> = unpack(&rows)?;
            spans.extend(rows.into_iter().map(|(start, end)| Span { start: time(start), end: time(end) }));
        }
        spans.sort_by_key(|span| span.start);
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalogue::{Fact, fixture::*},
        domain::segment::Segment,
    };

    #[tokio::test]
    async fn a_range_is_read_from_the_index_alone() {
        let fixture = catalogue().await;
        for statement in [SEGMENTS, SPANS] {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
                    .fetch_all(&fixture.reader.pool)
                    .await
                    .expect("explains");
            assert!(plan.iter().any(|step| step.3.contains("COVERING INDEX segments_by_time")), "{plan:?}");
            assert!(!plan.iter().any(|step| step.3.contains("TEMP B-TREE")), "{plan:?}");
        }
    }

    #[tokio::test]
    async fn segments_of_several_runs_and_init_sections_come_by_time() {
        let fixture = catalogue().await;
        let mut facts = configured();
        // Two sessions that overlap; each goes to another init section and back.
        for n in [2, 1] {
            facts.extend((0..6).map(|seq| {
                let segment = segment(n, seq, i64::try_from(n).expect("small"));
                let init = Some(blob(format!("init {n}/{}", seq / 2 % 2).as_bytes()));
                Fact::Segment(Box::new(Segment { init, ..segment }))
            }));
        }
        fixture.writer.record(&facts, at(30)).await.expect("records");
        let camera = fixture.reader.camera("demo", "camera").await.expect("reads").expect("known");
        let entries = fixture.reader.entries(&camera, SOURCE, at(0), at(60)).await.expect("reads");
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (entry.key.session.0.as_u128(), entry.key.seq, entry.start, entry.end))
            .collect();
        let expected: Vec<_> = (0..6)
            .flat_map(|seq| [1, 2].map(|n| segment(n, seq, i64::try_from(n).expect("small"))))
            .map(|segment| (segment.key.session.0.as_u128(), segment.key.seq, segment.start, segment.end))
            .collect();
        assert_eq!(found, expected);
        let inits: Vec<_> = entries.iter().filter(|entry| entry.key.session == session(1)).map(|e| &e.init).collect();
        assert!(inits[0] == inits[1] && inits[0] != inits[2] && inits[2] == inits[3] && inits[0] == inits[4]);
        assert!(entries.iter().all(|entry| entry.folder.ends_with(&format!("/{}/source", entry.key.session))));
    }
}
