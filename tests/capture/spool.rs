//! A spool that is full: by footage that nobody takes, and by somebody else (row V9).

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Write},
    time::Duration,
};

use dsn::domain::{
    control::{Activity, Command as Op, Phase, Stored},
    segment::{GapReason, SegmentKey},
};

use crate::{
    agent_container::{Agent, START, eventually_async, log, mount_config, pod_of, with_agent},
    broker::{Cable, RabbitMq},
    camera::{Camera, Clip, free_port},
    capture_pod::CapturePod,
    operator::Operator,
    storage,
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v9_a_full_spool_drops_the_oldest_footage_and_says_which_and_all_other_is_stored() {
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let mut pod = pod_of(&camera, storage_port);
    let cable = Cable::to(rabbit.port());
    cable.pull();
    fs::write(pod.path("agent/amqp-url"), format!("amqp://guest:guest@127.0.0.1:{}/%2f", cable.port()))
        .expect("writes");
    mount_config(&mut pod, |assignment| assignment.spool_bytes = 250_000);
    let mut operator = Operator::start(&rabbit, &pod).await;
    pod.start_runner();
    let agent = Agent::start(&pod);
    eventually_async(
        "something is dropped",
        || log(&pod),
        async || agent.metric("dsn_agent_gaps_total{reason=\"SpoolFull\"}").await >= 3.0,
    )
    .await;
    let bytes = agent.metric("dsn_agent_spool_bytes").await;
    assert!(bytes < 500_000.0, "{bytes} bytes");
    let window = agent.await_live(&pod, "live goes on", |window| window.segments.len() >= 2).await;
    assert!(window.segments[0].key.seq >= 3, "the oldest went first");
    assert_eq!(pod.report().phase, Phase::Running, "capture does not care");

    // Broker and storage come back; then the camera is paused, so that there is a last segment.
    let (_server, uploads) = storage::serve(storage_port).await;
    cable.plug();
    operator.until(&pod, "three segments", |heard| heard.segments.len() >= 3).await;
    mount_config(&mut pod, |assignment| assignment.activity = Activity::Paused);
    pod.await_phase(Phase::Paused, START);
    let [session] = pod.sessions()[..] else { panic!("one session: {:?}", pod.sessions()) };
    let last = *pod.segments(session).keys().next_back().expect("the newest is never dropped");
    operator.until(&pod, "the last segment", |heard| heard.segments.contains_key(&(session, last))).await;
    let told = operator.heard.segments.len() + operator.heard.gaps.len();
    assert_eq!(u64::try_from(told).expect("few"), last + 1, "{:?}\n{}", operator.heard.gaps, log(&pod));
    let dropped: BTreeSet<u64> = operator.heard.gaps.iter().filter_map(|gap| gap.seq).collect();
    for seq in 0..=last {
        assert_ne!(dropped.contains(&seq), operator.heard.segments.contains_key(&(session, seq)), "{seq}");
    }
    for gap in &operator.heard.gaps {
        assert_eq!((gap.session, gap.reason, &gap.rendition), (session, GapReason::SpoolFull, &None), "{gap:?}");
        let next = operator.heard.segments.get(&(session, gap.seq.expect("a number") + 1));
        assert!(gap.from < gap.to && next.is_none_or(|next| next.start == gap.to), "{gap:?}");
    }
    let stored = uploads.counts();
    for segment in operator.heard.segments.values() {
        assert_eq!(stored.get(&segment.file).map(|(cid, _)| cid), Some(&segment.blob.cid), "{segment:?}");
    }
    let key = operator.heard.segments.values().next_back().expect("segments").key.clone();
    operator.tell(Op::Stored, 0, &Stored { upto: vec![SegmentKey { seq: last, ..key }], exactly: vec![] }).await;
    operator
        .until(&pod, "nothing is left to store", |heard| {
            let backlog = heard.report.as_ref().map(|report| report.backlog.clone());
            backlog.is_some_and(|backlog| (backlog.unannounced, backlog.unstored) == (0, 0))
        })
        .await;
}

/// ffmpeg says nothing of a disk that is full and goes on writing empty files: a camera was reported as Running while
/// nothing of it was recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v9_a_disk_that_others_have_filled_is_named_and_recording_goes_on_when_there_is_room_again() {
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, _uploads) = storage::serve(storage_port).await;
    let mut pod = CapturePod::alone(&camera.url());
    pod.with_disk(20 << 20);
    let mut pod = with_agent(pod, storage_port);
    fs::write(pod.path("agent/amqp-url"), rabbit.url()).expect("writes");
    let mut operator = Operator::start(&rabbit, &pod).await;
    pod.start_runner();
    let _agent = Agent::start(&pod);
    operator.until(&pod, "two segments", |heard| heard.segments.len() >= 2).await;
    let first = pod.await_phase(Phase::Running, START).session.expect("a session");

    fill(&pod);
    let problem = |report: &dsn::domain::control::InstanceReport| report.problem.clone().map(|problem| problem.reason);
    operator
        .until(&pod, "that it is full", |heard| {
            let report = heard.report.as_ref().filter(|report| report.phase == Phase::Failing);
            report.and_then(problem).as_deref() == Some("SpoolFull")
        })
        .await;
    let gone = || pod.ffmpeg().is_none().then_some(());
    eventually("ffmpeg stands still", Duration::from_secs(7), || pod.context(), gone);

    fs::remove_file(pod.path("spool").join(FILLER)).expect("removed");
    pod.await_phase(Phase::Running, Duration::from_secs(5));
    operator.until(&pod, "footage again", |heard| heard.segments.keys().any(|(session, _)| *session > first)).await;
    operator.until(&pod, "running", |heard| heard.report.as_ref().is_some_and(|r| r.phase == Phase::Running)).await;
    operator.until(&pod, "the gap", |heard| !heard.gaps.is_empty()).await;
    let [gap] = &operator.heard.gaps[..] else { panic!("{:?}", operator.heard.gaps) };
    assert_eq!((gap.seq, gap.reason), (None, GapReason::SpoolFull), "{gap:?}");
    operator.assert_one_story(&pod);
}

const FILLER: &str = "somebody-elses";

/// Takes every byte that is left.
fn fill(pod: &CapturePod) {
    let mut file = fs::File::create(pod.path("spool").join(FILLER)).expect("a file");
    let zeros = vec![0; 64 << 10];
    let mut chunk = zeros.len();
    while chunk > 0 {
        match file.write(&zeros[..chunk]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => chunk /= 2,
            Err(error) => panic!("{error}"),
        }
    }
}
