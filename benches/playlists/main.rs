//! Playlists out of a catalogue of a million segments: the handler alone and a whole request over HTTP, beside a bare scan
//! of the same rows.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod catalogue;
#[path = "../harness/mod.rs"]
mod harness;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract,
    http::{Request, StatusCode},
    routing::get,
};
use dsn::{
    clients::groups::Groups,
    domain::{
        live::{LiveSegment, LiveWindow},
        token::MasterKey,
    },
    gateway::{Access, Gateway, LiveSource, Roster, routes},
};
use harness::{Samples, choose_tls_provider, footage::Recorded, report::Report, row, usage::Meter};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::registry::Registry;
use tower::ServiceExt;

/// Turns of each side.
const BLOCKS: u32 = 10;
/// `admin:secret`.
const LOGIN: &str = "Basic YWRtaW46c2VjcmV0";

#[tokio::main]
async fn main() {
    choose_tls_provider();
    if harness::wanted(&["playlists"]).is_empty() {
        return;
    }
    let capture = serve(Router::new().route("/{number}/v1/live", get(window))).await;
    let catalogue = catalogue::of_a_million(&format!("http://{capture}")).await;
    let admin = tempfile::tempdir().expect("a folder");
    std::fs::write(admin.path().join("username"), "admin").expect("writes");
    std::fs::write(admin.path().join("password"), "secret").expect("writes");
    let master = MasterKey::new("bench");
    let roster = Arc::new(Roster::default());
    roster.load(&catalogue.reader).await.expect("the roster is read");
    let gateway = Gateway {
        catalogue: catalogue.reader.clone(),
        groups: Arc::new(Groups::new(master.clone(), "http://127.0.0.1:1".into(), "http://127.0.0.1:1".into())),
        roster,
        live: LiveSource::new(master.clone()).expect("a client"),
        access: Access::new(admin.path().to_owned(), master),
    };
    let routes = routes(gateway, Arc::new(Registry::default()), Arc::new(|| Ok(())));
    let address = serve(routes.clone()).await;
    let client = reqwest::Client::new();

    let mut rows = vec![row![
        "playlist",
        "segments",
        "size",
        "bare scan p50",
        "handler p50",
        "p99",
        "of it processor",
        "ratio",
        "over HTTP p50",
        "p99",
    ]];
    for (name, hours, requests) in [("live", 0, 1_000), ("replay of 1 h", 1, 400), ("replay of 24 h", 24, 40)] {
        let (mut scan, mut inside, mut whole) = (Samples::default(), Samples::default(), Samples::default());
        let (mut processor, mut last) = (0.0, Bytes::new());
        // Sides take turns, and each request is for another camera and another time.
        for block in 0..BLOCKS {
            let numbers = block * requests / BLOCKS..(block + 1) * requests / BLOCKS;
            for number in numbers.clone().filter(|_| hours > 0) {
                let (camera, start) = (number * 3 % catalogue::CAMERAS, begin(number * 3, hours));
                let began = Instant::now();
                let count = catalogue.scan(camera, start, hours).await;
                scan.push(began.elapsed().as_secs_f64() * 1e3);
                assert!(count >= hours * 900, "{name}: {count} rows");
            }
            let meter = Meter::start(std::process::id());
            for number in numbers.clone() {
                let path = path(number * 3 + 1, hours);
                let began = Instant::now();
                let request = Request::get(&path).header("authorization", LOGIN).body(Body::empty());
                let answer = routes.clone().oneshot(request.expect("a request")).await.expect("infallible");
                assert_eq!(answer.status(), StatusCode::OK, "{path}");
                last = to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
                inside.push(began.elapsed().as_secs_f64() * 1e3);
            }
            processor += meter.seconds() * 1e3;
            for number in numbers {
                let url = format!("http://{address}{}", path(number * 3 + 2, hours));
                let began = Instant::now();
                let answer = client.get(url).header("authorization", LOGIN).send().await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::OK, "{name}");
                answer.bytes().await.expect("a body");
                whole.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        let segments = last.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"#EXTINF")).count();
        assert!(hours == 0 || segments >= usize::try_from(hours).expect("small") * 900, "{name}: {segments} segments");
        let milliseconds = |samples: &Samples, share| format!("{:.2} ms", samples.quantile(share));
        let floor = |text: String| if hours == 0 { String::new() } else { text };
        rows.push(row![
            name,
            segments,
            format!("{:.1} kB", last.len() as f64 / 1e3),
            floor(milliseconds(&scan, 0.5)),
            milliseconds(&inside, 0.5),
            milliseconds(&inside, 0.99),
            format!("{:.2} ms", processor / f64::from(requests)),
            floor(format!("{:.1}", inside.median() / scan.median())),
            milliseconds(&whole, 0.5),
            milliseconds(&whole, 0.99),
        ]);
    }
    let mut report = Report::new("playlists");
    report.table(&rows);
    report.note(format!(
        "{} segments of {} cameras in a catalogue of {:.0} MB, written in the order in which cameras seal them. One request \
         at a time, each for another camera and another time; login by name and password each time. Bare scan: SQLite \
         counts the rows of the same range and adds up their sizes, one value for all of them; the ratio is that of the \
         handler to it. Live reads no database. Processor time is the mean of all threads, the one who asks included.",
        catalogue::SEGMENTS * u64::from(catalogue::CAMERAS),
        catalogue::CAMERAS,
        catalogue.bytes as f64 / 1e6,
    ));
    report.publish();
}

/// Which playlist request `number` is for.
fn path(number: u32, hours: i64) -> String {
    let camera = number % catalogue::CAMERAS;
    if hours == 0 {
        return format!("/hls/{}/camera-{camera}/live.m3u8", harness::footage::NAMESPACE);
    }
    let start = begin(number, hours);
    let end = start + SignedDuration::from_hours(hours);
    format!("/hls/{}/camera-{camera}/replay.m3u8?start={start}&end={end}", harness::footage::NAMESPACE)
}

/// The begin of the range that request `number` is for.
fn begin(number: u32, hours: i64) -> Timestamp {
    let longest = catalogue::SEGMENTS * 4 - u64::try_from(hours).expect("positive") * 3600;
    // A step without a common divisor with the length visits all of it.
    let offset = u64::from(number) * 7_919 * 13 % longest;
    catalogue::begin() + SignedDuration::from_secs(i64::try_from(offset).expect("small"))
}

/// What the capture pod of camera `number` says.
async fn window(extract::Path(number): extract::Path<u32>) -> Json<LiveWindow> {
    let recorded = Recorded::new(number, Timestamp::now() - SignedDuration::from_secs(32), 60);
    let segments = (0..8).map(|seq| LiveSegment::new(&recorded.nominal(seq), Some("init.mp4")));
    Json(LiveWindow { stream: recorded.stream.stream, segments: segments.collect() })
}

async fn serve(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}
