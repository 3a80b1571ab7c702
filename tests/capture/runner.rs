//! The runner: sessions, stops, hangs, logins (rows V1, V8, B4).

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use dsn::domain::{
    container::Container,
    control::{Activity, Phase},
    id::SessionId,
    segment::GapReason,
};
use jiff::Timestamp;
use rustix::process::Signal;

use crate::{
    camera::{Camera, Clip, PASSWORD, PICTURE, SOUND, USERNAME},
    capture_pod::{CapturePod, files_below, is_alive, signal},
    wait::eventually,
};

/// Probing, a first picture and a first segment on two busy cores.
const START: Duration = Duration::from_secs(30);

#[test]
fn v8_a_killed_ffmpeg_begins_a_new_session_within_5_s_and_overwrites_nothing() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::alone(&camera.url());
    pod.start_runner();
    let first = pod.await_segments(2, START);
    let report = pod.await_phase(Phase::Running, START);
    assert_eq!((report.session, report.starts, report.problem), (Some(first), 1, None));
    assert_eq!(report.video.expect("probed").to_string(), "h264 320x180 10fps aac");

    let before = pod.segments(first);
    let killed = Instant::now();
    signal(pod.ffmpeg().expect("ffmpeg runs"), Signal::KILL);
    let report = pod.await_report("pictures again", Duration::from_secs(5), |report| {
        report.phase == Phase::Running && report.session.is_some_and(|session| session != first)
    });
    eprintln!("pictures again after {:?}", killed.elapsed());
    assert_eq!((report.starts, report.problem), (2, None));

    let second = pod.await_segments(1, START);
    assert!(second > first, "sessions sort by time");
    for (seq, content) in before {
        assert_eq!(pod.segments(first).get(&seq), Some(&content), "segment {seq} of the old session");
    }
    let end = pod.session_file(first).and_then(|file| file.ended).expect("the old session says how it ended");
    assert_eq!(end.reason, GapReason::CaptureDied, "{end:?}");
    assert_eq!(pod.session_file(second).and_then(|file| file.ended), None);
}

/// A Deployment scaled by hand put a second runner on the spool, which closed the session that the first one was
/// recording; minutes of footage were never announced.
#[test]
fn v8_a_second_runner_on_the_spool_waits_and_takes_over_when_the_first_is_gone() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::new(&camera.url());
    pod.start_runner();
    let first = pod.await_segments(1, START);
    let one = pod.runner_pid();
    let mut old = pod.start_another_runner();
    eventually(
        "the second runner says that it waits",
        START,
        || pod.context(),
        || fs::read_to_string(pod.path("runner.log")).ok()?.contains("another pod works on this volume").then_some(()),
    );
    let so_far = pod.segments(first).len();
    eventually(
        "the first runner goes on",
        START,
        || pod.context(),
        || (pod.segments(first).len() > so_far + 1).then_some(()),
    );
    assert_eq!(pod.session_file(first).and_then(|file| file.ended), None, "its session was closed under it");
    assert_ne!(one, pod.runner_pid());
    signal(one, Signal::TERM);
    old.wait().expect("ends");
    let second = eventually(
        "a session of the second",
        START,
        || pod.context(),
        || {
            let newest = *pod.sessions().last()?;
            (newest > first).then_some(newest)
        },
    );
    assert!(pod.session_file(first).and_then(|file| file.ended).is_some());
    assert_eq!(pod.session_file(second).and_then(|file| file.ended), None);
}

#[test]
fn b4_a_camera_that_hangs_is_noticed_within_8_s_and_recorded_5_s_after_its_return() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::alone(&camera.url());
    pod.start_runner();
    let first = pod.await_segments(1, START);
    pod.await_phase(Phase::Running, START);

    camera.hang();
    let report = pod.await_phase(Phase::Failing, Duration::from_secs(8));
    assert_eq!(report.problem.expect("a problem").reason, "CameraHung");
    camera.go_on();
    pod.await_phase(Phase::Running, Duration::from_secs(5));
    let end = eventually("the end of the first session", START, || pod.context(), || pod.session_file(first)?.ended);
    assert_eq!(end.reason, GapReason::CameraHung);
}

/// ffmpeg's time went on with the sound of a camera whose picture stood still: nothing was recorded, and Running was said.
#[test]
fn b4_a_picture_that_freezes_while_the_sound_goes_on_is_noticed_within_8_s() {
    // Its time begins when it is alone.
    let mut pod = CapturePod::alone("rtsp://127.0.0.1:1/none");
    let camera = Camera::start(Clip::PictureFreezes);
    let began = Instant::now();
    let left = |until: Duration| until.saturating_sub(began.elapsed());
    pod.assign(|assignment| assignment.source.url = camera.url());
    pod.start_runner();
    let first = pod.await_segments(1, PICTURE);
    pod.await_phase(Phase::Running, left(PICTURE));

    let report = pod.await_phase(Phase::Failing, left(PICTURE + Duration::from_secs(8)));
    assert!(began.elapsed() > PICTURE, "{:?}: {report:?}", began.elapsed());
    let end = eventually("the end of the session", START, || pod.context(), || pod.session_file(first)?.ended);
    assert_eq!(end.reason, GapReason::CameraHung);
    let back = Timestamp::now() + left(SOUND);
    let mut said = BTreeSet::new();
    let again = eventually(
        "pictures again",
        left(SOUND) + START,
        || pod.context(),
        || {
            let report = pod.report();
            said.extend(report.problem.map(|problem| problem.reason));
            report.session.filter(|_| report.phase == Phase::Running)
        },
    );
    let file = pod.session_file(again).expect("a session");
    // Its footage begins with the first keyframe, long before ffmpeg has looked at enough of it to say so.
    let late = file.started.duration_since(back).as_secs_f64();
    assert!(late < 4.0, "connected {late} s after its return: {}", pod.context());
    assert_eq!(said, BTreeSet::from(["CameraHung".to_owned()]));
    let hindrances = file.hindrances;
    assert!(hindrances.iter().all(|hindrance| hindrance.reason == GapReason::CameraHung), "{hindrances:?}");
    pod.await_segments(1, START);
}

/// Browsers ignore edit lists: what these say apart, picture and sound are apart in a browser. A camera's sound comes at
/// once and its picture with the next keyframe; the picture was shown up to a keyframe interval too early.
#[test]
fn v1_picture_and_sound_are_together_without_the_edit_list() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::new(&camera.url());
    pod.start_runner();
    let session = pod.await_segments(2, START);
    let init = fs::read(pod.path(&format!("spool/{session}/source/init.mp4"))).expect("an init section");
    let file = pod.path("one.mp4");
    fs::write(&file, [init, pod.segments(session).remove(&1).expect("a segment")].concat()).expect("writes");
    let starts = |ignore: &str| -> Vec<f64> {
        let output = std::process::Command::new("ffprobe")
            .args(["-v", "error", "-ignore_editlist", ignore, "-show_entries", "stream=start_time", "-of", "csv=p=0"])
            .arg(&file)
            .output()
            .expect("ffprobe runs");
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().parse().expect("seconds")).collect()
    };
    let (browser, ffmpeg) = (starts("1"), starts("0"));
    assert_eq!((browser.len(), &browser), (2, &ffmpeg));
    // The cut is at a keyframe of the picture, and at the next packet of the sound.
    assert!((browser[0] - browser[1]).abs() < 0.2, "{browser:?}");
}

/// A camera that was set to H.265 was recorded with what was known of its H.264: without the tag that Apple's players want,
/// and called H.264 in status for ever.
#[test]
fn b4_a_camera_that_sends_another_picture_after_a_restart_is_probed_again() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::new(&camera.url());
    pod.start_runner();
    let first = pod.await_segments(1, START);
    let _camera = camera.restart(Clip::ReplacedByH265);
    let last = await_h265(&pod);
    assert!(last > first);
    pod.await_segments(1, START);
    let init = fs::read(pod.path(&format!("spool/{last}/source/init.mp4"))).expect("an init section");
    assert!(init.windows(4).any(|word| word == b"hvc1"), "tagged for Apple");
    let end = pod.session_file(first).and_then(|file| file.ended).expect("it ended");
    assert_eq!(end.reason, GapReason::CameraUnreachable, "{end:?}");
}

/// A transport stream has no init section to look at: its first segment tells. What was recorded until then is footage.
#[test]
fn b4_another_picture_in_a_transport_stream_is_noticed_by_its_first_segment() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::new(&camera.url());
    pod.assign(|assignment| assignment.container = Container::MpegTs);
    pod.start_runner();
    let first = pod.await_segments(1, START);
    // Set up otherwise in a pause: what was probed is still remembered, and nothing failed meanwhile.
    pod.assign(|assignment| assignment.activity = Activity::Paused);
    pod.await_phase(Phase::Paused, START);
    let _camera = camera.restart(Clip::ReplacedByH265);
    pod.assign(|assignment| assignment.activity = Activity::Running);
    let last = await_h265(&pod);
    pod.await_segments(1, START);
    let [of_h264, noticed, probed] = pod.sessions()[..] else { panic!("{:?}", pod.sessions()) };
    assert_eq!((of_h264, probed), (first, last));
    let end = pod.session_file(noticed).and_then(|file| file.ended).expect("it ended");
    let why = "the camera sends another picture than before";
    assert_eq!((end.reason, end.detail.as_str()), (GapReason::Reconfigured, why));
    for session in [noticed, probed] {
        let segments = pod.segments(session);
        assert!(!segments.is_empty(), "{session}");
        for bytes in segments.values() {
            let (_, told) = pod.read(session, Container::MpegTs, bytes);
            assert!(told.codecs.starts_with("hvc1.") && told.width == 320, "{told:?}");
        }
    }
}

/// The session in which H.265 is reported.
fn await_h265(pod: &CapturePod) -> SessionId {
    let report = pod.await_report("the other picture", START, |report| {
        report.phase == Phase::Running && report.video.as_ref().is_some_and(|video| video.codec == "hevc")
    });
    assert_eq!(report.video.expect("probed").to_string(), "hevc 320x180 10fps");
    report.session.expect("it runs")
}

/// A port that answers with noise, and one that nobody listens on: each has its name, none has a session.
#[test]
fn b3_a_camera_that_sends_garbage_or_refuses_is_named() {
    let noise = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = noise.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in noise.incoming().flatten() {
            let mut stream = stream;
            let _ = std::io::Write::write_all(&mut stream, &[0xf3_u8; 4096]);
        }
    });
    let refusing = crate::tools::free_port();
    for (port, reason) in [(address.port(), "BadStream"), (refusing, "CameraUnreachable")] {
        let mut pod = CapturePod::new(&format!("rtsp://127.0.0.1:{port}/live"));
        pod.start_runner();
        let report = pod.await_phase(Phase::Failing, START);
        let problem = report.problem.expect("a problem");
        assert_eq!(problem.reason, reason, "{problem:?}");
        assert!(problem.message.is_ascii() && problem.message.len() < 300, "{problem:?}");
        assert!(pod.sessions().is_empty(), "{:?}", pod.sessions());
    }
}

#[test]
fn a_wrong_password_is_named_and_never_shown_and_the_right_one_is_taken_up() {
    const WRONG: &str = "wr0ng&secret";
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::new(&camera.url());
    fs::remove_file(pod.path("credentials/password")).expect("removed");
    pod.start_runner();
    let report = pod.await_phase(Phase::Failing, START);
    assert_eq!(report.problem.expect("a problem").reason, "SecretMissing");

    pod.login(USERNAME, WRONG);
    let report = pod.await_report("the refused login", START, |report| {
        report.problem.as_ref().is_some_and(|problem| problem.reason == "Unauthorized")
    });
    let message = report.problem.expect("a problem").message;
    assert_eq!(message, r#"RTSP 401: check Secret "lobby-login", keys username and password"#);

    pod.login(USERNAME, PASSWORD);
    pod.await_phase(Phase::Running, START);
    pod.await_segments(1, START);
    pod.stop_runner();

    let written: Vec<_> =
        [files_below(&pod.path("spool")), vec![pod.path("runner.log")]].concat().into_iter().collect();
    assert!(written.len() > 3);
    for file in written {
        let content = String::from_utf8_lossy(&fs::read(&file).expect("reads")).into_owned();
        for secret in [PASSWORD, "p%40ss%2BwOrd%237", WRONG, "wr0ng%26secret"] {
            assert!(!content.contains(secret), "{} shows a password", file.display());
        }
    }
}

#[test]
fn pause_stops_ffmpeg_and_an_edit_restarts_only_ffmpeg() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::alone(&camera.url());
    pod.start_runner();
    let first = pod.await_segments(1, START);
    let runner = pod.runner_pid();
    let ffmpeg = pod.ffmpeg().expect("ffmpeg runs");

    pod.assign(|assignment| assignment.activity = Activity::Paused);
    let report = pod.await_phase(Phase::Paused, Duration::from_secs(7));
    assert_eq!((report.revision, report.session, report.problem), (2, None, None));
    assert!(!is_alive(ffmpeg), "ffmpeg ended before Paused was said");
    assert_eq!(pod.session_file(first).and_then(|f| f.ended).map(|end| end.reason), Some(GapReason::Paused));

    pod.assign(|assignment| assignment.activity = Activity::Running);
    pod.await_phase(Phase::Running, Duration::from_secs(5));
    let second = *pod.sessions().last().expect("a session");
    assert_ne!(first, second);

    pod.assign(|assignment| assignment.segment_seconds = 3);
    let report = pod.await_report("the edit in effect", Duration::from_secs(12), |report| {
        report.phase == Phase::Running && report.session.is_some_and(|session| session > second)
    });
    assert_eq!(report.revision, 4);
    let third = report.session.expect("a session");
    assert_eq!(pod.session_file(third).map(|file| file.segment_seconds), Some(3));
    let end = pod.session_file(second).and_then(|file| file.ended).map(|end| end.reason);
    assert!(matches!(end, Some(GapReason::Reconfigured) | None), "{end:?}");
    assert_eq!(pod.runner_pid(), runner);
    assert!(is_alive(runner));

    // A revision that changes nothing for ffmpeg leaves it alone.
    let ffmpeg = pod.ffmpeg();
    pod.assign(|assignment| assignment.site = "elsewhere".into());
    pod.await_report("the revision", Duration::from_secs(5), |report| report.revision == 5);
    assert_eq!(pod.ffmpeg(), ffmpeg);
}

#[test]
fn v1_h265_without_sound_is_recorded_for_browsers_and_term_finishes_the_last_segment() {
    let camera = Camera::start(Clip::H265Silent);
    let mut pod = CapturePod::new(&camera.url());
    pod.start_runner();
    let session = pod.await_segments(1, START);
    pod.await_report("one second more", START, |report| report.phase == Phase::Running);
    let ffmpeg = pod.ffmpeg().expect("ffmpeg runs");
    let took = pod.stop_runner();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!is_alive(ffmpeg));

    for (seq, content) in pod.segments(session) {
        let (media, told) = pod.read(session, Container::Fmp4, &content);
        assert!(told.codecs.starts_with("hvc1.") && !told.sound, "{told:?}");
        assert!(media.starts_with_keyframe && media.frames > 0, "{seq}: {media:?}");
    }
    let left: Vec<_> = files_below(&pod.rendition(session));
    assert!(!left.iter().any(|file| file.extension().is_some_and(|e| e == "tmp")), "{left:?}");
    let end = pod.session_file(session).and_then(|file| file.ended).expect("an end");
    assert_eq!(end.reason, GapReason::InstanceLost);
}

#[test]
fn a_killed_runner_takes_ffmpeg_with_it_and_its_successor_closes_the_session() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::new(&camera.url());
    pod.start_runner();
    let first = pod.await_segments(1, START);
    let ffmpeg = pod.ffmpeg().expect("ffmpeg runs");
    pod.kill_runner();
    eventually("ffmpeg is gone", Duration::from_secs(3), || pod.context(), || (!is_alive(ffmpeg)).then_some(()));
    pod.start_runner();
    let second = eventually(
        "a new session",
        START,
        || pod.context(),
        || pod.report().session.filter(|session| *session > first),
    );
    assert_ne!(first, second);
    let end = pod.session_file(first).and_then(|file| file.ended).expect("an end");
    assert_eq!(end.reason, GapReason::InstanceLost);
}
