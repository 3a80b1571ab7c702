//! What a capture pod gives its runner: a spool, an assignment, credentials, and a process to run in.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

use dsn::domain::{
    container::{Container, Layout},
    control::{Activity, Assignment, Audio, CaptureSource, Envelope, ObjectRef, Phase},
    id::{InstanceUid, Role, SessionId, StreamId},
    media::{Description, Media},
    spool::{self, RunnerReport, SessionFile},
};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    camera::{PASSWORD, USERNAME},
    wait::eventually,
};

/// So many pods at a time: the times that are asserted hold on two busy cores, not on two drowning ones.
static SLOTS: (Mutex<u32>, Condvar) = (Mutex::new(ALL_SLOTS), Condvar::new());

const ALL_SLOTS: u32 = 3;

struct Slot(u32);

impl Slot {
    fn take(slots: u32) -> Self {
        let free = SLOTS.0.lock().expect("whole");
        *SLOTS.1.wait_while(free, |free| *free < slots).expect("whole") -= slots;
        Self(slots)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *SLOTS.0.lock().expect("whole") += self.0;
        SLOTS.1.notify_all();
    }
}

/// A disk of its own: memory, mounted by root.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, bytes: u64) -> Self {
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).status().expect("mount is there");
        assert!(status.success(), "mount: {status}: needs root");
        Self(path.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it keeps it, and nobody sees it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

pub struct CapturePod {
    /// Goes before the folder that it is mounted in.
    disk: Option<Disk>,
    pub folder: tempfile::TempDir,
    pub assignment: Assignment,
    revision: u64,
    runner: Option<Child>,
    _slot: Slot,
}

impl CapturePod {
    /// A pod whose runner is not started yet.
    pub fn new(url: &str) -> Self {
        Self::in_slot(url, Slot::take(1))
    }

    /// One without others beside it, for a test that asserts seconds.
    pub fn alone(url: &str) -> Self {
        Self::in_slot(url, Slot::take(ALL_SLOTS))
    }

    fn in_slot(url: &str, slot: Slot) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["spool", "assignment", "credentials", "config", "agent", "storage"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let object = |name: &str| ObjectRef { namespace: "test".into(), name: name.into(), uid: format!("{name}-uid") };
        let (pipeline, camera) = (object("archive"), object("lobby"));
        let assignment = Assignment {
            instance: InstanceUid::of(&pipeline.uid, &camera.uid, Role::Capture, 0),
            stream: StreamId::of(&pipeline.uid, &camera.uid),
            activity: Activity::Running,
            pipeline,
            camera,
            site: "hq".into(),
            source: CaptureSource {
                url: url.into(),
                transport: "tcp".into(),
                credentials: true,
                credentials_secret: Some("lobby-login".into()),
            },
            segment_seconds: 1,
            container: Container::default(),
            audio: Audio::default(),
            storage_url: "http://127.0.0.1:1".into(),
            spool_bytes: 100 << 20,
        };
        let mut pod = Self { disk: None, folder, assignment, revision: 0, runner: None, _slot: slot };
        pod.login(USERNAME, PASSWORD);
        pod.assign(|_| {});
        pod
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn login(&self, username: &str, password: &str) {
        for (file, content) in [(spool::USERNAME_FILE, username), (spool::PASSWORD_FILE, password)] {
            dsn::files::replace(&self.path("credentials").join(file), content.as_bytes(), false).expect("writes");
        }
    }

    /// Its spool lies on a disk of this size.
    pub fn with_disk(&mut self, bytes: u64) {
        self.disk = Some(Disk::mount(&self.path("spool"), bytes));
    }

    /// The next revision of the assignment, as the operator writes it.
    pub fn envelope(&mut self, change: impl FnOnce(&mut Assignment)) -> Envelope<Assignment> {
        change(&mut self.assignment);
        self.revision += 1;
        let uid = self.assignment.instance.to_string();
        let mut envelope = Envelope::unordered(uid, "apply", Timestamp::now(), self.assignment.clone());
        envelope.revision = self.revision;
        envelope
    }

    /// Tells the runner, as the agent would.
    pub fn assign(&mut self, change: impl FnOnce(&mut Assignment)) {
        let text = serde_json::to_vec(&self.envelope(change)).expect("JSON");
        dsn::files::replace(&self.path("assignment").join(spool::ASSIGNMENT_FILE), &text, false).expect("writes");
    }

    pub fn start_runner(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("runner.log")).expect("a log");
        let runner = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .arg("runner")
            .env("DSN_LOG", "debug")
            .env("DSN_SPOOL", self.path("spool"))
            .env("DSN_ASSIGNMENT", self.path("assignment"))
            .env("DSN_CREDENTIALS", self.path("credentials"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the runner starts");
        self.runner = Some(runner);
    }

    /// A second runner on the same volume, which is the pod's from now on; returns the first.
    pub fn start_another_runner(&mut self) -> Child {
        let old = self.runner.take().expect("a runner");
        self.start_runner();
        old
    }

    pub fn runner_pid(&self) -> u32 {
        self.runner.as_ref().expect("a runner").id()
    }

    /// TERM; how long it took to end.
    pub fn stop_runner(&mut self) -> Duration {
        let begun = Instant::now();
        let mut runner = self.runner.take().expect("a runner");
        signal(runner.id(), Signal::TERM);
        runner.wait().expect("ends");
        begun.elapsed()
    }

    pub fn kill_runner(&mut self) {
        let mut runner = self.runner.take().expect("a runner");
        runner.kill().expect("killed");
        runner.wait().expect("ends");
    }

    /// The running ffmpeg.
    pub fn ffmpeg(&self) -> Option<u32> {
        children(self.runner_pid()).into_iter().find(|pid| command_line(*pid).contains("-hls_time"))
    }

    pub fn report(&self) -> RunnerReport {
        fs::read(self.path("spool").join(spool::REPORT_FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub fn sessions(&self) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> = fs::read_dir(self.path("spool"))
            .expect("a spool")
            .flatten()
            .filter_map(|entry| spool::session_of(entry.file_name().to_str()?))
            .collect();
        sessions.sort();
        sessions
    }

    pub fn session_file(&self, session: SessionId) -> Option<SessionFile> {
        let text = fs::read(self.path("spool").join(session.to_string()).join(spool::SESSION_FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub fn rendition(&self, session: SessionId) -> PathBuf {
        self.path("spool").join(session.to_string()).join("source")
    }

    /// What a finished segment says, as the agent reads it.
    pub fn read(&self, session: SessionId, container: Container, bytes: &[u8]) -> (Media, Description) {
        let init = container.init_file().map(|file| fs::read(self.rendition(session).join(file)).expect("reads"));
        let layout = Layout::read(init.as_deref(), None).expect("well-formed");
        layout.scan(bytes).unwrap_or_else(|why| panic!("a segment of {session}: {why}"))
    }

    /// Finished segments of a session and their content.
    pub fn segments(&self, session: SessionId) -> BTreeMap<u64, Vec<u8>> {
        let Ok(files) = fs::read_dir(self.rendition(session)) else { return BTreeMap::new() };
        files
            .flatten()
            .filter_map(|file| Some((spool::segment_seq(file.file_name().to_str()?)?, fs::read(file.path()).ok()?)))
            .collect()
    }

    pub fn await_phase(&self, phase: Phase, within: Duration) -> RunnerReport {
        self.await_report(&format!("phase {phase:?}"), within, |report| report.phase == phase)
    }

    pub fn await_report(&self, what: &str, within: Duration, wanted: impl Fn(&RunnerReport) -> bool) -> RunnerReport {
        eventually(what, within, || self.context(), || Some(self.report()).filter(&wanted))
    }

    /// A session that is recording and has this many finished segments.
    pub fn await_segments(&self, count: usize, within: Duration) -> SessionId {
        eventually(
            &format!("{count} segments"),
            within,
            || self.context(),
            || {
                let session = *self.sessions().last()?;
                (self.segments(session).len() >= count).then_some(session)
            },
        )
    }

    pub fn context(&self) -> String {
        let log = fs::read_to_string(self.path("runner.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(25).collect();
        format!("report: {:?}\nlog, newest first:\n{}", self.report(), tail.join("\n"))
    }
}

impl Drop for CapturePod {
    fn drop(&mut self) {
        if let Some(mut runner) = self.runner.take() {
            let _ = runner.kill();
            let _ = runner.wait();
        }
    }
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("the process is there");
}

pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            stat(*pid).is_some_and(|stat| {
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok()) == Some(parent)
            })
        })
        .collect()
}

pub fn command_line(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|text| String::from_utf8_lossy(&text).replace('\0', " "))
        .unwrap_or_default()
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}
