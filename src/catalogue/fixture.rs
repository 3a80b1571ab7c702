//! A catalogue in a temporary folder and footage to put into it, for the tests of everything above.

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Fact, Reader, Writer};
use crate::domain::{
    cid::FileHasher,
    control::{CameraConfig, ObjectRef, StreamConfig},
    id::{InstanceUid, SessionId, StreamId},
    segment::{Blob, Gap, GapReason, Segment, SegmentKey},
};

/// A catalogue that goes with its folder.
pub struct Fixture {
    pub writer: Writer,
    pub reader: Reader,
    pub _folder: TempDir,
}

pub async fn catalogue() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, reader) = super::open(folder.path()).await.expect("opens");
    Fixture { writer, reader, _folder: folder }
}

/// 2026-01-02T03:00:00Z plus seconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_322_800 + seconds).expect("in range")
}

pub fn stream() -> StreamId {
    StreamId::of("pipeline-uid", "camera-uid")
}

pub fn instance() -> InstanceUid {
    InstanceUid::of("pipeline-uid", "camera-uid", crate::domain::id::Role::Capture, 0)
}

pub fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn object(name: &str) -> ObjectRef {
    ObjectRef { namespace: "demo".into(), name: name.into(), uid: format!("{name}-uid") }
}

pub fn camera_config() -> CameraConfig {
    CameraConfig { camera: object("camera"), site: "hq".into(), deleted: false }
}

pub fn stream_config() -> StreamConfig {
    StreamConfig {
        stream: stream(),
        instance: instance(),
        pipeline: object("pipeline"),
        camera: object("camera"),
        group: "default".into(),
        replicas: 2,
        retention_seconds: 30 * 24 * 3600,
        rollup_seconds: 60,
        delete_with_pipeline: false,
        live_url: "http://127.0.0.1:1".into(),
        transcoder: None,
        deleted: false,
    }
}

pub fn configured() -> Vec<Fact> {
    vec![Fact::Camera(1, camera_config()), Fact::Stream(1, Box::new(stream_config()))]
}

/// The bytes of a segment of the fixture.
pub fn bytes_of(n: u128, seq: u64) -> Vec<u8> {
    format!("segment {n}/{seq}").into_bytes()
}

pub fn blob(bytes: &[u8]) -> Blob {
    let mut hasher = FileHasher::default();
    hasher.update(bytes);
    let digest = hasher.finish();
    Blob { cid: digest.cid.to_string(), sha256: digest.sha256, bytes: digest.bytes }
}

/// Segment `seq` of session `n`: four seconds that begin `seq` times four after `begin`.
pub fn segment(n: u128, seq: u64, begin: i64) -> Segment {
    let start = at(begin) + SignedDuration::from_secs(4 * i64::try_from(seq).expect("small"));
    Segment {
        key: SegmentKey { stream: stream(), rendition: "source".into(), session: session(n), seq },
        camera: "camera-uid".into(),
        camera_name: "demo/camera".into(),
        site: "hq".into(),
        file: format!("{}/source/{seq:08}.m4s", session(n)),
        blob: blob(&bytes_of(n, seq)),
        init: Some(blob(format!("init {n}").as_bytes())),
        codecs: "avc1.64001f,mp4a.40.2".into(),
        width: 1280,
        height: 720,
        start,
        end: start + SignedDuration::from_secs(4),
        media_us: 4_000_000,
        frames: 100,
        playlist_seq: seq,
        discontinuity_seq: 0,
        target_seconds: 4,
    }
}

/// The same without an init section.
pub fn transport_stream(n: u128, seq: u64, begin: i64) -> Segment {
    let file = format!("{}/source/{seq:08}.ts", session(n));
    Segment { init: None, file, ..segment(n, seq, begin) }
}

pub fn segments(n: u128, seqs: std::ops::Range<u64>, begin: i64) -> Vec<Fact> {
    seqs.map(|seq| Fact::Segment(Box::new(segment(n, seq, begin)))).collect()
}

pub fn lost(n: u128, seq: Option<u64>, from: i64, reason: GapReason) -> Fact {
    Fact::Gap(Gap {
        stream: stream(),
        camera: "camera-uid".into(),
        session: session(n),
        rendition: None,
        seq,
        from: at(from),
        to: at(from + 4),
        reason,
        detail: String::new(),
    })
}

/// Makes every pin request older.
pub async fn age_pins(writer: &Writer, seconds: i64) {
    sqlx::query("UPDATE rollups SET requested_us = requested_us - ?1, waiting_us = waiting_us - ?1")
        .bind(seconds * 1_000_000)
        .execute(&writer.pool)
        .await
        .expect("ages");
}

/// Makes every question to unpin older.
pub async fn age_tombstones(writer: &Writer, seconds: i64) {
    sqlx::query("UPDATE tombstones SET asked_us = asked_us - ?1")
        .bind(seconds * 1_000_000)
        .execute(&writer.pool)
        .await
        .expect("ages");
}

impl Reader {
    /// A database that is down.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Tombstones of a group, older than all that come.
pub async fn bury_in(writer: &Writer, group: &str, count: u32) {
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
         INSERT INTO tombstones (stream_id, namespace, group_name, cid, reason, start_us, end_us, at_us)
         SELECT (SELECT min(id) FROM streams), 'demo', ?1, ?3, 'Retention', 0, 0, 0 FROM n",
    )
    .bind(group)
    .bind(count)
    .bind(crate::domain::cid::of(b"gone").to_string())
    .execute(&writer.pool)
    .await
    .expect("writes");
}

/// The oldest roll-up lies in another group.
pub async fn move_oldest_rollup(writer: &Writer, group: &str) {
    sqlx::query("UPDATE rollups SET group_name = ?1, expires_us = 0 WHERE id = (SELECT min(id) FROM rollups)")
        .bind(group)
        .execute(&writer.pool)
        .await
        .expect("writes");
}

/// Stored roll-ups of a stream whose retention ended long ago.
pub async fn expired_rollups(writer: &Writer, stream: StreamId, count: u32) {
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
         INSERT INTO rollups (stream_id, window_us, part, state, namespace, group_name, start_us, end_us)
         SELECT streams.id, 0, i, 'stored', 'demo', 'default', 0, 0 FROM n, streams WHERE streams.uid = ?1",
    )
    .bind(stream.to_string())
    .bind(count)
    .execute(&writer.pool)
    .await
    .expect("writes");
}

/// Tombstones of all groups.
pub async fn graves_in_all(reader: &Reader) -> u64 {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tombstones").fetch_one(&reader.pool).await.expect("counts");
    super::number(count)
}
