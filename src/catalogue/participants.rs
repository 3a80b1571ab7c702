//! What instances report of themselves, and the ledger rows that follow from it (row C4).

use jiff::Timestamp;
use serde_json::json;
use sqlx::SqliteConnection;

use super::{Error, journal, sql};
use crate::domain::{
    control::{InstanceReport, Phase},
    id::InstanceUid,
};

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
