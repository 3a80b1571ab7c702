//! Things that die while recording (rows V8, V9, B4): breaks are marked, losses are small and recorded, nothing doubles.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jiff::Timestamp;

use crate::{
    footage::{key, try_replay},
    frames::{breaks, play},
    kube::{apply, eventually, kubectl, text, wait_condition},
    t4_steered::gap_reasons,
    world::{
        BROKER, CLIP_25_FPS, GATEWAY, SYSTEM, USER, admin, camera, capture_pod, gateway, pipeline, remove, replay_path,
        world,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// Kills with SIGKILL the process of a pod whose command line begins with `command`, from the host: pid 1 of a container
/// cannot be killed from inside.
fn kill_in_pod(pod_uid: &str, command: &[&str]) {
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").expect("a Linux host").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let read = |file: &str| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(file));
        let (Ok(groups), Ok(line)) = (read("cgroup"), read("cmdline")) else { continue };
        let words: Vec<&str> = line.split('\0').collect();
        let named =
            words.len() >= command.len() && words[0].ends_with(command[0]) && words[1..command.len()] == command[1..];
        if groups.contains(pod_uid) && named {
            let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("we are root");
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "{command:?} runs once in pod {pod_uid}");
}

/// V8, B4: kill -9 of ffmpeg and of the agent while recording: a discontinuity at the break, a loss within bounds and
/// recorded with a reason, nothing overwritten or stored twice.
#[test]
fn v8_b4_killing_ffmpeg_and_the_agent_costs_one_segment_at_most() {
    world();
    let begun = Timestamp::now();
    apply(&camera("killed", &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
    apply(&pipeline("killed", "[killed]", ""));
    wait_condition(("camera", USER, "killed"), "Capturing", "True", "", 2 * MINUTE);
    let uid = text(&capture_pod("killed").expect("one pod"), "/metadata/uid");
    let segments = || try_replay("killed", begun, Timestamp::now()).map(|list| list.segments);
    let more = |than: usize| {
        eventually("more segments", 2 * MINUTE, || match segments()?.len() {
            n if n >= than + 3 => Ok(n),
            n => Err(format!("{n} segments")),
        })
    };
    let first = more(0);
    kill_in_pod(&uid, &["ffmpeg"]);
    let second = more(first);
    kill_in_pod(&uid, &["dsn", "agent"]);
    more(second);

    let end = Timestamp::now();
    let list = try_replay("killed", begun, end).expect("plays");
    let keys: Vec<_> = list.segments.iter().map(key).collect();
    assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "a segment is listed twice");
    let sessions: BTreeSet<_> = keys.iter().map(|k| k.2.clone()).collect();
    // The agent's death leaves ffmpeg alone: two sessions, one break.
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    assert_eq!(list.segments.iter().filter(|s| s.discontinuity).count(), 1);
    assert!(gap_reasons("killed", begun).contains(&"CaptureDied".to_owned()));

    let seen = play(&gateway(&replay_path("killed", begun, end)), &admin(), None);
    let jumps = breaks(&seen.frames, CLIP_25_FPS);
    assert_eq!(jumps.len(), 1, "{jumps:?}");
    let lost = seen
        .frames
        .windows(2)
        .map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).rem_euclid(i32::from(CLIP_25_FPS)) - 1)
        .max()
        .expect("frames");
    // B4: the segment not yet sealed (4 s) + reconnect (5 s) + one GOP (2 s), at 25 frames per second.
    assert!(lost <= 11 * 25, "{lost} frames are lost");
    remove("pipeline", "killed");
    remove("camera", "killed");
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
