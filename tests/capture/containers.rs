//! Containers and sound against the real ffmpeg: MPEG-TS takes the way of fragmented MP4, only without an init section
//! (rows V1, V8, C3).

use std::{fs, process::Command, time::Duration};

use dsn::domain::{
    container::Container,
    control::{Audio, Phase},
    id::SessionId,
    live::{LiveSegment, LiveWindow},
    media::{Description, Media},
    mpegts,
    segment::SOURCE,
    spool,
};
use rustix::process::Signal;

use crate::{
    agent_container::{Agent, START, log, mount_config, pod_of},
    camera::{Camera, Clip, free_port},
    capture_pod::{CapturePod, command_line, files_below, is_alive, signal},
    ladder::{Transcoder, mount_ladder, told},
    storage,
    wait::eventually,
};

/// Names of the files in the folder of a session's source.
fn names(pod: &CapturePod, session: SessionId) -> Vec<String> {
    let files = files_below(&pod.rendition(session));
    files.iter().map(|file| file.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

fn is_transport_stream(path: &str) -> bool {
    path.rsplit('/').next().and_then(Container::of_file) == Some(Container::MpegTs)
}

/// What every finished segment of a session says; they line up to less than a frame.
fn read_all(pod: &CapturePod, session: SessionId, container: Container) -> Vec<(Media, Description)> {
    let all: Vec<(Media, Description)> =
        pod.segments(session).values().map(|bytes| pod.read(session, container, bytes)).collect();
    for pair in all.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        let apart = (before.start_us + before.media_us - after.start_us).rem_euclid(mpegts::PERIOD_US);
        // 10 frames a second.
        assert!(apart.min(mpegts::PERIOD_US - apart) < 50_000, "{before:?} {after:?}");
        assert!(before.starts_with_keyframe && (9..=21).contains(&before.frames), "{before:?}");
    }
    all
}

/// Streams of a file as ffprobe sees them: `codec,sample rate or width`.
fn streams(pod: &CapturePod, session: SessionId, file: &str) -> Vec<String> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name,sample_rate,width", "-of", "csv=p=0"])
        .arg(pod.rendition(session).join(file))
        .output()
        .expect("ffprobe is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end_matches(',').to_owned()).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    // Once for the program and once for the stream.
    lines.dedup();
    lines
}

/// Packets of sound in a segment.
fn sound_packets(pod: &CapturePod, session: SessionId, container: Container, seq: u64) -> usize {
    let file = |name: &str| pod.rendition(session).join(name).display().to_string();
    let segment = file(&spool::segment_file(seq, container));
    let input = container.init_file().map_or(segment.clone(), |init| format!("concat:{}|{segment}", file(init)));
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "a", "-show_entries", "packet=size", "-of", "csv=p=0"])
        .arg(input)
        .output()
        .expect("ffprobe is installed");
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_v8_a_transport_stream_is_captured_sealed_uploaded_and_shown_live_without_an_init_section() {
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, uploads) = storage::serve(storage_port).await;
    let mut pod = pod_of(&camera, storage_port);
    mount_config(&mut pod, |assignment| assignment.container = Container::MpegTs);
    pod.start_runner();
    let agent = Agent::start(&pod);
    let window = agent.await_live(&pod, "three live segments", |window| window.segments.len() >= 3).await;
    let (first, second) = (&window.segments[0], &window.segments[1]);
    let session = first.key.session;
    assert_eq!((first.file.as_str(), &first.init, first.width, first.height), ("00000000.ts", &None, 320, 180));
    assert!(first.codecs.starts_with("avc1.") && first.codecs.ends_with(",mp4a.40.2"), "{}", first.codecs);
    assert_eq!((first.end, first.playlist_seq + 1), (second.start, second.playlist_seq));
    let seen = read_all(&pod, session, Container::MpegTs);
    for (told, (media, _)) in window.segments.iter().zip(&seen) {
        assert_eq!((told.frames, i64::try_from(told.media_us).expect("small")), (media.frames, media.media_us));
    }
    let (media, file) = agent.live_file(session, &first.file).await;
    assert_eq!(media.as_deref(), Some("video/mp2t"));
    assert_eq!(file.len() as u64, first.bytes);
    assert_eq!(streams(&pod, session, "00000001.ts"), ["aac,32000", "h264,320"]);

    // ffmpeg is killed: a new session, nothing overwritten. The agent is killed: the same story as before.
    let before = pod.segments(session);
    signal(pod.ffmpeg().expect("ffmpeg runs"), Signal::KILL);
    agent.kill();
    let agent = Agent::start(&pod);
    let again = agent
        .await_live(&pod, "the next session", |again| {
            again.segments.iter().filter(|segment| segment.key.session != session).count() >= 2
        })
        .await;
    let old: Vec<_> = again.segments.iter().filter(|segment| segment.key.session == session).collect();
    for known in &window.segments {
        assert!(!old.iter().any(|now| now.key == known.key && *now != known), "{known:?}");
    }
    let next = again.segments.last().expect("segments");
    assert_eq!((next.discontinuity_seq, &next.init), (first.discontinuity_seq + 1, &None));
    for (seq, content) in before {
        assert_eq!(pod.segments(session).get(&seq), Some(&content), "segment {seq} of the old session");
    }

    let last = old.last().expect("segments").key.seq;
    eventually(
        "all is uploaded",
        START,
        || log(&pod),
        || uploads.counts().contains_key(&format!("{session}/source/{last:08}.ts")).then_some(()),
    );
    assert!(uploads.paths().iter().all(|path| is_transport_stream(path)), "{:?}", uploads.paths());
    let names = names(&pod, session);
    assert!(names.iter().all(|name| is_transport_stream(name) || name == "live.m3u8"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_the_ladder_of_a_transport_stream_is_one_of_transport_streams() {
    let camera = Camera::start(Clip::H264WithSound);
    let storage_port = free_port();
    let (_server, uploads) = storage::serve(storage_port).await;
    let mut pod = pod_of(&camera, storage_port);
    mount_config(&mut pod, |assignment| assignment.container = Container::MpegTs);
    mount_ladder(&pod, &told(&pod, 1, 300));
    pod.start_runner();
    let agent = Agent::start(&pod);
    let _transcoder = Transcoder::start(&pod);
    let rungs = |window: &LiveWindow| -> Vec<LiveSegment> {
        window.segments.iter().filter(|segment| segment.key.rendition == "low").cloned().collect()
    };
    let window = agent.await_live(&pod, "three live rungs", |window| rungs(window).len() >= 3).await;
    for rung in rungs(&window) {
        let is_source = |one: &&LiveSegment| (one.key.rendition.as_str(), one.key.seq) == (SOURCE, rung.key.seq);
        let source = window.segments.iter().find(is_source).expect("its source is live too");
        assert_eq!((&rung.file, &rung.init, rung.height), (&source.file, &None, 120));
        assert_eq!((rung.start, rung.end, rung.frames), (source.start, source.end, source.frames), "{rung:?}");
        assert!(rung.codecs.starts_with("avc1.") && rung.codecs.ends_with(",mp4a.40.2"), "{}", rung.codecs);
    }
    let last = rungs(&window).pop().expect("a rung");
    let path = format!("{}/low/{}", last.key.session, last.file);
    let uploaded = || uploads.counts().contains_key(&path).then_some(());
    eventually("the rung is uploaded", START, || log(&pod), uploaded);
    assert!(uploads.paths().iter().all(|path| is_transport_stream(path)), "{:?}", uploads.paths());
}

#[test]
fn c3_an_edit_of_container_or_audio_restarts_only_ffmpeg() {
    let camera = Camera::start(Clip::H264WithSound);
    let mut pod = CapturePod::new(&camera.url());
    pod.start_runner();
    let mut session = pod.await_segments(2, START);
    let runner = pod.runner_pid();
    assert!(read_all(&pod, session, Container::Fmp4).iter().all(|(_, told)| told.sound));
    for (container, audio, sound, option) in [
        (Container::MpegTs, Audio::None, false, None),
        (Container::MpegTs, Audio::Copy, true, Some("-c:a copy")),
        (Container::Fmp4, Audio::Copy, true, Some("-c:a copy")),
        (Container::Fmp4, Audio::None, false, None),
        (Container::MpegTs, Audio::Aac, true, Some("-c:a aac")),
    ] {
        pod.assign(|assignment| (assignment.container, assignment.audio) = (container, audio));
        let before = session;
        pod.await_report("the edit in effect", Duration::from_secs(12), |report| {
            report.phase == Phase::Running && report.session.is_some_and(|session| session > before)
        });
        session = pod.await_segments(2, START);
        let told = format!("{container:?} {audio:?}");
        assert!(session > before, "{told}");
        let line = command_line(pod.ffmpeg().expect("ffmpeg runs"));
        assert_eq!(option.is_some_and(|option| line.contains(option)), sound, "{told}: {line}");
        for (media, description) in read_all(&pod, session, container) {
            assert_eq!((description.sound, description.width), (sound, 320), "{told}: {media:?}");
            assert_eq!(description.codecs.ends_with(",mp4a.40.2"), sound, "{told}: {}", description.codecs);
        }
        assert_eq!(names(&pod, session).contains(&"init.mp4".to_owned()), container == Container::Fmp4, "{told}");
    }
    assert_eq!((pod.runner_pid(), is_alive(runner)), (runner, true));
    let said = fs::read_to_string(pod.path("runner.log")).expect("a log");
    assert!(!said.contains("browsers do not play"), "AAC needs no excuse");
}

/// Neither container holds G.711 so that a browser plays it: it becomes AAC, and whoever asked for a copy is told.
#[test]
fn v1_the_g711_of_most_cameras_is_recorded_as_aac_whatever_is_asked_for() {
    let camera = Camera::start(Clip::H264WithG711);
    let mut pod = CapturePod::new(&camera.url());
    pod.start_runner();
    let log = |pod: &CapturePod| fs::read_to_string(pod.path("runner.log")).expect("a log");
    let sentence = "browsers do not play the camera's audio pcm_alaw as it is: encoding it as AAC";
    let mut before = None;
    for (container, audio, said) in [
        (Container::Fmp4, Audio::Aac, 0),
        (Container::MpegTs, Audio::Aac, 0),
        (Container::MpegTs, Audio::Copy, 1),
        (Container::Fmp4, Audio::Copy, 1),
    ] {
        pod.assign(|assignment| (assignment.container, assignment.audio) = (container, audio));
        let told = format!("{container:?} {audio:?}");
        let report = pod.await_report(&told, START, |report| report.phase == Phase::Running && report.session > before);
        assert_eq!(report.video.and_then(|video| video.audio).as_deref(), Some("pcm_alaw"), "{told}");
        before = report.session;
        let session = pod.await_segments(2, START);
        assert_eq!((Some(session), pod.report().problem), (before, None), "{told}");
        for (media, description) in read_all(&pod, session, container) {
            assert!(
                description.sound && description.codecs.ends_with(",mp4a.40.2"),
                "{told}: {description:?} {media:?}"
            );
        }
        // 8 kHz, 1024 samples each, a second.
        let packets = sound_packets(&pod, session, container, 1);
        assert!((5..=18).contains(&packets), "{told}: {packets}");
        assert_eq!(log(&pod).matches(sentence).count(), said, "{told}: {}", log(&pod));
    }
}

#[test]
fn v1_h265_without_sound_is_recorded_as_a_transport_stream_too() {
    let camera = Camera::start(Clip::H265Silent);
    let mut pod = CapturePod::new(&camera.url());
    pod.assign(|assignment| (assignment.container, assignment.audio) = (Container::MpegTs, Audio::Copy));
    pod.start_runner();
    let session = pod.await_segments(2, START);
    pod.stop_runner();
    for (media, told) in read_all(&pod, session, Container::MpegTs) {
        assert!(told.codecs.starts_with("hvc1.1.6.L") && !told.sound, "{told:?}");
        assert!((told.width, told.height) == (320, 180) && media.frames > 0, "{told:?} {media:?}");
    }
    assert_eq!(streams(&pod, session, "00000000.ts"), ["hevc,320"]);
    let left = names(&pod, session);
    assert!(left.iter().all(|name| is_transport_stream(name) || name == "live.m3u8"), "{left:?}");
}
