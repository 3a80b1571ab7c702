//! A camera: mediamtx with digest authentication that plays a clip in a loop.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait::eventually;

pub const USERNAME: &str = "viewer";
/// Needs percent-encoding, and is searched for in everything that was written.
pub const PASSWORD: &str = "p@ss+wOrd#7";

/// What a camera plays.
#[derive(Clone, Copy)]
pub enum Clip {
    /// H.264, 10 fps, a keyframe each second, AAC.
    H264WithSound,
    /// H.265, 10 fps, a keyframe each second.
    H265Silent,
}

pub struct Camera {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Camera {
    pub fn start(clip: Clip) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = folder.path().join("mediamtx.yml");
        let clip = clip_file(clip);
        let text = format!(
            "logLevel: warn
rtspAddress: 127.0.0.1:{port}
rtspTransports: [tcp]
rtspAuthMethods: [digest]
rtmp: no
hls: no
webrtc: no
srt: no
authInternalUsers:
  - user: {USERNAME}
    pass: '{PASSWORD}'
    permissions: [{{action: read}}]
  - user: any
    permissions: [{{action: publish}}]
paths:
  cam:
    runOnInit: ffmpeg -nostdin -v error -re -stream_loop -1 -i {} -c copy -f rtsp -rtsp_transport tcp rtsp://127.0.0.1:{port}/cam
    runOnInitRestart: yes
",
            clip.display()
        );
        std::fs::write(&config, text).expect("writes");
        let server = Command::new(mediamtx())
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("mediamtx starts");
        let camera = Self { server, port, _folder: folder };
        eventually("the camera listens", Duration::from_secs(20), String::new, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        camera
    }

    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/cam", self.port)
    }

    /// The sockets stay open, nothing comes.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the camera is there");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.server.id()).expect("a pid")).expect("a pid")
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        // TERM first: mediamtx ends its publisher.
        self.signal(Signal::TERM);
        for _ in 0..40 {
            if self.server.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.server.wait();
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Where `hack/cluster/build-tools` leaves what it built.
fn mediamtx() -> PathBuf {
    let cache = std::env::var_os("DSN_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME").expect("HOME"));
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from).join("dsn")
    });
    let program = cache.join("tools/bin/mediamtx");
    assert!(program.exists(), "no {}: run hack/cluster/build-tools mediamtx", program.display());
    program
}

/// Encoded once for all tests of this process.
fn clip_file(clip: Clip) -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    static H264: OnceLock<PathBuf> = OnceLock::new();
    static H265: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder")).path();
    let encode = |name: &str, options: &[&str]| {
        let file = folder.join(name);
        let status = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=20"])
            .args(options)
            .arg(&file)
            .status()
            .expect("ffmpeg is installed: apt-get install ffmpeg");
        assert!(status.success(), "ffmpeg made no clip");
        file
    };
    match clip {
        Clip::H264WithSound => H264.get_or_init(|| {
            let sound = ["-f", "lavfi", "-i", "sine=frequency=440:duration=20", "-c:a", "aac", "-b:a", "48k"];
            let picture = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "10", "-sc_threshold", "0"];
            encode("h264.mp4", &[&sound[..], &picture].concat())
        }),
        Clip::H265Silent => H265.get_or_init(|| {
            let parameters = "log-level=error:bframes=0:keyint=10:min-keyint=10:scenecut=0:open-gop=0";
            encode("h265.mp4", &["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", parameters])
        }),
    }
}
