//! The operator as a process, as its pod runs it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness,
    tools::{broker::RabbitMq, free_port},
    world::{SYSTEM, World},
};

/// All its images: nothing is ever pulled here.
pub const IMAGE: &str = "registry.invalid/dsn:bench";

/// It ends when dropped.
pub struct Operator {
    process: Child,
    metrics: u16,
    log: PathBuf,
}

impl Operator {
    /// Starts it as the administrator of the API server, and waits until it leads and is connected to the broker.
    pub async fn start(world: &World, rabbit: &RabbitMq, vhost: &str) -> Self {
        Self::start_as(world, rabbit, vhost, world.api.kubeconfig()).await
    }

    /// As [`Self::start`], as whom the kubeconfig says.
    pub async fn start_as(world: &World, rabbit: &RabbitMq, vhost: &str, kubeconfig: &Path) -> Self {
        let metrics = free_port();
        let log = world.api.folder().join("operator.log");
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let image = |name: &str| format!("--{name}={IMAGE}");
        let process = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .args(["operator", "--namespace", SYSTEM, "--pod-name", "dsn-operator-0", "--vhost", vhost])
            .args(["--broker-host", "127.0.0.1", "--broker-port", &rabbit.port().to_string()])
            .args(["--management-url", &rabbit.management()])
            .args([
                image("image"),
                image("capture-image"),
                image("transcoder-image"),
                image("kubo-image"),
                image("cluster-image"),
            ])
            .arg(format!("--metrics-listen=127.0.0.1:{metrics}"))
            .env("KUBECONFIG", kubeconfig)
            // As the chart has it.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .expect("the operator starts");
        let operator = Self { process, metrics, log };
        harness::until("the operator leads and is connected", Duration::from_secs(60), async || {
            let seen = operator.metrics().await;
            let is = |name: &str| seen.get(name).is_some_and(|value| *value >= 1.0);
            if is("dsn_leader") && is("dsn_broker_connected") { Ok(()) } else { Err(operator.said()) }
        })
        .await;
        // What the storage nodes ask for is made before anything is measured.
        tokio::time::sleep(Duration::from_secs(2)).await;
        operator
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its metrics, by name with labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let Ok(answer) = reqwest::get(url).await else { return BTreeMap::new() };
        let text = answer.text().await.unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    /// Sum of the metrics whose names begin and contain so.
    pub async fn sum(&self, begins: &str, contains: &str) -> f64 {
        let metrics = self.metrics().await;
        metrics.iter().filter(|(name, _)| name.starts_with(begins) && name.contains(contains)).map(|(_, v)| v).sum()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().lines().rev().take(10).collect::<Vec<_>>().join("\n")
    }

    /// Ends it as a rolling update does.
    pub fn terminate(mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it is there");
        self.process.wait().expect("it ends");
    }

    /// Where somebody may look at what it said, when `BENCH_KEEP` names a folder.
    pub fn keep_log(&self) {
        if let Some(folder) = std::env::var_os("BENCH_KEEP") {
            fs::copy(&self.log, PathBuf::from(folder).join("operator.log")).expect("the log is kept");
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
