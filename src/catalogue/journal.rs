//! The ledger's rows (row C4); the chain itself is [`crate::domain::ledger`].

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use sqlx::SqliteConnection;

use super::{Error, Reader, sql, time};
use crate::domain::ledger::{GENESIS, Row, Verifier, hash};

/// Rows read at once while the chain is checked.
const PAGE: i64 = 1_000;

/// After this time the whole chain is checked anew.
const CHECKED_FOR: Duration = Duration::from_secs(600);

/// How far the chain was found to hold.
#[derive(Debug)]
pub(super) struct Checked {
    since: Instant,
    verifier: Verifier,
    count: u64,
    after: i64,
}

impl Default for Checked {
    fn default() -> Self {
        Self { since: Instant::now(), verifier: Verifier::default(), count: 0, after: i64::MIN }
    }
}

/// Writes the next row.
pub(super) async fn append(tx: &mut SqliteConnection, kind: &str, body: &Value, now: Timestamp) -> Result<(), Error> {
    let last: Option<(i64, String)> = sqlx::query_as("SELECT id, hash FROM ledger ORDER BY id DESC LIMIT 1")
        .fetch_optional(&mut *tx)
        .await
        .map_err(sql("find the ledger's end"))?;
    let (id, prev_hash) = last.map_or((1, GENESIS.to_owned()), |(id, hash)| (id + 1, hash));
    let body = body.to_string();
    sqlx::query("INSERT INTO ledger (id, at_us, kind, body, prev_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .bind(id)
        .bind(now.as_microsecond())
        .bind(kind)
        .bind(&body)
        .bind(&prev_hash)
        // Stored times are whole microseconds: hash what a reader will see.
        .bind(hash(id, time(now.as_microsecond()), kind, &body, &prev_hash))
        .execute(&mut *tx)
        .await
        .map(|_| ())
        .map_err(sql("write to the ledger"))
}

impl Reader {
    /// Rows after `after`, oldest first.
    pub async fn ledger(&self, after: i64, limit: i64) -> Result<Vec<Row>, Error> {
        let rows: Vec<(i64, i64, String, String, String, String)> = sqlx::query_as(
            "SELECT id, at_us, kind, body, prev_hash, hash FROM ledger WHERE id > ?1 ORDER BY id LIMIT ?2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(sql("read the ledger"))?;
        Ok(rows
            .into_iter()
            .map(|(id, at, kind, body, prev_hash, hash)| Row { id, at: time(at), kind, body, prev_hash, hash })
            .collect())
    }

    /// Checks the chain: how many rows there are, and where it breaks if it does. What was checked a short while ago is not
    /// read again.
    pub async fn verify_ledger(&self) -> Result<(u64, Option<i64>), Error> {
        let mut known = self.ledger.lock().await;
        if known.since.elapsed() > CHECKED_FOR {
            *known = Checked::default();
        }
        loop {
            let rows = self.ledger(known.after, PAGE).await?;
            for row in &rows {
                if let Err(broken) = known.verifier.check(row) {
                    return Ok((known.count, Some(broken.id)));
                }
                known.count += 1;
                known.after = row.id;
            }
            if rows.is_empty() {
                return Ok((known.count, None));
            }
        }
    }
}
