//! Replay, bytes, coverage, the list and the ledger.

use reqwest::StatusCode;
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{any, bearer_token, path},
};

use super::{media_path, world};
use crate::{
    catalogue::{Fact, fixture::*},
    domain::{
        control::{InstanceReport, Phase, StreamConfig},
        segment::GapReason,
        token::{MasterKey, Purpose},
    },
};

#[tokio::test]
async fn an_unknown_camera_is_named() {
    let world = world().await;
    for file in ["live.m3u8", "dvr.m3u8", "replay.m3u8?start=2026-01-02T03:00:00Z&end=2026-01-02T04:00:00Z"] {
        assert_eq!(world.refusal(&format!("/hls/demo/nobody/{file}")).await, (404, "UnknownCamera".into()));
    }
    assert_eq!(world.refusal("/hls/demo/camera/other.m3u8").await, (404, "UnknownPlaylist".into()));
}

const RANGE: &str = "/hls/demo/camera/replay.m3u8?start=2026-01-02T03:00:00Z&end=2026-01-02T04:00:00Z";

#[tokio::test]
async fn replay_lists_what_is_catalogued() {
    let world = world().await;
    world
        .record([segments(1, 0..5, 0), vec![lost(2, None, 20, GapReason::CaptureDied)], segments(2, 0..5, 30)].concat())
        .await;
    let text = world.text(RANGE).await;
    assert_eq!(text.matches("#EXTINF").count(), 10);
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    assert!(text.contains(&media_path(2, 4)) && text.ends_with("#EXT-X-ENDLIST\n"));
    // Only what reaches into the range.
    let part = "/hls/demo/camera/replay.m3u8?start=2026-01-02T03:00:05Z&end=2026-01-02T03:00:09Z";
    assert_eq!(world.text(part).await.matches("#EXTINF").count(), 2);
    let plus = "/hls/demo/camera/replay.m3u8?start=2026-01-02T04:00:05+01:00&end=2026-01-02T04:00:09+01:00";
    assert_eq!(world.text(plus).await.matches("#EXTINF").count(), 2, "an unescaped plus sign");
    let master = world.text(&RANGE.replace("replay.m3u8", "replay-master.m3u8")).await;
    assert!(master.contains("RESOLUTION=1280x720") && master.contains("replay.m3u8?start="), "{master}");
}

#[tokio::test]
async fn bad_times_get_a_sentence() {
    let world = world().await;
    for query in [
        "",
        "?start=yesterday&end=today",
        "?start=2026-01-02T03:00:00Z",
        "?start=2026-01-02T03:00:00&end=2026-01-02T04:00:00",
        "?start=2026-01-02T04:00:00Z&end=2026-01-02T03:00:00Z",
        "?start=2026-01-02T04:00:00Z&end=2026-02-02T03:00:00Z",
    ] {
        assert_eq!(
            world.refusal(&format!("/hls/demo/camera/replay.m3u8{query}")).await,
            (400, "Invalid".into()),
            "{query}"
        );
    }
    assert_eq!(world.refusal("/api/cameras/demo/camera/coverage?from=x").await.0, 400);
    let late = "/hls/demo/camera/replay.m3u8?start=2026-01-02T03:00:00Z&end=9999-12-31T00:00:00Z";
    let said = world.get(late).await.text().await.expect("text");
    assert!(said.contains("end must lie between") && !said.contains("RFC 3339"), "{said}");
}

#[tokio::test]
async fn nothing_recorded_and_removed_are_told_apart() {
    let world = world().await;
    assert_eq!(world.refusal(RANGE).await, (404, "NoFootage".into()));
    world.record(segments(1, 0..3, 0)).await;
    let ended = StreamConfig { deleted: true, delete_with_pipeline: true, ..stream_config() };
    world.record(vec![Fact::Stream(9, Box::new(ended))]).await;
    assert_eq!(world.refusal(RANGE).await, (410, "Removed".into()));
    assert_eq!(world.refusal(&media_path(1, 1)).await, (410, "Removed".into()));
    assert_eq!(world.refusal("/hls/demo/camera/live.m3u8").await, (404, "NotRecorded".into()));
}

#[tokio::test]
async fn media_is_checked_before_it_leaves() {
    let world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    let token = MasterKey::new("k").derive(Purpose::Server, "demo/default");
    Mock::given(path(format!("/ipfs/{}", segment(1, 1, 0).blob.cid)))
        .and(bearer_token(token))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(bytes_of(1, 1)))
        .mount(&world.storage)
        .await;
    let whole = world.get(&media_path(1, 1)).await;
    assert_eq!(whole.headers()["content-type"], "video/mp4");
    let etag = whole.headers()["etag"].clone();
    assert!(whole.headers()["cache-control"].to_str().expect("text").starts_with("private"));
    assert_eq!(whole.bytes().await.expect("bytes"), bytes_of(1, 1));
    let authorised = |path: String| world.request(&path).basic_auth("admin", Some("secret"));
    let part = authorised(media_path(1, 1)).header("range", "bytes=2-4").send().await.expect("answers");
    assert_eq!(
        (part.status(), part.headers()["content-range"].to_str().ok()),
        (StatusCode::PARTIAL_CONTENT, Some("bytes 2-4/11"))
    );
    assert_eq!(part.bytes().await.expect("bytes"), bytes_of(1, 1)[2..5]);
    let outside = authorised(media_path(1, 1)).header("range", "bytes=99-").send().await.expect("answers");
    assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let known = authorised(media_path(1, 1)).header("if-none-match", etag).send().await.expect("answers");
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_transport_stream_is_listed_without_a_map_and_served_as_what_it_is() {
    let world = world().await;
    let facts = (0..3).map(|seq| Fact::Segment(Box::new(transport_stream(1, seq, 0)))).collect();
    world.record(facts).await;
    let text = world.text(RANGE).await;
    assert!(!text.contains("EXT-X-MAP") && !text.contains("m4s"), "{text}");
    let uri = text.lines().find(|line| line.starts_with('/')).expect("a segment").to_owned();
    assert!(uri.ends_with("/source/00000000.ts"), "{uri}");
    world.store(ResponseTemplate::new(200).set_body_bytes(bytes_of(1, 0))).await;
    let segment = world.get(&uri).await;
    assert_eq!(segment.headers()["content-type"], "video/mp2t");
    assert_eq!(segment.bytes().await.expect("bytes"), bytes_of(1, 0));
    world.store(ResponseTemplate::new(200).set_body_bytes(b"altered")).await;
    assert_eq!(world.refusal(&uri).await, (502, "ContentMismatch".into()));
    assert_eq!(world.refusal(&uri.replace("00000000.ts", "init.mp4")).await.0, 404, "there is no init section");
    let master = world.text(&RANGE.replace("replay.m3u8", "replay-master.m3u8")).await;
    assert!(master.contains("CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=25.000"), "{master}");
}

#[tokio::test]
async fn the_init_section_of_a_playlist_is_served() {
    let world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    world.store(ResponseTemplate::new(200).set_body_bytes(b"init 1")).await;
    let text = world.text(RANGE).await;
    let uri = text.split("#EXT-X-MAP:URI=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a map").to_owned();
    let folder = format!("/media/{}/{}/source", stream(), session(1));
    // As live names those of a single segment, for a player that lags.
    for uri in [uri, format!("{folder}/init"), format!("{folder}/init-00000001.mp4")] {
        assert_eq!(world.get(&uri).await.bytes().await.expect("bytes"), b"init 1"[..]);
    }
    let unknown = world.get(&format!("{folder}/init-00000007.mp4")).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn altered_missing_and_unreachable_footage_is_shown_as_such() {
    let world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    world.store(ResponseTemplate::new(200).set_body_bytes(b"altered")).await;
    assert_eq!(world.refusal(&media_path(1, 1)).await, (502, "ContentMismatch".into()));
    assert_eq!(world.storage.received_requests().await.expect("recorded").len(), 3, "several agents are tried");
    world.store(ResponseTemplate::new(404)).await;
    assert_eq!(world.refusal(&media_path(1, 1)).await, (502, "ContentMissing".into()));
    world.store(ResponseTemplate::new(401)).await;
    assert_eq!(world.refusal(&media_path(1, 1)).await, (502, "StorageUnauthorized".into()));
    world.store(ResponseTemplate::new(503)).await;
    assert_eq!(world.refusal(&media_path(1, 1)).await, (503, "StorageUnreachable".into()));
}

#[tokio::test]
async fn another_storage_agent_helps_out() {
    let world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(404)).up_to_n_times(1).mount(&world.storage).await;
    let bytes = ResponseTemplate::new(200).set_body_bytes(bytes_of(1, 1));
    Mock::given(any()).respond_with(bytes).mount(&world.storage).await;
    assert_eq!(world.get(&media_path(1, 1)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn unknown_and_lost_segments_are_told_apart() {
    let world = world().await;
    world
        .record([segments(1, 0..1, 0), vec![lost(1, Some(1), 4, GapReason::SpoolFull)], segments(1, 2..3, 0)].concat())
        .await;
    assert_eq!(world.refusal(&media_path(1, 1)).await, (410, "Lost".into()));
    assert_eq!(world.refusal(&media_path(1, 9)).await, (404, "UnknownMedia".into()));
    assert_eq!(world.refusal("/media/a/b/c/1").await, (404, "UnknownMedia".into()));
    assert_eq!(world.text(RANGE).await.matches("#EXT-X-GAP").count(), 1);
}

#[tokio::test]
async fn a_cid_is_no_permission() {
    let world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    let other = crate::domain::id::StreamId::of("another", "camera");
    let path = format!("/media/{other}/{}/source/00000001.m4s", session(1));
    assert_eq!(world.refusal(&path).await.0, 404, "the session belongs to another stream");
    let cid = segment(1, 1, 0).blob.cid;
    assert_eq!(world.refusal(&format!("/ipfs/{cid}")).await.0, 404);
}

#[tokio::test]
async fn coverage_joins_what_is_continuous_and_names_the_gaps() {
    let world = world().await;
    world
        .record([segments(1, 0..5, 0), vec![lost(2, None, 20, GapReason::CaptureDied)], segments(2, 0..5, 30)].concat())
        .await;
    let range = "from=2026-01-02T00:00:00Z&to=2026-01-03T00:00:00Z";
    let coverage = world.json(&format!("/api/cameras/demo/camera/coverage?{range}")).await;
    assert_eq!(
        coverage["spans"],
        serde_json::json!([
            {"start": "2026-01-02T03:00:00Z", "end": "2026-01-02T03:00:20Z"},
            {"start": "2026-01-02T03:00:30Z", "end": "2026-01-02T03:00:50Z"},
        ])
    );
    assert_eq!(coverage["gaps"][0]["reason"], "CaptureDied");
    // An outage that still goes on has no row yet.
    world.report(Phase::Paused, None);
    let open = world.json(&format!("/api/cameras/demo/camera/coverage?{range}")).await;
    assert_eq!(
        (&open["gaps"][1]["reason"], &open["gaps"][1]["from"]),
        (&"Paused".into(), &"2026-01-02T03:00:50Z".into())
    );
}

#[tokio::test]
async fn the_ledger_is_shown_with_its_verdict() {
    let world = world().await;
    for (second, phase) in [(1, Phase::Running), (2, Phase::Paused)] {
        let report = InstanceReport { phase, session: Some(session(1)), ..InstanceReport::default() };
        world.record(vec![Fact::State { instance: instance(), at: at(second), report: Box::new(report) }]).await;
    }
    let ledger = world.json("/api/ledger").await;
    assert_eq!((&ledger["verified"], &ledger["count"]), (&true.into(), &2.into()));
    assert_eq!(ledger["entries"][0]["event"], "start");
    assert_eq!(ledger["entries"][1]["instance"], instance().to_string());
}

#[tokio::test]
async fn a_deleted_camera_is_listed_as_long_as_it_has_footage() {
    let world = world().await;
    world.record(segments(1, 0..3, 0)).await;
    let mut gone = camera_config();
    gone.deleted = true;
    let ended = StreamConfig { deleted: true, ..stream_config() };
    world.record(vec![Fact::Camera(2, gone), Fact::Stream(2, Box::new(ended))]).await;
    let listed = world.json("/api/cameras").await;
    assert_eq!((&listed[0]["deleted"], &listed[0]["state"]), (&true.into(), &"Unknown".into()));
    assert_eq!(world.text(RANGE).await.matches("#EXTINF").count(), 3);
    let delete = StreamConfig { deleted: true, delete_with_pipeline: true, ..stream_config() };
    world.record(vec![Fact::Stream(3, Box::new(delete))]).await;
    assert_eq!(world.json("/api/cameras").await, serde_json::json!([]));
}

/// The same segments as 480p.
fn rungs(seqs: std::ops::Range<u64>, from: i64) -> Vec<Fact> {
    let small = |fact| match fact {
        Fact::Segment(mut segment) => {
            segment.key.rendition = "480p".into();
            (segment.width, segment.height) = (854, 480);
            Some(Fact::Segment(segment))
        }
        _ => None,
    };
    segments(1, seqs, from).into_iter().filter_map(small).collect()
}

/// Trap: its playlist of the last two hours would begin with segments that may still come, so there is none yet.
#[tokio::test]
async fn a_rendition_that_has_just_begun_is_not_listed_for_going_back() {
    let world = world().await;
    let from = jiff::Timestamp::now().duration_since(at(0)).as_secs() - 60;
    world.record([segments(1, 0..12, from), rungs(6..12, from)].concat()).await;
    let listed = async || world.text("/hls/demo/camera/dvr-master.m3u8").await.matches("480p").count();
    assert_eq!(world.refusal("/hls/demo/camera/dvr.m3u8?rendition=480p").await, (404, "NoRendition".into()));
    assert_eq!(listed().await, 0);
    world.record(rungs(0..6, from)).await;
    assert_eq!(world.text("/hls/demo/camera/dvr.m3u8?rendition=480p").await.matches("#EXTINF").count(), 12);
    assert_eq!(listed().await, 1);
}

#[tokio::test]
async fn a_recorded_rendition_is_listed_in_the_master_and_says_what_it_lacks() {
    let world = world().await;
    world.record([segments(1, 0..5, 0), rungs(1..4, 0)].concat()).await;
    let master = world.text(&RANGE.replace("replay.m3u8", "master.m3u8")).await;
    assert_eq!(master.matches("#EXT-X-STREAM-INF").count(), 2, "{master}");
    assert!(master.contains("&rendition=480p") && master.contains("RESOLUTION=854x480,FRAME-RATE=25.000"), "{master}");
    let text = world.text(&format!("{RANGE}&rendition=480p")).await;
    assert_eq!((text.matches("#EXTINF").count(), text.matches("#EXT-X-GAP").count()), (5, 2), "{text}");
    assert_eq!(world.refusal(&format!("{RANGE}&rendition=240p")).await, (404, "NoRendition".into()));
    // The rendition ended at 03:00:16, all of it at 03:00:20.
    let master = |from| format!("/hls/demo/camera/master.m3u8?start=2026-01-02T{from}Z&end=2026-01-02T04:00:00Z");
    let after = world.text(&master("03:00:16")).await;
    assert_eq!(after.matches("#EXT-X-STREAM-INF").count(), 1, "{after}");
    assert_eq!(world.text(&master("03:00:15")).await.matches("#EXT-X-STREAM-INF").count(), 2);
    assert_eq!(world.refusal(&master("03:00:20")).await, (404, "NoFootage".into()));
}
