//! What the agent takes beside ffmpeg, for a camera of 4 Mbit/s: processor time and memory, with uploads, announcements and
//! heartbeats going on; and ffmpeg alone, with the same arguments, in turns.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../harness/mod.rs"]
mod harness;

#[path = "../../tests/capture/agent_container.rs"]
mod agent_container;
#[path = "../../tests/capture/camera.rs"]
mod camera;
#[allow(dead_code)]
#[path = "../../tests/capture/capture_pod.rs"]
mod capture_pod;
#[allow(dead_code)]
#[path = "../../tests/capture/storage.rs"]
mod storage;
#[path = "../../tests/tools/mod.rs"]
mod tools;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use agent_container::{Agent, mount_config, operators_end, pod_of};
use camera::{Camera, Clip, free_port};
use capture_pod::CapturePod;
use dsn::{
    clients::broker::{self as amqp, Publish},
    domain::{
        control::{CONTROL_EXCHANGE, Command as Op, Envelope, Stored, instance_key},
        segment::Segment,
    },
};
use harness::{Samples, report::Report, rounds, row, usage};
use jiff::Timestamp;
use tools::{broker::RabbitMq, wait};

/// How long each side is measured in a round.
const SPAN: Duration = Duration::from_secs(64);
/// How long each side may warm up: live and spool are full of segments by then.
const WARM_UP: Duration = Duration::from_secs(16);

#[tokio::main]
async fn main() {
    harness::choose_tls_provider();
    if harness::wanted(&["agent"]).is_empty() {
        return;
    }
    let rabbit = RabbitMq::start();
    let camera = Camera::start(Clip::FourMegabit);
    let storage_port = free_port();
    let (_storage, uploads) = storage::serve(storage_port).await;
    let mut sides: [Side; 4] = Default::default();
    for round in 0..rounds(3) {
        let mut pod = pod_of(&camera, storage_port);
        mount_config(&mut pod, |assignment| assignment.segment_seconds = 4);
        fs::write(pod.path("agent/amqp-url"), rabbit.url()).expect("writes");
        let ear = listen(&rabbit, &pod).await;
        pod.start_runner();
        let mut agent = Agent::with_log(&pod, "info");
        pod.await_segments(1, Duration::from_secs(60));
        tokio::time::sleep(WARM_UP).await;
        let ffmpeg = pod.ffmpeg().expect("ffmpeg runs");
        let pids = [agent.process.id(), pod.runner_pid(), ffmpeg];
        let meters = pids.map(usage::Meter::start);
        let before = uploads.paths().len();
        tokio::time::sleep(SPAN).await;
        assert!(uploads.paths().len() >= before + 12, "uploads went on");
        assert_eq!(pod.ffmpeg(), Some(ffmpeg), "ffmpeg was started again");
        for ((side, meter), pid) in sides.iter_mut().zip(&meters).zip(pids) {
            side.take(meter, pid);
        }
        let alone = command_line(ffmpeg);
        // Not in the middle of an upload: the storage agent of the test would say so.
        agent.terminate();
        agent.process.wait().expect("it ends");
        assert!(!ear.0.is_finished(), "nobody has told the agent what is stored");
        drop(ear);
        pod.stop_runner();

        let mut alone = Alone::start(&alone, &pod);
        tokio::time::sleep(WARM_UP).await;
        let meter = usage::Meter::start(alone.process.id());
        tokio::time::sleep(SPAN).await;
        assert!(alone.process.try_wait().expect("it is ours").is_none(), "ffmpeg alone has ended");
        assert!(alone.segments() >= 16, "ffmpeg alone has made {} segments", alone.segments());
        sides[3].take(&meter, alone.process.id());
        eprintln!("round {round}: agent {:.2} % of a core", sides[0].processor.median());
    }
    let names = ["agent", "runner", "ffmpeg, under the runner", "ffmpeg alone, same arguments"];
    let mut rows = vec![row!["process", "processor, % of a core", "most memory, MB", "its own, MB"]];
    rows.extend(names.iter().zip(&sides).map(|(name, s)| row![name, s.processor.text(2), s.most, s.own]));
    let mut report = Report::new("agent");
    report.table(&rows);
    report.note(format!(
        "One camera of 4 Mbit/s (1280×720, 25 fps, H.264) over RTSP, segments of 4 s (2 MB), uploaded, announced and \
         trimmed as they are stored; {} rounds of {} s for each side, in turns. Its own is what is no page of its program: \
         those are there once for all on a machine that run it.",
        sides[0].processor.len(),
        SPAN.as_secs()
    ));
    report.publish();
}

/// What one process took, round by round.
#[derive(Default)]
struct Side {
    processor: Samples,
    most: Samples,
    own: Samples,
}

impl Side {
    fn take(&mut self, meter: &usage::Meter, pid: u32) {
        let memory = usage::memory(pid);
        self.processor.push(meter.percent());
        self.most.push(memory.most);
        self.own.push(memory.own);
    }
}

/// The arguments of a running process, the program's name first.
fn command_line(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).expect("the process lives");
    text.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(|w| String::from_utf8_lossy(w).into()).collect()
}

/// ffmpeg as the runner ran it, without anything of ours around it.
struct Alone {
    process: Child,
    folder: PathBuf,
}

impl Alone {
    fn start(command_line: &[String], pod: &CapturePod) -> Self {
        let folder = pod.path("alone");
        fs::create_dir(&folder).expect("a folder");
        // Only where it writes differs.
        let arguments = command_line[1..].iter().map(|word| match word.rsplit_once("/source/") {
            Some((_, file)) => format!("{}/{file}", folder.display()),
            None => word.clone(),
        });
        let process = Command::new(&command_line[0])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ffmpeg starts");
        Self { process, folder }
    }

    /// How many it has made.
    fn segments(&self) -> usize {
        let files = fs::read_dir(&self.folder).expect("its folder").flatten();
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "m4s")).count()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The other end of the broker: takes the announcements, and says once a minute that all is stored.
async fn listen(rabbit: &RabbitMq, pod: &CapturePod) -> Ear {
    let uid = pod.assignment.instance;
    let (broker, mut deliveries) = operators_end(rabbit, &[uid]).await;
    Ear(tokio::spawn(async move {
        loop {
            let delivery = amqp::next(&mut deliveries).await.expect("the queue stays");
            let envelope: Envelope<serde_json::Value> = serde_json::from_slice(&delivery.body).expect("an envelope");
            if envelope.op == "segment" {
                let segment: Segment = serde_json::from_value(envelope.data).expect("a segment");
                if segment.key.seq % 15 == 14 {
                    let stored = Stored { upto: vec![segment.key], exactly: vec![] };
                    let message = Envelope::unordered(uid.to_string(), "stored", Timestamp::now(), stored);
                    let key = instance_key(uid, Op::Stored);
                    broker.publish(CONTROL_EXCHANGE, &key, &message, Publish::default()).await.expect("told");
                }
            }
            delivery.ack().await.expect("acknowledged");
        }
    }))
}

struct Ear(tokio::task::JoinHandle<()>);

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.abort();
    }
}
