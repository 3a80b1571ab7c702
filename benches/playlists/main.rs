//! Playlists out of a catalogue of a million segments: the handler alone, and a whole request over HTTP.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod catalogue;
#[path = "../harness/mod.rs"]
mod harness;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
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
use harness::{Samples, choose_tls_provider, footage::Recorded, report::Report, row};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::registry::Registry;
use tower::ServiceExt;

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

    let mut rows = vec![row!["playlist", "segments", "size", "handler p50", "p99", "over HTTP p50", "p99"]];
    for (name, hours, requests) in [("live", 0, 1_000), ("replay of 1 h", 1, 400), ("replay of 24 h", 24, 40)] {
        let (mut inside, mut whole, mut segments, mut bytes) = (Samples::default(), Samples::default(), 0, 0);
        for number in 0..requests {
            // Sides take turns, and each request is for another camera and another time.
            for over_http in [false, true] {
                let path = path(number * 2 + u32::from(over_http), hours);
                let began = Instant::now();
                let text = if over_http {
                    let url = format!("http://{address}{path}");
                    let answer = client.get(url).header("authorization", LOGIN).send().await.expect("an answer");
                    assert_eq!(answer.status(), StatusCode::OK, "{path}");
                    answer.bytes().await.expect("a body")
                } else {
                    let request = Request::get(&path).header("authorization", LOGIN).body(Body::empty());
                    let answer = routes.clone().oneshot(request.expect("a request")).await.expect("infallible");
                    assert_eq!(answer.status(), StatusCode::OK, "{path}");
                    to_bytes(answer.into_body(), usize::MAX).await.expect("a body")
                };
                let took = began.elapsed().as_secs_f64() * 1e3;
                if over_http {
                    whole.push(took);
                } else {
                    inside.push(took);
                }
                bytes = text.len();
                segments = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"#EXTINF")).count();
            }
        }
        assert!(hours == 0 || segments >= usize::try_from(hours).expect("small") * 900, "{name}: {segments} segments");
        let milliseconds = |samples: &Samples, share| format!("{:.2} ms", samples.quantile(share));
        rows.push(row![
            name,
            segments,
            format!("{:.1} kB", bytes as f64 / 1e3),
            milliseconds(&inside, 0.5),
            milliseconds(&inside, 0.99),
            milliseconds(&whole, 0.5),
            milliseconds(&whole, 0.99),
        ]);
    }
    let mut report = Report::new("playlists");
    report.table(&rows);
    report.note(format!(
        "{} segments of {} cameras in a catalogue of {:.0} MB, written in the order in which cameras seal them. One request \
         at a time, each for another camera and another time; login by name and password each time.",
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
    let longest = catalogue::SEGMENTS * 4 - u64::try_from(hours).expect("positive") * 3600;
    // A step without a common divisor with the length visits all of it.
    let offset = u64::from(number) * 7_919 * 13 % longest;
    let start = catalogue::begin() + SignedDuration::from_secs(i64::try_from(offset).expect("small"));
    let end = start + SignedDuration::from_hours(hours);
    format!("/hls/{}/camera-{camera}/replay.m3u8?start={start}&end={end}", harness::footage::NAMESPACE)
}

/// What the capture pod of camera `number` says.
async fn window(extract::Path(number): extract::Path<u32>) -> Json<LiveWindow> {
    let recorded = Recorded::new(number, Timestamp::now() - SignedDuration::from_secs(32), 60);
    let segments = (0..8).map(|seq| {
        let segment = recorded.nominal(seq);
        LiveSegment {
            file: format!("{seq:08}.m4s"),
            init: Some("init.mp4".into()),
            sha256: segment.blob.sha256,
            bytes: segment.blob.bytes,
            codecs: segment.codecs,
            width: segment.width,
            height: segment.height,
            start: segment.start,
            end: segment.end,
            media_us: segment.media_us,
            frames: segment.frames,
            playlist_seq: segment.playlist_seq,
            discontinuity_seq: segment.discontinuity_seq,
            target_seconds: segment.target_seconds,
            key: segment.key,
        }
    });
    Json(LiveWindow { stream: recorded.stream.stream, segments: segments.collect() })
}

async fn serve(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}
