//! A catalogue of a million segments, made once and kept beside the other products of the build.

use std::{fs, path::Path, time::Instant};

use dsn::catalogue::{self, Fact, Reader};
use jiff::Timestamp;

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
    // Held, because a catalogue has one writer.
    _writer: catalogue::Writer,
}

/// Begin of all footage.
pub fn begin() -> Timestamp {
    Timestamp::from_second(1_767_225_600).expect("2026-01-01T00:00:00Z")
}

/// Opens it, or makes it first; `capture` is the address of all live endpoints.
pub async fn of_a_million(capture: &str) -> Million {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-catalogue");
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
    let bytes = fs::metadata(folder.join("catalogue.sqlite")).map_or(0, |file| file.len());
    Million { reader, bytes, _writer: writer }
}
