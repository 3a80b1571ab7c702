//! What the recorder heard, written down: segments, gaps, configurations, states.
//!
//! A batch of facts is one transaction, the outgoing messages it causes included. What configurations do is
//! [`configured`]. A fact heard twice changes nothing, except that a segment already stored is answered with `stored` again: its agent asks because it missed the answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{Error, Reader, Writer, column, configured, outgoing, participants, removal, sql};
use crate::domain::{
    control::{CameraConfig, InstanceReport, ObjectRef, StreamConfig},
    id::{InstanceUid, SessionId, StreamId},
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
    /// As [`Fact::State`], of an instance that no stream's configuration named when it was heard.
    Stranger {
        /// For which its agent speaks.
        namespace: String,
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
    /// Footage of one of them is to be kept for longer than before.
    pub lengthened: bool,
    /// Instances whose phase or problem was reported.
    pub instances: Vec<(InstanceUid, InstanceReport)>,
    /// Messages wait in the outbox.
    pub outgoing: bool,
}

/// Rows that hang above a segment or gap.
#[derive(Clone, Copy)]
struct Place {
    camera: i64,
    stream: i64,
    session: i64,
    /// The footage of the stream was deleted with its pipeline.
    forgotten: bool,
}

/// What a batch has found so far. A batch names the same few rows again and again, and trips to the connection's thread are
/// what a segment's time goes into.
#[derive(Default)]
struct Found {
    /// By stream, session, camera, and whether the camera's name was said.
    places: HashMap<(StreamId, SessionId, String, bool), Place>,
    /// Init sections by CID, codecs and picture.
    inits: HashMap<(String, String, u32, u32), i64>,
    /// How far the tracks of sessions are removed.
    removed: HashMap<(i64, String), i64>,
    // What is written down once for all of it.
    /// Ends of the newest segments, by stream.
    newest: BTreeMap<i64, i64>,
    /// Sessions whose source may be stored further, or is asked about once more.
    sources: BTreeSet<i64>,
    /// Segments of other renditions that are asked about once more, by session.
    rungs: BTreeMap<i64, BTreeSet<(String, i64)>>,
}

impl Found {
    /// A segment was announced again: its agent has not heard that it is stored.
    fn again(&mut self, session: i64, key: &SegmentKey) {
        if key.rendition == SOURCE {
            self.sources.insert(session);
        } else {
            self.rungs.entry(session).or_default().insert((key.rendition.clone(), column(key.seq)));
        }
    }

    /// Writes down what is not yet, and forgets the rest: a configuration may be about to change or remove it.
    async fn settle(
        &mut self,
        tx: &mut SqliteConnection,
        recorded: &mut Recorded,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Self { newest, sources, rungs, .. } = std::mem::take(self);
        for (stream, end) in newest {
            sqlx::query("UPDATE streams SET newest_us = max(coalesce(newest_us, 0), ?2) WHERE id = ?1")
                .bind(stream)
                .bind(end)
                .execute(&mut *tx)
                .await
                .map_err(sql("record a stream's progress"))?;
        }
        for session in sources {
            recorded.outgoing |= outgoing::stored(tx, session, true, now).await?;
        }
        for (session, rungs) in rungs {
            recorded.outgoing |= outgoing::stored_again(tx, session, &rungs, now).await?;
        }
        Ok(())
    }
}

impl Writer {
    /// Writes a batch down; all of it or nothing.
    pub async fn record(&self, facts: &[Fact], now: Timestamp) -> Result<Recorded, Error> {
        let mut recorded = Recorded::default();
        let mut tx = self.begin("begin to record").await?;
        let mut found = Found::default();
        for fact in facts {
            match fact {
                Fact::Segment(segment) => record_segment(&mut tx, segment, now, &mut recorded, &mut found).await?,
                Fact::Gap(gap) => record_gap(&mut tx, gap, now, &mut found).await?,
                Fact::Camera(revision, config) => {
                    found.settle(&mut tx, &mut recorded, now).await?;
                    configured::camera(&mut tx, *revision, config, &mut recorded).await?;
                }
                Fact::Stream(revision, config) => {
                    found.settle(&mut tx, &mut recorded, now).await?;
                    configured::stream(&mut tx, *revision, config, now, &mut recorded).await?;
                }
                Fact::Orphan(stream) => {
                    found.settle(&mut tx, &mut recorded, now).await?;
                    configured::orphan(&mut tx, *stream, now, &mut recorded).await?;
                }
                Fact::State { instance, at, report } => {
                    if participants::record(&mut tx, *instance, *at, report, now).await? {
                        recorded.instances.push((*instance, (**report).clone()));
                    }
                }
                Fact::Stranger { namespace, instance, at, report } => {
                    if participants::stranger(&mut tx, namespace, *instance, *at, report, now).await? {
                        recorded.instances.push((*instance, (**report).clone()));
                    }
                }
            }
        }
        found.settle(&mut tx, &mut recorded, now).await?;
        tx.commit().await.map_err(sql("commit what was recorded"))?;
        Ok(recorded)
    }
}

/// Whose a stream and a camera are, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Owners {
    camera: Option<String>,
    pipeline: Option<String>,
    recorded: Option<String>,
}

impl Owners {
    /// Is no part of it known to be another namespace's?
    pub fn allow(&self, namespace: &str) -> bool {
        [&self.camera, &self.pipeline, &self.recorded].into_iter().flatten().all(|known| known == namespace)
    }

    /// Is all of it known? Then only a configuration can change it.
    pub fn complete(&self) -> bool {
        self.camera.is_some() && self.pipeline.is_some() && self.recorded.is_some()
    }
}

impl Reader {
    /// Whose footage of a stream and a camera is.
    pub async fn owners(&self, stream: StreamId, camera: &str) -> Result<Owners, Error> {
        sqlx::query_as(
            "SELECT (SELECT namespace FROM cameras WHERE uid = ?2 AND name <> '') AS camera,
               (SELECT json_extract(config, '$.pipeline.namespace') FROM streams WHERE uid = ?1) AS pipeline,
               (SELECT c.namespace FROM streams s JOIN cameras c ON c.id = s.camera_id
                 WHERE s.uid = ?1 AND c.name <> '') AS recorded",
        )
        .bind(stream.to_string())
        .bind(camera)
        .fetch_one(&self.pool)
        .await
        .map_err(sql("find whose footage is"))
    }
}

/// Finds or makes the rows above a segment or gap; names known only from it are placeholders.
async fn place(
    tx: &mut SqliteConnection,
    found: &mut Found,
    stream: StreamId,
    session: SessionId,
    camera_uid: &str,
    camera_name: &str,
    site: &str,
) -> Result<Place, Error> {
    let key = (stream, session, camera_uid.to_owned(), !camera_name.is_empty());
    if let Some(place) = found.places.get(&key) {
        return Ok(*place);
    }
    let (namespace, name) = camera_name.split_once('/').unwrap_or(("", camera_name));
    let camera = ObjectRef { namespace: namespace.into(), name: name.into(), uid: camera_uid.into() };
    let camera = camera_row(tx, &camera, site).await?;
    let stream = stream_row(tx, &stream.to_string(), camera).await?;
    let (session, forgotten): (i64, bool) = sqlx::query_as(
        "INSERT INTO sessions (uid, stream_id) VALUES ($1, $2) ON CONFLICT DO NOTHING;
         SELECT e.id, s.forgotten FROM sessions e JOIN streams s ON s.id = e.stream_id WHERE s.id = $2 AND e.uid = $1",
    )
    .bind(session.to_string())
    .bind(stream)
    .fetch_one(&mut *tx)
    .await
    .map_err(sql("record a session"))?;
    let place = Place { camera, stream, session, forgotten };
    found.places.insert(key, place);
    Ok(place)
}

/// Every number below was removed by retention.
async fn removed_next(
    tx: &mut SqliteConnection,
    found: &mut Found,
    session: i64,
    rendition: &str,
) -> Result<i64, Error> {
    let key = (session, rendition.to_owned());
    if let Some(next) = found.removed.get(&key) {
        return Ok(*next);
    }
    let next: Option<i64> =
        sqlx::query_scalar("SELECT removed_next FROM tracks WHERE session_id = ?1 AND rendition = ?2")
            .bind(session)
            .bind(rendition)
            .fetch_optional(&mut *tx)
            .await
            .map_err(sql("find what was removed"))?;
    let next = next.unwrap_or(0);
    found.removed.insert(key, next);
    Ok(next)
}

/// Makes a row or finds it. Here and below that is two statements in one trip.
///
/// Trap: their parameters are `$1`, not `?1`. A statement of several that leaves out a `?1` has a parameter without a
/// name there, and sqlx counts those over all statements until it takes a value that does not exist for the next.
pub(super) async fn camera_row(tx: &mut SqliteConnection, camera: &ObjectRef, site: &str) -> Result<i64, Error> {
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

pub(super) async fn stream_row(tx: &mut SqliteConnection, uid: &str, camera: i64) -> Result<i64, Error> {
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
    found: &mut Found,
) -> Result<(), Error> {
    let key = &segment.key;
    let place = place(tx, found, key.stream, key.session, &segment.camera, &segment.camera_name, &segment.site).await?;
    if place.forgotten {
        recorded.unwanted += 1;
        return Ok(());
    }
    // What retention removed must not come back with a late repetition.
    if column(key.seq) < removed_next(tx, found, place.session, &key.rendition).await? {
        recorded.duplicates += 1;
        found.again(place.session, key);
        return Ok(());
    }
    let init = init_row(tx, found, segment).await?;
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
        found.again(place.session, key);
        return Ok(());
    }
    recorded.segments += 1;
    let newest = found.newest.entry(place.stream).or_default();
    *newest = segment.end.as_microsecond().max(*newest);
    Ok(())
}

/// The row of the segment's init section; a container without has one too, for codecs and picture, with an empty CID.
async fn init_row(tx: &mut SqliteConnection, found: &mut Found, segment: &Segment) -> Result<i64, Error> {
    let none = Blob { cid: String::new(), sha256: String::new(), bytes: 0 };
    let init = segment.init.as_ref().unwrap_or(&none);
    let key = (init.cid.clone(), segment.codecs.clone(), segment.width, segment.height);
    if let Some(id) = found.inits.get(&key) {
        return Ok(*id);
    }
    let id = sqlx::query_scalar(
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
    .map_err(sql("record an init section"))?;
    found.inits.insert(key, id);
    Ok(id)
}

async fn record_gap(tx: &mut SqliteConnection, gap: &Gap, now: Timestamp, found: &mut Found) -> Result<(), Error> {
    let place = place(tx, found, gap.stream, gap.session, &gap.camera, "", "").await?;
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
        found.sources.insert(place.session);
    }
    Ok(())
}
