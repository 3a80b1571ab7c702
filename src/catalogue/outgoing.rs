//! Messages that rows cause, kept until the broker has confirmed them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{Error, Reader, Writer, column, number, sql};
use crate::domain::{
    control::{CONTROL_EXCHANGE, Command, Envelope, Stored, StreamConfig, instance_key},
    id::SessionId,
    segment::{SOURCE, SegmentKey},
};

/// Rows looked at in one go while a mark is moved on.
const PAGE: i64 = 1_000;

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Outgoing {
    /// Its place in the order.
    pub id: i64,
    /// Exchange.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// JSON text.
    pub body: String,
}

/// Adds a message to the outbox.
pub(super) async fn enqueue<T: Serialize>(
    tx: &mut SqliteConnection,
    exchange: &str,
    key: &str,
    message: &Envelope<T>,
) -> Result<(), Error> {
    let body = serde_json::to_string(message).map_err(|_| Error::Unreadable { what: "message" })?;
    sqlx::query("INSERT INTO outbox (exchange, key, body) VALUES (?1, ?2, ?3)")
        .bind(exchange)
        .bind(key)
        .bind(body)
        .execute(&mut *tx)
        .await
        .map(|_| ())
        .map_err(sql("put a message into the outbox"))
}

/// Moves the stored mark of a session's source as far as it goes and tells the instance, when the mark moved or when it
/// asks `again`. True when a message was written.
pub(super) async fn stored(
    tx: &mut SqliteConnection,
    session: i64,
    again: bool,
    now: Timestamp,
) -> Result<bool, Error> {
    let rendition = SOURCE;
    sqlx::query("INSERT INTO tracks (session_id, rendition) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(session)
        .bind(rendition)
        .execute(&mut *tx)
        .await
        .map_err(sql("record a track"))?;
    let (before, removed): (i64, i64) =
        sqlx::query_as("SELECT stored_next, removed_next FROM tracks WHERE session_id = ?1 AND rendition = ?2")
            .bind(session)
            .bind(rendition)
            .fetch_one(&mut *tx)
            .await
            .map_err(sql("find a track"))?;
    let next = advance(tx, session, rendition, before.max(removed)).await?;
    if next > before {
        sqlx::query("UPDATE tracks SET stored_next = ?3 WHERE session_id = ?1 AND rendition = ?2")
            .bind(session)
            .bind(rendition)
            .bind(next)
            .execute(&mut *tx)
            .await
            .map_err(sql("move a track's mark"))?;
    } else if !again {
        return Ok(false);
    }
    if next == 0 {
        return Ok(false);
    }
    let Some((config, session)) = stream_of(tx, session).await? else { return Ok(false) };
    let upto = SegmentKey { stream: config.stream, rendition: rendition.to_owned(), session, seq: number(next - 1) };
    tell(tx, &config, Stored { upto: vec![upto], exactly: vec![] }, now).await
}

/// Tells the instance which segments of other renditions a roll-up has brought to be stored.
pub(super) async fn stored_rungs(tx: &mut SqliteConnection, rollup: i64, now: Timestamp) -> Result<bool, Error> {
    let rows: Vec<(i64, String, i64)> = sqlx::query_as(
        "SELECT session_id, rendition, seq FROM segments WHERE rollup_id = ?1 AND stored = 1 AND rendition <> 'source'
         ORDER BY session_id, rendition, seq",
    )
    .bind(rollup)
    .fetch_all(&mut *tx)
    .await
    .map_err(sql("find stored renditions"))?;
    let mut told = false;
    for rows in rows.chunk_by(|a, b| a.0 == b.0) {
        let Some((config, session)) = stream_of(tx, rows[0].0).await? else { continue };
        let exactly = rows.iter().map(|(_, rendition, seq)| rung(&config, session, rendition, *seq)).collect();
        told |= tell(tx, &config, Stored { upto: vec![], exactly }, now).await?;
    }
    Ok(told)
}

/// Tells the instance which of the segments that it asks about once more are stored, or removed already.
pub(super) async fn stored_again(
    tx: &mut SqliteConnection,
    session: i64,
    rungs: &BTreeSet<(String, i64)>,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some((config, id)) = stream_of(tx, session).await? else { return Ok(false) };
    let mut exactly = Vec::new();
    for (rendition, seq) in rungs {
        let open: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM segments WHERE session_id = ?1 AND rendition = ?2 AND seq = ?3 AND stored = 0)",
        )
        .bind(session)
        .bind(rendition)
        .bind(seq)
        .fetch_one(&mut *tx)
        .await
        .map_err(sql("find a stored rendition"))?;
        if !open {
            exactly.push(rung(&config, id, rendition, *seq));
        }
    }
    if exactly.is_empty() { Ok(false) } else { tell(tx, &config, Stored { upto: vec![], exactly }, now).await }
}

fn rung(config: &StreamConfig, session: SessionId, rendition: &str, seq: i64) -> SegmentKey {
    SegmentKey { stream: config.stream, rendition: rendition.to_owned(), session, seq: number(seq) }
}

/// The stream and the uid of a session. Without a configuration nobody knows whom to tell; the agent asks again.
async fn stream_of(tx: &mut SqliteConnection, session: i64) -> Result<Option<(StreamConfig, SessionId)>, Error> {
    let row: (Option<String>, String) = sqlx::query_as(
        "SELECT streams.config, sessions.uid FROM sessions JOIN streams ON streams.id = sessions.stream_id
         WHERE sessions.id = ?1",
    )
    .bind(session)
    .fetch_one(&mut *tx)
    .await
    .map_err(sql("find a session's stream"))?;
    let Some(config) = row.0.and_then(|text| serde_json::from_str::<StreamConfig>(&text).ok()) else {
        return Ok(None);
    };
    Ok(Some((config, row.1.parse().map_err(|_| Error::Unreadable { what: "session" })?)))
}

async fn tell(tx: &mut SqliteConnection, config: &StreamConfig, stored: Stored, now: Timestamp) -> Result<bool, Error> {
    let message = Envelope::unordered(config.instance.to_string(), Command::Stored.as_str(), now, stored);
    enqueue(tx, CONTROL_EXCHANGE, &instance_key(config.instance, Command::Stored), &message).await?;
    Ok(true)
}

/// The first number from `next` on that is neither stored nor declared missing.
async fn advance(tx: &mut SqliteConnection, session: i64, rendition: &str, mut next: i64) -> Result<i64, Error> {
    loop {
        // `stored` segments and declared gaps, in the order of their numbers.
        let done: Vec<i64> = sqlx::query_scalar(
            "SELECT seq FROM segments WHERE session_id = ?1 AND rendition = ?2 AND seq >= ?3 AND stored = 1
             UNION SELECT seq FROM gaps WHERE session_id = ?1 AND seq >= ?3
               AND NOT EXISTS (SELECT 1 FROM segments s WHERE s.session_id = ?1 AND s.rendition = ?2 AND s.seq = gaps.seq)
             ORDER BY 1 LIMIT ?4",
        )
        .bind(session)
        .bind(rendition)
        .bind(next)
        .bind(PAGE)
        .fetch_all(&mut *tx)
        .await
        .map_err(sql("move a track's mark"))?;
        let full = done.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        for seq in done {
            if seq != next {
                return Ok(next);
            }
            next += 1;
        }
        if !full {
            return Ok(next);
        }
    }
}

impl Writer {
    /// Takes messages out of the outbox that were confirmed: all up to this one.
    pub async fn sent(&self, last: i64) -> Result<(), Error> {
        sqlx::query("DELETE FROM outbox WHERE id <= ?1")
            .bind(last)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(sql("take messages out of the outbox"))
    }
}

impl Reader {
    /// The oldest messages that wait, at most `limit`.
    pub async fn outgoing(&self, limit: u64) -> Result<Vec<Outgoing>, Error> {
        sqlx::query_as("SELECT id, exchange, key, body FROM outbox ORDER BY id LIMIT ?1")
            .bind(column(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(sql("read the outbox"))
    }
}
