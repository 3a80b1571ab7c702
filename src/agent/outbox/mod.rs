//! The agent's durable memory: one SQLite file on the spool's own volume.
//!
//! Every step of a segment (sealed, added, announced, stored) is a row that moves forward; each move is idempotent, so
//! that kill -9 at any line costs a repetition and nothing else. Not here: when to move (the tasks of the agent do).

mod segments;

use std::{path::Path, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use crate::domain::{
    id::SessionId,
    segment::{Blob, Gap, Segment},
    session::{SessionBook, StreamBook},
    spool::SessionEnd,
};

pub use segments::State;

/// Why the memory failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite said no.
    #[error("failed to use the outbox")]
    Database(#[from] sqlx::Error),
    /// The file is no whole database any more.
    #[error("the outbox is damaged: {0}")]
    Damaged(String),
    /// A row that we did not write.
    #[error("failed to read a row of the outbox")]
    Row(#[from] serde_json::Error),
    /// The file system said no.
    #[error("failed to prepare the folder of the outbox")]
    Folder(#[from] std::io::Error),
}

impl Error {
    /// Is the file itself broken? A full disk, a lock or a file that cannot be opened say nothing about it.
    fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            // SQLITE_CORRUPT and SQLITE_NOTADB, whatever their extended codes.
            Self::Database(sqlx::Error::Database(error)) => error
                .code()
                .and_then(|code| code.parse::<u32>().ok())
                .is_some_and(|code| matches!(code & 0xff, 11 | 26)),
            _ => false,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, Error>;

/// A session in the outbox.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Numbers and clock.
    pub book: SessionBook,
    /// The init section; none in a container without.
    pub init: Option<Blob>,
    /// No further segment will come.
    pub closed: bool,
    /// How it ended, once known.
    pub ended: Option<SessionEnd>,
}

/// The memory.
#[derive(Clone)]
pub struct Outbox {
    pool: SqlitePool,
}

impl Outbox {
    /// Opens or makes it. A damaged one is put aside: footage counts more than numbers, and numbers resume above a
    /// floor. One that cannot be opened just now is left as it is.
    pub async fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("outbox.db");
        match Self::connect(&path).await {
            Ok(outbox) => Ok(outbox),
            Err(error) if error.is_damage() => {
                tracing::error!("{}: beginning a new outbox", crate::telemetry::chain(&error));
                let aside = format!("outbox-damaged-{}.db", Timestamp::now().as_second());
                // The journal goes first, and goes along: it holds committed rows, and beside a new file it would be taken
                // for that one's.
                for part in ["-wal", ""] {
                    match std::fs::rename(
                        folder.join(format!("outbox.db{part}")),
                        folder.join(format!("{aside}{part}")),
                    ) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                        _ => {}
                    }
                }
                let _ = std::fs::remove_file(folder.join("outbox.db-shm"));
                Self::connect(&path).await
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A number that was told to anybody must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            // Half a megabyte of pages is plenty for a few thousand rows.
            .pragma("cache_size", "-512")
            .pragma("journal_size_limit", "1048576");
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::raw_sql(include_str!("schema.sql")).execute(&pool).await?;
        let check: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&pool).await?;
        if check != "ok" {
            return Err(Error::Damaged(check));
        }
        Ok(Self { pool })
    }

    /// What the stream remembers; `None` in a new outbox.
    pub async fn stream(&self) -> Result<Option<StreamBook>> {
        let book: Option<String> =
            sqlx::query_scalar("SELECT book FROM books WHERE name = 'stream'").fetch_optional(&self.pool).await?;
        book.map(|book| Ok(serde_json::from_str(&book)?)).transpose()
    }

    /// A session, if it has ever had a segment here.
    pub async fn session(&self, session: SessionId) -> Result<Option<SessionRow>> {
        let row = sqlx::query("SELECT book, init, closed, ended FROM sessions WHERE session = ?")
            .bind(session.to_string())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let ended: Option<String> = row.try_get("ended")?;
        Ok(Some(SessionRow {
            book: json(&row, "book")?,
            init: json(&row, "init")?,
            closed: row.try_get::<i64, _>("closed")? != 0,
            ended: ended.map(|ended| serde_json::from_str(&ended)).transpose()?,
        }))
    }

    /// Seals: the segment, the numbers it took and the gaps before it, in one transaction.
    pub async fn seal(&self, segment: &Segment, stream: &StreamBook, session: &SessionRow, gaps: &[Gap]) -> Result<()> {
        let id = session.book.session.to_string();
        let mut tx = self.pool.begin().await?;
        sqlx::query("INSERT INTO books VALUES ('stream', ?) ON CONFLICT (name) DO UPDATE SET book = excluded.book")
            .bind(serde_json::to_string(stream)?)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO sessions VALUES (?, ?, ?, 0, 0, NULL) ON CONFLICT (session) DO UPDATE SET book = excluded.book",
        )
        .bind(&id)
        .bind(serde_json::to_string(&session.book)?)
        .bind(serde_json::to_string(&session.init)?)
        .execute(&mut *tx)
        .await?;
        insert(&mut tx, segment).await?;
        for gap in gaps {
            sqlx::query("INSERT INTO gaps (gap) VALUES (?)")
                .bind(serde_json::to_string(gap)?)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Seals a segment of another rendition: its numbers are those of the source.
    pub async fn seal_rung(&self, segment: &Segment) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        insert(&mut tx, segment).await?;
        tx.commit().await?;
        Ok(())
    }

    /// No further segment will come; how it ended, if anybody knows.
    pub async fn close(&self, session: SessionId, ended: Option<&SessionEnd>) -> Result<()> {
        let ended = ended.map(serde_json::to_string).transpose()?;
        sqlx::query("UPDATE sessions SET closed = 1, ended = coalesce(?, ended) WHERE session = ?")
            .bind(ended)
            .bind(session.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Closed sessions without open segments, except the newest one (its end is the begin of the next gap).
    pub async fn finished_sessions(&self) -> Result<Vec<SessionId>> {
        let rows = sqlx::query(
            "SELECT session FROM sessions s WHERE closed = 1
               AND session < (SELECT max(session) FROM sessions)
               AND NOT EXISTS (SELECT 1 FROM media g WHERE g.session = s.session)
             LIMIT 100",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| row.try_get::<String, _>("session"))
            .map(|session| Ok(SessionId::from_str(&session?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?))
            .collect()
    }

    /// The folder of the session is gone.
    pub async fn forget_session(&self, session: SessionId) -> Result<()> {
        for statement in ["DELETE FROM rendition_inits WHERE session = ?", "DELETE FROM sessions WHERE session = ?"] {
            sqlx::query(statement).bind(session.to_string()).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Writes everything to the main file and closes it.
    pub async fn close_file(&self) {
        self.pool.close().await;
    }
}

async fn insert(tx: &mut sqlx::SqliteConnection, segment: &Segment) -> Result<()> {
    sqlx::query("INSERT INTO media VALUES (?, ?, ?, ?, ?, ?, 0, 1, 0, 0, 0, ?)")
        .bind(segment.key.session.to_string())
        .bind(&segment.key.rendition)
        .bind(number(segment.key.seq))
        .bind(number(segment.playlist_seq))
        .bind(segment.start.as_microsecond())
        .bind(number(segment.blob.bytes))
        .bind(serde_json::to_string(segment)?)
        .execute(tx)
        .await?;
    Ok(())
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T> {
    let text: String = row.try_get(column)?;
    Ok(serde_json::from_str(&text)?)
}

/// SQLite's integers are signed; none of our numbers comes near.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub mod tests;
