//! Things that die while recording (rows V8, V9, B4): breaks are marked, losses are small and recorded, nothing doubles.
//! And what the faults before have left: nothing to do.

use std::{
    collections::BTreeSet,
    sync::OnceLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use m3u8_rs::MediaSegment;
use rustix::process::{Signal, kill_process};

use crate::{
    footage::{key, try_playlist, try_replay},
    frames::play,
    kube::{apply, eventually, kubectl, text, wait_condition},
    t3_stored::every_byte_is_read_and_pinned,
    t4_gitops::wait_for_rest,
    t4_steered::gap_reasons,
    t5_faults::{CAMERAS, RENDITIONS, every_frame_plays, processes, recording_cameras, signal},
    t5_hands::announced_to_a_deleted_queue,
    world::{
        BROKER, CLIP_25_FPS, GATEWAY, SYSTEM, USER, admin, camera, capture_pod, gateway, incarnation, pipeline, remove,
        replay_path, world,
    },
};

const MINUTE: Duration = Duration::from_secs(60);
/// Two cameras, of which one loses a process at a time and the other all at once.
const DYING: [&str; 2] = ["killed", "felled"];

/// Since when both record.
fn dying_cameras() -> Timestamp {
    static SINCE: OnceLock<Timestamp> = OnceLock::new();
    *SINCE.get_or_init(|| {
        world();
        for name in DYING {
            apply(&camera(name, &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
        }
        apply(&pipeline("killed", "[killed, felled]", ""));
        let since = Timestamp::now();
        for name in DYING {
            wait_condition(("camera", USER, name), "Capturing", "True", "", 2 * MINUTE);
        }
        since
    })
}

fn segments(camera: &str, since: Timestamp) -> Result<Vec<MediaSegment>, String> {
    try_replay(camera, since, Timestamp::now()).map(|list| list.segments)
}

/// Waits for three more than these; how many there are then.
fn more(camera: &str, since: Timestamp, than: usize) -> usize {
    eventually("more segments", 2 * MINUTE, || match segments(camera, since)?.len() {
        n if n >= than + 3 => Ok(n),
        n => Err(format!("{n} segments")),
    })
}

/// Frames that are missing at each break of a camera's replay.
fn losses(camera: &str, from: Timestamp, to: Timestamp) -> Vec<i32> {
    let seen = play(&gateway(&replay_path(camera, from, to)), &admin(), None);
    let clip = i32::from(CLIP_25_FPS);
    let missing = |pair: &[u16]| (i32::from(pair[1]) - i32::from(pair[0]) - 1).rem_euclid(clip);
    seen.frames.windows(2).map(missing).filter(|missing| *missing > 0).collect()
}

/// Kills with SIGKILL the process of a pod whose command line begins with `command`, from the host: pid 1 of a container
/// cannot be killed from inside.
fn kill_in_pod(pod_uid: &str, command: &[&str]) {
    let found = processes(|words, groups| {
        groups.contains(pod_uid)
            && words.len() >= command.len()
            && words[0].ends_with(command[0])
            && words[1..command.len()] == command[1..]
    });
    assert_eq!(found.len(), 1, "{command:?} runs once in pod {pod_uid}");
    signal(&found, Signal::KILL);
}

/// V9: what went with a queue of the recorder that somebody deleted is announced again, without anybody's help.
#[test]
fn b3_what_went_with_a_deleted_queue_is_announced_again() {
    let (from, to) = announced_to_a_deleted_queue();
    let begun = Instant::now();
    every_frame_plays(from, to, 8 * MINUTE);
    let after = Timestamp::now().duration_since(to).as_secs();
    eprintln!("complete {after} s after it was lost, of which {:?} were waited for", begun.elapsed());
}

/// B4: all processes of a pod are killed at once, its sandbox with them: Kubernetes begins it anew in its place, and what is
/// lost is that time.
#[test]
fn b4_a_pod_of_which_nothing_is_left_goes_on_in_its_place() {
    let begun = dying_cameras();
    let (uid, restarts) = incarnation(&capture_pod("felled").expect("one pod"));
    let first = more("felled", begun, 0);
    for process in processes(|_, groups| groups.contains(&uid)) {
        // Some go with the one before.
        let _ = kill_process(process, Signal::KILL);
    }
    let felled = Instant::now();
    eventually("another session", 2 * MINUTE, || {
        let sessions: BTreeSet<_> = segments("felled", begun)?.iter().map(|segment| key(segment).2).collect();
        if sessions.len() == 2 { Ok(()) } else { Err(format!("{sessions:?}")) }
    });
    eprintln!("a segment again after {:?}", felled.elapsed());
    more("felled", begun, first);
    let (after, restarted) = incarnation(&capture_pod("felled").expect("one pod"));
    assert_eq!(after, uid, "another pod");
    assert!(restarted.iter().zip(&restarts).all(|(now, before)| now > before), "{restarted:?} after {restarts:?}");
    let lost = losses("felled", begun, Timestamp::now());
    eprintln!("frames lost: {lost:?}");
    // The segment not yet sealed, a new sandbox, the camera's first picture.
    assert!(lost.len() == 1 && lost[0] <= 20 * 25, "{lost:?}");
    assert!(gap_reasons("felled", begun).contains(&"InstanceLost".to_owned()), "{:?}", gap_reasons("felled", begun));
}

/// K3, V9: after all that, everything that was recorded is read and lies on two nodes, and nobody has anything left to do.
#[test]
fn k3_v9_after_the_faults_all_footage_is_pinned_and_the_operator_rests() {
    let from = recording_cameras();
    let to = Timestamp::now() - MINUTE;
    wait_condition(("pipeline", USER, "faults"), "Stored", "True", "", 4 * MINUTE);
    let lists = CAMERAS.map(|(name, ..)| {
        RENDITIONS.map(|rendition| {
            try_playlist(&format!("{}&rendition={rendition}", replay_path(name, from, to))).expect("plays")
        })
    });
    let segments: Vec<_> = lists.into_iter().flatten().flat_map(|list| list.segments).collect();
    eprintln!("{} segments", segments.len());
    let lacking: Vec<_> = segments.iter().filter(|segment| !segment.unknown_tags.is_empty()).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    every_byte_is_read_and_pinned(segments.into_iter().map(|segment| segment.uri));
    wait_for_rest();
}

/// V8, B4: kill -9 of ffmpeg, of the agent and of the runner while recording: a discontinuity at each break, a loss within
/// bounds and recorded with a reason, nothing overwritten or stored twice.
#[test]
fn v8_b4_killing_ffmpeg_the_agent_and_the_runner_costs_one_segment_at_most() {
    let begun = dying_cameras();
    let uid = text(&capture_pod("killed").expect("one pod"), "/metadata/uid");
    let mut count = more("killed", begun, 0);
    for command in [["ffmpeg"].as_slice(), &["dsn", "agent"], &["dsn", "runner"]] {
        kill_in_pod(&uid, command);
        count = more("killed", begun, count);
    }

    let end = Timestamp::now();
    let list = try_replay("killed", begun, end).expect("plays");
    let keys: Vec<_> = list.segments.iter().map(key).collect();
    assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "a segment is listed twice");
    let sessions: BTreeSet<_> = keys.iter().map(|k| k.2.clone()).collect();
    // The agent's death leaves ffmpeg alone: three sessions, two breaks.
    assert_eq!(sessions.len(), 3, "{sessions:?}");
    assert_eq!(list.segments.iter().filter(|s| s.discontinuity).count(), 2);
    let reasons = gap_reasons("killed", begun);
    assert!(
        ["CaptureDied", "InstanceLost"].iter().all(|reason| reasons.contains(&(*reason).to_owned())),
        "{reasons:?}"
    );

    let lost = losses("killed", begun, end);
    eprintln!("frames lost: {lost:?}");
    // B4: the segment not yet sealed (4 s) + reconnect (5 s) + one GOP (2 s), at 25 frames per second.
    assert!(lost.len() == 2 && lost.iter().all(|lost| *lost <= 11 * 25), "{lost:?}");
    remove("pipeline", "killed");
    DYING.iter().for_each(|name| remove("camera", name));
}

/// V9: a pod deleted while broker and operator are off comes back and records; all is announced afterwards.
#[test]
fn v9_a_pod_deleted_while_broker_and_operator_are_off_comes_back_and_records() {
    world();
    apply(&camera("alone", &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
    apply(&pipeline("alone", "[alone]", ""));
    wait_condition(("camera", USER, "alone"), "Capturing", "True", "", 2 * MINUTE);
    kubectl(&["-n", SYSTEM, "scale", "deployment/dsn-operator", "--replicas=0"]);
    kubectl(&["-n", SYSTEM, "scale", "statefulset/dsn-rabbitmq", "--replicas=0"]);
    kubectl(&["-n", SYSTEM, "wait", "--for=delete", "pod/dsn-rabbitmq-0", "--timeout=120s"]);
    let old = text(&capture_pod("alone").expect("one pod"), "/metadata/name");
    let deleted = Timestamp::now();
    kubectl(&["-n", USER, "delete", "pod", &old, "--wait=true", "--timeout=120s"]);
    eventually("a new pod that runs", 2 * MINUTE, || {
        let pod = capture_pod("alone")?;
        if text(&pod, "/status/phase") == "Running" { Ok(()) } else { Err(text(&pod, "/status/phase")) }
    });
    // Live needs neither broker nor operator.
    eventually("live of the new pod", 2 * MINUTE, || {
        let (status, body) = crate::world::http_get(&format!("/hls/{USER}/alone/live.m3u8"));
        let list = String::from_utf8_lossy(&body).into_owned();
        if status == 200 && list.contains("#EXTINF") { Ok(()) } else { Err(format!("{status}: {list}")) }
    });
    let recorded = Timestamp::now();

    kubectl(&["-n", SYSTEM, "scale", "statefulset/dsn-rabbitmq", "--replicas=1"]);
    kubectl(&["-n", SYSTEM, "scale", "deployment/dsn-operator", "--replicas=2"]);
    BROKER.close();
    GATEWAY.close();
    kubectl(&["-n", SYSTEM, "rollout", "status", "statefulset/dsn-rabbitmq", "--timeout=180s"]);
    kubectl(&["-n", SYSTEM, "rollout", "status", "deployment/dsn-operator", "--timeout=120s"]);
    eventually("what was recorded without a broker in the replay", 3 * MINUTE, || {
        let seconds: f32 = try_replay("alone", deleted, recorded)?.segments.iter().map(|s| s.duration).sum();
        let missing = recorded.duration_since(deleted).as_secs_f32() - seconds;
        // A new pod and its first picture. The old agent tries for a minute to tell the broker what it has; nobody waits.
        if missing < 40.0 { Ok(()) } else { Err(format!("{missing} s are missing")) }
    });
    wait_condition(("pipeline", USER, "main"), "ControlPlane", "True", "", 2 * MINUTE);
    remove("pipeline", "alone");
    remove("camera", "alone");
}
