//! The ledger's rows (row C4); the chain itself is [`crate::domain::ledger`].

use jiff::Timestamp;
use serde_json::Value;
use sqlx::SqliteConnection;

use super::{Error, Reader, sql, time};
use crate::domain::ledger::{GENESIS, Row, Verifier, hash};

/// Rows read at once while the chain is checked.
const PAGE: i64 = 1_000;

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

    /// Checks the whole chain: how many rows there are, and where it breaks if it does.
    pub async fn verify_ledger(&self) -> Result<(u64, Option<i64>), Error> {
        let (mut verifier, mut count, mut after) = (Verifier::default(), 0, i64::MIN);
        loop {
            let rows = self.ledger(after, PAGE).await?;
            for row in &rows {
                if let Err(broken) = verifier.check(row) {
                    return Ok((count, Some(broken.id)));
                }
                count += 1;
            }
            match rows.last() {
                Some(last) => after = last.id,
                None => return Ok((count, None)),
            }
        }
    }
}
