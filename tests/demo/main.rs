//! The first command of the README, as a person meets it: `make demo` ends with an address and a login, a browser that goes
//! there sees the camera, now and a moment ago, and `make demo-down` leaves nothing behind.
//!
//! Run by `hack/test demo` when no other test needs the processors; on its own where no demonstration runs already, because
//! that one would be taken and removed.

#[path = "../tools/mod.rs"]
mod tools;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tools::{stderr, stdout};

/// What the local cluster `demo` calls its interface, its table and its control group.
const NAME: &str = "dsn-demo";
/// Frames after which the clip behind the camera begins anew, 25 a second.
const CLIP: u16 = 7500;

/// hack/demo with a verb; what it printed. What it says of its progress is shown.
fn demo(verb: &str) -> String {
    let mut command = Command::new(tools::repository().join("hack/demo"));
    let output = command.arg(verb).env("YES", "1").stderr(Stdio::inherit()).output().expect("the script starts");
    assert!(output.status.success(), "hack/demo {verb}: {}\n{}", output.status, stdout(&output));
    stdout(&output)
}

/// A demonstration that goes with the value, also when the test fails.
struct Demonstration {
    is_up: bool,
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        if self.is_up {
            let _ = Command::new(tools::repository().join("hack/demo")).arg("down").status();
        }
    }
}

/// What `make demo` tells a person at its end.
struct Told {
    address: String,
    password: String,
    kubeconfig: String,
}

impl Told {
    fn from(text: &str) -> Self {
        let after = |start: &str| {
            let line =
                text.lines().skip_while(|line| !line.starts_with(start)).take(2).map(|line| line.trim().to_owned());
            line.collect::<Vec<_>>()
        };
        let word = |line: &str, number| line.split_whitespace().nth(number).map(str::to_owned);
        let told = || {
            let setting = after("  export KUBECONFIG=").first()?.split_once('=')?.1.to_owned();
            Some(Self {
                address: word(after("Page:").first()?, 1)?,
                password: word(after("Login:  admin").get(1)?, 0)?,
                kubeconfig: word(&setting, 0)?,
            })
        };
        told().unwrap_or_else(|| panic!("it does not say where to look:\n{text}"))
    }
}

/// What a browser showed of the page (ui/test/watch.js).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// Number of each picture that was shown.
    frames: Vec<u16>,
    /// The time that the page said of it.
    moments: Vec<Timestamp>,
    /// Media that was asked for before the login.
    before_login: Vec<String>,
    /// Uncaught errors and violations of the Content-Security-Policy.
    complaints: Vec<String>,
}

impl Shown {
    fn first(&self) -> Timestamp {
        *self.moments.first().expect("a picture with its time")
    }

    fn last(&self) -> Timestamp {
        *self.moments.last().expect("a picture with its time")
    }
}

/// Watches a place of the page in headless Chromium; asserts that the picture goes on.
fn watch(told: &Told, place: &str, seconds: u16) -> Shown {
    let output = Command::new("node")
        .arg(tools::repository().join("ui/test/watch.js"))
        .args([&told.address, &told.password, place, &seconds.to_string()])
        .output()
        .expect("Node.js is there");
    assert!(output.status.success(), "{place}: {}", stderr(&output));
    let shown: Shown = serde_json::from_slice(&output.stdout).expect("watch.js prints what it saw");
    assert!(shown.before_login.is_empty() && shown.complaints.is_empty(), "{place}: {shown:?}");
    let steps: Vec<u16> = shown.frames.windows(2).map(|pair| (pair[1] + CLIP - pair[0]) % CLIP).collect();
    assert!(steps.iter().all(|step| (1..250).contains(step)), "{place}: a picture came again: {steps:?}");
    let pictures: u16 = steps.iter().sum();
    assert!(pictures > seconds * 25 / 2, "{place}: {pictures} pictures further in {seconds} s");
    shown
}

/// What is on this machine of a local cluster `demo`: its folder, mounts, interface, firewall table, control groups, and
/// the processes in them.
fn left() -> Vec<String> {
    let folder = state();
    let mut found = Vec::new();
    let mut note = |what: &str, text: &str, word: &str| {
        found.extend(text.lines().filter(|line| line.contains(word)).map(|line| format!("{what}: {line}")));
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    note("mount", &read("/proc/mounts"), &folder.display().to_string());
    note("interface", &read("/proc/net/dev"), NAME);
    let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft is there");
    note("table", &stdout(&tables), NAME);
    for process in std::fs::read_dir("/proc").expect("processes").flatten() {
        // One may end meanwhile.
        let groups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        if groups.contains(NAME) {
            note("process", &process.path().display().to_string(), "/proc/");
        }
    }
    let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", NAME]).output().expect("find is there");
    note("control group", &stdout(&groups), NAME);
    if folder.exists() {
        found.push(format!("folder: {}", folder.display()));
    }
    found
}

/// Where a local cluster `demo` keeps everything.
fn state() -> PathBuf {
    let printed = Command::new(tools::repository().join("hack/cluster/cluster")).args(["kubeconfig", "demo"]).output();
    let printed = stdout(&printed.expect("the script starts"));
    Path::new(printed.trim()).parent().expect("a folder").to_owned()
}

#[test]
fn make_demo_shows_what_the_cameras_see_and_make_demo_down_leaves_nothing() {
    assert_eq!(left(), [""; 0], "a demonstration is there, and this test would remove it: make demo-down first");
    let mut demonstration = Demonstration { is_up: true };
    let begun = Instant::now();
    let told = Told::from(&demo("up"));
    eprintln!("up after {:.0?}", begun.elapsed());

    let live = watch(&told, "#/demo/lobby", 15);
    let behind = Timestamp::now().duration_since(live.last());
    assert!(behind < SignedDuration::from_secs(30), "live is {behind:#} behind");

    // From here on the pictures come from the storage nodes.
    let stored = tools::program("kubectl");
    let stored = Command::new(stored)
        .args(["--kubeconfig", &told.kubeconfig, "--namespace=demo", "wait", "--for=condition=Stored", "pipeline/hq"])
        .arg("--timeout=120s")
        .output()
        .expect("kubectl starts");
    assert!(stored.status.success(), "{}", stderr(&stored));
    let (from, to) = (live.first(), live.last());
    let replay = watch(&told, &format!("#/demo/lobby/range/{from}/{to}"), 5);
    let within = from.as_millisecond()..=to.as_millisecond();
    for moment in [replay.first(), replay.last()] {
        assert!(within.contains(&moment.as_millisecond()), "{moment} is not within {from} and {to}");
    }
    eprintln!("seen after {:.0?}", begun.elapsed());

    demo("down");
    demonstration.is_up = false;
    assert_eq!(left(), [""; 0]);
    eprintln!("gone after {:.0?}", begun.elapsed());
}
