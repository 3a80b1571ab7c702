//! Reads the frame numbers burnt into the synthetic cameras' pictures, with ffmpeg as an independent player.
//!
//! The top strip of each picture holds 16 blocks of 32 × 32 pixels, most significant bit left, white = 1
//! (images/camera). Averaging each block to one grey value survives any encoding a camera would use.

use std::process::Command;

use crate::{
    kube::{run, try_kubectl},
    world::SYSTEM,
};

/// What a player saw of a playlist.
pub struct Playback {
    /// Frame numbers in the order of presentation.
    pub frames: Vec<u16>,
    /// Presentation time of each audio packet, seconds.
    pub audio: Vec<f64>,
    /// Codec names, video first.
    pub codecs: Vec<String>,
}

/// Plays a URL to its end (or for `seconds` of a live one) and reads every frame number.
pub fn play(url: &str, authorization: &str, seconds: Option<u32>) -> Playback {
    let headers = format!("Authorization: {authorization}\r\n");
    let limit = seconds.map(|s| vec!["-t".to_owned(), s.to_string()]).unwrap_or_default();
    let video = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-headers", &headers, "-i", url])
        .args(&limit)
        .args(["-map", "0:v:0", "-fps_mode", "passthrough"])
        // In parts of the picture: a smaller rendition shows the same.
        .args(["-vf", "crop=iw*4/5:ih*4/45:0:0,scale=16:1:flags=area,format=gray", "-f", "rawvideo", "-"])
        .output()
        .expect("ffmpeg starts");
    if !video.status.success() {
        // ffmpeg keeps the server's sentence to itself.
        let log = try_kubectl(&["-n", SYSTEM, "logs", "dsn-server-0", "--tail=20"]);
        panic!("{url}: {}\nlog of the server: {log:?}", String::from_utf8_lossy(&video.stderr));
    }
    let frames = video.stdout.chunks_exact(16).map(number).collect();

    let packets = run(Command::new("ffprobe")
        .args(["-loglevel", "error", "-headers", &headers])
        .args(seconds.map(|s| vec!["-read_intervals".to_owned(), format!("%+{s}")]).unwrap_or_default())
        .args(["-select_streams", "a", "-show_entries", "packet=pts_time", "-of", "csv=p=0", url]));
    let audio = String::from_utf8_lossy(&packets)
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').parse().ok())
        .collect();

    let streams = run(Command::new("ffprobe").args(["-loglevel", "error", "-headers", &headers]).args([
        "-show_entries",
        "stream=codec_type,codec_name",
        "-of",
        "csv=p=0",
        url,
    ]));
    let mut codecs: Vec<(bool, String)> = String::from_utf8_lossy(&streams)
        .lines()
        .filter_map(|line| line.split_once(','))
        .map(|(name, kind)| (kind.trim().trim_end_matches(',') != "video", name.to_owned()))
        .collect();
    codecs.sort();
    codecs.dedup();
    Playback { frames, audio, codecs: codecs.into_iter().map(|(_, name)| name).collect() }
}

/// When each frame of a playlist is shown, s.
pub fn shown_at(url: &str, authorization: &str) -> Vec<f64> {
    let packets = run(Command::new("ffprobe")
        .args(["-loglevel", "error", "-headers", &format!("Authorization: {authorization}\r\n")])
        .args(["-select_streams", "v", "-show_entries", "packet=pts_time", "-of", "csv=p=0", url]));
    let times = String::from_utf8_lossy(&packets);
    times.lines().filter_map(|line| line.trim().trim_end_matches(',').parse().ok()).collect()
}

fn number(blocks: &[u8]) -> u16 {
    blocks.iter().fold(0, |number, grey| number << 1 | u16::from(*grey > 127))
}

/// Places where the numbers do not simply count up; `clip` is the number of frames after which the clip begins anew.
pub fn breaks(frames: &[u16], clip: u16) -> Vec<String> {
    frames
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| (pair[0] + 1) % clip != pair[1])
        .map(|(at, pair)| format!("frame {at}: {} is followed by {}", pair[0], pair[1]))
        .collect()
}

/// The widest distance between two audio packets, seconds.
pub fn widest_audio_gap(audio: &[f64]) -> f64 {
    audio.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max)
}
