//! The ladder (rows K2, V9): a small picture beside the camera's own, made in the capture pod and never in its way.

use std::{sync::OnceLock, time::Duration};

use jiff::Timestamp;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{
    browser::{SETTLED, watch_and_choose},
    footage::media,
    frames::{breaks, play, shown_at, widest_audio_gap},
    kube::{apply, eventually, get, kubectl, list, text, wait_condition},
    master,
    t5_faults::{in_pod, signal},
    world::{
        CLIP_25_FPS, SYSTEM, USER, admin, camera, capture_pod, gateway, http_get, incarnation, pipeline, remove, world,
    },
};

const MINUTE: Duration = Duration::from_secs(60);
const NAME: &str = "ladder";
/// A quarter of the pixels of the camera's 640 × 360.
const LOW: &str = "low";

fn with_bitrate(kbps: u32) -> String {
    let more =
        format!("  transcode: {{sidecar: {{renditions: [{{name: {LOW}, height: 180, videoBitrateKbps: {kbps}}}]}}}}\n");
    pipeline(NAME, &format!("[{NAME}]"), &more)
}

/// A camera with a ladder; since when there is a small picture.
fn laddered() -> Timestamp {
    static SINCE: OnceLock<Timestamp> = OnceLock::new();
    let since = *SINCE.get_or_init(|| {
        world();
        apply(&camera(NAME, &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
        apply(&with_bitrate(150));
        wait_condition(("camera", USER, NAME), "Capturing", "True", "", 2 * MINUTE);
        wait_condition(("pipeline", USER, NAME), "Transcoding", "True", "", MINUTE);
        Timestamp::now()
    });
    wait_condition(("pipeline", USER, NAME), "Transcoding", "True", "", 2 * MINUTE);
    since
}

/// A playlist of a range, in a rendition.
fn range(kind: &str, from: Timestamp, to: Timestamp, rendition: &str) -> String {
    format!("/hls/{USER}/{NAME}/{kind}.m3u8?start={from}&end={to}&rendition={rendition}")
}

/// The small picture's playlist once it has all of the range and nothing of it is lacking.
fn complete(from: Timestamp, to: Timestamp) -> m3u8_rs::MediaPlaylist {
    eventually("the small picture of all of it", 2 * MINUTE, || {
        let (status, body) = http_get(&range("replay", from, to, LOW));
        let said = String::from_utf8_lossy(&body).into_owned();
        if status != 200 || said.contains("#EXT-X-GAP") {
            return Err(format!("{status}: {said}"));
        }
        let list = m3u8_rs::parse_media_playlist_res(&body).map_err(|error| format!("{error:?}"))?;
        let seconds: f32 = list.segments.iter().map(|segment| segment.duration).sum();
        let wanted = to.duration_since(from).as_secs_f32();
        if seconds >= wanted { Ok(list) } else { Err(format!("{seconds} of {wanted} s")) }
    })
}

/// K2, V9: every participant has a queue; the small picture has frame for frame what the camera's own has, and its sound;
/// the master playlist says what a player chooses by.
#[test]
fn k2_v9_the_small_picture_has_every_frame_and_the_sound() {
    let from = laddered();
    let pod = capture_pod(NAME).expect("one pod");
    let containers: Vec<_> = pod["spec"]["containers"].as_array().expect("containers").iter().collect();
    assert_eq!(containers.len(), 3, "{containers:?}");
    let status = get("pipeline", USER, NAME).expect("exists");
    let instances = status["status"]["instances"].as_array().expect("instances").clone();
    let queues = kubectl(&[
        "-n",
        SYSTEM,
        "exec",
        "dsn-rabbitmq-0",
        "--",
        "rabbitmqctl",
        "-q",
        "-p",
        "dsn",
        "list_queues",
        "name",
    ]);
    for role in ["capture", "transcoder"] {
        let rows: Vec<_> = instances.iter().filter(|row| row["role"] == role).collect();
        assert!(rows.len() == 1 && rows[0]["state"] == "Running", "{role}: {instances:?}");
        assert!(queues.contains(&format!("dsn.ctl.{}", text(rows[0], "/uid"))), "{role}: {queues}");
    }

    std::thread::sleep(Duration::try_from(from + Duration::from_secs(40) - Timestamp::now()).unwrap_or_default());
    let to = from + Duration::from_secs(32);
    complete(from, to);
    let small = play(&gateway(&range("replay", from, to, LOW)), &admin(), None);
    let own = play(&gateway(&range("replay", from, to, "source")), &admin(), None);
    assert_eq!(small.codecs, ["h264", "aac"]);
    assert!(breaks(&small.frames, CLIP_25_FPS).is_empty(), "{:?}", breaks(&small.frames, CLIP_25_FPS));
    assert_eq!(small.frames, own.frames);
    assert!(small.audio.len() == own.audio.len() && widest_audio_gap(&small.audio) < 0.1);
    let shown = [LOW, "source"].map(|rendition| shown_at(&gateway(&range("replay", from, to, rendition)), &admin()));
    assert_eq!(shown.each_ref().map(Vec::len), [own.frames.len(); 2]);
    let apart = shown[0].iter().zip(&shown[1]).map(|(small, own)| (small - own).abs()).fold(0.0, f64::max);
    assert!(apart < 0.001, "a player that goes over would jump by {apart} s");

    live_lists_both();
    for file in [format!("replay-master.m3u8?start={from}&end={to}"), "live-master.m3u8".to_owned()] {
        let variants = master::variants_that_are_true(NAME, &file);
        let [own, small] = variants.as_slice() else { panic!("{file}: {variants:?}") };
        let size = |variant: &m3u8_rs::VariantStream| variant.resolution.map(|r| (r.width, r.height));
        assert_eq!((size(own), size(small)), (Some((640, 360)), Some((320, 180))), "{file}");
        assert!(small.bandwidth < own.bandwidth, "{file}: {variants:?}");
    }
}

/// Waits until the small picture can be chosen live.
fn live_lists_both() {
    eventually("the small picture beside the other", MINUTE, || {
        let (status, body) = http_get(&format!("/hls/{USER}/{NAME}/live-master.m3u8"));
        let said = String::from_utf8_lossy(&body).into_owned();
        if said.contains(&format!("rendition={LOW}")) { Ok(()) } else { Err(format!("{status}: {said}")) }
    });
}

/// K4: another bit rate reaches the transcoder by message, and is that of the segments from then on.
#[test]
fn k4_another_bit_rate_goes_by_message() {
    laddered();
    let before = incarnation(&capture_pod(NAME).expect("one pod"));
    let rate = || {
        let now = Timestamp::now();
        let (status, body) = http_get(&range("replay", now - Duration::from_secs(30), now, LOW));
        let list = m3u8_rs::parse_media_playlist_res(&body).map_err(|_| format!("{status}"))?;
        let last = list.segments.iter().rfind(|segment| segment.unknown_tags.is_empty()).ok_or("no segment")?;
        Ok::<_, String>(media(&last.uri).len() as f32 * 8.0 / 1000.0 / last.duration)
    };
    let first = eventually("a segment", MINUTE, rate);
    // The sound is 64 kbit/s of it.
    assert!(first < 280.0, "{first} kbit/s");
    apply(&with_bitrate(600));
    eventually("segments of the new bit rate", MINUTE, || match rate()? {
        rate if rate > first * 1.5 => Ok(()),
        rate => Err(format!("{rate} after {first} kbit/s")),
    });
    assert_eq!(incarnation(&capture_pod(NAME).expect("one pod")), before, "the pod was touched");
}

/// The transcoders that run in the camera's pod.
fn transcoders() -> Vec<Pid> {
    let pod = text(&capture_pod(NAME).expect("one pod"), "/metadata/name");
    let role = |pid: &Pid| {
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        line.split('\0').nth(1) == Some("transcoder")
    };
    in_pod(&pod, USER, "dsn").into_iter().filter(role).collect()
}

/// In neither picture is a frame of this time missing, doubled or reordered.
fn both_are_whole(from: Timestamp, to: Timestamp) {
    complete(from, to);
    for rendition in ["source", LOW] {
        let seen = play(&gateway(&range("replay", from, to, rendition)), &admin(), None);
        let wrong = breaks(&seen.frames, CLIP_25_FPS);
        assert!(wrong.is_empty(), "{rendition}: {wrong:?}");
    }
}

/// B3: a transcoder that is killed leaves the camera's own picture alone, and makes up for what it missed.
#[test]
fn b3_a_killed_transcoder_costs_nothing() {
    laddered();
    let from = Timestamp::now();
    assert_eq!(transcoders().len(), 1);
    signal(&transcoders(), Signal::KILL);
    eventually("a transcoder again", MINUTE, || if transcoders().len() == 1 { Ok(()) } else { Err("none".to_owned()) });
    std::thread::sleep(Duration::from_secs(15));
    let to = Timestamp::now();
    std::thread::sleep(Duration::from_secs(10));
    both_are_whole(from, to);
    wait_condition(("pipeline", USER, NAME), "Transcoding", "True", "", MINUTE);
}

/// K2, B3: a transcoder that stands still is said, in a sentence that names the camera and where to look; the camera's own
/// picture goes on, and what is missing of the small one is made when it goes on.
#[test]
fn b3_k2_a_transcoder_that_stands_still_is_said_and_makes_up_for_it() {
    laddered();
    let from = Timestamp::now();
    let still = transcoders();
    assert_eq!(still.len(), 1);
    signal(&still, Signal::STOP);
    let said = wait_condition(("pipeline", USER, NAME), "Transcoding", "False", "", 2 * MINUTE);
    assert!(said.contains(NAME) && said.contains("container transcoder"), "{said}");
    // Whoever watches meanwhile has the camera's own picture, live.
    let live = play(&gateway(&format!("/hls/{USER}/{NAME}/live.m3u8")), &admin(), Some(5));
    assert!(live.frames.len() >= 100 && breaks(&live.frames, CLIP_25_FPS).is_empty(), "{:?}", live.frames);
    let to = Timestamp::now() - Duration::from_secs(5);
    assert!(transcoders() == still, "it was replaced");
    signal(&still, Signal::CONT);
    let said = wait_condition(("pipeline", USER, NAME), "Transcoding", "True", "InTime", MINUTE);
    both_are_whole(from, to);
    eprintln!("{said} after {} s", Timestamp::now().duration_since(to).as_secs());
}

/// Watches a place of the page and goes over to the small picture and back.
fn goes_over_smoothly(place: &str) {
    let shown = watch_and_choose(place, 30, &["source", LOW, "source"]);
    // The page may have begun with the small one, as the line allowed.
    assert!(shown.heights().ends_with(&[360, 180, 360]), "{:?}", shown.heights());
}

/// V9: a viewer who chooses another picture in the middle sees neither a jump nor a hole.
#[test]
fn v9_changing_the_picture_in_a_browser_does_not_jump() {
    laddered();
    live_lists_both();
    goes_over_smoothly(&format!("#/{USER}/{NAME}"));
}

/// V9: nor does one who watches what was recorded.
#[test]
fn v9_changing_the_picture_of_a_replay_in_a_browser_does_not_jump() {
    // More than is watched, and than a player loads ahead.
    let from = laddered() + SETTLED;
    let to = from + MINUTE;
    std::thread::sleep(Duration::try_from(to + Duration::from_secs(10) - Timestamp::now()).unwrap_or_default());
    complete(from, to);
    goes_over_smoothly(&format!("#/{USER}/{NAME}/range/{from}/{to}"));
}

/// K2: without `transcode` the transcoder, its queue and its condition are gone; the footage stays.
#[test]
fn z_k2_a_ladder_that_is_taken_away_leaves_its_footage() {
    let from = laddered();
    let to = Timestamp::now() - Duration::from_secs(30);
    let queues = || {
        kubectl(&[
            "-n",
            SYSTEM,
            "exec",
            "dsn-rabbitmq-0",
            "--",
            "rabbitmqctl",
            "-q",
            "-p",
            "dsn",
            "list_queues",
            "name",
        ])
    };
    let row = |role: &str| {
        let rows = get("pipeline", USER, NAME).expect("exists")["status"]["instances"].clone();
        rows.as_array().and_then(|rows| rows.iter().find(|row| row["role"] == role).cloned())
    };
    let queue = format!("dsn.ctl.{}", text(&row("transcoder").expect("a transcoder"), "/uid"));
    apply(&pipeline(NAME, &format!("[{NAME}]"), ""));
    eventually("a pod without a transcoder, and no queue", 2 * MINUTE, || {
        let pod = capture_pod(NAME)?;
        let containers = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
        let condition = &get("pipeline", USER, NAME).expect("exists")["status"]["conditions"];
        let said = condition.as_array().is_some_and(|all| all.iter().any(|c| c["type"] == "Transcoding"));
        let there = queues().contains(&queue);
        if containers == 2 && !said && !there && row("transcoder").is_none() {
            Ok(())
        } else {
            Err(format!("{containers} containers, condition: {said}, queue: {there}"))
        }
    });
    wait_condition(("camera", USER, NAME), "Capturing", "True", "", MINUTE);
    let (status, body) = http_get(&range("replay", from, to, LOW));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let pods: Vec<Value> = list("pods", USER, &format!("dsn.network/camera={NAME}"));
    assert!(!pods.is_empty());
    remove("pipeline", NAME);
    remove("camera", NAME);
}
