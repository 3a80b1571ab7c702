//! The agent's container, beside a runner's: what the kubelet would mount, and a process.

#![allow(dead_code, reason = "tests and benchmarks use their part each")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dsn::{
    clients::broker::{self, Broker, Delivery},
    domain::{
        control::{CONTROL_EXCHANGE, EVENTS_EXCHANGE, instance_queue},
        id::{InstanceUid, SessionId},
        live::LiveWindow,
    },
};
use futures::{StreamExt, stream::BoxStream};
use rustix::process::Signal;

use crate::{
    camera::{Camera, free_port},
    capture_pod::{CapturePod, signal},
    storage::UPLOAD_TOKEN,
    tools::broker::RabbitMq,
};

/// What its live endpoints ask for.
pub const LIVE_TOKEN: &str = "live-token-of-the-test";
/// Until something that needs a picture and a segment is there.
pub const START: Duration = Duration::from_secs(40);

/// The running agent; it ends when dropped.
pub struct Agent {
    pub process: Child,
    pub live_port: u16,
    metrics_port: u16,
    http: reqwest::Client,
}

impl Agent {
    /// Starts it; it says a lot.
    pub fn start(pod: &CapturePod) -> Self {
        Self::with_log(pod, "info,dsn=debug,lapin=off")
    }

    /// Starts it; `filter` says what it logs.
    pub fn with_log(pod: &CapturePod, filter: &str) -> Self {
        fs::write(pod.path("agent/live-token"), LIVE_TOKEN).expect("writes");
        fs::write(pod.path("storage/upload-token"), UPLOAD_TOKEN).expect("writes");
        let (live_port, metrics_port) = (free_port(), free_port());
        let log = fs::File::options().create(true).append(true).open(pod.path("agent.log")).expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .arg("agent")
            .env("DSN_LOG", filter)
            .env("DSN_SPOOL", pod.path("spool"))
            .env("DSN_ASSIGNMENT", pod.path("assignment"))
            .env("DSN_CONFIG", pod.path("config/assignment.json"))
            .env("DSN_AGENT_SECRET", pod.path("agent"))
            .env("DSN_STORAGE_SECRET", pod.path("storage"))
            .env("DSN_LIVE_ADDRESS", format!("127.0.0.1:{live_port}"))
            .env("DSN_METRICS_ADDRESS", format!("127.0.0.1:{metrics_port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the agent starts");
        Self { process, live_port, metrics_port, http: reqwest::Client::new() }
    }

    pub async fn live(&self) -> Option<LiveWindow> {
        let url = format!("http://127.0.0.1:{}/v1/live", self.live_port);
        self.http.get(url).bearer_auth(LIVE_TOKEN).send().await.ok()?.json().await.ok()
    }

    /// A live window with so many segments.
    pub async fn await_live(&self, pod: &CapturePod, what: &str, wanted: impl Fn(&LiveWindow) -> bool) -> LiveWindow {
        let mut last = None;
        for _ in 0..START.as_millis() / 100 {
            last = self.live().await;
            if let Some(window) = last.as_ref().filter(|window| wanted(window)) {
                return window.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: {last:?}\n{}\n{}", pod.context(), log(pod));
    }

    pub async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics_port);
        let text = match self.http.get(url).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// Content type and bytes of a live file of the source.
    pub async fn live_file(&self, session: SessionId, file: &str) -> (Option<String>, bytes::Bytes) {
        let url = format!("http://127.0.0.1:{}/v1/live/{session}/source/{file}", self.live_port);
        let answer = self.http.get(url).bearer_auth(LIVE_TOKEN).send().await.expect("answers");
        let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        (kind, answer.bytes().await.expect("bytes"))
    }

    pub fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ends");
    }

    pub fn terminate(&self) {
        signal(self.process.id(), Signal::TERM);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What it had to say.
pub fn log(pod: &CapturePod) -> String {
    let log = fs::read_to_string(pod.path("agent.log")).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(40).collect();
    format!("agent's log, newest first:\n{}", tail.join("\n"))
}

/// Looks until it is so.
pub async fn eventually_async(what: &str, context: impl Fn() -> String, look: impl AsyncFn() -> bool) {
    for _ in 0..START.as_millis() / 100 {
        if look().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: {}", context());
}

/// What the kubelet mounts.
pub fn mount_config(pod: &mut CapturePod, change: impl FnOnce(&mut dsn::domain::control::Assignment)) {
    let text = serde_json::to_vec(&pod.envelope(change)).expect("JSON");
    dsn::files::replace(&pod.path("config/assignment.json"), &text, false).expect("writes");
}

/// A pod in which the agent writes the assignment.
pub fn pod_of(camera: &Camera, storage_port: u16) -> CapturePod {
    with_agent(CapturePod::new(&camera.url()), storage_port)
}

/// The same of a given pod.
pub fn with_agent(mut pod: CapturePod, storage_port: u16) -> CapturePod {
    fs::remove_file(pod.path("assignment/assignment.json")).expect("removed");
    mount_config(&mut pod, |assignment| assignment.storage_url = format!("http://127.0.0.1:{storage_port}"));
    pod
}

/// The operator's end of the broker: the exchanges, a queue for each instance, and what all of them say.
pub async fn operators_end(
    rabbit: &RabbitMq,
    instances: &[InstanceUid],
) -> (Broker, BoxStream<'static, Result<Delivery, broker::Error>>) {
    let broker = Broker::connect(&rabbit.url(), "test").await.expect("connects");
    for exchange in [CONTROL_EXCHANGE, EVENTS_EXCHANGE] {
        broker.declare_exchange(exchange).await.expect("declared");
    }
    let none = BTreeMap::new();
    for uid in instances {
        let keys = [format!("inst.{uid}.#"), "all.#".to_owned()];
        broker.declare_queue(&instance_queue(*uid), &none, CONTROL_EXCHANGE, &keys).await.expect("declared");
    }
    broker.declare_queue("test.ear", &none, EVENTS_EXCHANGE, &["evt.#".to_owned()]).await.expect("declared");
    let heard = broker.consume("test.ear", 50).await.expect("consumes").boxed();
    (broker, heard)
}
