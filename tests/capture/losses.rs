//! What is lost is told with its reason: through runner, agent and broker (row B4).

use dsn::domain::{
    control::Phase,
    segment::{Gap, GapReason},
};
use jiff::Timestamp;

use crate::{
    agent_container::{Agent, START, mount_config, with_agent},
    broker::{Cable, RabbitMq},
    camera::{Camera, Clip, free_port},
    capture_pod::CapturePod,
    operator::Operator,
    storage,
};

/// From the return of a camera to its first footage, seconds (row B4).
const RETURN: f64 = 5.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b4_each_loss_is_announced_with_its_reason_and_a_camera_that_is_back_is_recorded_within_5_s() {
    let rabbit = RabbitMq::start();
    let mut camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, _uploads) = storage::serve(storage_port).await;
    let mut pod = with_agent(CapturePod::alone(&camera.url()), storage_port);
    std::fs::write(pod.path("agent/amqp-url"), rabbit.url()).expect("writes");
    let mut operator = Operator::start(&rabbit, &pod).await;
    pod.start_runner();
    let _agent = Agent::start(&pod);
    operator.until(&pod, "two segments", |heard| heard.segments.len() >= 2).await;

    // kill -9 of the runner costs the segment that was not sealed, and a reconnect of 5 s + one GOP of 1 s.
    let killed = Timestamp::now();
    pod.kill_runner();
    pod.start_runner();
    let gap = next_gap(&mut operator, &pod, 1).await;
    assert_eq!(gap.reason, GapReason::InstanceLost, "{gap:?}");
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
    assert!(seconds(gap.from, killed) < 2.5, "{gap:?}, killed at {killed}");
    assert!(seconds(killed, gap.to) < 6.0, "{gap:?}, killed at {killed}");

    // A camera that is gone refuses connections.
    camera.switch_off();
    pod.await_report("it refuses", START, |report| {
        report.phase == Phase::Failing
            && report.problem.as_ref().is_some_and(|problem| problem.message.contains("refuses connections"))
    });
    camera = camera.restart(Clip::H264WithSound);
    let back = Timestamp::now();
    let gap = next_gap(&mut operator, &pod, 2).await;
    assert_eq!(gap.reason, GapReason::CameraUnreachable, "{gap:?}");
    assert!(seconds(back, gap.to) < RETURN, "{gap:?}, back at {back}\n{}", pod.context());

    // One that sends garbage does so in mid-stream, and to whoever connects again, until somebody pulls its plug.
    let cable = Cable::to(camera.port());
    mount_config(&mut pod, |assignment| assignment.source.url = camera.url_at(cable.port()));
    let gap = next_gap(&mut operator, &pod, 3).await;
    assert_eq!(gap.reason, GapReason::Reconfigured, "{gap:?}");
    cable.garble();
    let starts = pod.report().starts;
    // ffmpeg waits for the end of an answer that it does not understand.
    pod.await_report("garbage for an answer", START, |report| {
        report.starts > starts && report.problem.as_ref().is_some_and(|problem| problem.reason == "CameraHung")
    });
    cable.pull();
    cable.plug();
    let back = Timestamp::now();
    let gap = next_gap(&mut operator, &pod, 4).await;
    assert!(seconds(back, gap.to) < RETURN, "{gap:?}, back at {back}\n{}", pod.context());
    assert_eq!(gap.reason, GapReason::CameraHung, "{gap:?}");
    operator.assert_one_story(&pod);
}

/// The break before the newest session, the `count`th there is.
async fn next_gap(operator: &mut Operator, pod: &CapturePod, count: usize) -> Gap {
    operator.until(pod, "the gap", |heard| heard.gaps.len() >= count).await;
    let gap = operator.heard.gaps.last().cloned().expect("a gap");
    assert_eq!((operator.heard.gaps.len(), gap.seq), (count, None), "{:?}", operator.heard.gaps);
    operator.until(pod, "footage after it", |heard| heard.segments.keys().any(|(of, _)| *of == gap.session)).await;
    gap
}
