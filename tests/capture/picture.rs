//! A camera that changes its picture in the middle of a connection, and those that do not (row B4).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use dsn::domain::{
    container::{Container, Layout},
    control::Phase,
    id::SessionId,
    media::Description,
    segment::GapReason,
};

use crate::{
    camera::{Camera, Clip},
    capture_pod::CapturePod,
    wait::eventually,
};

/// Probing, a first picture and a first segment on two busy cores.
const START: Duration = Duration::from_secs(30);
/// One half of the clip, what it takes to be certain, and a start.
const CHANGE: Duration = Duration::from_secs(50);

/// Players were told the old size and given the old decoder configuration, for as long as the camera did not hang up.
#[test]
fn b4_another_picture_in_the_same_connection_begins_a_session_of_its_own() {
    let camera = Camera::start(Clip::ChangesSize);
    let (pod, second) = change_is_noticed(&camera, Clip::ChangesSize, Container::Fmp4);
    // And back, half a minute later: what goes to and fro all the time costs a restart a minute, not each time.
    let new = own_pictures(&pod, second, Container::Fmp4).first().cloned().expect("a segment");
    eventually(
        "segments with the first picture again",
        CHANGE,
        || pod.context(),
        || {
            let told = own_pictures(&pod, second, Container::Fmp4);
            (told.iter().filter(|told| **told != new).count() > 4).then_some(())
        },
    );
    let report = pod.report();
    assert_eq!((report.session, report.starts), (Some(second), 2));
}

#[test]
fn b4_another_picture_in_the_same_connection_is_noticed_in_a_transport_stream() {
    let camera = Camera::start(Clip::ChangesSizeH265);
    change_is_noticed(&camera, Clip::ChangesSizeH265, Container::MpegTs);
}

#[test]
fn b4_a_picture_that_stays_the_same_restarts_nothing() {
    for (clip, container) in [(Clip::H264WithSound, Container::Fmp4), (Clip::H265Silent, Container::MpegTs)] {
        let camera = Camera::start(clip);
        let mut pod = CapturePod::new(&camera.url());
        pod.assign(|assignment| assignment.container = container);
        pod.start_runner();
        let session = pod.await_segments(6, START);
        let told = own_pictures(&pod, session, container);
        assert!(told.iter().all(|picture| *picture == told[0] && picture.width == 320), "{told:?}");
        assert_eq!((pod.report().starts, pod.sessions()), (1, vec![session]));
    }
}

/// Waits for the change; the session that follows it.
fn change_is_noticed(camera: &Camera, clip: Clip, container: Container) -> (CapturePod, SessionId) {
    let mut pod = CapturePod::new(&camera.url());
    pod.assign(|assignment| assignment.container = container);
    pod.start_runner();
    let first = pod.await_segments(1, START);
    let report = pod.await_report("another session", CHANGE, |report| {
        report.phase == Phase::Running && report.session.is_some_and(|session| session > first)
    });
    let second = report.session.expect("a session");
    pod.await_segments(1, START);
    assert_eq!((report.starts, pod.sessions()), (2, vec![first, second]));
    let end = pod.session_file(first).and_then(|file| file.ended).expect("the first says how it ended");
    let why = "the camera sends another picture than before";
    assert_eq!((end.reason, end.detail.as_str()), (GapReason::Reconfigured, why));

    // The old session: everything in it is there, from its first frame to what came before the change was certain.
    let told = own_pictures(&pod, first, container);
    let (old, new) = (told[0].clone(), told[told.len() - 1].clone());
    let changed = told.iter().position(|picture| *picture == new).expect("it changes");
    assert!(old.width != new.width, "{told:?}");
    assert!(told[..changed].iter().all(|picture| *picture == old), "{told:?}");
    assert!(told[changed..].iter().all(|picture| *picture == new), "{told:?}");
    assert!((2..=4).contains(&(told.len() - changed)), "two are enough: {told:?}");
    // Under the old init section too, ffmpeg shows all of it in the size that it has.
    let widths = ffprobe_widths(&whole(&pod, first, container));
    assert_eq!((widths.first(), widths.last()), (Some(&old.width), Some(&new.width)));
    assert!(widths.is_sorted_by_key(|width| *width == new.width), "{widths:?}");

    // The new session says what it is: in the report, in its init section, in its segments.
    let video = report.video.expect("probed");
    assert_eq!((video.width, video.height), (new.width, new.height));
    let (_, described) = pod.read(second, container, &pod.segments(second)[&0]);
    assert_eq!(described, new);
    assert_eq!(own_pictures(&pod, second, container)[0], new);

    // Within both there is every frame that the camera sent. Not by their times: those move once, with the first RTCP sender
    // report.
    let sent = frames(&clip.file());
    let mut ends = Vec::new();
    for session in [first, second] {
        let kept = frames(&whole(&pod, session, container));
        let begin = sent.iter().position(|frame| *frame == kept[0]).expect("a frame of the clip");
        let expected: Vec<&String> = sent.iter().cycle().skip(begin).take(kept.len()).collect();
        assert!(kept.iter().eq(expected), "{session}: {} frames from {begin} on", kept.len());
        ends.push((begin, begin + kept.len()));
    }
    eprintln!("{container:?}: recorded frames {ends:?} of {}, which the camera repeats", sent.len());
    (pod, second)
}

/// What the segments of a session say of the picture by themselves.
fn own_pictures(pod: &CapturePod, session: SessionId, container: Container) -> Vec<Description> {
    let init = container.init_file().map(|file| fs::read(pod.rendition(session).join(file)).expect("reads"));
    let layout = Layout::read(init.as_deref(), None).expect("well-formed");
    let segments = pod.segments(session).into_iter();
    segments.map(|(seq, bytes)| layout.picture(&bytes).unwrap_or_else(|| panic!("{seq} tells nothing"))).collect()
}

/// A file with a whole session, as far as it is finished.
fn whole(pod: &CapturePod, session: SessionId, container: Container) -> PathBuf {
    let init = container.init_file().map(|file| fs::read(pod.rendition(session).join(file)).expect("reads"));
    let all: Vec<u8> = init.into_iter().chain(pod.segments(session).into_values()).flatten().collect();
    let file = pod.path(&format!("whole-{session}"));
    fs::write(&file, all).expect("writes");
    file
}

fn ffprobe_widths(file: &Path) -> Vec<u32> {
    let command = ["-v", "error", "-select_streams", "v", "-show_entries", "frame=width", "-of", "default=nk=1:nw=1"];
    let said = output(Command::new("ffprobe").args(command).arg(file));
    said.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// A hash of each frame, made equally large.
fn frames(file: &Path) -> Vec<String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(file);
    command.args(["-map", "0:v", "-vf", "scale=160:90", "-vsync", "passthrough", "-f", "framemd5", "-"]);
    let said = output(&mut command);
    let frames = said.lines().filter(|line| !line.starts_with('#'));
    frames.filter_map(|line| Some(line.rsplit_once(',')?.1.trim().to_owned())).collect()
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
