//! A catalogue of a million segments, made once and kept beside the other products of the build.

use std::{fs, path::Path, time::Instant};

use dsn::{
    catalogue::{self, Fact, Reader},
    domain::cid::FileHasher,
};
use jiff::{SignedDuration, Timestamp};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::harness::footage::Recorded;

/// Cameras.
pub const CAMERAS: u32 = 20;
/// Segments of each: two days and a third of four seconds each.
pub const SEGMENTS: u64 = 50_000;
/// Facts of one transaction. The recorder's are smaller; this only makes the catalogue sooner.
const BATCH: u64 = 250;

/// The catalogue.
pub struct Million {
    /// To read from.
    pub reader: Reader,
    /// Size of the file.
    pub bytes: u64,
    bare: SqlitePool,
    // Held, because a catalogue has one writer.
    _writer: catalogue::Writer,
}

/// Begin of all footage.
pub fn begin() -> Timestamp {
    Timestamp::from_second(1_767_225_600).expect("2026-01-01T00:00:00Z")
}

/// Opens it, or makes it first; `capture` is the address of all live endpoints.
pub async fn of_a_million(capture: &str) -> Million {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-catalogue-{}", ingredients()));
    let complete = folder.join("complete");
    if !complete.exists() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
    }
    let (writer, reader) = catalogue::open(&folder).await.expect("the catalogue opens");
    let cameras: Vec<Recorded> = (0..CAMERAS).map(|number| Recorded::new(number, begin(), 60)).collect();
    // Its port changes with each run.
    let revision = Timestamp::now().as_second().unsigned_abs();
    let mut facts = Vec::new();
    for (number, recorded) in cameras.iter().enumerate() {
        let mut stream = recorded.stream.clone();
        stream.live_url = format!("{capture}/{number}");
        facts.push(Fact::Camera(revision, recorded.camera.clone()));
        facts.push(Fact::Stream(revision, Box::new(stream)));
    }
    writer.record(&facts, Timestamp::now()).await.expect("cameras and streams are recorded");
    if !complete.exists() {
        let began = Instant::now();
        for batch in 0..SEGMENTS / BATCH {
            // Camera by camera within a batch is the order of arrival as the recorder sees it: everybody's in turn.
            let facts: Vec<Fact> = (batch * BATCH..(batch + 1) * BATCH)
                .flat_map(|seq| cameras.iter().map(move |recorded| Fact::Segment(Box::new(recorded.nominal(seq)))))
                .collect();
            writer.record(&facts, Timestamp::now()).await.expect("segments are recorded");
            if batch % 20 == 19 {
                eprintln!("catalogue: {} of {SEGMENTS} segments of each camera", (batch + 1) * BATCH);
            }
        }
        eprintln!("catalogue: made in {:.0} s", began.elapsed().as_secs_f64());
        fs::write(complete, "").expect("a marker");
    }
    let file = folder.join("catalogue.sqlite");
    let bytes = fs::metadata(&file).map_or(0, |file| file.len());
    let options = SqliteConnectOptions::new().filename(&file).read_only(true);
    let bare = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("the file opens");
    Million { reader, bytes, bare, _writer: writer }
}

/// What the catalogue is made by, as a word: another schema or other footage are another catalogue.
fn ingredients() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("benches/harness/footage.rs"), root.join("benches/playlists/catalogue.rs")];
    let migrations = fs::read_dir(root.join("src/catalogue/migrations")).expect("the migrations");
    files.extend(migrations.map(|file| file.expect("a file").path()));
    files.sort();
    let mut hasher = FileHasher::default();
    for file in files {
        hasher.update(&fs::read(file).expect("a file of the checkout"));
    }
    hasher.finish().sha256[..12].to_owned()
}

impl Million {
    /// The floor of a playlist: the database finds the same rows and tells how many they are and what they add up to.
    pub async fn scan(&self, camera: u32, start: Timestamp, hours: i64) -> i64 {
        let (count, _bytes): (i64, i64) = sqlx::query_as(
            "SELECT count(*), sum(bytes) FROM segments
             WHERE camera_id = (SELECT id FROM cameras WHERE name = ?1) AND rendition = 'source'
               AND start_us >= ?2 AND start_us < ?3 AND end_us > ?4",
        )
        .bind(format!("camera-{camera}"))
        .bind((start - SignedDuration::from_mins(5)).as_microsecond())
        .bind((start + SignedDuration::from_hours(hours)).as_microsecond())
        .bind(start.as_microsecond())
        .fetch_one(&self.bare)
        .await
        .expect("the rows are counted");
        count
    }
}
