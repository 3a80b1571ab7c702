//! What instances report of themselves, and the ledger rows that follow from it (row C4).

use jiff::Timestamp;
use serde_json::json;
use sqlx::SqliteConnection;

use super::{Error, Reader, journal, sql, time};
use crate::domain::{
    control::{InstanceReport, Phase, StreamConfig},
    id::InstanceUid,
};

/// Instances without a configuration whose last word is kept.
const STRANGERS: i64 = 10_000;

/// A counter of running participants goes up and down with these rows (row C4).
pub(super) async fn record(
    tx: &mut SqliteConnection,
    instance: InstanceUid,
    at: Timestamp,
    report: &InstanceReport,
    now: Timestamp,
) -> Result<bool, Error> {
    let before: Option<(i64, String, Option<String>)> =
        sqlx::query_as("SELECT at_us, phase, session FROM instances WHERE uid = ?1")
            .bind(instance.to_string())
            .fetch_optional(&mut *tx)
            .await
            .map_err(sql("find an instance"))?;
    // Repeated and overtaken reports say nothing new.
    if before.as_ref().is_some_and(|(known, ..)| *known >= at.as_microsecond()) {
        return Ok(false);
    }
    let session = report.session.map(|session| session.to_string());
    let ran = before.filter(|(_, phase, _)| phase == "Running").map(|(_, _, session)| session);
    let runs = report.phase == Phase::Running;
    if let Some(old) = &ran
        && (!runs || *old != session)
    {
        let why = report.problem.as_ref().map(|problem| problem.message.clone());
        let body = json!({"instance": instance, "session": old, "phase": report.phase, "why": why, "reportedAt": at});
        journal::append(tx, "stop", &body, now).await?;
    }
    if runs && ran.is_none_or(|old| old != session) {
        let body = json!({"instance": instance, "session": session, "revision": report.revision, "reportedAt": at});
        journal::append(tx, "start", &body, now).await?;
    }
    put_instance(tx, instance, at, report).await?;
    Ok(true)
}

/// An instance reports that no configuration named when it was heard. If none does by now, its word is kept until one does:
/// its agent may be back at the broker before the operator, and says each change once. Only the newest are kept, so that
/// invented instances fill nothing.
pub(super) async fn stranger(
    tx: &mut SqliteConnection,
    namespace: &str,
    instance: InstanceUid,
    at: Timestamp,
    report: &InstanceReport,
    now: Timestamp,
) -> Result<bool, Error> {
    match namespace_of(tx, instance).await? {
        Some(owner) if owner == namespace => return record(tx, instance, at, report, now).await,
        Some(_) => return Ok(false),
        None => {}
    }
    let text = serde_json::to_string(report).map_err(|_| Error::Unreadable { what: "report" })?;
    sqlx::query(
        "INSERT OR REPLACE INTO strangers (uid, namespace, at_us, report) VALUES ($1, $2, $3, $4);
         DELETE FROM strangers WHERE id <= (SELECT max(id) FROM strangers) - $5",
    )
    .bind(instance.to_string())
    .bind(namespace)
    .bind(at.as_microsecond())
    .bind(text)
    .bind(STRANGERS)
    .execute(&mut *tx)
    .await
    .map_err(sql("remember a stranger"))?;
    Ok(false)
}

/// A configuration names instances: what they said before, if it was their own namespace's agent that said it.
pub(super) async fn introduced(
    tx: &mut SqliteConnection,
    config: &StreamConfig,
    now: Timestamp,
) -> Result<Vec<(InstanceUid, InstanceReport)>, Error> {
    let mut said = Vec::new();
    for instance in [Some(config.instance), config.transcoder].into_iter().flatten() {
        let known: Option<(String, i64, String)> =
            sqlx::query_as("DELETE FROM strangers WHERE uid = ?1 RETURNING namespace, at_us, report")
                .bind(instance.to_string())
                .fetch_optional(&mut *tx)
                .await
                .map_err(sql("find a stranger"))?;
        let Some((_, at, text)) = known.filter(|(namespace, ..)| *namespace == config.pipeline.namespace) else {
            continue;
        };
        let report: InstanceReport = serde_json::from_str(&text).map_err(|_| Error::Unreadable { what: "report" })?;
        if record(tx, instance, time(at), &report, now).await? {
            said.push((instance, report));
        }
    }
    Ok(said)
}

/// Writes the stop of an instance that can no longer say so itself.
pub(super) async fn stopped(
    tx: &mut SqliteConnection,
    instance: InstanceUid,
    why: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let running: Option<Option<String>> =
        sqlx::query_scalar("SELECT session FROM instances WHERE uid = ?1 AND phase = 'Running'")
            .bind(instance.to_string())
            .fetch_optional(&mut *tx)
            .await
            .map_err(sql("find an instance"))?;
    if let Some(session) = running {
        journal::append(tx, "stop", &json!({"instance": instance, "session": session, "why": why}), now).await?;
    }
    sqlx::query("DELETE FROM instances WHERE uid = ?1")
        .bind(instance.to_string())
        .execute(&mut *tx)
        .await
        .map(|_| ())
        .map_err(sql("forget an instance"))
}

async fn put_instance(
    tx: &mut SqliteConnection,
    instance: InstanceUid,
    at: Timestamp,
    report: &InstanceReport,
) -> Result<(), Error> {
    let phase = serde_json::to_value(report.phase).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    sqlx::query(
        "INSERT INTO instances (uid, at_us, phase, session, problem) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (uid) DO UPDATE SET at_us = excluded.at_us, phase = excluded.phase, session = excluded.session,
           problem = excluded.problem",
    )
    .bind(instance.to_string())
    .bind(at.as_microsecond())
    .bind(phase)
    .bind(report.session.map(|session| session.to_string()))
    .bind(report.problem.as_ref().and_then(|problem| serde_json::to_string(problem).ok()))
    .execute(&mut *tx)
    .await
    .map(|_| ())
    .map_err(sql("record an instance's state"))
}

impl Reader {
    /// Namespace of an instance, when a configuration names it.
    pub async fn namespace_of(&self, instance: InstanceUid) -> Result<Option<String>, Error> {
        let mut connection = self.pool.acquire().await.map_err(sql("find whose an instance is"))?;
        namespace_of(&mut connection, instance).await
    }
}

async fn namespace_of(connection: &mut SqliteConnection, instance: InstanceUid) -> Result<Option<String>, Error> {
    sqlx::query_scalar(
        "SELECT json_extract(config, '$.pipeline.namespace') FROM streams WHERE instance = ?1
         UNION ALL
         SELECT json_extract(config, '$.pipeline.namespace') FROM streams
           WHERE json_extract(config, '$.transcoder') = ?1 LIMIT 1",
    )
    .bind(instance.to_string())
    .fetch_optional(connection)
    .await
    .map_err(sql("find whose an instance is"))
}
