//! Live and replay in an independent player (rows V1, V7): what was captured is what is seen.

use std::{process::Command, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    frames::{breaks, play, widest_audio_gap},
    kube::{root, run},
    world::{
        CLIP_15_FPS, CLIP_25_FPS, SYSTEM, USER, admin, gateway, http_get_as, recording, replay_path, secret, world,
    },
};

fn replay_is_complete(camera: &str, clip: u16, fps: usize, codecs: &[&str]) {
    let (start, end) = recording();
    let seen = play(&gateway(&replay_path(camera, start, end)), &admin(), None);
    assert_eq!(seen.codecs, codecs);
    let wrong = breaks(&seen.frames, clip);
    assert!(wrong.is_empty(), "{} breaks: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    // The range is filled by whole segments: never less than asked for.
    assert!(seen.frames.len() >= 180 * fps, "{} frames for 180 s at {fps} fps", seen.frames.len());
    assert!(seen.frames.len() <= 195 * fps, "{} frames for 180 s at {fps} fps", seen.frames.len());
    if codecs.len() > 1 {
        let gap = widest_audio_gap(&seen.audio);
        assert!(gap < 0.1, "audio pauses for {gap} s");
        let heard = seen.audio.last().expect("audio") - seen.audio[0];
        assert!(heard > 179.0, "{heard} s of audio");
    }
}

/// V1, V7: a three-minute replay has no frame missing, doubled or reordered, and its sound.
#[test]
fn v1_v7_replay_of_h264_with_audio_is_complete() {
    replay_is_complete("h264", CLIP_25_FPS, 25, &["h264", "aac"]);
}

/// V1: H.265 without audio.
#[test]
fn v1_replay_of_h265_without_audio_is_complete() {
    replay_is_complete("h265", CLIP_25_FPS, 25, &["hevc"]);
}

/// V1: a GOP that does not divide the segment length.
#[test]
fn v1_replay_of_an_odd_gop_is_complete() {
    replay_is_complete("oddgop", CLIP_15_FPS, 15, &["h264", "aac"]);
}

/// V1: live plays, in order.
#[test]
fn v1_live_plays() {
    world();
    let seen = play(&gateway(&format!("/hls/{USER}/h264/live.m3u8")), &admin(), Some(10));
    assert!(seen.frames.len() >= 200, "{} frames in 10 s", seen.frames.len());
    assert!(breaks(&seen.frames, CLIP_25_FPS).is_empty(), "{:?}", breaks(&seen.frames, CLIP_25_FPS));
}

/// Until the first of a camera's RTCP sender reports, one in ten seconds, ffmpeg lets the sound begin with the picture. Then
/// it knows better, and the times move by what they were apart: some hundredths of a second on a busy machine, once in a
/// session. Where it matters, a recording is looked at from here on.
pub const SETTLED: Duration = Duration::from_secs(20);

/// Longest time for which a picture may stand still, or by which the next one may be ahead, s. Another quality is fetched
/// while what is buffered plays on; on two cores that also run the cluster a browser stumbles by some tenths. A hole in the
/// footage is a whole segment long, which is four.
const LONGEST_HALT: f64 = 1.0;

/// What a browser showed of the page.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Number of each picture that was shown.
    frames: Vec<u16>,
    /// Heights of the pictures, in the order in which they came.
    pub heights: Vec<u32>,
    /// The time that the page said of it.
    moments: Vec<Timestamp>,
    /// The time in the media at which it stands, s.
    media: Vec<f64>,
    /// When it came, s.
    times: Vec<f64>,
    /// How long it was watched.
    seconds: f64,
    /// Media that was asked for before the login.
    before_login: Vec<String>,
    /// Uncaught errors and violations of the Content-Security-Policy.
    complaints: Vec<String>,
}

impl Shown {
    /// By how many pictures the one on the screen is ahead of the time in the media: the median of each third of the
    /// time, since what is drawn and what is reported differ now and then on a busy machine. A jump would stay.
    fn ahead(&self) -> Vec<f64> {
        let clip = f64::from(CLIP_25_FPS);
        let ahead = |(frame, time): (&u16, &f64)| f64::from(*frame) - time * 25.0;
        let all: Vec<f64> = self.frames.iter().zip(&self.media).map(ahead).collect();
        // The numbers begin anew with the clip.
        let near = |value: &f64| (value - all[0] + clip / 2.0).rem_euclid(clip) - clip / 2.0;
        let near: Vec<f64> = all.iter().map(near).collect();
        near.chunks(near.len().div_ceil(3))
            .map(|third| {
                let mut sorted = third.to_vec();
                sorted.sort_by(f64::total_cmp);
                sorted[sorted.len() / 2]
            })
            .collect()
    }
}

/// Watches a place of the page in headless Chromium.
fn watch(place: &str, seconds: u8) -> Shown {
    watch_and_choose(place, seconds, &[])
}

/// Watches a place of the page in headless Chromium and chooses these qualities one after the other; asserts that pictures
/// come in order and as fast as the camera's.
pub fn watch_and_choose(place: &str, seconds: u8, qualities: &[&str]) -> Shown {
    let printed = run(Command::new("node")
        .arg(root().join("ui/test/watch.js"))
        .args([&gateway("/"), &secret(SYSTEM, "dsn-admin", "password"), place, &seconds.to_string()])
        .args([qualities.join(",")])
        .args(std::env::var("SCREENSHOTS").map(|folder| format!("{folder}/{}.png", place.len())).ok()));
    let shown: Shown = serde_json::from_slice(&printed).expect("watch.js prints what it saw");
    assert!(shown.before_login.is_empty(), "before the login: {:?}", shown.before_login);
    assert!(shown.complaints.is_empty(), "{:?}", shown.complaints);
    // A browser leaves out pictures on a busy machine; it never shows one again or goes back.
    let steps: Vec<u16> = shown.frames.windows(2).map(|pair| (pair[1] + CLIP_25_FPS - pair[0]) % CLIP_25_FPS).collect();
    assert!(steps.iter().all(|step| (1..250).contains(step)), "{steps:?}");
    let thirds = shown.ahead();
    assert!(thirds.iter().all(|ahead| (ahead - thirds[0]).abs() < 1.1), "pictures against their time: {thirds:?}");
    // By how much longer (or shorter) each was on the screen than there are pictures up to the next: a halt, or a jump. What
    // the browser leaves out while the machine is busy counts on both sides, so it is neither.
    let stays = shown.times.windows(2).map(|pair| pair[1] - pair[0]);
    let slips: Vec<f64> = stays.zip(&steps).map(|(stay, step)| stay - f64::from(*step) / 25.0).collect();
    let worst = slips.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or_default();
    assert!(worst.abs() < LONGEST_HALT, "a picture was held, or others left out, for {worst} s: {slips:.1?}");
    let shown_seconds = f64::from(steps.iter().map(|step| u32::from(*step)).sum::<u32>()) / 25.0;
    let speed = shown_seconds / shown.seconds;
    assert!((0.9..1.1).contains(&speed), "{shown_seconds} s of pictures in {} s", shown.seconds);
    shown
}

/// V4: after the login, and only then, the page plays live in a browser.
#[test]
fn v4_the_page_plays_live_in_a_browser() {
    recording();
    let shown = watch(&format!("#/{USER}/h264"), 15);
    let behind = Timestamp::now().duration_since(*shown.moments.last().expect("pictures"));
    assert!(behind.as_secs() < 30, "live is {} s behind", behind.as_secs());
}

/// V5: the page plays a range of the past in a browser.
#[test]
fn v5_the_page_plays_a_replay_in_a_browser() {
    let (start, end) = recording();
    let start = start + SETTLED;
    let shown = watch(&format!("#/{USER}/h264/range/{start}/{end}"), 15);
    for moment in [shown.moments[0], *shown.moments.last().expect("pictures")] {
        // The page counts whole milliseconds.
        let within = start.as_millisecond()..=end.as_millisecond();
        assert!(within.contains(&moment.as_millisecond()), "{moment} is not within {start} and {end}");
    }
}

/// Nothing is public: neither pages of data nor playlists nor media.
#[test]
fn nothing_is_public() {
    world();
    for path in ["/api/cameras", "/hls/e2e/h264/live.m3u8", "/hls/e2e/h264/replay.m3u8?start=x&end=y", "/media/a/b/c/1"]
    {
        let (status, _) = http_get_as(path, None);
        assert_eq!(status, 401, "{path}");
        let (status, _) = http_get_as(path, Some("Basic YWRtaW46d3Jvbmc="));
        assert_eq!(status, 401, "{path} with a wrong password");
    }
}
