//! The page in headless Chromium (ui/test/watch.js): what a viewer sees of a camera, picture by picture.

use std::{process::Command, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    kube::{root, run},
    world::{CLIP_25_FPS, SYSTEM, gateway, secret},
};

/// Until the first of a camera's RTCP sender reports, one in ten seconds, ffmpeg lets the sound begin with the picture. Then
/// it knows better, and the times move by what they were apart: some hundredths of a second on a busy machine, once in a
/// session. Where it matters, a recording is looked at from here on.
pub const SETTLED: Duration = Duration::from_secs(20);

/// By so many pictures the one on the screen may come to differ from its time in the media. At a camera's sender report ffmpeg
/// moves the times: by a fraction of a picture commonly, for ten seconds by 0.225 s with ten runnable processes on two cores.
/// The player shows it as it was recorded. (That all renditions have the very same times the ladder's tests find in their
/// packets.)
const REPORTED: f64 = 7.5;

/// Longest time for which a picture may stand still, s. Another quality is fetched while what is buffered plays on; on two
/// cores that also run the cluster a browser stumbles by some tenths. A hole in the footage is a whole segment long, which
/// is four.
const LONGEST_HALT: f64 = 1.0;

/// By so much a picture may come earlier than its time after the one before, s, as in ui/test/page.test.js: one that was late
/// is followed by one that is in time.
const CAUGHT_UP: f64 = 0.3;

/// So long before and after another height takes over, the time in the media is compared with the clock, s. A picture may be
/// late, but it is never early: the least late of each side count.
const AROUND: f64 = 1.0;

/// What may be left out there, s. The contract is a frame, 0.04 s. Both times are noted in one act by the thread that
/// composes the pictures: with two runnable processes on two cores it was 0.01 s, and with twenty nothing was left out and
/// 0.04 to 0.11 s waited for. A tenth is the smallest hole over which hls.js leaps.
const JUMP: f64 = 0.1;

/// How long it may stand still there, s: to set up the decoder for another size takes a busy machine a moment.
const STUMBLE: f64 = 0.3;

/// What a browser showed of the page: of each picture its number, its height, its time in the media (s), and when it was
/// handed to the screen (s).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    frames: Vec<u16>,
    heights: Vec<u32>,
    media: Vec<f64>,
    times: Vec<f64>,
    /// The times that the page said.
    pub moments: Vec<Timestamp>,
    /// How long it was watched.
    seconds: f64,
    /// Media that was asked for before the login.
    before_login: Vec<String>,
    /// Uncaught errors and violations of the Content-Security-Policy.
    complaints: Vec<String>,
}

impl Shown {
    /// Heights of the pictures, in the order in which they came.
    pub fn heights(&self) -> Vec<u32> {
        let mut heights = self.heights.clone();
        heights.dedup();
        heights
    }

    /// Where another height begins.
    fn changes(&self) -> Vec<usize> {
        (1..self.heights.len()).filter(|&at| self.heights[at] != self.heights[at - 1]).collect()
    }

    /// By how much the time in the media went on more than the clock between two pictures, s: above zero something was
    /// left out, below zero it stood still. Pictures that the browser drops while the machine is busy count on both sides.
    fn slip(&self, from: usize, to: usize) -> f64 {
        (self.media[to] - self.media[from]) - (self.times[to] - self.times[from])
    }

    /// The slip over a change of height.
    fn slip_around(&self, change: usize) -> f64 {
        let since = |at: usize| self.times[at] - self.times[change];
        let lag = |at: usize| self.times[at] - self.media[at];
        let before = (0..change).filter(|&at| since(at) > -AROUND).map(lag).fold(f64::INFINITY, f64::min);
        let after = (change..self.times.len()).filter(|&at| since(at) < AROUND).map(lag).fold(f64::INFINITY, f64::min);
        before - after
    }

    /// By how many pictures the one on the screen is ahead of the time in the media: the median of each third of the time
    /// in which it has one height, since what is drawn and what is reported differ now and then on a busy machine. A jump
    /// would stay.
    fn ahead(&self) -> Vec<f64> {
        let clip = f64::from(CLIP_25_FPS);
        let ahead = |(frame, time): (&u16, &f64)| f64::from(*frame) - time * 25.0;
        let all: Vec<f64> = self.frames.iter().zip(&self.media).map(ahead).collect();
        // The numbers begin anew with the clip.
        let near = |value: &f64| (value - all[0] + clip / 2.0).rem_euclid(clip) - clip / 2.0;
        let near: Vec<f64> = all.iter().map(near).collect();
        let edges: Vec<usize> = [vec![0], self.changes(), vec![near.len()]].concat();
        let median = |part: &[f64]| {
            let mut sorted = part.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        let stretches = edges.windows(2).map(|edge| &near[edge[0]..edge[1]]);
        stretches.flat_map(|stretch| stretch.chunks(stretch.len().div_ceil(3))).map(median).collect()
    }

    /// Pictures come in order and as fast as the camera's, none is held, and none is left out, also not where another
    /// height takes over.
    fn is_smooth(&self) {
        // A browser leaves out pictures on a busy machine; it never shows one again or goes back.
        let steps: Vec<u16> =
            self.frames.windows(2).map(|pair| (pair[1] + CLIP_25_FPS - pair[0]) % CLIP_25_FPS).collect();
        assert!(steps.iter().all(|step| (1..250).contains(step)), "{steps:?}");
        let ahead = self.ahead();
        assert!(ahead.iter().all(|by| (by - ahead[0]).abs() < REPORTED), "pictures against their time: {ahead:?}");
        let slips: Vec<f64> = (1..self.media.len()).map(|at| self.slip(at - 1, at)).collect();
        let (halt, jump) = slips.iter().fold((0.0, 0.0), |(halt, jump): (f64, f64), s| (halt.min(*s), jump.max(*s)));
        assert!(jump < CAUGHT_UP && halt > -LONGEST_HALT, "left out {jump} s, held for {} s: {slips:.1?}", -halt);
        let around: Vec<f64> = self.changes().into_iter().map(|change| self.slip_around(change)).collect();
        eprintln!(
            "{:?}: at most {jump:.3} s left out, held for {:.3} s, at the changes {around:.3?}",
            self.heights(),
            -halt
        );
        let fits = |slip: &f64| (-STUMBLE..JUMP).contains(slip);
        assert!(around.iter().all(fits), "{:?} jumped or stood: {around:.3?} s", self.heights());
        let shown = f64::from(steps.iter().map(|step| u32::from(*step)).sum::<u32>()) / 25.0;
        assert!((0.9..1.1).contains(&(shown / self.seconds)), "{shown} s of pictures in {} s", self.seconds);
    }
}

/// Watches a place of the page.
pub fn watch(place: &str, seconds: u8) -> Shown {
    watch_and_choose(place, seconds, &[])
}

/// Watches a place of the page and chooses these qualities one after the other; asserts that no viewer would complain.
pub fn watch_and_choose(place: &str, seconds: u8, qualities: &[&str]) -> Shown {
    let printed = run(Command::new("node")
        .arg(root().join("ui/test/watch.js"))
        .args([&gateway("/"), &secret(SYSTEM, "dsn-admin", "password"), place, &seconds.to_string()])
        .args([qualities.join(",")])
        .args(std::env::var("SCREENSHOTS").map(|folder| format!("{folder}/{}.png", place.len())).ok()));
    let shown: Shown = serde_json::from_slice(&printed).expect("watch.js prints what it saw");
    assert!(shown.before_login.is_empty(), "before the login: {:?}", shown.before_login);
    assert!(shown.complaints.is_empty(), "{:?}", shown.complaints);
    shown.is_smooth();
    shown
}
