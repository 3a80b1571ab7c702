//! What a process uses, from `/proc`: processor time and resident memory.

use std::{fs, time::Instant};

/// Ticks a second of `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that Linux runs containers on.
const HERTZ: f64 = 100.0;

/// Resident memory in MB (10⁶ bytes).
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub now: f64,
    /// Of it what is the process's own; the rest are pages of its program, which the system may drop.
    pub own: f64,
    /// The most it ever was.
    pub most: f64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} MB, {:.1} of it its own; the most so far {:.1} MB", self.now, self.own, self.most)
    }
}

/// Resident memory of a process.
pub fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let field = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a process with memory");
        let kibibytes: u32 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
        f64::from(kibibytes) * 1024.0 / 1e6
    };
    Memory { now: field("VmRSS:"), own: field("RssAnon:"), most: field("VmHWM:") }
}

/// Seconds of processor time a process took so far, user and system.
fn seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The name may hold anything, parentheses too: fields are counted behind the last one.
    let fields = text.rsplit_once(')').expect("a stat line").1;
    let ticks: u32 =
        fields.split_whitespace().skip(11).take(2).map(|word| word.parse::<u32>().expect("a number")).sum();
    f64::from(ticks) / HERTZ
}

/// Processor time between two moments.
pub struct Meter {
    pid: u32,
    since: Instant,
    at: f64,
}

impl Meter {
    /// Begins.
    pub fn start(pid: u32) -> Self {
        Self { pid, since: Instant::now(), at: seconds(pid) }
    }

    /// Percent of one core since the start.
    pub fn percent(&self) -> f64 {
        100.0 * self.seconds() / self.since.elapsed().as_secs_f64()
    }

    /// Seconds of processor time since the start.
    pub fn seconds(&self) -> f64 {
        seconds(self.pid) - self.at
    }
}
