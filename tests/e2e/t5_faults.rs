//! Parts that are off for a minute while two cameras record (rows V9, B3, B4): what was captured is played afterwards
//! without a frame missing, in the camera's own picture and in the small one, and the operator comes to rest.

use std::{path::Path, sync::OnceLock, time::Duration};

use jiff::Timestamp;
use m3u8_rs::MediaPlaylist;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    footage::try_playlist,
    frames::{breaks, play},
    kube::{apply, eventually, get, kubeconfig, kubectl, list, text, try_get, wait_condition},
    t4_gitops::wait_for_rest,
    t4_steered::gap_reasons,
    world::{
        BROKER, CLIP_15_FPS, CLIP_25_FPS, GATEWAY, SYSTEM, USER, admin, camera, capture_pod, gateway, http_get,
        incarnation, pipeline, rabbitmqctl, replay_path, runtime, world,
    },
};

const MINUTE: Duration = Duration::from_secs(60);
/// The two cameras: (name, stream, frames of its clip).
pub const CAMERAS: [(&str, &str, u16); 2] = [("f1", "h264", CLIP_25_FPS), ("f2", "oddgop", CLIP_15_FPS)];
/// The camera's own picture and a small one, which costs little to make.
pub const RENDITIONS: [&str; 2] = ["source", "low"];
/// The queue of what is announced.
pub const RECORDER_QUEUE: &str = "dsn.recorder";

/// The Pipeline of the two cameras; `more` is further YAML of its spec.
pub fn declared(more: &str) -> String {
    let low = "  transcode: {sidecar: {renditions: [{name: low, height: 144, videoBitrateKbps: 100}]}}\n";
    pipeline("faults", "[f1, f2]", &format!("{low}{more}"))
}

/// Two cameras that record through everything in this file and the next; since when.
pub fn recording_cameras() -> Timestamp {
    static SINCE: OnceLock<Timestamp> = OnceLock::new();
    let await_capture = || {
        for (name, ..) in CAMERAS {
            wait_condition(("camera", USER, name), "Capturing", "True", "", 2 * MINUTE);
        }
        wait_condition(("pipeline", USER, "faults"), "Transcoding", "True", "", 2 * MINUTE);
    };
    let since = *SINCE.get_or_init(|| {
        world();
        for (name, stream, _) in CAMERAS {
            apply(&camera(name, &format!("rtsp://camera.{USER}.svc:8554/{stream}"), "camera-login"));
        }
        apply(&declared(""));
        await_capture();
        Timestamp::now()
    });
    await_capture();
    since
}

/// The replay of a range in a rendition, once nothing of it is lacking.
pub fn whole(camera: &str, rendition: &str, from: Timestamp, to: Timestamp, within: Duration) -> MediaPlaylist {
    let path = format!("{}&rendition={rendition}", replay_path(camera, from, to));
    eventually(&format!("{rendition} of that time of camera {camera}"), within, || {
        let list = try_playlist(&path)?;
        // EXT-X-GAP is the only tag of a segment that the parser does not know.
        let lacking = list.segments.iter().filter(|segment| !segment.unknown_tags.is_empty()).count();
        let seconds: f32 = list.segments.iter().map(|segment| segment.duration).sum();
        let wanted = to.duration_since(from).as_secs_f32();
        if lacking == 0 && seconds >= wanted {
            Ok(list)
        } else {
            Err(format!("{seconds} of {wanted} s, {lacking} segments lacking"))
        }
    })
}

/// Every frame of a range is played, in both renditions.
pub fn every_frame_plays(from: Timestamp, to: Timestamp, within: Duration) {
    for (name, _, clip) in CAMERAS {
        for rendition in RENDITIONS {
            let list = whole(name, rendition, from, to, within);
            // Kubernetes takes the only node for lost for some seconds after a minute without an API server, and with it
            // every address behind every Service.
            eventually(&format!("the segments of camera {name}"), within, || {
                list.segments.iter().try_for_each(|segment| match http_get(&segment.uri) {
                    (200, _) => Ok(()),
                    (status, said) => Err(format!("{}: {status}: {}", segment.uri, String::from_utf8_lossy(&said))),
                })
            });
            let path = format!("{}&rendition={rendition}", replay_path(name, from, to));
            let seen = play(&gateway(&path), &admin(), None);
            let wrong = breaks(&seen.frames, clip);
            assert!(
                wrong.is_empty(),
                "{rendition} of {name}: {} breaks: {:?}",
                wrong.len(),
                &wrong[..wrong.len().min(5)]
            );
        }
    }
}

/// Something is off for a while; afterwards the replay of that time shows every frame of both cameras, and there is nothing
/// left to do.
fn nothing_is_lost_while<T>(how_long: Duration, off: impl FnOnce() -> T, meanwhile: impl FnOnce(), on: impl FnOnce(T)) {
    recording_cameras();
    let pods = || CAMERAS.map(|(name, ..)| incarnation(&capture_pod(name).expect("one pod")));
    let before = pods();
    let begun = Timestamp::now();
    let what = off();
    let until = begun + how_long;
    meanwhile();
    std::thread::sleep(Duration::try_from(until - Timestamp::now()).unwrap_or_default());
    on(what);
    let end = Timestamp::now();
    every_frame_plays(begun, end, 4 * MINUTE);
    assert_eq!(pods(), before, "a capture pod was touched");
    wait_condition(("pipeline", USER, "faults"), "Stored", "True", "", 4 * MINUTE);
    wait_condition(("pipeline", USER, "faults"), "ControlPlane", "True", "", MINUTE);
    assert_eq!(queue("dsn.dead").map(|(waiting, _)| waiting), Some(0), "there are dead letters");
    wait_for_rest();
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

/// A queue of ours: messages that wait for somebody to take them, and consumers.
pub fn queue(name: &str) -> Option<(u64, u64)> {
    let rows = rabbitmqctl(&["list_queues", "name", "messages_ready", "consumers"]);
    let row = rows.lines().find_map(|row| row.strip_prefix(name)?.strip_prefix('\t')?.split_once('\t'))?;
    Some((row.0.parse().expect("a number"), row.1.parse().expect("a number")))
}

/// Holds the lock of the catalogue's file: nobody else writes.
pub fn lock_the_catalogue() -> SqliteConnection {
    // Through its volume: SQLite resolves links, and `/proc/PID/root` reads as `/`.
    let claim = get("persistentvolumeclaim", SYSTEM, "catalogue-dsn-server-0").expect("exists");
    let volume = get("persistentvolume", "", &text(&claim, "/spec/volumeName")).expect("exists");
    let catalogue = Path::new(&text(&volume, "/spec/local/path")).join("catalogue.sqlite");
    runtime().block_on(async {
        let options = SqliteConnectOptions::new().filename(&catalogue);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
        connection.execute("BEGIN IMMEDIATE").await.expect("locks");
        connection
    })
}

/// Lets go of it.
pub fn unlock(mut catalogue: SqliteConnection) {
    runtime().block_on(async { catalogue.execute("ROLLBACK").await }).expect("unlocks");
}

/// What is announced waits in the recorder's queue, and the recorder takes nothing of it.
pub fn await_a_recorder_that_takes_nothing() {
    eventually("announcements that wait", MINUTE, || match queue(RECORDER_QUEUE) {
        Some((waiting, 0)) if waiting > 0 => Ok(()),
        other => Err(format!("(waiting, consumers): {other:?}")),
    });
}

/// The recorder takes what is announced.
pub fn await_a_recorder_that_listens() {
    eventually("a recorder that listens", MINUTE, || match queue(RECORDER_QUEUE) {
        Some((_, 1)) => Ok(()),
        other => Err(format!("(waiting, consumers): {other:?}")),
    });
}

/// B3: somebody holds the catalogue's lock for a minute. The recorder keeps what it has in hand and leaves the rest to the
/// queue; live needs neither.
#[test]
fn b3_a_minute_with_a_locked_catalogue_loses_nothing() {
    let server = || incarnation(&get("pod", SYSTEM, "dsn-server-0").expect("it runs"));
    let before = server();
    nothing_is_lost_while(
        MINUTE,
        lock_the_catalogue,
        || {
            live_plays();
            await_a_recorder_that_takes_nothing();
        },
        unlock,
    );
    await_a_recorder_that_listens();
    assert_eq!(server(), before, "the server was restarted");
}

/// B3: the broker is off for a minute; live does without.
#[test]
fn b3_a_minute_without_the_broker_loses_nothing() {
    let scale = |replicas: u8| {
        kubectl(&["-n", SYSTEM, "scale", "statefulset/dsn-rabbitmq", &format!("--replicas={replicas}")]);
    };
    nothing_is_lost_while(
        MINUTE,
        || scale(0),
        live_plays,
        |()| {
            scale(1);
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
        |()| {
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
        |()| {
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
