//! MPEG-TS instead of fragmented MP4, and footage without sound (rows V1, V5, K4): the same footage in another box.

use std::{
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    browser::{SETTLED, watch},
    footage::{key, media, try_replay},
    frames::{breaks, play, widest_audio_gap},
    kube::{apply, eventually, get, run, text, tool, wait_condition},
    master,
    t4_steered::gap_reasons,
    world::{
        CLIP_25_FPS, USER, admin, camera, capture_pod, gateway, incarnation, pipeline, remove, replay_path, world,
    },
};

const MINUTE: Duration = Duration::from_secs(60);
const NAME: &str = "boxed";

fn captured(how: &str) -> String {
    pipeline(NAME, &format!("[{NAME}]"), &format!("  capture: {{{how}}}\n"))
}

/// A camera that is recorded as MPEG-TS; since when.
fn recorded() -> Timestamp {
    static SINCE: OnceLock<Timestamp> = OnceLock::new();
    *SINCE.get_or_init(|| {
        world();
        apply(&camera(NAME, &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
        apply(&captured("container: MPEGTS"));
        wait_condition(("camera", USER, NAME), "Capturing", "True", "", 2 * MINUTE);
        Timestamp::now() + Duration::from_secs(5)
    })
}

/// The replay once the catalogue has all of the range.
fn complete(from: Timestamp, to: Timestamp) -> m3u8_rs::MediaPlaylist {
    eventually("all of the range in the replay", 2 * MINUTE, || {
        let list = try_replay(NAME, from, to)?;
        let seconds: f32 = list.segments.iter().map(|segment| segment.duration).sum();
        let wanted = to.duration_since(from).as_secs_f32();
        if seconds >= wanted { Ok(list) } else { Err(format!("{seconds} of {wanted} s")) }
    })
}

fn wait_until(moment: Timestamp) {
    std::thread::sleep(Duration::try_from(moment - Timestamp::now()).unwrap_or_default());
}

/// V1: a minute of MPEG-TS has no frame missing, doubled or reordered, and its sound; each segment stands for itself.
#[test]
fn v1_a_minute_of_transport_stream_is_complete_with_its_sound() {
    let from = recorded();
    let to = from + MINUTE;
    wait_until(to + Duration::from_secs(10));
    let list = complete(from, to);
    let is_stream = |segment: &m3u8_rs::MediaSegment| {
        segment.map.is_none() && segment.uri.rsplit_once('.').is_some_and(|(_, kind)| kind == "ts")
    };
    assert!(list.segments.iter().all(is_stream), "{list:?}");
    let seen = play(&gateway(&replay_path(NAME, from, to)), &admin(), None);
    assert_eq!(seen.codecs, ["h264", "aac"]);
    let wrong = breaks(&seen.frames, CLIP_25_FPS);
    assert!(wrong.is_empty(), "{} breaks: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!((60 * 25..=75 * 25).contains(&seen.frames.len()), "{} frames", seen.frames.len());
    assert!(widest_audio_gap(&seen.audio) < 0.1, "{}", widest_audio_gap(&seen.audio));
    let heard = seen.audio.last().expect("audio") - seen.audio[0];
    assert!(heard > 59.0, "{heard} s of audio");

    // What is said of a segment is what it holds: to a frame of 40 ms.
    let alone = media(&list.segments[1].uri);
    let file = std::env::temp_dir().join(format!("dsn-e2e-{}.ts", std::process::id()));
    std::fs::write(&file, alone).expect("writes");
    let counted = run(Command::new("ffprobe")
        .args(["-loglevel", "error", "-count_packets", "-select_streams", "v"])
        .args(["-show_entries", "stream=nb_read_packets", "-of", "default=nw=1:nk=1"])
        .arg(&file));
    let _ = std::fs::remove_file(&file);
    let counted: f32 =
        String::from_utf8_lossy(&counted).lines().next().and_then(|line| line.trim().parse().ok()).expect("a number");
    assert!((list.segments[1].duration - counted / 25.0).abs() < 0.04, "{counted} frames: {:?}", list.segments[1]);

    let variants = master::variants_that_are_true(NAME, &format!("replay-master.m3u8?start={from}&end={to}"));
    assert_eq!(variants.len(), 1, "{variants:?}");
}

/// V1: live, straight from the capture pod.
#[test]
fn v1_live_of_a_transport_stream_plays() {
    recorded();
    let seen = play(&gateway(&format!("/hls/{USER}/{NAME}/live.m3u8")), &admin(), Some(10));
    assert!(seen.frames.len() >= 200, "{} frames in 10 s", seen.frames.len());
    assert!(breaks(&seen.frames, CLIP_25_FPS).is_empty(), "{:?}", breaks(&seen.frames, CLIP_25_FPS));
}

/// V5: the page plays it.
#[test]
fn v5_the_page_plays_a_transport_stream_in_a_browser() {
    let from = recorded();
    let to = from + MINUTE;
    wait_until(to + Duration::from_secs(10));
    complete(from, to);
    watch(&format!("#/{USER}/{NAME}/range/{}/{to}", from + SETTLED), 12);
}

/// Edits what becomes of the sound; twelve seconds of the session that follows. It goes by message: the pod stays as it is.
fn edited(audio: &str) -> (Timestamp, Timestamp) {
    let from = recorded();
    let before = incarnation(&capture_pod(NAME).expect("one pod"));
    let known = eventually("footage", MINUTE, || {
        Ok(key(try_replay(NAME, from, Timestamp::now())?.segments.last().ok_or("none")?).2)
    });
    apply(&captured(&format!("container: MPEGTS, audio: {audio}")));
    let edited = Instant::now();
    let begin = eventually("a new session", 2 * MINUTE, || {
        let list = try_replay(NAME, from, Timestamp::now())?;
        let fresh: Vec<_> = list
            .segments
            .iter()
            .skip_while(|segment| key(segment).2 != known)
            .skip_while(|segment| key(segment).2 == known)
            .collect();
        match fresh.first().and_then(|segment| segment.program_date_time) {
            Some(begin) if fresh.len() >= 4 => {
                Ok(Timestamp::from_millisecond(begin.timestamp_millis()).expect("in range"))
            }
            _ => Err(format!("{} segments of it", fresh.len())),
        }
    });
    eprintln!("a session with audio: {audio} after {:?}", edited.elapsed());
    assert_eq!(incarnation(&capture_pod(NAME).expect("one pod")), before, "the pod was touched");
    let told = get("pipeline", USER, NAME).expect("exists");
    assert_eq!(
        text(&told, "/status/effective/container") + &text(&told, "/status/effective/audio"),
        format!("MPEGTS{audio}")
    );
    let end = begin + Duration::from_secs(12);
    complete(begin, end);
    (begin, end)
}

/// Hashes of the packets of the sound, without what a container puts before them.
fn sound(of: &[&str]) -> Vec<String> {
    let hashed = run(Command::new("ffmpeg").args(["-nostdin", "-loglevel", "error"]).args(of).args([
        "-map",
        "0:a",
        "-c",
        "copy",
        "-bsf:a",
        "aac_adtstoasc",
        "-f",
        "framehash",
        "-hash",
        "md5",
        "-",
    ]));
    // "0,  92160, 92160,  2880,  190, 9b0c…", and behind it what a transport stream says beside some of them.
    let hash = |line: &str| line.split(',').nth(5).map(|hash| hash.trim().to_owned());
    String::from_utf8_lossy(&hashed).lines().filter(|line| !line.starts_with('#')).filter_map(hash).collect()
}

/// V1, K4: sound that is copied is packet for packet what the camera sends.
#[test]
fn y_v1_k4_copied_sound_is_the_cameras_own() {
    let (begin, end) = edited("Copy");
    let heard = sound(&[
        "-headers",
        &format!("Authorization: {}\r\n", admin()),
        "-i",
        &gateway(&replay_path(NAME, begin, end)),
    ]);
    // The camera plays this clip again and again. 32,000 samples a second, 1,024 in a packet.
    let clip = run(tool("kubectl").args(["-n", USER, "exec", "deployment/camera", "--", "cat", "/clips/h264.ts"]));
    let file = std::env::temp_dir().join(format!("dsn-e2e-{}-clip.ts", std::process::id()));
    std::fs::write(&file, clip).expect("writes");
    let sent = sound(&["-i", file.to_str().expect("UTF-8")]);
    std::fs::remove_file(&file).expect("it is there");
    assert!(heard.len() >= 12 * 32_000 / 1024, "{} packets", heard.len());
    let rounds = [sent.as_slice(), &sent].concat();
    let is_a_part = rounds.windows(heard.len()).any(|run| run == heard);
    let foreign = heard.iter().filter(|packet| !sent.contains(packet)).count();
    assert!(is_a_part, "{foreign} of {} packets are none of the camera's, or their order is another", heard.len());
}

/// K4: sound is left out by message: a new session has none, and the footage before keeps its own.
#[test]
fn z_k4_leaving_out_the_sound_goes_by_message() {
    let from = recorded();
    let (silent, to) = edited("None");
    let seen = play(&gateway(&replay_path(NAME, silent, to)), &admin(), None);
    assert_eq!(seen.codecs, ["h264"]);
    assert!(seen.audio.is_empty() && breaks(&seen.frames, CLIP_25_FPS).is_empty());
    let loud = play(&gateway(&replay_path(NAME, from, from + Duration::from_secs(12))), &admin(), None);
    assert_eq!(loud.codecs, ["h264", "aac"]);
    let whole = try_replay(NAME, silent - Duration::from_secs(10), to).expect("plays");
    assert_eq!(whole.segments.iter().filter(|segment| segment.discontinuity).count(), 1);
    assert!(gap_reasons(NAME, from).contains(&"Reconfigured".to_owned()));
    remove("pipeline", NAME);
    remove("camera", NAME);
}
