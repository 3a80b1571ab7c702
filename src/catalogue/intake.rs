//! What the recorder heard, written down: segments, gaps, configurations, states.
//!
//! A batch of facts is one transaction, the outgoing messages it causes included. A fact heard twice changes nothing,
//! except that a segment already stored is answered with `stored` again: its agent asks because it missed the answer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{Error, Reader, Writer, column, outgoing, participants, pinning, removal, sql};
use crate::domain::{
    control::{CameraConfig, InstanceReport, ObjectRef, StreamConfig},
    id::{InstanceUid, StreamId},
    segment::{Blob, Gap, GapReason, SOURCE, Segment, SegmentKey},
};

/// Something the recorder heard.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A segment is in IPFS.
    Segment(Box<Segment>),
    /// Footage is missing.
    Gap(Gap),
    /// A camera exists, or no longer.
    Camera(u64, CameraConfig),
    /// How a stream is kept, or that it ended.
    Stream(u64, Box<StreamConfig>),
    /// The Pipeline of a stream is gone.
    Orphan(StreamId),
    /// An instance reports a change.
    State {
        /// The instance.
        instance: InstanceUid,
        /// When it said so, by its clock.
        at: Timestamp,
        /// What it said.
        report: Box<InstanceReport>,
    },
}

/// What a batch changed.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Segments that were new.
    pub segments: u64,
    /// Segments that were known.
    pub duplicates: u64,
    /// Segments of streams whose footage was deleted with its pipeline.
    pub unwanted: u64,
    /// Cameras whose configuration changed.
    pub cameras: Vec<CameraConfig>,
    /// Streams whose configuration changed.
    pub streams: Vec<StreamConfig>,
    /// Instances whose phase or problem was reported.
    pub instances: Vec<(InstanceUid, InstanceReport)>,
    /// Messages wait in the outbox.
    pub outgoing: bool,
}

/// What may be stored further, or is asked about once more.
#[derive(Default)]
struct Advanced {
    /// Sessions, for their source.
    sources: BTreeSet<i64>,
    /// Segments of other renditions, by session.
    rungs: BTreeMap<i64, BTreeSet<(String, i64)>>,
}

impl Advanced {
    /// A segment was announced again: its agent has not heard that it is stored.
    fn again(&mut self, session: i64, key: &SegmentKey) {
        if key.rendition == SOURCE {
            self.sources.insert(session);
        } else {
            self.rungs.entry(session).or_default().insert((key.rendition.clone(), column(key.seq)));
        }
    }
}

/// Rows that hang above a segment or gap.
struct Place {
    camera: i64,
    stream: i64,
    session: i64,
}

impl Writer {
    /// Writes a batch down; all of it or nothing.
    pub async fn record(&self, facts: &[Fact], now: Timestamp) -> Result<Recorded, Error> {
        let mut recorded = Recorded::default();
        let mut tx = self.begin("begin to record").await?;
        let mut advanced = Advanced::default();
        for fact in facts {
            match fact {
                Fact::Segment(segment) => record_segment(&mut tx, segment, now, &mut recorded, &mut advanced).await?,
                Fact::Gap(gap) => record_gap(&mut tx, gap, now, &mut advanced).await?,
                Fact::Camera(revision, config) => {
                    if record_camera(&mut tx, *revision, config).await? {
                        recorded.cameras.push(config.clone());
                    }
                }
                Fact::Stream(revision, config) => {
                    recorded.streams.extend(record_stream(&mut tx, *revision, config, now).await?);
                }
                Fact::Orphan(stream) => recorded.streams.extend(record_orphan(&mut tx, *stream, now).await?),
                Fact::State { instance, at, report } => {
                    if participants::record(&mut tx, *instance, *at, report, now).await? {
                        recorded.instances.push((*instance, (**report).clone()));
                    }
                }
            }
        }
        for session in advanced.sources {
            recorded.outgoing |= outgoing::stored(&mut tx, session, true, now).await?;
        }
        for (session, rungs) in advanced.rungs {
            recorded.outgoing |= outgoing::stored_again(&mut tx, session, &rungs, now).await?;
        }
        tx.commit().await.map_err(sql("commit what was recorded"))?;
        Ok(recorded)
    }
}

impl Reader {
    /// Namespaces that what a fact speaks about is known to belong to; empty when it is new.
    pub async fn namespaces_of(&self, fact: &Fact) -> Result<Vec<String>, Error> {
        let (stream, camera, instance) = match fact {
            Fact::Segment(segment) => (segment.key.stream.to_string(), segment.camera.as_str(), String::new()),
            Fact::Gap(gap) => (gap.stream.to_string(), gap.camera.as_str(), String::new()),
            Fact::State { instance, .. } => (String::new(), "", instance.to_string()),
            Fact::Camera(..) | Fact::Stream(..) | Fact::Orphan(_) => return Ok(Vec::new()),
        };
        sqlx::query_scalar(
            "SELECT c.namespace FROM cameras c WHERE c.uid = ?2 AND c.name <> ''
             UNION SELECT json_extract(s.config, '$.pipeline.namespace') FROM streams s
               WHERE (s.uid = ?1 OR s.instance = ?3) AND s.config IS NOT NULL
             UNION SELECT c.namespace FROM streams s JOIN cameras c ON c.id = s.camera_id
               WHERE s.uid = ?1 AND c.name <> ''",
        )
        .bind(stream)
        .bind(camera)
        .bind(instance)
        .fetch_all(&self.pool)
        .await
        .map_err(sql("find whose a message is"))
    }
}

/// Finds or makes the rows above a segment or gap; names known only from it are placeholders.
async fn place(
    tx: &mut SqliteConnection,
    stream: StreamId,
    session: &str,
    camera_uid: &str,
    camera_name: &str,
    site: &str,
) -> Result<Place, Error> {
    let (namespace, name) = camera_name.split_once('/').unwrap_or(("", camera_name));
    let camera = ObjectRef { namespace: namespace.into(), name: name.into(), uid: camera_uid.into() };
    let camera = camera_row(tx, &camera, site).await?;
    let stream = stream_row(tx, &stream.to_string(), camera).await?;
    let session: i64 = sqlx::query_scalar(
        "INSERT INTO sessions (uid, stream_id) VALUES ($1, $2) ON CONFLICT DO NOTHING;
         SELECT id FROM sessions WHERE stream_id = $2 AND uid = $1",
    )
    .bind(session)
    .bind(stream)
    .fetch_one(&mut *tx)
    .await
    .map_err(sql("record a session"))?;
    Ok(Place { camera, stream, session })
}

/// Makes a row or finds it. Here and below that is two statements in one trip to the connection's thread, because trips
/// are what a segment's time goes into.
///
/// Trap: their parameters are `$1`, not `?1`. A statement of several that leaves out a `?1` has a parameter without a
/// name there, and sqlx counts those over all statements until it takes a value that does not exist for the next.
async fn camera_row(tx: &mut SqliteConnection, camera: &ObjectRef, site: &str) -> Result<i64, Error> {
    sqlx::query_scalar(
        "INSERT INTO cameras (uid, namespace, name, site, revision) VALUES ($1, $2, $3, $4, -1)
         ON CONFLICT (uid) DO UPDATE SET namespace = excluded.namespace, name = excluded.name
         WHERE cameras.name = '' AND excluded.name <> '';
         SELECT id FROM cameras WHERE uid = $1",
    )
    .bind(&camera.uid)
    .bind(&camera.namespace)
    .bind(&camera.name)
    .bind(site)
    .fetch_one(&mut *tx)
    .await
    .map_err(sql("record a camera"))
}

async fn stream_row(tx: &mut SqliteConnection, uid: &str, camera: i64) -> Result<i64, Error> {
    sqlx::query_scalar(
        "INSERT INTO streams (uid, camera_id, revision) VALUES ($1, $2, -1) ON CONFLICT DO NOTHING;
         SELECT id FROM streams WHERE uid = $1",
    )
    .bind(uid)
    .bind(camera)
    .fetch_one(&mut *tx)
    .await
    .map_err(sql("record a stream"))
}

async fn record_segment(
    tx: &mut SqliteConnection,
    segment: &Segment,
    now: Timestamp,
    recorded: &mut Recorded,
    advanced: &mut Advanced,
) -> Result<(), Error> {
    let key = &segment.key;
    let place =
        place(tx, key.stream, &key.session.to_string(), &segment.camera, &segment.camera_name, &segment.site).await?;
    let (forgotten, removed): (bool, bool) = sqlx::query_as(
        "SELECT forgotten,
           EXISTS (SELECT 1 FROM tracks WHERE session_id = ?2 AND rendition = ?3 AND removed_next > ?4)
         FROM streams WHERE id = ?1",
    )
    .bind(place.stream)
    .bind(place.session)
    .bind(&key.rendition)
    .bind(column(key.seq))
    .fetch_one(&mut *tx)
    .await
    .map_err(sql("find what was removed"))?;
    if forgotten {
        recorded.unwanted += 1;
        return Ok(());
    }
    // What retention removed must not come back with a late repetition.
    if removed {
        recorded.duplicates += 1;
        advanced.again(place.session, key);
        return Ok(());
    }
    let init = init_row(tx, segment).await?;
    let inserted = sqlx::query(
        "INSERT INTO segments (session_id, rendition, seq, stream_id, camera_id, start_us, end_us, media_us, bytes,
           sha256, cid, init_id, file, playlist_seq, discontinuity_seq, target_seconds, received_us, frames)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
         ON CONFLICT (session_id, rendition, seq) DO NOTHING",
    )
    .bind(place.session)
    .bind(&key.rendition)
    .bind(column(key.seq))
    .bind(place.stream)
    .bind(place.camera)
    .bind(segment.start.as_microsecond())
    .bind(segment.end.as_microsecond())
    .bind(column(segment.media_us))
    .bind(column(segment.blob.bytes))
    .bind(&segment.blob.sha256)
    .bind(&segment.blob.cid)
    .bind(init)
    .bind(&segment.file)
    .bind(column(segment.playlist_seq))
    .bind(column(segment.discontinuity_seq))
    .bind(segment.target_seconds)
    .bind(now.as_microsecond())
    .bind(column(segment.frames))
    .execute(&mut *tx)
    .await
    .map_err(sql("record a segment"))?
    .rows_affected();
    if inserted == 0 {
        recorded.duplicates += 1;
        advanced.again(place.session, key);
        return Ok(());
    }
    recorded.segments += 1;
    sqlx::query("UPDATE streams SET newest_us = max(coalesce(newest_us, 0), ?2) WHERE id = ?1")
        .bind(place.stream)
        .bind(segment.end.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(sql("record a stream's progress"))?;
    Ok(())
}

/// The row of the segment's init section; a container without has one too, for codecs and picture, with an empty CID.
async fn init_row(tx: &mut SqliteConnection, segment: &Segment) -> Result<i64, Error> {
    let none = Blob { cid: String::new(), sha256: String::new(), bytes: 0 };
    let init = segment.init.as_ref().unwrap_or(&none);
    sqlx::query_scalar(
        "INSERT INTO inits (cid, sha256, bytes, codecs, width, height) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING;
         SELECT id FROM inits WHERE cid = $1 AND codecs = $4 AND width = $5 AND height = $6",
    )
    .bind(&init.cid)
    .bind(&init.sha256)
    .bind(column(init.bytes))
    .bind(&segment.codecs)
    .bind(segment.width)
    .bind(segment.height)
    .fetch_one(&mut *tx)
    .await
    .map_err(sql("record an init section"))
}

async fn record_gap(
    tx: &mut SqliteConnection,
    gap: &Gap,
    now: Timestamp,
    advanced: &mut Advanced,
) -> Result<(), Error> {
    let place = place(tx, gap.stream, &gap.session.to_string(), &gap.camera, "", "").await?;
    if let Some(rendition) = &gap.rendition {
        // The source is there: nobody is told of a gap, players see what the rendition lacks.
        if let Some(seq) = gap.seq {
            removal::lose(tx, place.session, column(seq), Some(rendition), now).await?;
        }
        return Ok(());
    }
    let reason = serde_json::to_value(gap.reason).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    sqlx::query(
        "INSERT INTO gaps (session_id, stream_id, camera_id, seq, from_us, to_us, reason, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    )
    .bind(place.session)
    .bind(place.stream)
    .bind(place.camera)
    .bind(gap.seq.map(column))
    .bind(gap.from.as_microsecond())
    .bind(gap.to.as_microsecond())
    .bind(reason)
    .bind(&gap.detail)
    .execute(&mut *tx)
    .await
    .map_err(sql("record a gap"))?;
    if let Some(seq) = gap.seq {
        if gap.reason == GapReason::SegmentLost {
            removal::lose(tx, place.session, column(seq), None, now).await?;
        }
        // A number that is known to be lost no longer holds up the ones behind it.
        advanced.sources.insert(place.session);
    }
    Ok(())
}

/// True when the revision was not older than the one known.
async fn record_camera(tx: &mut SqliteConnection, revision: u64, config: &CameraConfig) -> Result<bool, Error> {
    camera_row(tx, &config.camera, &config.site).await?;
    let changed = sqlx::query(
        "UPDATE cameras SET namespace = ?2, name = ?3, site = ?4, revision = ?5, deleted = ?6
         WHERE uid = ?1 AND revision <= ?5",
    )
    .bind(&config.camera.uid)
    .bind(&config.camera.namespace)
    .bind(&config.camera.name)
    .bind(&config.site)
    .bind(column(revision))
    .bind(config.deleted)
    .execute(&mut *tx)
    .await
    .map_err(sql("record a camera's configuration"))?
    .rows_affected();
    Ok(changed > 0)
}

/// What is in effect now, when the revision was not older than the one known.
async fn record_stream(
    tx: &mut SqliteConnection,
    revision: u64,
    config: &StreamConfig,
    now: Timestamp,
) -> Result<Option<StreamConfig>, Error> {
    let camera = camera_row(tx, &config.camera, "").await?;
    let stream = stream_row(tx, &config.stream.to_string(), camera).await?;
    let mut config = config.clone();
    let known = known_config(tx, config.stream).await?;
    let transcoder = known.as_ref().and_then(|known| known.transcoder);
    if config.deleted
        && let Some(known) = known
    {
        // The end of a stream changes nothing of how long and where its footage is kept.
        config = StreamConfig { deleted: true, delete_with_pipeline: config.delete_with_pipeline, ..known };
    }
    let text = serde_json::to_string(&config).map_err(|_| Error::Unreadable { what: "stream configuration" })?;
    let forget = config.deleted && config.delete_with_pipeline;
    let changed = sqlx::query(
        "UPDATE streams SET revision = ?2, config = ?3, instance = ?4, deleted = ?5, forgotten = ?6
         WHERE id = ?1 AND revision <= ?2",
    )
    .bind(stream)
    .bind(column(revision))
    .bind(text)
    .bind(config.instance.to_string())
    .bind(config.deleted)
    .bind(forget)
    .execute(&mut *tx)
    .await
    .map_err(sql("record a stream's configuration"))?
    .rows_affected();
    if changed == 0 {
        return Ok(None);
    }
    if let Some(gone) = transcoder.filter(|known| config.deleted || config.transcoder != Some(*known)) {
        participants::stopped(tx, gone, "the pipeline no longer makes renditions for the camera", now).await?;
    }
    if config.deleted {
        participants::stopped(tx, config.instance, "the pipeline no longer records the camera", now).await?;
        if forget {
            removal::forget(tx, stream, now).await?;
        }
    }
    Ok(Some(config))
}

/// Ends a stream as its last configuration says; nothing when it is unknown or has ended.
async fn record_orphan(
    tx: &mut SqliteConnection,
    stream: StreamId,
    now: Timestamp,
) -> Result<Option<StreamConfig>, Error> {
    let Some(known) = known_config(tx, stream).await?.filter(|known| !known.deleted) else { return Ok(None) };
    let revision: i64 = sqlx::query_scalar("SELECT revision FROM streams WHERE uid = ?1")
        .bind(stream.to_string())
        .fetch_one(&mut *tx)
        .await
        .map_err(sql("find a stream's revision"))?;
    let ended = StreamConfig { deleted: true, ..known };
    record_stream(tx, revision.unsigned_abs() + 1, &ended, now).await
}

/// What was last told of a stream.
async fn known_config(tx: &mut SqliteConnection, stream: StreamId) -> Result<Option<StreamConfig>, Error> {
    let text: Option<Option<String>> = sqlx::query_scalar("SELECT config FROM streams WHERE uid = ?1")
        .bind(stream.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(sql("find a stream's configuration"))?;
    text.flatten().map(|text| pinning::config(&text)).transpose()
}
