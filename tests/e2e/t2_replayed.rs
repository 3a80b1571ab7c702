//! Live and replay in an independent player (rows V1, V7): what was captured is what is seen.

use jiff::Timestamp;

use crate::{
    browser::{SETTLED, watch},
    frames::{breaks, play, widest_audio_gap},
    master,
    world::{CLIP_15_FPS, CLIP_25_FPS, USER, admin, gateway, http_get_as, recording, replay_path, world},
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

/// V1: what a player chooses by is true of H.264 and H.265, with sound and without, and where segments differ in length.
#[test]
fn v1_master_playlists_say_what_the_segments_need() {
    let (start, end) = recording();
    for (camera, codecs) in [("h264", "avc1."), ("h265", "hvc1."), ("oddgop", "avc1.")] {
        for file in ["live-master.m3u8".to_owned(), format!("replay-master.m3u8?start={start}&end={end}")] {
            let variants = master::variants_that_are_true(camera, &file);
            let [own] = variants.as_slice() else { panic!("{camera} has no ladder: {variants:?}") };
            let said = own.codecs.as_deref().unwrap_or_default();
            assert!(said.starts_with(codecs) && said.contains(",mp4a.40.2") == (camera != "h265"), "{camera}: {said}");
        }
    }
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
