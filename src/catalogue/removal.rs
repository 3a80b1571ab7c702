//! The way out: at the end of retention, or with a pipeline that takes its footage along.
//!
//! The tombstone comes first, in one transaction with the rows' removal: from then on nothing is listed, and the CID is
//! known until the cluster was seen to have let go of it.

use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Error, Reader, Writer, column, pinning, sql, time};
use crate::domain::retention;

/// How long a session that began before the horizon is remembered without footage: so late an agent or a player may still
/// ask, and must hear that its footage was removed.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a finished tombstone is kept as evidence.
const EVIDENCE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Roll-ups that leave in one transaction: bounds how long the writer is busy.
const BATCH: i64 = 200;

/// Why footage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its time is over.
    Retention,
    /// Its pipeline ended and takes it along.
    PipelineDeleted,
    /// A member is lost for good: the others form another roll-up.
    SegmentLost,
    /// The pin was asked for while its roll-up was being removed.
    Overtaken,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "Retention",
            Self::PipelineDeleted => "PipelineDeleted",
            Self::SegmentLost => "SegmentLost",
            Self::Overtaken => "Overtaken",
        }
    }
}

/// A pin that has to go.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Tombstone {
    /// Row.
    pub id: i64,
    /// Namespace of the group.
    pub namespace: String,
    /// The group.
    #[sqlx(rename = "group_name")]
    pub group: String,
    /// What is pinned; absent when it never got that far.
    pub cid: Option<String>,
    asked_us: Option<i64>,
    /// Another roll-up or tombstone that is not done has the same CID.
    pub shared: bool,
}

impl Tombstone {
    /// When the cluster was last asked to unpin it.
    pub fn asked(&self) -> Option<Timestamp> {
        self.asked_us.map(time)
    }
}

/// Turns a roll-up into a tombstone; its segments must be gone or elsewhere.
async fn bury(tx: &mut SqliteConnection, rollup: i64, reason: Reason, now: Timestamp) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO tombstones (stream_id, namespace, group_name, cid, reason, start_us, end_us, at_us)
         SELECT stream_id, namespace, group_name, cid, ?2, start_us, end_us, ?3 FROM rollups WHERE id = ?1",
    )
    .bind(rollup)
    .bind(reason.as_str())
    .bind(now.as_microsecond())
    .execute(&mut *tx)
    .await
    .map_err(sql("write a tombstone"))?;
    sqlx::query("DELETE FROM rollups WHERE id = ?1")
        .bind(rollup)
        .execute(&mut *tx)
        .await
        .map(|_| ())
        .map_err(sql("remove a roll-up"))
}

/// Removes the segments of a roll-up and marks how far each track is gone.
async fn remove_members(tx: &mut SqliteConnection, rollup: i64) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO tracks (session_id, rendition, removed_next)
         SELECT session_id, rendition, max(seq) + 1 FROM segments WHERE rollup_id = ?1 GROUP BY session_id, rendition
         ON CONFLICT (session_id, rendition) DO UPDATE SET removed_next = max(removed_next, excluded.removed_next)",
    )
    .bind(rollup)
    .execute(&mut *tx)
    .await
    .map_err(sql("mark what is removed"))?;
    sqlx::query(
        "UPDATE streams SET removed_us = max(coalesce(removed_us, 0), (SELECT end_us FROM rollups WHERE id = ?1))
         WHERE id = (SELECT stream_id FROM rollups WHERE id = ?1)",
    )
    .bind(rollup)
    .execute(&mut *tx)
    .await
    .map_err(sql("mark what is removed"))?;
    sqlx::query("DELETE FROM segments WHERE rollup_id = ?1")
        .bind(rollup)
        .execute(&mut *tx)
        .await
        .map(|_| ())
        .map_err(sql("remove segments"))
}

/// Removes all footage of a stream (deletion policy `Delete`).
pub(super) async fn forget(tx: &mut SqliteConnection, stream: i64, now: Timestamp) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO tombstones (stream_id, namespace, group_name, cid, reason, start_us, end_us, at_us)
         SELECT stream_id, namespace, group_name, cid, ?2, start_us, end_us, ?3 FROM rollups WHERE stream_id = ?1",
    )
    .bind(stream)
    .bind(Reason::PipelineDeleted.as_str())
    .bind(now.as_microsecond())
    .execute(&mut *tx)
    .await
    .map_err(sql("write tombstones"))?;
    sqlx::query("UPDATE streams SET removed_us = newest_us WHERE id = ?1")
        .bind(stream)
        .execute(&mut *tx)
        .await
        .map_err(sql("mark what is removed"))?;
    for statement in [
        "DELETE FROM segments WHERE stream_id = ?1",
        "DELETE FROM rollups WHERE stream_id = ?1",
        "DELETE FROM gaps WHERE stream_id = ?1",
        "DELETE FROM tracks WHERE session_id IN (SELECT id FROM sessions WHERE stream_id = ?1)",
        "DELETE FROM sessions WHERE stream_id = ?1",
    ] {
        sqlx::query(statement).bind(stream).execute(&mut *tx).await.map_err(sql("remove the footage of a stream"))?;
    }
    Ok(())
}

/// Forgets sessions that are long over, all but the newest.
async fn forget_sessions(tx: &mut SqliteConnection, stream: i64, horizon: Timestamp) -> Result<(), Error> {
    let began = horizon.saturating_sub(REMEMBERED).unwrap_or(Timestamp::MIN).as_millisecond();
    // Sessions are UUIDv7: their texts are in the order of their begin.
    let before = Uuid::from_u128(u128::from(u64::try_from(began).unwrap_or(0)) << 80).to_string();
    let sessions: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM sessions e WHERE stream_id = ?1 AND uid < ?2
           AND uid < (SELECT max(uid) FROM sessions WHERE stream_id = ?1)
           AND NOT EXISTS (SELECT 1 FROM segments g WHERE g.session_id = e.id)
           AND NOT EXISTS (SELECT 1 FROM gaps g WHERE g.session_id = e.id) LIMIT ?3",
    )
    .bind(stream)
    .bind(before)
    .bind(BATCH)
    .fetch_all(&mut *tx)
    .await
    .map_err(sql("find sessions that are over"))?;
    for session in sessions {
        for statement in ["DELETE FROM tracks WHERE session_id = ?1", "DELETE FROM sessions WHERE id = ?1"] {
            sqlx::query(statement).bind(session).execute(&mut *tx).await.map_err(sql("forget a session"))?;
        }
    }
    Ok(())
}

/// A member of an unstored roll-up is lost for good (in one rendition, or in all): the pin could never come about. The
/// others go back to being open.
pub(super) async fn lose(
    tx: &mut SqliteConnection,
    session: i64,
    seq: i64,
    rendition: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    let lost: Vec<(i64, Option<i64>)> = sqlx::query_as(
        "SELECT id, rollup_id FROM segments WHERE session_id = ?1 AND seq = ?2 AND stored = 0
           AND (?3 IS NULL OR rendition = ?3)",
    )
    .bind(session)
    .bind(seq)
    .bind(rendition)
    .fetch_all(&mut *tx)
    .await
    .map_err(sql("find a lost segment"))?;
    for (segment, rollup) in lost {
        sqlx::query("DELETE FROM segments WHERE id = ?1")
            .bind(segment)
            .execute(&mut *tx)
            .await
            .map_err(sql("remove a lost segment"))?;
        if let Some(rollup) = rollup {
            sqlx::query("UPDATE segments SET rollup_id = NULL WHERE rollup_id = ?1")
                .bind(rollup)
                .execute(&mut *tx)
                .await
                .map_err(sql("reopen the segments of a roll-up"))?;
            bury(tx, rollup, Reason::SegmentLost, now).await?;
        }
    }
    Ok(())
}

impl Writer {
    /// Turns what retention has ended for into tombstones, how many there were. Stream by stream, a bounded number at a time:
    /// what is heard meanwhile gets its turn in between.
    pub async fn expire(&self, now: Timestamp) -> Result<u64, Error> {
        let streams: Vec<(i64, String)> = sqlx::query_as("SELECT id, config FROM streams WHERE config IS NOT NULL")
            .fetch_all(&self.pool)
            .await
            .map_err(sql("find the streams"))?;
        let mut count = 0;
        for (stream, text) in streams {
            let horizon = retention::horizon(now, pinning::config(&text)?.retention_seconds);
            loop {
                let expired = self.expire_of(stream, horizon, now).await?;
                count += expired;
                if expired < BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        let mut tx = self.begin("begin to clear away").await?;
        sqlx::query("DELETE FROM inits WHERE NOT EXISTS (SELECT 1 FROM segments g WHERE g.init_id = inits.id)")
            .execute(&mut *tx)
            .await
            .map_err(sql("remove init sections that nothing needs"))?;
        sqlx::query("DELETE FROM tombstones WHERE done_us < ?1")
            .bind((now - EVIDENCE).as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(sql("remove old tombstones"))?;
        tx.commit().await.map_err(sql("commit what was cleared away"))?;
        Ok(count)
    }

    /// One transaction's worth of a stream.
    async fn expire_of(&self, stream: i64, horizon: Timestamp, now: Timestamp) -> Result<u64, Error> {
        let mut tx = self.begin("begin to expire").await?;
        let mut count = 0;
        let rollups: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM rollups WHERE stream_id = ?1 AND end_us <= ?2 ORDER BY end_us LIMIT ?3")
                .bind(stream)
                .bind(horizon.as_microsecond())
                .bind(BATCH)
                .fetch_all(&mut *tx)
                .await
                .map_err(sql("find expired roll-ups"))?;
        for rollup in rollups {
            remove_members(&mut tx, rollup).await?;
            bury(&mut tx, rollup, Reason::Retention, now).await?;
            count += 1;
        }
        // Never pinned, perhaps because its group is gone: it still has to go.
        for statement in [
            "DELETE FROM segments WHERE stream_id = ?1 AND rollup_id IS NULL AND end_us <= ?2",
            "DELETE FROM gaps WHERE stream_id = ?1 AND to_us <= ?2 AND NOT EXISTS
               (SELECT 1 FROM segments g WHERE g.session_id = gaps.session_id)",
        ] {
            sqlx::query(statement)
                .bind(stream)
                .bind(horizon.as_microsecond())
                .execute(&mut *tx)
                .await
                .map_err(sql("remove what was never pinned"))?;
        }
        forget_sessions(&mut tx, stream, horizon).await?;
        tx.commit().await.map_err(sql("commit what expired"))?;
        Ok(count)
    }

    /// A pin was asked for while its roll-up was removed: it needs a tombstone of its own.
    pub async fn bury_pin(&self, rollup: &pinning::Rollup, cid: &str, now: Timestamp) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO tombstones (stream_id, namespace, group_name, cid, reason, start_us, end_us, at_us)
             SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM streams WHERE uid = ?1",
        )
        .bind(rollup.config.stream.to_string())
        .bind(&rollup.namespace)
        .bind(&rollup.group)
        .bind(cid)
        .bind(Reason::Overtaken.as_str())
        .bind(rollup.start.as_microsecond())
        .bind(rollup.end.as_microsecond())
        .bind(now.as_microsecond())
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(sql("write a tombstone"))
    }

    /// Notes that the cluster is asked to unpin.
    pub async fn unpin_asked(&self, tombstone: i64, now: Timestamp) -> Result<(), Error> {
        self.mark_tombstone("UPDATE tombstones SET asked_us = ?2 WHERE id = ?1", tombstone, now).await
    }

    /// The cluster was seen to have let go.
    pub async fn unpinned(&self, tombstone: i64, now: Timestamp) -> Result<(), Error> {
        self.mark_tombstone("UPDATE tombstones SET done_us = ?2 WHERE id = ?1", tombstone, now).await
    }

    async fn mark_tombstone(&self, statement: &'static str, id: i64, now: Timestamp) -> Result<(), Error> {
        sqlx::query(statement)
            .bind(id)
            .bind(now.as_microsecond())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(sql("mark a tombstone"))
    }
}

impl Reader {
    /// When the next roll-up's retention ends.
    pub async fn next_expiry(&self) -> Result<Option<Timestamp>, Error> {
        let rows: Vec<(String, Option<i64>)> = sqlx::query_as(
            "SELECT s.config, (SELECT r.end_us FROM rollups r WHERE r.stream_id = s.id ORDER BY r.end_us LIMIT 1)
             FROM streams s WHERE s.config IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(sql("find the next end of retention"))?;
        let mut next: Option<Timestamp> = None;
        for (text, end) in rows {
            if let Some(end) = end {
                let ends = retention::ends(time(end), pinning::config(&text)?.retention_seconds);
                next = Some(next.map_or(ends, |next| next.min(ends)));
            }
        }
        Ok(next)
    }

    /// Storage groups that have pins to let go of: (namespace, group).
    pub async fn tombstone_groups(&self) -> Result<Vec<(String, String)>, Error> {
        sqlx::query_as("SELECT DISTINCT namespace, group_name FROM tombstones WHERE done_us IS NULL ORDER BY 1, 2")
            .fetch_all(&self.pool)
            .await
            .map_err(sql("find the groups of tombstones"))
    }

    /// Pins of one storage group that have to go, oldest first, behind the tombstone `after`.
    pub async fn tombstones(
        &self,
        namespace: &str,
        group: &str,
        after: i64,
        limit: u64,
    ) -> Result<Vec<Tombstone>, Error> {
        sqlx::query_as(
            "SELECT t.id, t.namespace, t.group_name, t.cid, t.asked_us,
               EXISTS (SELECT 1 FROM rollups r WHERE r.cid = t.cid AND r.namespace = t.namespace
                 AND r.group_name = t.group_name) AS shared
             FROM tombstones t
             WHERE t.done_us IS NULL AND t.namespace = ?1 AND t.group_name = ?2 AND t.id > ?3 ORDER BY t.id LIMIT ?4",
        )
        .bind(namespace)
        .bind(group)
        .bind(after)
        .bind(column(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(sql("find tombstones"))
    }
}
