//! The catalogue: what footage exists, where it is and what became of it, in one `SQLite` file.
//!
//! A narrow API without business: the recorder alone holds the [`Writer`] (one connection), everyone else reads through
//! a [`Reader`] (a pool). Rows and the messages they cause are written in one transaction, so that a kill at any point
//! leaves a state from which the recorder's loops go on.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Mutex;

mod configured;
mod footage;
mod intake;
mod journal;
mod outgoing;
mod participants;
mod pinning;
mod progress;
mod ranges;
mod removal;
mod view;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use footage::{Camera, Media, MediaRow};
pub use intake::{Fact, Owners, Recorded};
pub use outgoing::Outgoing;
pub use pinning::{Member, OpenStream, PinState, Rollup};
pub use progress::StreamProgress;
pub use removal::{Reason, Tombstone};

/// What can go wrong with the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or brought to the current schema.
    #[error("failed to open the catalogue {path}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A statement failed: database full, locked, damaged.
    #[error("failed to {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A stored value is not what this version writes.
    #[error("the catalogue holds an unreadable {what}")]
    Unreadable {
        /// What it should be.
        what: &'static str,
    },
}

impl Error {
    /// Stable word for metric labels and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open { .. } => "CatalogueUnavailable",
            Self::Sql { .. } => "CatalogueFailed",
            Self::Unreadable { .. } => "CatalogueUnreadable",
        }
    }
}

/// Names what a statement was for.
fn sql(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Sql { what, source }
}

/// The recorder's side: the only one that writes.
#[derive(Debug)]
pub struct Writer {
    pool: SqlitePool,
}

/// Everyone's side.
#[derive(Clone, Debug)]
pub struct Reader {
    pool: SqlitePool,
    ledger: Arc<Mutex<journal::Checked>>,
}

/// Opens the catalogue in `folder`, creating or migrating it.
pub async fn open(folder: &Path) -> Result<(Writer, Reader), Error> {
    let path = folder.join("catalogue.sqlite");
    let failed = |source| Error::Open { path: path.display().to_string(), source };
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: what is acknowledged to the broker after a commit must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // The root file system is read-only: SQLite would look for /tmp.
        .pragma("temp_store", "memory")
        .busy_timeout(Duration::from_secs(10));
    let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(failed)?;
    sqlx::migrate!("src/catalogue/migrations").run(&writer).await.map_err(|source| failed(source.into()))?;
    // Readers see the last commit and never wait for the writer (WAL).
    let reader = SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options.read_only(true).create_if_missing(false))
        .await
        .map_err(failed)?;
    Ok((Writer { pool: writer }, Reader { pool: reader, ledger: Arc::default() }))
}

impl Writer {
    /// Closes the file after the last commit.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(&self, what: &'static str) -> Result<sqlx::Transaction<'_, sqlx::Sqlite>, Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(sql(what))
    }
}

impl Reader {
    /// One with a pool to itself: whoever reads through the other one keeps nobody waiting here.
    #[must_use]
    pub fn apart(&self) -> Self {
        let pool = self.pool.options().clone().connect_lazy_with((*self.pool.connect_options()).clone());
        Self { pool, ledger: Arc::clone(&self.ledger) }
    }
}

/// A number of the contract as a column; what exceeds a column is not believed anyway.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column as a number of the contract.
fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A column as a time.
fn time(column: i64) -> Timestamp {
    Timestamp::from_microsecond(column).unwrap_or(Timestamp::UNIX_EPOCH)
}
