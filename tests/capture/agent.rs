//! The agent beside a real runner: uploads, announcements, live, and what becomes of them when its neighbours are away
//! (rows V2, V9, B4, B5, C3).

use std::{collections::BTreeSet, fs, time::Duration};

use dsn::domain::{
    cid,
    control::{Activity, Command as Op, Phase, Readd, Stored, Wanted},
    segment::{GapReason, SegmentKey},
};
use jiff::Timestamp;
use rustix::process::Signal;

use crate::{
    agent_container::{Agent, LIVE_TOKEN, START, eventually_async, log, mount_config, pod_of},
    broker::{Cable, RabbitMq},
    camera::{Camera, Clip, free_port},
    capture_pod::signal,
    operator::Operator,
    storage::{self, UPLOAD_TOKEN},
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b5_without_broker_and_storage_live_goes_on_and_a_killed_agent_loses_nothing() {
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let mut pod = pod_of(&camera, storage_port);
    pod.start_runner();
    let agent = Agent::start(&pod);
    let window = agent.await_live(&pod, "two live segments", |window| window.segments.len() >= 2).await;
    let first = &window.segments[0];
    assert_eq!((first.key.seq, first.codecs.as_str(), first.width), (0, first.codecs.as_str(), 320));
    assert!(first.codecs.starts_with("avc1.") && first.codecs.ends_with(",mp4a.40.2"), "{}", first.codecs);
    assert_eq!(first.end, window.segments[1].start, "no gap within a session");
    assert_eq!(first.playlist_seq + 1, window.segments[1].playlist_seq);
    let late = Timestamp::now().duration_since(first.end).as_secs_f64();
    assert!((-1.0..30.0).contains(&late), "{late} s late");

    // The bytes, and only with the token.
    let base = format!("http://127.0.0.1:{}/v1/live", agent.live_port);
    let file = format!("{base}/{}/source/{}", first.key.session, first.file);
    let http = reqwest::Client::new();
    let bytes = http.get(&file).bearer_auth(LIVE_TOKEN).send().await.expect("answers").bytes().await.expect("bytes");
    assert_eq!((bytes.len() as u64, dsn_sha256(&bytes)), (first.bytes, first.sha256.clone()));
    for (url, token, want) in [
        (base.clone(), "", 401),
        (file.clone(), "wrong", 401),
        (format!("{base}/{}/source/init.mp4", first.key.session), LIVE_TOKEN, 200),
        (format!("{base}/{}/source/session.json", first.key.session), LIVE_TOKEN, 404),
        (format!("{base}/{}/source/..%2Fsession.json", first.key.session), LIVE_TOKEN, 404),
        (format!("{base}/..%2f..%2f/source/00000000.m4s"), LIVE_TOKEN, 404),
    ] {
        let status = http.get(&url).bearer_auth(token).send().await.expect("answers").status();
        assert_eq!(status.as_u16(), want, "{url}");
    }

    // Killed at any line: the next one tells the same story and goes on where it was.
    agent.kill();
    let agent = Agent::start(&pod);
    let again = agent.await_live(&pod, "live goes on", |again| again.segments.len() > window.segments.len()).await;
    assert_eq!(
        again.segments[..window.segments.len()],
        window.segments[..],
        "published numbers and times never change"
    );

    // Storage comes back: everything is caught up, each init section first, with the CIDs we computed.
    let (_server, uploads) = storage::serve(storage_port).await;
    let session = again.segments[0].key.session;
    let last = again.segments.last().expect("segments").key.seq;
    eventually_async(
        "all is uploaded",
        || log(&pod),
        async || {
            let paths: BTreeSet<String> = uploads.paths().into_iter().collect();
            (0..=last).all(|seq| paths.contains(&format!("{session}/source/{seq:08}.m4s")))
        },
    )
    .await;
    assert_eq!(uploads.paths()[0], format!("{session}/source/init.mp4"));
    for (path, (cid, _)) in uploads.counts() {
        let bytes = fs::read(pod.path("spool").join(&path)).expect("still in the spool: nobody said stored");
        assert_eq!(cid, cid::of(&bytes).to_string(), "{path}");
    }
    assert!(agent.metric("dsn_agent_segments_sealed_total").await > 0.0);
}

/// A pod that was deleted while the broker was away recorded nothing for a minute: its successor had its assignment only
/// when the old agent had given up telling of what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v9_the_next_pod_records_while_the_agent_of_the_one_before_has_still_to_tell() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = pod_of(&camera, free_port());
    pod.start_runner();
    let old = Agent::start(&pod);
    let before = old.await_live(&pod, "a live segment", |window| !window.segments.is_empty()).await;
    old.terminate();
    pod.stop_runner();
    // What follows is the next pod's: its own folder for the assignment, the same spool.
    fs::remove_file(pod.path("assignment/assignment.json")).expect("removed");
    pod.start_runner();
    let new = Agent::start(&pod);
    let session = before.segments[0].key.session;
    let next = eventually(
        "a session of the next pod",
        START,
        || pod.context(),
        || pod.sessions().into_iter().find(|s| *s > session),
    );
    eventually("its footage", START, || pod.context(), || (!pod.segments(next).is_empty()).then_some(()));
    assert!(old.live().await.is_some(), "the old agent was to tell for longer than that: {}", log(&pod));
    assert!(new.live().await.is_none(), "one agent at a time");
}

/// The gap of a camera that hung just after an edit was put down to the edit, however long it lasted: a session without a
/// segment leaves nothing, and took its reason along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b4_a_gap_is_put_down_to_what_hindered_the_camera_and_not_to_the_edit_before() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = pod_of(&camera, free_port());
    pod.start_runner();
    let agent = Agent::start(&pod);
    let first = agent.await_live(&pod, "a live segment", |window| !window.segments.is_empty()).await;
    camera.hang();
    mount_config(&mut pod, |assignment| assignment.segment_seconds = 3);
    let report = pod.await_phase(Phase::Failing, START);
    assert_eq!(report.problem.expect("a problem").reason, "CameraHung", "it answers nothing, and sends no garbage");
    camera.go_on();
    let session = first.segments[0].key.session;
    agent.await_live(&pod, "a session after it", |live| live.segments.iter().any(|s| s.key.session > session)).await;
    let gaps = async |reason: &str| agent.metric(&format!("dsn_agent_gaps_total{{reason=\"{reason}\"}}")).await;
    assert_eq!((gaps("CameraHung").await, gaps("Reconfigured").await), (1.0, 0.0), "{}", log(&pod));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_segments_are_announced_once_stored_trimmed_and_steered_by_message() {
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, uploads) = storage::serve(storage_port).await;
    let mut pod = pod_of(&camera, storage_port);
    let cable = Cable::to(rabbit.port());
    fs::write(pod.path("agent/amqp-url"), format!("amqp://guest:guest@127.0.0.1:{}/%2f", cable.port()))
        .expect("writes");
    let mut operator = Operator::start(&rabbit, &pod).await;
    pod.start_runner();
    let agent = Agent::start(&pod);

    // Hello, ack, state, and segments that are in IPFS.
    operator.until(&pod, "three segments", |heard| heard.segments.len() >= 3).await;
    assert!(
        operator.heard.words.contains("hello") && operator.heard.words.contains("ack"),
        "{:?}",
        operator.heard.words
    );
    let first = operator.heard.segments.values().next().expect("a segment").clone();
    assert_eq!(
        (first.camera.as_str(), first.camera_name.as_str(), first.site.as_str()),
        ("lobby-uid", "test/lobby", "hq")
    );
    let uploaded = uploads.counts();
    for segment in operator.heard.segments.values() {
        assert_eq!(uploaded.get(&segment.file).map(|(cid, _)| cid), Some(&segment.blob.cid), "announced = uploaded");
        let init = segment.init.as_ref().expect("has one");
        assert!(uploaded.values().any(|(cid, _)| *cid == init.cid), "with its init section");
    }
    operator.until(&pod, "running", |heard| heard.report.as_ref().is_some_and(|r| r.phase == Phase::Running)).await;
    let report = operator.heard.report.clone().expect("a report");
    let video = report.video.expect("probed").to_string();
    // A camera on a busy machine may be a frame late.
    assert!(
        ["h264 320x180 10fps gop 1.0s aac", "h264 320x180 10fps gop 1.1s aac"].contains(&video.as_str()),
        "{video}"
    );

    // Ping.
    operator.tell_raw(Op::Ping, 0, &serde_json::json!({}), Some("ping-7")).await;
    operator.until(&pod, "pong", |heard| heard.pong.as_deref() == Some("ping-7")).await;

    // Stored: what lies outside the live window goes, the rest stays.
    operator.until(&pod, "fourteen segments", |heard| heard.segments.len() >= 14).await;
    let upto = SegmentKey { seq: 12, ..first.key.clone() };
    operator.tell(Op::Stored, 0, &Stored { upto: vec![upto.clone(), upto], exactly: vec![] }).await;
    let session = first.key.session;
    eventually("trimmed", START, || log(&pod), || (!pod.segments(session).contains_key(&2)).then_some(()));
    assert!(pod.segments(session).contains_key(&13), "not stored");

    // Asked for again: uploaded and announced once more, under the same numbers.
    let key = SegmentKey { seq: 13, ..first.key.clone() };
    let count = || uploads.counts().get(&format!("{session}/source/00000013.m4s")).map_or(0, |(_, count)| *count);
    let before = count();
    let wanted = Wanted { key, cids: vec![], start: first.start, end: first.end };
    operator.tell(Op::Readd, 0, &Readd { segments: vec![wanted] }).await;
    eventually("uploaded again", START, || log(&pod), || (count() > before).then_some(()));

    // The broker is away: capture and upload go on, everything is told afterwards.
    cable.pull();
    let seen = operator.heard.segments.len();
    let newest = *operator.heard.segments.keys().next_back().expect("segments");
    signal(pod.ffmpeg().expect("ffmpeg runs"), Signal::KILL);
    let second = eventually(
        "a new session",
        START,
        || pod.context(),
        || pod.sessions().last().copied().filter(|s| *s != session),
    );
    eventually("two more segments", START, || pod.context(), || (pod.segments(second).len() >= 2).then_some(()));
    cable.plug();
    operator
        .until(&pod, "the new session", |heard| heard.segments.keys().filter(|(s, _)| *s == second).count() >= 2)
        .await;
    operator.until(&pod, "the gap", |heard| !heard.gaps.is_empty()).await;
    assert!(
        operator.heard.segments.len() > seen && *operator.heard.segments.keys().next_back().expect("some") > newest
    );
    let gap = operator.heard.gaps[0].clone();
    assert_eq!((gap.session, gap.seq, gap.reason), (second, None, GapReason::CaptureDied), "{gap:?}");
    operator.assert_one_story(&pod);

    // By message: pause, an old revision, resume.
    let envelope = pod.envelope(|assignment| assignment.activity = Activity::Paused);
    operator.tell(Op::Stop, envelope.revision, &envelope.data).await;
    pod.await_phase(Phase::Paused, START);
    operator
        .until(&pod, "the state Paused", |heard| heard.report.as_ref().is_some_and(|r| r.phase == Phase::Paused))
        .await;
    let mut old = envelope.data.clone();
    old.activity = Activity::Running;
    operator.tell(Op::Apply, envelope.revision - 1, &old).await;
    let envelope = pod.envelope(|assignment| assignment.activity = Activity::Running);
    operator.tell(Op::Start, envelope.revision, &envelope.data).await;
    let acked = envelope.revision;
    operator.until(&pod, "the ack", |heard| heard.acked == acked).await;
    let report = pod.await_phase(Phase::Running, START);
    assert_eq!(report.revision, acked);
    let third = report.session.expect("a session");
    operator.until(&pod, "the third session", |heard| heard.segments.keys().any(|(s, _)| *s == third)).await;
    operator
        .until(&pod, "the pause as a gap", |heard| heard.gaps.iter().any(|gap| gap.reason == GapReason::Paused))
        .await;

    // The pod ends: the last segment is finished, uploaded and announced.
    agent.terminate();
    let begun = std::time::Instant::now();
    pod.stop_runner();
    let mut agent = agent;
    eventually(
        "the agent has flushed",
        Duration::from_secs(20),
        || log(&pod),
        || agent.process.try_wait().expect("a child"),
    );
    eprintln!("flushed in {:?}", begun.elapsed());
    let last = *pod.segments(third).keys().next_back().expect("segments");
    operator.until(&pod, "the very last segment", |heard| heard.segments.contains_key(&(third, last))).await;
    operator.assert_one_story(&pod);
    let written = fs::read_to_string(pod.path("agent.log")).expect("a log");
    for secret in [LIVE_TOKEN, UPLOAD_TOKEN, crate::camera::PASSWORD, "guest:guest"] {
        assert!(!written.contains(secret), "the log shows {secret}");
    }
}

fn dsn_sha256(bytes: &[u8]) -> String {
    let mut hasher = cid::FileHasher::default();
    hasher.update(bytes);
    hasher.finish().sha256
}
