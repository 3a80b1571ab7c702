//! The way of a segment through the outbox: sealed → added → announced → stored → forgotten.
//!
//! Each move names the states it starts from, so that a repeated or late one changes nothing.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::Row;

use super::{Outbox, Result, json, number};
use crate::domain::{
    control::Backlog,
    id::SessionId,
    segment::{Gap, SOURCE, Segment, SegmentKey},
    session::announce_again_after_us,
};

const TO_ADD_NEWEST: &str = "SELECT segment FROM media WHERE state = 0
    ORDER BY on_disk DESC, rendition <> 'source', playlist_seq DESC LIMIT ?";
const TO_ADD_OLDEST: &str = "SELECT segment FROM media WHERE state = 0
    ORDER BY on_disk DESC, rendition <> 'source', playlist_seq LIMIT ?";
const TO_ANNOUNCE: &str = "SELECT segment FROM media WHERE state = 1
    ORDER BY rendition <> 'source', playlist_seq LIMIT ?";
const TO_REPEAT: &str = "SELECT segment FROM media WHERE state = 2 AND again_us <= ?
    ORDER BY again_us, rendition <> 'source', playlist_seq LIMIT ?";
const NEXT_REPETITION: &str = "SELECT min(again_us) FROM media WHERE state = 2";
const TRIMMABLE: &str = "SELECT segment FROM media m WHERE state = 3 AND playlist_seq < coalesce((
      SELECT min(playlist_seq) FROM (
        SELECT playlist_seq FROM media WHERE rendition = 'source'
        ORDER BY playlist_seq DESC LIMIT ?)), 9223372036854775807)
      AND (rendition = 'source' OR NOT EXISTS (
        SELECT 1 FROM media s WHERE s.session = m.session AND s.rendition = 'source' AND s.seq = m.seq))
    ORDER BY playlist_seq LIMIT 1000";
const DROPPABLE: &str = "SELECT segment, CASE WHEN state = 0 AND announcements > 0 THEN 2 ELSE state END AS reached
    FROM media WHERE on_disk = 1
    ORDER BY rendition = 'source', CASE state WHEN 3 THEN 0 WHEN 0 THEN 2 ELSE 1 END, playlist_seq LIMIT 1 OFFSET ?";
const BACKLOG: &str = "SELECT coalesce(sum(segments) FILTER (WHERE state < 2 AND is_source), 0) AS unannounced,
      coalesce(sum(segments) FILTER (WHERE state = 2 AND is_source), 0) AS unstored,
      coalesce(sum(bytes), 0) AS bytes,
      (SELECT min(start_us) FROM media WHERE state < 3 AND rendition = 'source') AS oldest FROM tally";

/// What is asked with every segment.
#[cfg(test)]
pub(super) const EACH_TIME: [&str; 8] =
    [TO_ADD_NEWEST, TO_ADD_OLDEST, TO_ANNOUNCE, TO_REPEAT, NEXT_REPETITION, TRIMMABLE, DROPPABLE, BACKLOG];

/// How far a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Numbered, on disk.
    Sealed,
    /// In IPFS.
    Added,
    /// Told to the recorder.
    Announced,
    /// Pinned as often as asked for.
    Stored,
}

impl State {
    fn of(number: i64) -> Self {
        match number {
            0 => Self::Sealed,
            1 => Self::Added,
            2 => Self::Announced,
            _ => Self::Stored,
        }
    }
}

impl Outbox {
    /// The sealed segment that waits longest, or the newest one, except for those that somebody is at. The source first;
    /// those without a copy come last: they are only asked for.
    pub async fn to_add(&self, newest: bool, busy: &[SegmentKey]) -> Result<Option<Segment>> {
        let order = if newest { TO_ADD_NEWEST } else { TO_ADD_OLDEST };
        let rows = sqlx::query(order).bind(number(busy.len() as u64 + 1)).fetch_all(&self.pool).await?;
        for row in rows {
            let segment: Segment = json(&row, "segment")?;
            if !busy.contains(&segment.key) {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// Is the init section of this rendition in IPFS?
    pub async fn init_is_added(&self, session: SessionId, rendition: &str) -> Result<bool> {
        let query = if rendition == SOURCE {
            "SELECT init_added FROM sessions WHERE session = ?1 AND ?2 <> ''"
        } else {
            "SELECT 1 FROM rendition_inits WHERE session = ?1 AND rendition = ?2"
        };
        let added: Option<i64> =
            sqlx::query_scalar(query).bind(session.to_string()).bind(rendition).fetch_optional(&self.pool).await?;
        Ok(added == Some(1))
    }

    /// It is now.
    pub async fn init_added(&self, session: SessionId, rendition: &str) -> Result<()> {
        let statement = if rendition == SOURCE {
            "UPDATE sessions SET init_added = 1 WHERE session = ?1 AND ?2 <> ''"
        } else {
            "INSERT INTO rendition_inits VALUES (?1, ?2) ON CONFLICT DO NOTHING"
        };
        sqlx::query(statement).bind(session.to_string()).bind(rendition).execute(&self.pool).await?;
        Ok(())
    }

    /// sealed → added. A segment that is further stays there.
    pub async fn added(&self, key: &SegmentKey) -> Result<()> {
        sqlx::query(
            "UPDATE media SET state = 1, again_us = 0 WHERE session = ? AND rendition = ? AND seq = ? AND state = 0",
        )
        .bind(key.session.to_string())
        .bind(&key.rendition)
        .bind(number(key.seq))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Segments to announce now: those that were just added, and when there are none, those not stored for too long.
    pub async fn to_announce(&self, now: Timestamp, limit: u32) -> Result<Vec<Segment>> {
        let mut rows = sqlx::query(TO_ANNOUNCE).bind(limit).fetch_all(&self.pool).await?;
        if rows.is_empty() {
            rows = sqlx::query(TO_REPEAT).bind(now.as_microsecond()).bind(limit).fetch_all(&self.pool).await?;
        }
        rows.iter().map(|row| json(row, "segment")).collect()
    }

    /// When the next announcement is due that nothing calls for, µs.
    pub async fn next_announcement_us(&self) -> Result<Option<i64>> {
        Ok(sqlx::query_scalar(NEXT_REPETITION).fetch_one(&self.pool).await?)
    }

    /// added → announced, or once more.
    pub async fn announced(&self, key: &SegmentKey, now: Timestamp) -> Result<()> {
        let (session, seq) = (key.session.to_string(), number(key.seq));
        let mut tx = self.pool.begin().await?;
        let before: Option<i64> = sqlx::query_scalar(
            "SELECT announcements FROM media WHERE session = ? AND rendition = ? AND seq = ? AND state IN (1, 2)",
        )
        .bind(&session)
        .bind(&key.rendition)
        .bind(seq)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(before) = before {
            let count = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
            sqlx::query(
                "UPDATE media SET state = 2, announced_us = ?, announcements = ?, again_us = ?
                 WHERE session = ? AND rendition = ? AND seq = ?",
            )
            .bind(now.as_microsecond())
            .bind(count)
            .bind(now.as_microsecond() + announce_again_after_us(count))
            .bind(&session)
            .bind(&key.rendition)
            .bind(seq)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// After `hello`: what was announced once is announced again, in case the broker has lost it. Trap: everything, each
    /// time, would fill the recorder's queue with a whole spool for each connection while the recorder is away.
    pub async fn announce_once_more(&self) -> Result<()> {
        sqlx::query("UPDATE media SET again_us = 0 WHERE state = 2 AND announcements = 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Gaps that nobody has been told of.
    pub async fn gaps(&self, limit: u32) -> Result<Vec<(i64, Gap)>> {
        let rows =
            sqlx::query("SELECT id, gap FROM gaps ORDER BY id LIMIT ?").bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, json(row, "gap")?))).collect()
    }

    /// Somebody has taken responsibility for the gap.
    pub async fn gap_told(&self, id: i64) -> Result<()> {
        sqlx::query("DELETE FROM gaps WHERE id = ?").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// announced → stored, for everything of the rendition up to and including `upto`.
    pub async fn stored(&self, upto: &SegmentKey) -> Result<u64> {
        self.stored_where(
            "UPDATE media SET state = 3 WHERE session = ? AND rendition = ? AND seq <= ? AND state IN (1, 2)",
            upto,
        )
        .await
    }

    /// announced → stored, for this one.
    pub async fn stored_exactly(&self, key: &SegmentKey) -> Result<u64> {
        self.stored_where(
            "UPDATE media SET state = 3 WHERE session = ? AND rendition = ? AND seq = ? AND state IN (1, 2)",
            key,
        )
        .await
    }

    async fn stored_where(&self, statement: &'static str, key: &SegmentKey) -> Result<u64> {
        let done = sqlx::query(statement)
            .bind(key.session.to_string())
            .bind(&key.rendition)
            .bind(number(key.seq))
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }

    /// Back to sealed: the bytes and their init section are uploaded and announced again; where the local copy is gone,
    /// the storage agents are asked for them. `false`: not known any more.
    pub async fn readd(&self, key: &SegmentKey) -> Result<bool> {
        let session = key.session.to_string();
        let mut tx = self.pool.begin().await?;
        let known = sqlx::query("UPDATE media SET state = 0 WHERE session = ? AND rendition = ? AND seq = ?")
            .bind(&session)
            .bind(&key.rendition)
            .bind(number(key.seq))
            .execute(&mut *tx)
            .await?;
        for statement in [
            "UPDATE sessions SET init_added = 0 WHERE session = ?1 AND ?2 = 'source'",
            "DELETE FROM rendition_inits WHERE session = ?1 AND rendition = ?2",
        ] {
            sqlx::query(statement).bind(&session).bind(&key.rendition).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(known.rows_affected() > 0)
    }

    /// sealed → announced, where it was before it was asked for again: nobody can tell now whether it is in IPFS. `false`:
    /// it was never announced.
    pub async fn set_aside(&self, key: &SegmentKey) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE media SET state = 2
             WHERE session = ? AND rendition = ? AND seq = ? AND state = 0 AND announcements > 0",
        )
        .bind(key.session.to_string())
        .bind(&key.rendition)
        .bind(number(key.seq))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// A segment that is still known.
    pub async fn segment(&self, key: &SegmentKey) -> Result<Option<Segment>> {
        let row = sqlx::query("SELECT segment FROM media WHERE session = ? AND rendition = ? AND seq = ?")
            .bind(key.session.to_string())
            .bind(&key.rendition)
            .bind(number(key.seq))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| json(&row, "segment")).transpose()
    }

    /// Stored segments outside the newest `live` of the source, oldest first: their local copies may go. Those of other
    /// renditions only after the source's: a transcoder would make them again.
    pub async fn trimmable(&self, live: usize) -> Result<Vec<SegmentKey>> {
        let rows = sqlx::query(TRIMMABLE).bind(number(live as u64)).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(json::<Segment>(row, "segment")?.key)).collect()
    }

    /// Numbers of a rendition that are known.
    pub async fn numbers(&self, session: SessionId, rendition: &str) -> Result<HashSet<u64>> {
        let rows: Vec<i64> = sqlx::query_scalar("SELECT seq FROM media WHERE session = ? AND rendition = ?")
            .bind(session.to_string())
            .bind(rendition)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().filter_map(|seq| u64::try_from(seq).ok()).collect())
    }

    /// What disk pressure drops next: other renditions than the source, then stored copies, then what IPFS already has,
    /// then the oldest. One that was announced before it was asked for again counts as announced: it may be stored, and the
    /// recorder must hear whether it is lost. `skip`: so many of the first cannot be removed.
    pub async fn droppable(&self, skip: u64) -> Result<Option<(Segment, State)>> {
        let row = sqlx::query(DROPPABLE).bind(number(skip)).fetch_optional(&self.pool).await?;
        row.map(|row| Ok((json(&row, "segment")?, State::of(row.try_get("reached")?)))).transpose()
    }

    /// The local copy is gone; the row stays until the segment is stored.
    pub async fn dropped(&self, key: &SegmentKey) -> Result<()> {
        sqlx::query("UPDATE media SET on_disk = 0 WHERE session = ? AND rendition = ? AND seq = ?")
            .bind(key.session.to_string())
            .bind(&key.rendition)
            .bind(number(key.seq))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Nothing is left to do for the segment; with `gap`, because it is lost.
    pub async fn forget(&self, key: &SegmentKey, gap: Option<&Gap>) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("DELETE FROM media WHERE session = ? AND rendition = ? AND seq = ?")
            .bind(key.session.to_string())
            .bind(&key.rendition)
            .bind(number(key.seq))
            .execute(&mut *tx)
            .await?;
        if let Some(gap) = gap {
            sqlx::query("INSERT INTO gaps (gap) VALUES (?)")
                .bind(serde_json::to_string(gap)?)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The newest segments of the source that are on disk, and the other renditions of the same time; oldest first.
    pub async fn newest(&self, count: usize) -> Result<Vec<Segment>> {
        let rows = sqlx::query(
            "SELECT segment FROM media WHERE on_disk = 1 AND playlist_seq >= (
               SELECT min(playlist_seq) FROM (
                 SELECT playlist_seq FROM media WHERE on_disk = 1 AND rendition = 'source'
                 ORDER BY playlist_seq DESC LIMIT ?))
             ORDER BY playlist_seq, rendition <> 'source'",
        )
        .bind(number(count as u64))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| json(row, "segment")).collect()
    }

    /// What waits of the footage, and the bytes of all renditions. A ladder that is slow is no footage that waits.
    pub async fn backlog(&self) -> Result<Backlog> {
        let row = sqlx::query(BACKLOG).fetch_one(&self.pool).await?;
        let count = |name: &str| -> Result<u64> { Ok(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or(0)) };
        let oldest: Option<i64> = row.try_get("oldest")?;
        Ok(Backlog {
            unannounced: count("unannounced")?,
            unstored: count("unstored")?,
            bytes: count("bytes")?,
            oldest: oldest.and_then(|us| Timestamp::from_microsecond(us).ok()),
        })
    }

    /// Segments of all renditions that are not announced, and those that are and not stored: what a pod must wait for.
    pub async fn waiting(&self) -> Result<(u64, u64)> {
        let (unannounced, unstored): (i64, i64) = sqlx::query_as(
            "SELECT coalesce(sum(segments) FILTER (WHERE state < 2), 0),
               coalesce(sum(segments) FILTER (WHERE state = 2), 0) FROM tally",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((u64::try_from(unannounced).unwrap_or(0), u64::try_from(unstored).unwrap_or(0)))
    }

    /// Gaps not told yet.
    pub async fn untold_gaps(&self) -> Result<u64> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM gaps").fetch_one(&self.pool).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
