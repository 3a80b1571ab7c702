//! What a viewer asks for beside ranges of time: cameras, renditions, one file's address.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Error, Reader, number,
    ranges::{earliest, unpack},
    sql, time,
};
use crate::domain::{
    container::Container,
    id::{SessionId, StreamId},
    playlist::{self, Sized, Variant},
    segment::{Blob, SOURCE, SegmentKey},
    spool,
};

/// Uids under which a camera of one name was known, newest configuration last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// Rows of the camera and of its predecessors of the same name.
    pub rows: Vec<i64>,
}

/// Where one segment's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRow {
    /// What it is made of.
    pub blob: Blob,
    /// Namespace of the group that keeps it.
    pub namespace: String,
    /// The group.
    pub group: String,
    /// What it is packed in.
    pub container: Container,
}

/// The init section of the newest segment of a range, and how large each of them is.
///
/// Trap: as for the segments of a playlist, all of theirs stands in the index `segments_by_time`. Beside a single `max()`
/// `SQLite` takes what is no aggregate from the row that holds it.
const VARIANT: &str = "
    WITH part AS MATERIALIZED (
      SELECT max(start_us), init_id, json_group_array(json_array(start_us, bytes, media_us, target_seconds, frames)) AS segments
      FROM segments
      WHERE camera_id = ?1 AND rendition = ?2 AND start_us >= ?3 AND start_us < ?4 AND end_us > ?5)
    SELECT i.codecs, i.width, i.height, p.segments FROM part p JOIN inits i ON i.id = p.init_id";

#[derive(sqlx::FromRow)]
struct VariantRow {
    codecs: String,
    width: u32,
    height: u32,
    segments: String,
}

/// In the order of the columns in [`VARIANT`].
#[derive(Deserialize)]
struct SizeRow {
    start_us: i64,
    bytes: i64,
    media_us: i64,
    target_seconds: u32,
    frames: i64,
}

/// Answer to a question for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// It is there.
    Found(MediaRow),
    /// Retention removed it.
    Removed,
    /// It is lost, and known to be.
    Lost(String),
    /// Never heard of.
    Unknown,
}

/// A blob and what says where it is.
#[derive(sqlx::FromRow)]
struct BlobRow {
    cid: String,
    sha256: String,
    bytes: i64,
    namespace: Option<String>,
    group_name: Option<String>,
    config: Option<String>,
    init_cid: String,
}

impl BlobRow {
    /// It is in the group of its roll-up, or of its stream while it has none.
    fn into_media(self) -> Result<Media, Error> {
        let blob = Blob { cid: self.cid, sha256: self.sha256, bytes: number(self.bytes) };
        let container = Container::of_init(Some(&self.init_cid).filter(|cid| !cid.is_empty()));
        if let Some((namespace, group)) = self.namespace.zip(self.group_name) {
            return Ok(Media::Found(MediaRow { blob, namespace, group, container }));
        }
        let Some(text) = self.config else { return Ok(Media::Unknown) };
        let config = super::pinning::config(&text)?;
        let (namespace, group) = (config.pipeline.namespace, config.group);
        Ok(Media::Found(MediaRow { blob, namespace, group, container }))
    }
}

impl Reader {
    /// The camera of this name; a recreated one brings the rows of its predecessors along.
    pub async fn camera(&self, namespace: &str, name: &str) -> Result<Option<Camera>, Error> {
        let rows: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM cameras WHERE namespace = ?1 AND name = ?2 ORDER BY id")
                .bind(namespace)
                .bind(name)
                .fetch_all(&self.pool)
                .await
                .map_err(sql("find a camera"))?;
        Ok((!rows.is_empty()).then_some(Camera { rows }))
    }

    /// End of the newest footage of a camera that is still there.
    pub async fn newest(&self, camera: &Camera) -> Result<Option<Timestamp>, Error> {
        let mut newest = None;
        for row in &camera.rows {
            let end: Option<i64> = sqlx::query_scalar(
                "SELECT end_us FROM segments WHERE camera_id = ?1 AND rendition = 'source' ORDER BY start_us DESC LIMIT 1",
            )
            .bind(row)
            .fetch_optional(&self.pool)
            .await
            .map_err(sql("find the newest footage"))?;
            newest = newest.max(end.map(time));
        }
        Ok(newest)
    }

    /// End of the newest footage of a camera that retention removed.
    pub async fn removed_until(&self, camera: &Camera) -> Result<Option<Timestamp>, Error> {
        let mut removed = None;
        for row in &camera.rows {
            let until: Option<i64> = sqlx::query_scalar("SELECT max(removed_us) FROM streams WHERE camera_id = ?1")
                .bind(row)
                .fetch_one(&self.pool)
                .await
                .map_err(sql("find what was removed"))?;
            removed = removed.max(until.map(time));
        }
        Ok(removed)
    }

    /// Every rendition that there ever was of a camera's footage and still is, the source first.
    pub async fn renditions(&self, camera: &Camera) -> Result<Vec<String>, Error> {
        let mut found: BTreeSet<String> = BTreeSet::new();
        for row in &camera.rows {
            // From name to name through the index: there are millions of segments and a handful of names.
            let names: Vec<String> = sqlx::query_scalar(
                "WITH RECURSIVE names (name) AS (
                   SELECT min(rendition) FROM segments WHERE camera_id = ?1
                   UNION ALL
                   SELECT (SELECT min(rendition) FROM segments WHERE camera_id = ?1 AND rendition > name)
                   FROM names WHERE name IS NOT NULL)
                 SELECT name FROM names WHERE name IS NOT NULL LIMIT 64",
            )
            .bind(row)
            .fetch_all(&self.pool)
            .await
            .map_err(sql("find the renditions"))?;
            found.extend(names);
        }
        let others = found.into_iter().filter(|name| name != SOURCE);
        Ok(std::iter::once(SOURCE.to_owned()).chain(others).collect())
    }

    /// What a master playlist says of a range: codecs and picture of its newest part, bit rates and frame rate of all of it.
    pub async fn variant(
        &self,
        camera: &Camera,
        rendition: &str,
        from: Timestamp,
        to: Timestamp,
        uri: String,
    ) -> Result<Option<Variant>, Error> {
        let (mut newest, mut sizes) = (None, Vec::<SizeRow>::new());
        for row in &camera.rows {
            let found: Option<VariantRow> = sqlx::query_as(VARIANT)
                .bind(row)
                .bind(rendition)
                .bind(earliest(from))
                .bind(to.as_microsecond())
                .bind(from.as_microsecond())
                .fetch_optional(&self.pool)
                .await
                .map_err(sql("find a variant"))?;
            if let Some(found) = found {
                sizes.extend(unpack::<SizeRow>(&found.segments)?);
                newest = Some(found);
            }
        }
        sizes.sort_by_key(|size| size.start_us);
        let measured = |size: &SizeRow| Sized {
            bytes: number(size.bytes),
            media_us: number(size.media_us),
            target_seconds: size.target_seconds,
        };
        // Segments whose frames nobody counted say nothing of their rate.
        let counted = || sizes.iter().filter(|size| size.frames > 0);
        let frames = counted().map(|size| number(size.frames)).sum::<u64>();
        let media_us = counted().map(|size| number(size.media_us)).sum::<u64>();
        Ok(newest.map(|newest| Variant {
            uri,
            rates: playlist::rates(&sizes.iter().map(measured).collect::<Vec<_>>()),
            frame_rate: frames * 1_000_000_000 / media_us.max(1),
            codecs: newest.codecs,
            width: newest.width,
            height: newest.height,
        }))
    }

    /// One segment.
    pub async fn segment(&self, key: &SegmentKey) -> Result<Media, Error> {
        let row: Option<BlobRow> = sqlx::query_as(
            "SELECT g.cid, g.sha256, g.bytes, r.namespace, r.group_name, s.config, i.cid AS init_cid
             FROM streams s JOIN sessions e ON e.stream_id = s.id JOIN segments g ON g.session_id = e.id
               JOIN inits i ON i.id = g.init_id LEFT JOIN rollups r ON r.id = g.rollup_id
             WHERE s.uid = ?1 AND e.uid = ?2 AND g.rendition = ?3 AND g.seq = ?4",
        )
        .bind(key.stream.to_string())
        .bind(key.session.to_string())
        .bind(&key.rendition)
        .bind(super::column(key.seq))
        .fetch_optional(&self.pool)
        .await
        .map_err(sql("find a segment"))?;
        match row {
            Some(row) => row.into_media(),
            None => self.absent(key).await,
        }
    }

    /// An init section of a session, by the name that [`Self::entries`] gave it, or by that which the spool gave to a
    /// segment's own (a player of live that lags is sent here); any other name means the first one.
    pub async fn init(
        &self,
        stream: StreamId,
        session: SessionId,
        rendition: &str,
        file: &str,
    ) -> Result<Media, Error> {
        let own = spool::own_init_seq(file).map(super::column);
        let wanted = file.strip_prefix("init-").and_then(|name| name.strip_suffix(".mp4")).unwrap_or_default();
        let row: Option<BlobRow> = sqlx::query_as(
            "SELECT i.cid, i.sha256, i.bytes, r.namespace, r.group_name, s.config, i.cid AS init_cid
             FROM streams s JOIN sessions e ON e.stream_id = s.id JOIN segments g ON g.session_id = e.id
               JOIN inits i ON i.id = g.init_id LEFT JOIN rollups r ON r.id = g.rollup_id
             WHERE s.uid = ?1 AND e.uid = ?2 AND g.rendition = ?3 AND i.cid <> ''
               AND CASE WHEN ?5 IS NULL THEN substr(i.sha256, 1, length(?4)) = ?4 ELSE g.seq = ?5 END
             ORDER BY g.seq LIMIT 1",
        )
        .bind(stream.to_string())
        .bind(session.to_string())
        .bind(rendition)
        .bind(wanted)
        .bind(own)
        .fetch_optional(&self.pool)
        .await
        .map_err(sql("find an init section"))?;
        match row {
            Some(row) => row.into_media(),
            None => self.absent(&SegmentKey { stream, rendition: rendition.to_owned(), session, seq: 0 }).await,
        }
    }

    /// Why a segment has no row.
    async fn absent(&self, key: &SegmentKey) -> Result<Media, Error> {
        let row: Option<(bool, Option<String>)> = sqlx::query_as(
            "SELECT coalesce(t.removed_next > ?4, 0),
               (SELECT reason FROM gaps WHERE session_id = e.id AND seq = ?4 LIMIT 1)
             FROM streams s JOIN sessions e ON e.stream_id = s.id
               LEFT JOIN tracks t ON t.session_id = e.id AND t.rendition = ?3
             WHERE s.uid = ?1 AND e.uid = ?2",
        )
        .bind(key.stream.to_string())
        .bind(key.session.to_string())
        .bind(&key.rendition)
        .bind(super::column(key.seq))
        .fetch_optional(&self.pool)
        .await
        .map_err(sql("find out why a segment is missing"))?;
        if let Some((removed, lost)) = row {
            return Ok(match (removed, lost) {
                (true, _) => Media::Removed,
                (false, Some(reason)) => Media::Lost(reason),
                (false, None) => Media::Unknown,
            });
        }
        // A forgotten stream has no sessions any more.
        let forgotten: Option<bool> = sqlx::query_scalar("SELECT forgotten FROM streams WHERE uid = ?1")
            .bind(key.stream.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(sql("find a stream"))?;
        Ok(if forgotten == Some(true) { Media::Removed } else { Media::Unknown })
    }
}
