//! Roll-ups on their way from open segments to stored ones.
//!
//! `committed` (membership is fixed) → `built` (the directory has a CID) → `asking` (what the cluster is about to be asked
//! for is written down) → `pinning` (it accepted all of it) → `stored` (as many peers as asked for have it). Each step is one transaction; asking the cluster lies between them and
//! may be repeated.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{Error, Reader, Writer, number, outgoing, sql, time};
use crate::domain::{
    container::Container,
    control::{CONTROL_EXCHANGE, Command, Envelope, Readd, StreamConfig, Wanted, instance_key},
    rollup::Open,
    segment::SegmentKey,
};

/// How far a roll-up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// Its members are fixed.
    Committed,
    /// Its directory has a CID; the cluster may have been asked, but did not say yes to all of it.
    Built,
    /// The cluster accepted the pin as it was asked for.
    Pinning,
}

/// A stream with segments that belong to no roll-up.
#[derive(Clone, Debug)]
pub struct OpenStream {
    /// Row.
    pub id: i64,
    /// How it is kept.
    pub config: StreamConfig,
    /// End of its newest segment.
    pub newest: Timestamp,
    /// Its open segments by time.
    pub segments: Vec<Open>,
}

/// A roll-up that is not stored yet.
#[derive(Clone, Debug)]
pub struct Rollup {
    /// Row.
    pub id: i64,
    /// How far it has come.
    pub state: PinState,
    /// How its stream is kept.
    pub config: StreamConfig,
    /// Site of its camera.
    pub site: String,
    /// Namespace of its group.
    pub namespace: String,
    /// Its storage group: that of the time its members were fixed.
    pub group: String,
    /// Begin of the window.
    pub window: Timestamp,
    /// Counts the parts of a window, from 0.
    pub part: i64,
    /// Begin of its first segment.
    pub start: Timestamp,
    /// End of its last segment.
    pub end: Timestamp,
    /// CID of the directory, once built.
    pub cid: Option<String>,
    /// Replicas asked for, once asked.
    pub replicas: Option<u32>,
    /// Cluster peers asked for, once asked.
    pub allocations: Vec<String>,
    /// When the pin was last asked for.
    pub requested: Option<Timestamp>,
    /// Since when it is waited for, or when `readd` was last asked for.
    pub waiting: Option<Timestamp>,
    /// How often `readd` was asked for.
    pub readds: u32,
}

/// One file of a roll-up.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Member {
    /// `<session>-<rendition>-<seq>.m4s`, `….ts`, or `…-init.mp4`.
    pub name: String,
    /// CID.
    pub cid: String,
    /// Length.
    pub bytes: i64,
}

#[derive(sqlx::FromRow)]
struct RollupRow {
    id: i64,
    state: String,
    config: String,
    site: String,
    namespace: String,
    group_name: String,
    window_us: i64,
    part: i64,
    start_us: i64,
    end_us: i64,
    cid: Option<String>,
    replicas: Option<u32>,
    allocations: Option<String>,
    requested_us: Option<i64>,
    waiting_us: Option<i64>,
    readds: u32,
}

impl RollupRow {
    fn into_rollup(self) -> Result<Rollup, Error> {
        Ok(Rollup {
            id: self.id,
            state: match self.state.as_str() {
                "committed" => PinState::Committed,
                "built" | "asking" => PinState::Built,
                "pinning" => PinState::Pinning,
                _ => return Err(Error::Unreadable { what: "state of a roll-up" }),
            },
            config: config(&self.config)?,
            site: self.site,
            namespace: self.namespace,
            group: self.group_name,
            window: time(self.window_us),
            part: self.part,
            start: time(self.start_us),
            end: time(self.end_us),
            cid: self.cid,
            replicas: self.replicas,
            allocations: split(self.allocations.as_deref()),
            requested: self.requested_us.map(time),
            waiting: self.waiting_us.map(time),
            readds: self.readds,
        })
    }
}

fn split(allocations: Option<&str>) -> Vec<String> {
    allocations.unwrap_or_default().split(',').filter(|peer| !peer.is_empty()).map(str::to_owned).collect()
}

pub(super) fn config(text: &str) -> Result<StreamConfig, Error> {
    serde_json::from_str(text).map_err(|_| Error::Unreadable { what: "stream configuration" })
}

impl Reader {
    /// Streams with open segments whose configuration is known: without one, nobody knows where to put them.
    pub async fn open_streams(&self) -> Result<Vec<OpenStream>, Error> {
        let rows: Vec<(i64, String, i64)> = sqlx::query_as(
            "SELECT id, config, coalesce(newest_us, 0) FROM streams WHERE config IS NOT NULL
             AND id IN (SELECT DISTINCT stream_id FROM segments WHERE rollup_id IS NULL)",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(sql("find open streams"))?;
        let mut streams = Vec::with_capacity(rows.len());
        for (id, text, newest) in rows {
            let segments: Vec<(i64, i64, i64)> = sqlx::query_as(
                "SELECT id, start_us, received_us FROM segments WHERE stream_id = ?1 AND rollup_id IS NULL
                 ORDER BY start_us",
            )
            .bind(id)
            .fetch_all(&self.pool)
            .await
            .map_err(sql("find open segments"))?;
            let segments = segments
                .into_iter()
                .map(|(row, start, received)| Open { row, start: time(start), received: time(received) })
                .collect();
            streams.push(OpenStream { id, config: config(&text)?, newest: time(newest), segments });
        }
        Ok(streams)
    }

    /// Roll-ups that are not stored yet, oldest first.
    pub async fn unstored_rollups(&self) -> Result<Vec<Rollup>, Error> {
        let rows: Vec<RollupRow> = sqlx::query_as(
            "SELECT r.id, r.state, s.config, c.site, r.namespace, r.group_name, r.window_us, r.part, r.start_us, r.end_us,
               r.cid, r.replicas, r.allocations, r.requested_us, r.waiting_us, r.readds
             FROM rollups r JOIN streams s ON s.id = r.stream_id JOIN cameras c ON c.id = s.camera_id
             WHERE r.state <> 'stored' AND s.config IS NOT NULL ORDER BY r.id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(sql("find unstored roll-ups"))?;
        rows.into_iter().map(RollupRow::into_rollup).collect()
    }

    /// Stored roll-ups whose pins would end before their retention does: it was lengthened since.
    ///
    /// Groups in `except`, as (namespace, group), are left out.
    pub async fn rollups_to_renew(&self, except: &[(String, String)], limit: i64) -> Result<Vec<Rollup>, Error> {
        let except: Vec<String> = except.iter().map(|(namespace, group)| format!("{namespace}/{group}")).collect();
        let except = serde_json::to_string(&except).map_err(|_| Error::Unreadable { what: "names of groups" })?;
        // Trap: without CROSS JOIN the planner begins with every roll-up that has a CID, where it shall look at each stream's
        // shortest pins.
        let rows: Vec<RollupRow> = sqlx::query_as(
            "SELECT r.id, 'pinning' AS state, s.config, c.site, r.namespace, r.group_name, r.window_us, r.part,
               r.start_us, r.end_us, r.cid, r.replicas, r.allocations, r.requested_us, r.waiting_us, r.readds
             FROM streams s CROSS JOIN rollups r ON r.stream_id = s.id JOIN cameras c ON c.id = s.camera_id
             WHERE r.state = 'stored' AND s.config IS NOT NULL AND r.cid IS NOT NULL
               AND r.expires_us - r.end_us < json_extract(s.config, '$.retentionSeconds') * 1000000.0
               AND r.expires_us < ?3 AND r.namespace || '/' || r.group_name NOT IN (SELECT value FROM json_each(?1))
             ORDER BY r.expires_us LIMIT ?2",
        )
        .bind(except)
        .bind(limit)
        // One that never ends cannot be made to last longer.
        .bind(Timestamp::MAX.as_microsecond())
        .fetch_all(&self.pool)
        .await
        .map_err(sql("find pins that end too early"))?;
        rows.into_iter().map(RollupRow::into_rollup).collect()
    }

    /// Is the roll-up still there?
    pub async fn has_rollup(&self, id: i64) -> Result<bool, Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM rollups WHERE id = ?1)")
            .bind(id)
            .fetch_one(&self.pool)
            .await
            .map_err(sql("find a roll-up"))
    }

    /// Files of a roll-up: its segments by time and every init section they need.
    pub async fn members(&self, rollup: i64) -> Result<Vec<Member>, Error> {
        sqlx::query_as(
            // A session's init section is named by its hash: two in one session are two files.
            "SELECT name, cid, bytes FROM (
               SELECT DISTINCT 0 AS kind, 0 AS start_us,
                 e.uid || '-' || g.rendition || '-init-' || substr(i.sha256, 1, 16) || '.mp4' AS name, i.cid, i.bytes
               FROM segments g JOIN sessions e ON e.id = g.session_id JOIN inits i ON i.id = g.init_id
               WHERE g.rollup_id = ?1 AND i.cid <> ''
               UNION ALL
               SELECT 1, g.start_us, e.uid || '-' || g.rendition || '-' || printf('%08d', g.seq)
                 || '.' || CASE WHEN i.cid = '' THEN ?3 ELSE ?2 END, g.cid, g.bytes
               FROM segments g JOIN sessions e ON e.id = g.session_id JOIN inits i ON i.id = g.init_id
               WHERE g.rollup_id = ?1)
             ORDER BY kind, start_us, name",
        )
        .bind(rollup)
        .bind(Container::Fmp4.extension())
        .bind(Container::MpegTs.extension())
        .fetch_all(&self.pool)
        .await
        .map_err(sql("find the members of a roll-up"))
    }
}

impl Writer {
    /// Fixes the members of a roll-up, before anything is built. Rows that another roll-up took meanwhile stay there.
    pub async fn commit_rollup(&self, stream: &OpenStream, window: Timestamp, rows: &[i64]) -> Result<(), Error> {
        let mut tx = self.begin("begin a roll-up").await?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO rollups (stream_id, window_us, part, state, namespace, group_name, start_us, end_us)
             VALUES (?1, ?2, (SELECT coalesce(max(part) + 1, 0) FROM rollups WHERE stream_id = ?1 AND window_us = ?2),
               'committed', ?3, ?4, 0, 0) RETURNING id",
        )
        .bind(stream.id)
        .bind(window.as_microsecond())
        .bind(&stream.config.pipeline.namespace)
        .bind(&stream.config.group)
        .fetch_one(&mut *tx)
        .await
        .map_err(sql("begin a roll-up"))?;
        let rows = serde_json::to_string(rows).map_err(|_| Error::Unreadable { what: "rows of segments" })?;
        sqlx::query(
            "UPDATE segments SET rollup_id = ?2 WHERE id IN (SELECT value FROM json_each(?1)) AND rollup_id IS NULL",
        )
        .bind(rows)
        .bind(id)
        .execute(&mut *tx)
        .await
        .map_err(sql("put segments into a roll-up"))?;
        let (start, end): (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT min(start_us), max(end_us) FROM segments WHERE rollup_id = ?1")
                .bind(id)
                .fetch_one(&mut *tx)
                .await
                .map_err(sql("measure a roll-up"))?;
        // All of them were removed since they were read: nothing to keep.
        let (Some(start), Some(end)) = (start, end) else { return Ok(()) };
        sqlx::query("UPDATE rollups SET start_us = ?2, end_us = ?3 WHERE id = ?1")
            .bind(id)
            .bind(start)
            .bind(end)
            .execute(&mut *tx)
            .await
            .map_err(sql("measure a roll-up"))?;
        tx.commit().await.map_err(sql("commit a roll-up"))
    }

    /// Notes the CID of the directory. Nothing happens to a roll-up that was removed meanwhile.
    pub async fn rollup_built(&self, id: i64, cid: &str) -> Result<(), Error> {
        sqlx::query("UPDATE rollups SET state = 'built', cid = ?2 WHERE id = ?1 AND state = 'committed'")
            .bind(id)
            .bind(cid)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(sql("note a roll-up's CID"))
    }

    /// Notes what the cluster was asked for. Called *before* asking: a pin that nobody knows of would never be removed.
    pub async fn pin_requested(
        &self,
        id: i64,
        replicas: u32,
        allocations: &[String],
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        sqlx::query(
            "UPDATE rollups SET state = 'asking', replicas = ?2, allocations = ?3, expires_us = ?4, requested_us = ?5,
               waiting_us = coalesce(waiting_us, ?5)
             WHERE id = ?1 AND state IN ('built', 'asking', 'pinning')",
        )
        .bind(id)
        .bind(replicas)
        .bind(allocations.join(","))
        .bind(expires.as_microsecond())
        .bind(now.as_microsecond())
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(sql("note a pin request"))
    }

    /// The cluster accepted the pin with every option. Only such a pin may count as stored.
    pub async fn pin_accepted(&self, id: i64) -> Result<(), Error> {
        sqlx::query("UPDATE rollups SET state = 'pinning' WHERE id = ?1 AND state = 'asking'")
            .bind(id)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(sql("note an accepted pin"))
    }

    /// The pin has to be made on other peers: back to the begin, with the same members.
    pub async fn rollup_reopened(&self, id: i64, now: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE rollups SET state = 'committed', requested_us = ?2 WHERE id = ?1 AND state = 'pinning'")
            .bind(id)
            .bind(now.as_microsecond())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(sql("reopen a roll-up"))
    }

    /// Notes that a pin lasts longer now.
    pub async fn pin_renewed(&self, id: i64, expires: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE rollups SET expires_us = ?2 WHERE id = ?1")
            .bind(id)
            .bind(expires.as_microsecond())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(sql("note a longer pin"))
    }

    /// As many peers as asked for have it: its segments are stored, and the instance is told how far.
    pub async fn rollup_stored(&self, id: i64, now: Timestamp) -> Result<(), Error> {
        let mut tx = self.begin("begin to note a stored roll-up").await?;
        sqlx::query("UPDATE rollups SET state = 'stored', stored_us = ?2 WHERE id = ?1 AND state = 'pinning'")
            .bind(id)
            .bind(now.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(sql("note a stored roll-up"))?;
        sqlx::query(
            "UPDATE segments SET stored = 1
             WHERE rollup_id = ?1 AND (SELECT state FROM rollups WHERE id = ?1) = 'stored'",
        )
        .bind(id)
        .execute(&mut *tx)
        .await
        .map_err(sql("note stored segments"))?;
        let sessions: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT session_id FROM segments WHERE rollup_id = ?1 AND rendition = 'source'",
        )
        .bind(id)
        .fetch_all(&mut *tx)
        .await
        .map_err(sql("find the sessions of a roll-up"))?;
        for session in sessions {
            outgoing::stored(&mut tx, session, false, now).await?;
        }
        outgoing::stored_rungs(&mut tx, id, now).await?;
        tx.commit().await.map_err(sql("commit a stored roll-up"))
    }

    /// The pin does not come about: asks the instance to upload the members again.
    pub async fn rollup_readd(&self, rollup: &Rollup, now: Timestamp) -> Result<(), Error> {
        let mut tx = self.begin("begin to ask for a re-upload").await?;
        sqlx::query("UPDATE rollups SET waiting_us = ?2, readds = readds + 1 WHERE id = ?1")
            .bind(rollup.id)
            .bind(now.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(sql("note a re-upload"))?;
        let segments = wanted(&mut tx, rollup).await?;
        let message =
            Envelope::unordered(rollup.config.instance.to_string(), Command::Readd.as_str(), now, Readd { segments });
        outgoing::enqueue(&mut tx, CONTROL_EXCHANGE, &instance_key(rollup.config.instance, Command::Readd), &message)
            .await?;
        tx.commit().await.map_err(sql("commit a re-upload"))
    }
}

async fn wanted(tx: &mut SqliteConnection, rollup: &Rollup) -> Result<Vec<Wanted>, Error> {
    let rows: Vec<(String, String, i64, String, String, i64, i64)> = sqlx::query_as(
        "SELECT e.uid, g.rendition, g.seq, g.cid, i.cid, g.start_us, g.end_us
         FROM segments g JOIN sessions e ON e.id = g.session_id JOIN inits i ON i.id = g.init_id
         WHERE g.rollup_id = ?1 ORDER BY g.start_us",
    )
    .bind(rollup.id)
    .fetch_all(&mut *tx)
    .await
    .map_err(sql("find the members of a roll-up"))?;
    rows.into_iter()
        .map(|(session, rendition, seq, cid, init, start, end)| {
            let session = session.parse().map_err(|_| Error::Unreadable { what: "session" })?;
            let key = SegmentKey { stream: rollup.config.stream, rendition, session, seq: number(seq) };
            let cids = [cid, init].into_iter().filter(|cid| !cid.is_empty()).collect();
            Ok(Wanted { key, cids, start: time(start), end: time(end) })
        })
        .collect()
}
