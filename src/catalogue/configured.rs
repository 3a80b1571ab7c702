//! What the operator tells of cameras and streams, written down. The highest revision wins, and a repetition is no change:
//! the operator says everything again whenever it or the recorder begins anew.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    Error, Recorded, column,
    intake::{camera_row, stream_row},
    participants, pinning, removal, sql,
};
use crate::domain::{
    control::{CameraConfig, StreamConfig},
    id::StreamId,
};

/// A camera exists, or no longer.
pub(super) async fn camera(
    tx: &mut SqliteConnection,
    revision: u64,
    config: &CameraConfig,
    recorded: &mut Recorded,
) -> Result<(), Error> {
    let revision = column(revision);
    let id = camera_row(tx, &config.camera, &config.site).await?;
    let known: (i64, String, String, String, bool) =
        sqlx::query_as("SELECT revision, namespace, name, site, deleted FROM cameras WHERE id = ?1")
            .bind(id)
            .fetch_one(&mut *tx)
            .await
            .map_err(sql("find a camera's configuration"))?;
    let camera = &config.camera;
    let told = (revision, camera.namespace.clone(), camera.name.clone(), config.site.clone(), config.deleted);
    if known.0 > revision || known == told {
        return Ok(());
    }
    sqlx::query("UPDATE cameras SET namespace = ?2, name = ?3, site = ?4, revision = ?5, deleted = ?6 WHERE id = ?1")
        .bind(id)
        .bind(&camera.namespace)
        .bind(&camera.name)
        .bind(&config.site)
        .bind(revision)
        .bind(config.deleted)
        .execute(&mut *tx)
        .await
        .map_err(sql("record a camera's configuration"))?;
    let first_told = known.0 < 0;
    if first_told || (known.1, known.2, known.3, known.4) != (told.1, told.2, told.3, told.4) {
        recorded.cameras.push(config.clone());
    }
    Ok(())
}

/// How a stream is kept, or that it ended.
pub(super) async fn stream(
    tx: &mut SqliteConnection,
    revision: u64,
    config: &StreamConfig,
    now: Timestamp,
    recorded: &mut Recorded,
) -> Result<(), Error> {
    let revision = column(revision);
    let camera = camera_row(tx, &config.camera, "").await?;
    let stream = stream_row(tx, &config.stream.to_string(), camera).await?;
    let Known { revision: known_revision, config: known } = known(tx, config.stream).await?.unwrap_or_default();
    if known_revision > revision {
        return Ok(());
    }
    let mut config = config.clone();
    if let (true, Some(known)) = (config.deleted, &known) {
        // The end of a stream changes nothing of how long and where its footage is kept.
        config = StreamConfig { deleted: true, delete_with_pipeline: config.delete_with_pipeline, ..known.clone() };
    }
    let is_news = known.as_ref() != Some(&config);
    if !is_news && known_revision == revision {
        return Ok(());
    }
    let text = serde_json::to_string(&config).map_err(|_| Error::Unreadable { what: "stream configuration" })?;
    let forget = config.deleted && config.delete_with_pipeline;
    sqlx::query(
        "UPDATE streams SET revision = ?2, config = ?3, instance = ?4, deleted = ?5, forgotten = ?6 WHERE id = ?1",
    )
    .bind(stream)
    .bind(revision)
    .bind(text)
    .bind(config.instance.to_string())
    .bind(config.deleted)
    .bind(forget)
    .execute(&mut *tx)
    .await
    .map_err(sql("record a stream's configuration"))?;
    if !is_news {
        return Ok(());
    }
    recorded.lengthened |= known.as_ref().is_some_and(|known| known.retention_seconds < config.retention_seconds);
    let transcoder = known.and_then(|known| known.transcoder);
    if let Some(gone) = transcoder.filter(|known| config.deleted || config.transcoder != Some(*known)) {
        participants::stopped(tx, gone, "the pipeline no longer makes renditions for the camera", now).await?;
    }
    if config.deleted {
        participants::stopped(tx, config.instance, "the pipeline no longer records the camera", now).await?;
        if forget {
            removal::forget(tx, stream, now).await?;
        }
    } else {
        recorded.instances.extend(participants::introduced(tx, &config, now).await?);
    }
    recorded.streams.push(config);
    Ok(())
}

/// Ends a stream as its last configuration says; nothing when it is unknown or has ended.
pub(super) async fn orphan(
    tx: &mut SqliteConnection,
    uid: StreamId,
    now: Timestamp,
    recorded: &mut Recorded,
) -> Result<(), Error> {
    let Some(Known { revision, config: Some(known) }) = known(tx, uid).await? else { return Ok(()) };
    if known.deleted {
        return Ok(());
    }
    let ended = StreamConfig { deleted: true, ..known };
    stream(tx, revision.unsigned_abs() + 1, &ended, now, recorded).await
}

/// What was last told of a stream, if anything.
#[derive(Default)]
struct Known {
    revision: i64,
    config: Option<StreamConfig>,
}

async fn known(tx: &mut SqliteConnection, stream: StreamId) -> Result<Option<Known>, Error> {
    let row: Option<(i64, Option<String>)> = sqlx::query_as("SELECT revision, config FROM streams WHERE uid = ?1")
        .bind(stream.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(sql("find a stream's configuration"))?;
    row.map(|(revision, text)| Ok(Known { revision, config: text.map(|text| pinning::config(&text)).transpose()? }))
        .transpose()
}
