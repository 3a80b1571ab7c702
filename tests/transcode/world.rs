//! A spool as a camera fills it, with `dsn transcoder` beside it, and what ffprobe says of what is in it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dsn::domain::{
    container::Container,
    control::{Activity, Envelope, ObjectRef},
    id::{InstanceUid, Role, SessionId, StreamId},
    ladder::{LadderAssignment, Rendition},
    spool::{self, TranscoderReport},
};
use jiff::Timestamp;

/// Long enough for two busy cores that compile something beside it.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct World {
    folder: tempfile::TempDir,
    session: SessionId,
    pub container: Container,
    transcoder: Option<Child>,
    /// Instead of the real one.
    ffmpeg: Option<PathBuf>,
}

/// H.264 with a keyframe every 37 frames.
pub const H264: [&str; 10] = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "37", "-sc_threshold", "0"];

impl World {
    /// A spool with one session of 15 fps and a keyframe every 37 frames, cut at the first one after 4 s.
    pub fn new(codec: &[&str], audio: bool) -> Self {
        Self::packed(Container::Fmp4, codec, audio, &[])
    }

    /// The same in a container, with more options to its writer.
    pub fn packed(container: Container, codec: &[&str], audio: bool, options: &[&str]) -> Self {
        let sound = ["-f", "lavfi", "-i", "sine=440:r=48000", "-c:a", "aac", "-ac", "1", "-b:a", "64k"];
        let sound = if audio { &sound[..] } else { &[] };
        let picture = &["-f", "lavfi", "-i", "testsrc2=s=640x360:r=15"][..];
        Self::filmed(container, &[picture, sound, &["-t", "16"], codec].concat(), 4, options)
    }

    /// A spool with one session of what ffmpeg records with these options, cut at the first keyframe after so many
    /// seconds.
    pub fn filmed(container: Container, record: &[&str], seconds: u32, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let session = SessionId::new();
        let world = Self { folder, session, container, transcoder: None, ffmpeg: None };
        fs::create_dir_all(world.rendition("source")).expect("a folder");
        fs::create_dir(world.assignment()).expect("a folder");
        let clip = world.folder.path().join("clip.mp4");
        ffmpeg(record, &clip);
        let pattern = world.rendition("source").join(format!("%08d.{}", container.extension()));
        let kind = container.hls_options(false);
        let seconds = seconds.to_string();
        let segments = [
            &["-i", clip.to_str().expect("text"), "-c", "copy"],
            options,
            &["-f", "hls", "-hls_time", &seconds],
            &kind.iter().map(String::as_str).collect::<Vec<_>>(),
            &["-hls_flags", "temp_file", "-hls_segment_filename", pattern.to_str().expect("text")],
        ]
        .concat();
        ffmpeg(&segments, &world.rendition("source").join("live.m3u8"));
        world
    }

    pub fn h264() -> Self {
        Self::new(&H264, true)
    }

    pub fn spool(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn assignment(&self) -> PathBuf {
        self.folder.path().join("assignment")
    }

    pub fn rendition(&self, name: &str) -> PathBuf {
        self.spool().join(self.session.to_string()).join(name)
    }

    /// Tells the transcoder, as the agent would.
    pub fn tell(&self, revision: u64, renditions: &[(&str, u32, u32)]) {
        let object = |name: &str| ObjectRef { namespace: "test".into(), name: name.into(), uid: format!("{name}-uid") };
        let assignment = LadderAssignment {
            instance: InstanceUid::of("p", "c", Role::Transcoder, 0),
            stream: StreamId::of("p", "c"),
            activity: Activity::Running,
            pipeline: object("archive"),
            camera: object("lobby"),
            renditions: renditions
                .iter()
                .map(|(name, height, kbps)| Rendition {
                    name: (*name).into(),
                    height: *height,
                    video_bitrate_kbps: *kbps,
                })
                .collect(),
        };
        let mut envelope = Envelope::unordered("u", "apply", Timestamp::now(), assignment);
        envelope.revision = revision;
        let text = serde_json::to_vec(&envelope).expect("JSON");
        dsn::files::replace(&self.assignment().join(spool::LADDER_FILE), &text, false).expect("writes");
    }

    /// Gives the transcoder a shell script for an ffmpeg.
    pub fn pretend(&mut self, script: &str) {
        let file = self.spool().join("ffmpeg");
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a program");
        self.ffmpeg = Some(file);
    }

    pub fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.spool().join("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .arg("transcoder")
            .env("DSN_SPOOL", self.spool())
            .env("DSN_ASSIGNMENT", self.assignment())
            .env("DSN_FFMPEG", self.ffmpeg.as_deref().unwrap_or(Path::new("ffmpeg")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the transcoder starts");
        self.transcoder = Some(child);
    }

    pub fn kill(&mut self) {
        let mut child = self.transcoder.take().expect("a transcoder");
        child.kill().expect("killed");
        child.wait().expect("ends");
    }

    pub fn report(&self) -> TranscoderReport {
        let text = fs::read(self.spool().join(spool::TRANSCODER_REPORT_FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Numbers of the finished segments of a rendition.
    pub fn numbers(&self, rendition: &str) -> Vec<u64> {
        numbers(&self.rendition(rendition), spool::segment_seq)
    }

    pub fn given_up(&self, rendition: &str) -> Vec<u64> {
        numbers(&self.rendition(rendition), spool::given_up_seq)
    }

    /// What the transcoder said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.spool().join("log")).unwrap_or_default()
    }

    pub fn await_that(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?}\n{}", self.report(), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn segment(&self, rendition: &str, seq: u64) -> PathBuf {
        self.rendition(rendition).join(spool::segment_file(seq, self.container))
    }

    /// What ffprobe reads a segment from.
    pub fn input(&self, rendition: &str, seq: u64) -> String {
        let segment = self.segment(rendition, seq);
        let Some(init) = self.container.init_file() else { return segment.display().to_string() };
        let folder = self.rendition(rendition);
        let own = folder.join(spool::own_init_file(seq));
        let init = if own.exists() { own } else { folder.join(init) };
        format!("concat:{}|{}", init.display(), segment.display())
    }

    /// Packets of a segment: times in µs, in order.
    pub fn packets(&self, rendition: &str, seq: u64, kind: &str) -> Vec<i64> {
        let input = self.input(rendition, seq);
        let text = ffprobe(&["-select_streams", kind, "-show_entries", "packet=pts_time", &input]);
        text.lines().filter_map(|line| microseconds(line.trim_end_matches(','))).collect()
    }

    /// `codec_name,height` of a stream.
    pub fn stream(&self, rendition: &str, seq: u64, kind: &str) -> String {
        let input = self.input(rendition, seq);
        ffprobe(&["-select_streams", kind, "-show_entries", "stream=codec_name,height", &input]).trim().to_owned()
    }

    pub fn source_bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(self.rendition("source")).expect("a folder").flatten();
        files.map(|file| (file.path(), fs::read(file.path()).expect("reads"))).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.transcoder.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn numbers(folder: &Path, number: fn(&str) -> Option<u64>) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut numbers: Vec<u64> = entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    numbers
}

/// What ffprobe says in seconds.
pub fn microseconds(text: &str) -> Option<i64> {
    let seconds = text.parse::<f64>().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "seconds of a clip")]
    let us = (seconds * 1e6).round() as i64;
    Some(us)
}

fn ffmpeg(arguments: &[&str], output: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(arguments).arg(output);
    let output = command.output().expect("ffmpeg is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn ffprobe(arguments: &[&str]) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0"])
        .args(arguments)
        .output()
        .expect("ffprobe is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
