//! Live, straight from the capture pod.

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::Value;
use wiremock::{Mock, ResponseTemplate, matchers::path_regex};

use super::{media_path, world};
use crate::{
    catalogue::{Fact, fixture::*},
    domain::{
        control::{Phase, Problem, StreamConfig},
        live::LiveSegment,
        segment::Segment,
    },
};

/// `count` segments of which the last ended just now.
fn just_now(count: i64) -> Vec<LiveSegment> {
    let now = Timestamp::now();
    (0..count)
        .map(|i| {
            let start = now - SignedDuration::from_secs(4 * (count - i));
            let known = segment(1, u64::try_from(i).expect("small"), 0);
            let recorded = Segment { start, end: start + SignedDuration::from_secs(4), ..known };
            LiveSegment::new(&recorded, Some("init.mp4"))
        })
        .collect()
}

#[tokio::test]
async fn live_is_what_the_capture_pod_has() {
    let world = world().await;
    world.live_with(just_now(8)).await;
    let text = world.text("/hls/demo/camera/live.m3u8").await;
    assert_eq!(text.matches("#EXTINF").count(), 5);
    assert!(text.contains(&format!("/live/{}/{}/source/00000007.m4s", stream(), session(1))), "{text}");
    let master = world.text("/hls/demo/camera/live-master.m3u8").await;
    assert!(master.contains("CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720"), "{master}");
}

#[tokio::test]
async fn a_live_transport_stream_is_served_as_what_it_is() {
    let world = world().await;
    let mut segments = just_now(8);
    for segment in &mut segments {
        segment.file = segment.file.replace("m4s", "ts");
        segment.init = None;
    }
    world.live_with(segments).await;
    let text = world.text("/hls/demo/camera/live.m3u8").await;
    let file = format!("/live/{}/{}/source/00000007.ts", stream(), session(1));
    assert!(text.contains(&file) && !text.contains("EXT-X-MAP"), "{text}");
    Mock::given(path_regex("/v1/live/.*/00000007.ts$"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(bytes_of(1, 7)))
        .mount(&world.capture)
        .await;
    let segment = world.get(&file).await;
    assert_eq!(segment.headers()["content-type"], "video/mp2t");
    assert_eq!(segment.bytes().await.expect("bytes"), bytes_of(1, 7));
}

#[tokio::test]
async fn live_needs_no_database() {
    let world = world().await;
    world.live_with(just_now(8)).await;
    Mock::given(path_regex("/v1/live/.*/00000007.m4s$"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(bytes_of(1, 7)))
        .mount(&world.capture)
        .await;
    world.catalogue.reader.close().await;
    world.text("/hls/demo/camera/live.m3u8").await;
    let bytes = world.get(&format!("/live/{}/{}/source/00000007.m4s", stream(), session(1))).await;
    assert_eq!(bytes.bytes().await.expect("bytes"), bytes_of(1, 7));
    assert_eq!(world.json("/api/cameras").await[0]["name"], "camera");
    assert_eq!(world.refusal("/hls/demo/camera/dvr.m3u8").await.0, 503);
}

#[tokio::test]
async fn many_viewers_are_one_question() {
    let world = world().await;
    world.live_with(just_now(8)).await;
    let asked = (0..20).map(|_| world.text("/hls/demo/camera/live.m3u8"));
    futures::future::join_all(asked).await;
    let questions = world.capture.received_requests().await.expect("recorded").len();
    assert!(questions <= 3, "{questions}");
}

#[tokio::test]
async fn an_altered_live_segment_is_not_shown() {
    let world = world().await;
    world.live_with(just_now(8)).await;
    Mock::given(path_regex("/v1/live/.*m4s$"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(b"something else"))
        .mount(&world.capture)
        .await;
    world.text("/hls/demo/camera/live.m3u8").await;
    let file = format!("/live/{}/{}/source/00000007.m4s", stream(), session(1));
    assert_eq!(world.refusal(&file).await, (502, "ContentMismatch".into()));
}

/// A gateway that has just started has no window yet, and init sections were not looked at in any.
#[tokio::test]
async fn the_first_files_that_a_gateway_serves_are_checked_too() {
    let world = world().await;
    world.live_with(just_now(8)).await;
    Mock::given(path_regex("/v1/live/.+"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(b"something else"))
        .mount(&world.capture)
        .await;
    for file in ["00000007.m4s", "init.mp4", "00000006.m4s"] {
        let file = format!("/live/{}/{}/source/{file}", stream(), session(1));
        assert_eq!(world.refusal(&file).await, (502, "ContentMismatch".into()), "{file}");
    }
    let asked = world.capture.received_requests().await.expect("recorded");
    assert_eq!(asked.iter().filter(|request| request.url.path() == "/v1/live").count(), 1, "the window names them all");
}

#[tokio::test]
async fn an_init_section_is_shown_also_where_an_agent_of_an_earlier_release_says_no_hash_of_it() {
    for said in [true, false] {
        let world = world().await;
        let mut segments = just_now(8);
        for segment in segments.iter_mut().filter(|_| !said) {
            segment.init_sha256 = None;
        }
        world.live_with(segments).await;
        Mock::given(path_regex("/v1/live/.*/init.mp4$"))
            .respond_with(ResponseTemplate::new(200).set_body_bytes(b"init 1"))
            .mount(&world.capture)
            .await;
        let init = world.get(&format!("/live/{}/{}/source/init.mp4", stream(), session(1))).await;
        assert_eq!((init.status(), &*init.bytes().await.expect("bytes")), (StatusCode::OK, &b"init 1"[..]));
    }
}

#[tokio::test]
async fn what_the_capture_pod_has_and_does_not_name_is_taken_from_storage() {
    let world = world().await;
    world.live_with(just_now(8)).await;
    Mock::given(path_regex("/v1/live/.+"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(b"whatever"))
        .mount(&world.capture)
        .await;
    for seq in 100..120 {
        let response = world.get(&format!("/live/{}/{}/source/{seq:08}.m4s", stream(), session(1))).await;
        assert_eq!(response.headers()["location"].to_str().expect("text"), media_path(1, seq));
    }
    let asked = world.capture.received_requests().await.expect("recorded");
    assert!(asked.iter().all(|request| request.url.path() == "/v1/live"), "nobody could check it");
    assert!(asked.len() <= 3, "{}", asked.len());
}

#[tokio::test]
async fn what_is_no_longer_live_is_taken_from_storage() {
    let world = world().await;
    let response = world.get(&format!("/live/{}/{}/source/00000001.m4s", stream(), session(1))).await;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.headers()["location"].to_str().expect("text"), media_path(1, 1));
}

#[tokio::test]
async fn while_the_capture_pod_moves_the_viewer_is_told_to_wait() {
    let world = world().await;
    let gone = StreamConfig { live_url: "http://127.0.0.1:1".into(), ..stream_config() };
    world.record(vec![Fact::Stream(2, Box::new(gone))]).await;
    assert_eq!(world.refusal("/hls/demo/camera/live.m3u8").await, (503, "CaptureAway".into()));
}

#[tokio::test]
async fn without_a_picture_the_reason_is_told() {
    let world = world().await;
    world.live_with(vec![]).await;
    assert_eq!(world.refusal("/hls/demo/camera/live.m3u8").await, (503, "NoPicture".into()));
    world.report(Phase::Paused, None);
    assert_eq!(world.refusal("/hls/demo/camera/live.m3u8").await, (503, "Paused".into()));
    let message = "camera: RTSP 401; check Secret \"lobby\" key \"password\"".to_owned();
    world.report(Phase::Failing, Some(Problem { reason: "Unauthorized".into(), message: message.clone() }));
    let body: Value = world.get("/hls/demo/camera/live.m3u8").await.json().await.expect("JSON");
    assert_eq!(body["error"], message);
    let listed = world.json("/api/cameras").await;
    assert_eq!((&listed[0]["state"], &listed[0]["message"]), (&"Failing".into(), &message.into()));
}

#[tokio::test]
async fn old_pictures_are_not_live() {
    let world = world().await;
    let mut segments = just_now(8);
    for segment in &mut segments {
        (segment.start, segment.end) =
            (segment.start - SignedDuration::from_mins(5), segment.end - SignedDuration::from_mins(5));
    }
    world.live_with(segments).await;
    assert_eq!(world.refusal("/hls/demo/camera/live.m3u8").await, (503, "NoPicture".into()));
}

/// The same segments in another rendition, but for the newest and one in the middle.
fn rungs(source: &[LiveSegment]) -> Vec<LiveSegment> {
    let made = source.iter().enumerate().filter(|(n, _)| *n != 5 && *n != 7);
    made.map(|(_, segment)| {
        let mut rung = segment.clone();
        rung.key.rendition = "480p".into();
        (rung.width, rung.height, rung.bytes) = (854, 480, segment.bytes / 2);
        rung
    })
    .collect()
}

#[tokio::test]
async fn live_renditions_line_up_with_the_source() {
    let world = world().await;
    let source = just_now(8);
    world.live_with([source.clone(), rungs(&source)].concat()).await;
    let master = world.text("/hls/demo/camera/master.m3u8").await;
    let streams: Vec<&str> = master.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(streams, ["live.m3u8", "live.m3u8?rendition=480p"]);
    assert!(master.contains("RESOLUTION=854x480,FRAME-RATE=25.000"), "{master}");
    let text = world.text("/hls/demo/camera/live.m3u8?rendition=480p").await;
    assert!(text.contains("/480p/00000006.m4s") && !text.contains("00000007.m4s"), "{text}");
    assert_eq!(text.matches("#EXT-X-GAP").count(), 1, "{text}");
    assert!(!text.contains("/source/"), "{text}");
    let refused = world.refusal("/hls/demo/camera/live.m3u8?rendition=8k").await;
    assert_eq!(refused, (404, "NoRendition".into()));
}

#[tokio::test]
async fn a_live_rendition_that_is_over_is_said_to_be_none() {
    let world = world().await;
    let source = just_now(8);
    world.live_with([source.clone(), rungs(&source[..5])].concat()).await;
    let master = world.text("/hls/demo/camera/master.m3u8").await;
    assert!(master.contains("live.m3u8") && !master.contains("480p"), "{master}");
    let refused = world.refusal("/hls/demo/camera/live.m3u8?rendition=480p").await;
    assert_eq!(refused, (404, "NoRendition".into()));
}
