//! Parts that are off for a minute while two cameras record (rows B3, B4), and hands that meddle: what was captured is
//! played afterwards without a frame missing, and the operator comes to rest where a fresh installation would be.

use std::{
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    footage::try_replay,
    frames::{breaks, play},
    kube::{apply, eventually, get, kubeconfig, kubectl, list, text, try_get, wait_condition},
    t4_gitops::wait_for_rest,
    t4_steered::gap_reasons,
    world::{
        BROKER, CLIP_15_FPS, CLIP_25_FPS, GATEWAY, SYSTEM, USER, admin, camera, capture_pod, gateway, http_get,
        incarnation, pipeline, replay_path, runtime, world,
    },
};

const MINUTE: Duration = Duration::from_secs(60);
/// The two cameras: (name, stream, frames of its clip).
const CAMERAS: [(&str, &str, u16); 2] = [("f1", "h264", CLIP_25_FPS), ("f2", "oddgop", CLIP_15_FPS)];

/// Two cameras that record through everything in this file.
fn recording_cameras() {
    static DECLARED: OnceLock<()> = OnceLock::new();
    DECLARED.get_or_init(|| {
        world();
        for (name, stream, _) in CAMERAS {
            apply(&camera(name, &format!("rtsp://camera.{USER}.svc:8554/{stream}"), "camera-login"));
        }
        apply(&pipeline("faults", "[f1, f2]", ""));
    });
    for (name, ..) in CAMERAS {
        wait_condition(("camera", USER, name), "Capturing", "True", "", 2 * MINUTE);
    }
}

/// Something is off for a while; afterwards the replay of that time shows every frame of both cameras.
fn nothing_is_lost_while(how_long: Duration, off: impl FnOnce(), meanwhile: impl FnOnce(), on: impl FnOnce()) {
    recording_cameras();
    let pods = || CAMERAS.map(|(name, ..)| incarnation(&capture_pod(name).expect("one pod")));
    let before = pods();
    let begun = Timestamp::now();
    off();
    let until = begun + how_long;
    meanwhile();
    std::thread::sleep(Duration::try_from(until - Timestamp::now()).unwrap_or_default());
    on();
    let end = Timestamp::now();
    for (name, _, clip) in CAMERAS {
        eventually(&format!("that time of camera {name} in the replay"), 4 * MINUTE, || {
            let segments = try_replay(name, begun, end)?.segments;
            let seconds: f32 = segments.iter().map(|segment| segment.duration).sum();
            let wanted = end.duration_since(begun).as_secs_f32();
            if seconds < wanted {
                return Err(format!("{seconds} of {wanted} s"));
            }
            // Kubernetes takes the only node for lost for some seconds after a minute without an API server, and with it
            // every address behind every Service.
            segments.iter().try_for_each(|segment| match http_get(&segment.uri) {
                (200, _) => Ok(()),
                (status, said) => Err(format!("{}: {status}: {}", segment.uri, String::from_utf8_lossy(&said))),
            })
        });
        let seen = play(&gateway(&replay_path(name, begun, end)), &admin(), None);
        let wrong = breaks(&seen.frames, clip);
        assert!(wrong.is_empty(), "camera {name}: {} breaks: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
    assert_eq!(pods(), before, "a capture pod was touched");
    wait_condition(("pipeline", USER, "faults"), "Stored", "True", "", 4 * MINUTE);
    wait_condition(("pipeline", USER, "faults"), "ControlPlane", "True", "", MINUTE);
}

fn live_plays() {
    std::thread::sleep(Duration::from_secs(20));
    for (name, ..) in CAMERAS {
        let (status, body) = http_get(&format!("/hls/{USER}/{name}/live.m3u8"));
        let list = String::from_utf8_lossy(&body).into_owned();
        assert!(status == 200 && list.contains("#EXTINF"), "live of {name}: {status}: {list}");
    }
}

/// Processes of this machine whose command line fits.
pub fn processes(fits: impl Fn(&[&str], &str) -> bool) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("a Linux host").flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse::<i32>().ok()?;
            let read = |file: &str| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(file)).ok();
            let (groups, line) = (read("cgroup")?, read("cmdline")?);
            let words: Vec<&str> = line.split('\0').collect();
            if fits(&words, &groups) { Pid::from_raw(pid) } else { None }
        })
        .collect()
}

/// The API server of the cluster under test, which runs on this machine.
fn api_server() -> Pid {
    let config = std::fs::read_to_string(kubeconfig()).expect("a kubeconfig");
    let fits = |words: &[&str], _: &str| {
        let address = words.iter().find_map(|word| word.strip_prefix("--advertise-address="));
        words[0].ends_with("kube-apiserver") && address.is_some_and(|address| config.contains(address))
    };
    let servers = processes(fits);
    assert_eq!(servers.len(), 1, "this cluster's API server runs on this machine");
    servers[0]
}

/// What the API server was told by this argument.
pub fn argument_of_the_api_server(argument: &str) -> String {
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", api_server().as_raw_nonzero())).expect("it runs");
    let value = line.split('\0').find_map(|word| word.strip_prefix(argument)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the API server has no {argument}")).to_owned()
}

/// Processes of a pod that run this program; at least one.
pub fn in_pod(pod: &str, namespace: &str, program: &str) -> Vec<Pid> {
    let uid = text(&get("pod", namespace, pod).expect("exists"), "/metadata/uid");
    let found = processes(|words, groups| groups.contains(&uid) && words[0].ends_with(program));
    assert!(!found.is_empty(), "no {program} runs in pod {pod}");
    found
}

pub fn signal(processes: &[Pid], what: Signal) {
    for process in processes {
        kill_process(*process, what).expect("it runs, and we are root");
    }
}

/// Lets go on what is still there: the kubelet may have replaced it meanwhile.
fn cont(processes: &[Pid]) {
    for process in processes {
        let _ = kill_process(*process, Signal::CONT);
    }
}

/// B3: the broker is off for a minute, and somebody holds the catalogue's lock for the same minute: live needs neither.
#[test]
fn b3_a_minute_without_broker_and_catalogue_loses_nothing() {
    recording_cameras();
    // Through its volume: SQLite resolves links, and `/proc/PID/root` reads as `/`.
    let claim = get("persistentvolumeclaim", SYSTEM, "catalogue-dsn-server-0").expect("exists");
    let volume = get("persistentvolume", "", &text(&claim, "/spec/volumeName")).expect("exists");
    let catalogue = Path::new(&text(&volume, "/spec/local/path")).join("catalogue.sqlite");
    let held = std::sync::Mutex::new(None);
    nothing_is_lost_while(
        MINUTE,
        || {
            let locked = runtime().block_on(async {
                let options = SqliteConnectOptions::new().filename(&catalogue);
                let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
                connection.execute("BEGIN IMMEDIATE").await.expect("locks");
                connection
            });
            *held.lock().expect("nobody panicked") = Some(locked);
            kubectl(&["-n", SYSTEM, "scale", "statefulset/dsn-rabbitmq", "--replicas=0"]);
        },
        live_plays,
        || {
            let locked = held.lock().expect("nobody panicked").take();
            runtime().block_on(async { locked.expect("held").execute("ROLLBACK").await }).expect("unlocks");
            kubectl(&["-n", SYSTEM, "scale", "statefulset/dsn-rabbitmq", "--replicas=1"]);
            BROKER.close();
        },
    );
}

/// B3: for the same minute the API server stands still, and a storage node with open sockets, which is worse than gone.
#[test]
fn b3_a_minute_without_the_api_server_and_with_a_hanging_kubo_loses_nothing() {
    recording_cameras();
    let kubo = in_pod("sn-disk-1-0", USER, "ipfs");
    let servers = [api_server()];
    nothing_is_lost_while(
        MINUTE,
        || {
            signal(&kubo, Signal::STOP);
            signal(&servers, Signal::STOP);
        },
        || {},
        || {
            signal(&servers, Signal::CONT);
            cont(&kubo);
            GATEWAY.close();
            BROKER.close();
        },
    );
    wait_condition(("storagenode", USER, "disk-1"), "Online", "True", "", 3 * MINUTE);
}

/// B3: recorder and gateway are killed, and killed again.
#[test]
fn b3_a_killed_server_loses_nothing() {
    let status = || try_get("pod", SYSTEM, "dsn-server-0").map(|pod| pod["status"]["containerStatuses"][0].clone());
    let restarts = status().expect("it runs")["restartCount"].as_i64().expect("a number");
    let again = |times: i64| {
        eventually("the server runs again", 2 * MINUTE, || {
            let status = status()?;
            let is_back = status["ready"] == true && status["restartCount"].as_i64() >= Some(restarts + times);
            if is_back { Ok(()) } else { Err(status.to_string()) }
        });
    };
    let kill = || signal(&in_pod("dsn-server-0", SYSTEM, "dsn"), Signal::KILL);
    nothing_is_lost_while(
        Duration::from_secs(20),
        kill,
        || {
            again(1);
            kill();
        },
        || {
            again(2);
            GATEWAY.close();
        },
    );
}

/// B4: a camera that hangs with an open socket is noticed, said, and taken up again when it goes on.
#[test]
fn b4_a_hanging_camera_is_noticed_and_taken_up_again() {
    recording_cameras();
    let begun = Timestamp::now();
    let pods = list("pods", USER, "app=camera");
    let camera = in_pod(&text(&pods[0], "/metadata/name"), USER, "camera");
    signal(&camera, Signal::STOP);
    wait_condition(("camera", USER, "f1"), "Capturing", "False", "CameraHung", Duration::from_secs(30));
    cont(&camera);
    wait_condition(("camera", USER, "f1"), "Capturing", "True", "", MINUTE);
    eventually("the gap with its reason", MINUTE, || {
        let reasons = gap_reasons("f1", begun);
        if reasons.contains(&"CameraHung".to_owned()) { Ok(()) } else { Err(format!("{reasons:?}")) }
    });
}

/// B3: fifty edits in seconds while the leading operator is killed: the last one is what is in effect, and then it is
/// quiet.
#[test]
fn b3_fifty_edits_and_a_killed_leader_end_at_the_last_edit() {
    recording_cameras();
    let before = CAMERAS.map(|(name, ..)| incarnation(&capture_pod(name).expect("one pod")));
    let holder = text(&get("lease", SYSTEM, "dsn-operator").expect("exists"), "/spec/holderIdentity");
    let leader = in_pod(&holder, SYSTEM, "dsn");
    let edits = |numbers: std::ops::Range<i32>| {
        // What the last one says nobody else does.
        let seconds = numbers.map(|edit| if edit == 49 { 10 } else { 2 + edit % 5 });
        let edit = |seconds| pipeline("faults", "[f1, f2]", &format!("  capture: {{segmentSeconds: {seconds}}}\n"));
        apply(&seconds.map(edit).collect::<Vec<_>>().join("---\n"));
    };
    let begun = Instant::now();
    edits(0..25);
    signal(&leader, Signal::KILL);
    edits(25..50);
    eprintln!("fifty edits within {:?}", begun.elapsed());
    eventually("the last edit in effect", 2 * MINUTE, || {
        let now = Timestamp::now();
        for (name, ..) in CAMERAS {
            let last =
                try_replay(name, now - Duration::from_secs(30), now)?.segments.last().map_or(0.0, |s| s.duration);
            // ffmpeg cuts at the first keyframe after multiples of the length.
            if !(9.5..13.0).contains(&last) {
                return Err(format!("segments of {last} s"));
            }
        }
        let maps = list("configmaps", USER, "dsn.network/pipeline=faults");
        let said: Vec<_> = maps.iter().map(|map| text(map, "/data/assignment.json")).collect();
        let all = said.len() == 2 && said.iter().all(|text| text.contains("\"segmentSeconds\":10"));
        let declared = try_get("pipeline", USER, "faults")?;
        let [wanted, seen] = ["/metadata/generation", "/status/observedGeneration"].map(|at| declared.pointer(at));
        if all && wanted == seen { Ok(()) } else { Err(format!("{said:?}; {wanted:?}, {seen:?}")) }
    });
    wait_condition(("pipeline", USER, "faults"), "ControlPlane", "True", "", MINUTE);
    wait_for_rest();
    let after = CAMERAS.map(|(name, ..)| incarnation(&capture_pod(name).expect("one pod")));
    assert_eq!(after, before, "a capture pod was touched");
}

/// Drift: what somebody changes or deletes by hand comes back, and then nothing is written any more.
#[test]
fn k5_children_changed_or_deleted_by_hand_come_back() {
    recording_cameras();
    let selector = "dsn.network/pipeline=faults,dsn.network/camera=f2";
    let deployment = text(&list("deployments", USER, selector)[0], "/metadata/name");
    let template =
        || text(&get("deployment", USER, &deployment).expect("exists"), "/spec/template/spec/containers/0/image");
    let image = template();
    kubectl(&["-n", USER, "set", "image", &format!("deployment/{deployment}"), "*=localhost/nothing:1"]);
    eventually("the image as it was", MINUTE, || if template() == image { Ok(()) } else { Err(template()) });
    let map = text(&list("configmaps", USER, selector)[0], "/metadata/name");
    kubectl(&["-n", USER, "delete", "configmap", &map]);
    eventually("the assignment again", MINUTE, || get("configmap", USER, &map).map(drop).ok_or("none".to_owned()));
    kubectl(&["-n", USER, "delete", "deployment", &deployment, "--wait=true"]);
    eventually("the Deployment again", MINUTE, || {
        get("deployment", USER, &deployment).map(drop).ok_or("none".to_owned())
    });

    let instance = text(&list("deployments", USER, selector)[0], "/metadata/labels/dsn.network~1instance");
    let queue = format!("dsn.ctl.{instance}");
    let rabbit = |arguments: &[&str]| {
        kubectl(
            &[&["-n", SYSTEM, "exec", "dsn-rabbitmq-0", "--", "rabbitmqctl", "-q", "-p", "dsn"], arguments].concat(),
        )
    };
    rabbit(&["delete_queue", &queue]);
    // An edit finds it missing, declares it and arrives (or by the mounted ConfigMap, if that is quicker).
    kubectl(&["-n", USER, "patch", "pipeline", "faults", "--type=merge", "-p", r#"{"spec":{"state":"Paused"}}"#]);
    wait_condition(("camera", USER, "f2"), "Capturing", "False", "Paused", MINUTE);
    eventually("the queue again", MINUTE, || {
        let queues = rabbit(&["list_queues", "name"]);
        if queues.contains(&queue) { Ok(()) } else { Err(queues) }
    });
    kubectl(&["-n", USER, "patch", "pipeline", "faults", "--type=merge", "-p", r#"{"spec":{"state":"Running"}}"#]);
    for (name, ..) in CAMERAS {
        wait_condition(("camera", USER, name), "Capturing", "True", "", 2 * MINUTE);
    }
    wait_condition(("pipeline", USER, "faults"), "Stored", "True", "", 3 * MINUTE);
    wait_for_rest();
}
