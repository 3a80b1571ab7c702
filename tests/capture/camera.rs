//! A camera: the project's own test camera (`images/camera/server`), an RTSP server with digest authentication that
//! plays a clip in a loop.

#![allow(dead_code, reason = "tests and benchmarks use their part each")]

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

pub use crate::tools::free_port;
use crate::wait::eventually;

pub const USERNAME: &str = "viewer";
/// Needs percent-encoding, and is searched for in everything that was written.
pub const PASSWORD: &str = "p@ss+wOrd#7";

/// What a camera plays.
#[derive(Clone, Copy)]
pub enum Clip {
    /// H.264, 10 fps, a keyframe each second, AAC.
    H264WithSound,
    /// The same picture with G.711 (A-law): the sound of most cameras.
    H264WithG711,
    /// H.265, 10 fps, a keyframe each second.
    H265Silent,
    /// What [`Clip::H264WithSound`] becomes when somebody sets the camera to H.265: under the same address.
    ReplacedByH265,
    /// H.264, silent, 10 fps, a keyframe each second: 16 s of 320×180, 16 s of 480×270 and so on, in one connection.
    ChangesSize,
    /// The same in H.265.
    ChangesSizeH265,
    /// As [`Clip::H264WithSound`], but after [`PICTURE`] the picture stands still, and goes on after [`SOUND`].
    PictureFreezes,
    /// H.264, 1280×720 at 25 fps, a keyframe each second, 4 Mbit/s.
    FourMegabit,
}

impl Clip {
    /// What is played.
    pub fn file(self) -> PathBuf {
        let (folder, name) = clip_file(self);
        folder.join(format!("{name}.ts"))
    }
}

/// How long the picture of [`Clip::PictureFreezes`] moves, and how long the clip is.
pub const PICTURE: Duration = Duration::from_secs(16);
/// See [`PICTURE`].
pub const SOUND: Duration = Duration::from_secs(40);

pub struct Camera {
    server: Child,
    port: u16,
    name: &'static str,
}

impl Camera {
    pub fn start(clip: Clip) -> Self {
        Self::start_at(free_port(), clip)
    }

    /// The same camera, set up otherwise.
    pub fn restart(mut self, clip: Clip) -> Self {
        self.switch_off();
        Self::start_at(self.port, clip)
    }

    /// Nobody listens at its port any more.
    pub fn switch_off(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    fn start_at(port: u16, clip: Clip) -> Self {
        let (folder, name) = clip_file(clip);
        let server = Command::new(program())
            .env("CAMERA_USERNAME", USERNAME)
            .env("CAMERA_PASSWORD", PASSWORD)
            .env("CAMERA_ADDRESS", format!("127.0.0.1:{port}"))
            .env("CAMERA_CLIPS", folder)
            .env("CAMERA_STREAMS", name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the camera starts");
        eventually("the camera listens", Duration::from_secs(20), String::new, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        Self { server, port, name }
    }

    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same by way of another port.
    pub fn url_at(&self, port: u16) -> String {
        format!("rtsp://127.0.0.1:{port}/{}", self.name)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The sockets stay open, nothing comes.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.server.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("the camera is there");
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.switch_off();
    }
}

/// What is made once is kept beside the other products of the build; one maker at a time.
fn made(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _making = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (file, partial) = (folder.join(name), folder.join(format!("partial-{name}")));
    if !file.exists() {
        make(&partial);
        std::fs::rename(partial, &file).expect("renamed");
    }
    file
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .status()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

fn program() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/camera/server");
    // Under the name of what it is made of: another is made when that changes.
    let mut hasher = DefaultHasher::new();
    for file in ["main.go", "clip.go", "go.mod", "go.sum"] {
        std::fs::read(source.join(file)).expect("reads").hash(&mut hasher);
    }
    made(&format!("camera-{:016x}", hasher.finish()), |file| {
        run("go", &["build", "-trimpath", "-buildvcs=false", "-o", &file.to_string_lossy(), "."], &source);
    })
}

/// Folder and name of a clip. Without B-frames, picture and sound of equal length, as the camera wants it.
fn clip_file(clip: Clip) -> (PathBuf, &'static str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let picture = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=16"];
    let encode = |file: &Path, sound: &[&str], options: &[&str]| {
        let file = file.to_string_lossy();
        run(
            "ffmpeg",
            &[&picture[..], sound, options, &["-pix_fmt", "yuv420p", "-f", "mpegts", &file]].concat(),
            folder,
        );
    };
    let h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "10", "-sc_threshold", "0"];
    let name = match clip {
        Clip::H264WithSound => {
            let sound = sound(17);
            made("capture-h264.ts", |file| {
                let sound = ["-i", &sound, "-map", "0:v", "-map", "1:a", "-c:a", "copy", "-frames:a", "500"];
                encode(file, &sound, &h264);
            });
            "capture-h264"
        }
        Clip::PictureFreezes => {
            let (moves, whole) = (PICTURE.as_secs(), SOUND.as_secs());
            let sound = sound(whole + 1);
            made("capture-freezes.ts", |file| {
                // The last frame makes both tracks equally long.
                let frames = format!("select=lt(n\\,{})+eq(n\\,{})", moves * 10, whole * 10 - 1);
                let picture = format!("testsrc2=size=320x180:rate=10:duration={whole}");
                let source = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-i", &sound];
                let sound = (whole * 125 / 4).to_string();
                let sound = ["-map", "0:v", "-map", "1:a", "-c:a", "copy", "-frames:a", &sound];
                let picture = ["-vf", &frames, "-fps_mode", "passthrough", "-max_interleave_delta", "0"];
                let file = file.to_string_lossy();
                let form = ["-pix_fmt", "yuv420p", "-f", "mpegts", &file];
                run("ffmpeg", &[&source[..], &sound, &picture, &h264, &form].concat(), folder);
            });
            "capture-freezes"
        }
        Clip::H264WithG711 => {
            made("capture-g711.ts", |file| encode(file, &[], &h264));
            made("capture-g711.alaw", |file| {
                let tone = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=8000", "-t", "16", "-c:a", "pcm_alaw"];
                let file = file.to_string_lossy();
                run(
                    "ffmpeg",
                    &[&["-nostdin", "-v", "error", "-y"], &tone[..], &["-f", "alaw", &file]].concat(),
                    folder,
                );
            });
            "capture-g711"
        }
        Clip::FourMegabit => {
            made("capture-4m.ts", |file| {
                // Noise, because the test picture alone would not fill 4 Mbit/s.
                let picture = "testsrc2=size=1280x720:rate=25:duration=16,noise=alls=24:allf=t";
                let source = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture];
                let gop = ["-preset", "ultrafast", "-bf", "0", "-g", "25", "-sc_threshold", "0"];
                let rate = ["-b:v", "4M", "-minrate", "4M", "-maxrate", "4M", "-bufsize", "1M"];
                let file = file.to_string_lossy();
                let form = ["-pix_fmt", "yuv420p", "-f", "mpegts", &file];
                run("ffmpeg", &[&source[..], &["-c:v", "libx264"], &gop, &rate, &form].concat(), folder);
            });
            "capture-4m"
        }
        Clip::H265Silent => {
            made("capture-h265.ts", |file| {
                let parameters = "log-level=error:bframes=0:keyint=10:min-keyint=10:scenecut=0:open-gop=0";
                encode(file, &[], &["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", parameters]);
            });
            "capture-h265"
        }
        Clip::ChangesSize => {
            halves("capture-sizes.ts", &["-c:v", "libx264", "-bf", "0", "-g", "10", "-sc_threshold", "0"]);
            "capture-sizes"
        }
        Clip::ChangesSizeH265 => {
            let parameters = "log-level=error:bframes=0:keyint=10:min-keyint=10:scenecut=0:open-gop=0";
            halves("capture-sizes-h265.ts", &["-c:v", "libx265", "-x265-params", parameters]);
            "capture-sizes-h265"
        }
        Clip::ReplacedByH265 => {
            let (source, name) = clip_file(Clip::H265Silent);
            let (replaced, h264) = (folder.join("replaced"), clip_file(Clip::H264WithSound).1);
            std::fs::create_dir_all(&replaced).expect("a folder");
            std::fs::copy(source.join(format!("{name}.ts")), replaced.join(format!("{h264}.ts"))).expect("copied");
            return (replaced, h264);
        }
    };
    (folder.to_owned(), name)
}

/// A tone at 32 kHz: a whole number of AAC frames fills a clip. Raw, so that the loop has no silent first frame.
fn sound(seconds: u64) -> String {
    let file = made(&format!("capture-sound-{seconds}.aac"), |file| {
        let (seconds, file) = (seconds.to_string(), file.to_string_lossy());
        let tone = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=32000", "-t", &seconds, "-c:a", "aac"];
        let whole = [&["-nostdin", "-v", "error", "-y"], &tone[..], &["-f", "adts", &file]].concat();
        run("ffmpeg", &whole, Path::new(env!("CARGO_TARGET_TMPDIR")));
    });
    file.to_string_lossy().into_owned()
}

/// A clip whose second half is larger than its first.
fn halves(name: &str, codec: &[&str]) {
    made(name, |file| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut list = Vec::new();
        for size in ["320x180", "480x270"] {
            let picture = format!("testsrc2=size={size}:rate=10:duration=16");
            let source = ["-nostdin", "-v", "error", "-f", "lavfi", "-i", &picture, "-preset", "ultrafast"];
            let file = format!("{size}.ts");
            run(
                "ffmpeg",
                &[&source[..], codec, &["-pix_fmt", "yuv420p", "-f", "mpegts", &file]].concat(),
                folder.path(),
            );
            list.push(format!("file {file}\nduration 16\n"));
        }
        std::fs::write(folder.path().join("list"), list.concat()).expect("writes");
        let file = file.to_string_lossy();
        let joined =
            ["-nostdin", "-v", "error", "-y", "-f", "concat", "-i", "list", "-c", "copy", "-f", "mpegts", &file];
        run("ffmpeg", &joined, folder.path());
    });
}
