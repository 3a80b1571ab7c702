//! A storage group on loopback: real kubo, real ipfs-cluster and `dsn storage serve`, one of each for every node, as
//! they stand together in a pod.

#![allow(dead_code, reason = "tests and benchmarks use their part each")]

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dsn::{
    clients::{ipfs_cluster::IpfsCluster, storage_agent::StorageAgent},
    domain::{
        cid::{FileDigest, FileHasher},
        group::{Endpoint, Node as Listed, Peers},
        identity::{self, Identity},
        name::secret_key,
    },
};
use tempfile::TempDir;

/// Longest time that anything may take to come about.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Uploads with this.
pub const UPLOAD: &str = "upload-token-of-the-group";
/// Reads and rolls up with this.
pub const SERVER: &str = "server-token-of-the-group";
/// Password of ipfs-cluster's REST API.
pub const PASSWORD: &str = "password-of-the-group";

/// The words that open a group's doors.
#[derive(Clone)]
pub struct Doors {
    pub upload: String,
    pub server: String,
    pub password: String,
}

impl Default for Doors {
    fn default() -> Self {
        Self { upload: UPLOAD.into(), server: SERVER.into(), password: PASSWORD.into() }
    }
}

/// The program of that name, from the folder `DSN_TOOLS` or from the PATH. A test without it fails: it would prove nothing.
pub fn tool(name: &str) -> PathBuf {
    let folders = std::env::var_os("DSN_TOOLS").into_iter().chain(std::env::var_os("PATH"));
    folders
        .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is neither in DSN_TOOLS nor in the PATH: build it with hack/cluster"))
}

/// A port of loopback that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Waits until `attempt` succeeds; says what it saw when it does not.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => panic!("{what}: not within {PATIENCE:?}: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The digest of some bytes.
pub fn digest(bytes: &[u8]) -> FileDigest {
    let mut hasher = FileHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Bytes that anyone can make again, different for each seed.
pub fn footage(seed: u8, length: usize) -> Vec<u8> {
    (0..251u32).map(|i| u8::try_from(i * i % 251).expect("below 251") ^ seed).cycle().take(length).collect()
}

/// A process that ends with its owner.
pub struct Process(Child);

impl Process {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        Self(child)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it can be waited for");
    }

    /// `kill -STOP`: as a machine that lost its power, for those who are connected to it.
    pub fn pause(&self) {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(id, rustix::process::Signal::STOP).expect("it can be stopped");
    }

    /// Is it still the same process?
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One node.
pub struct Node {
    pub name: String,
    pub folder: PathBuf,
    pub kubo_id: Identity,
    pub cluster_id: Identity,
    pub kubo_port: u16,
    cluster_port: u16,
    pub rest_port: u16,
    pub agent_port: u16,
    metrics_port: u16,
    doors: Doors,
    pub kubo: Option<Process>,
    pub cluster: Option<Process>,
    pub agent: Option<Process>,
}

impl Node {
    fn listed(&self) -> Listed {
        Listed {
            name: self.name.clone(),
            host: "127.0.0.1".into(),
            kubo: Endpoint { id: self.kubo_id.peer_id.clone(), port: self.kubo_port },
            cluster: Endpoint { id: self.cluster_id.peer_id.clone(), port: self.cluster_port },
        }
    }

    /// The unix socket of its kubo.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    /// Its storage agent, for a capture agent.
    pub fn uploader(&self) -> StorageAgent {
        StorageAgent::new(self.url(), self.doors.upload.as_str()).expect("a client")
    }

    /// Its storage agent, for the server.
    pub fn reader(&self) -> StorageAgent {
        StorageAgent::new(self.url(), self.doors.server.as_str()).expect("a client")
    }

    /// Its ipfs-cluster peer.
    pub fn rest(&self) -> IpfsCluster {
        IpfsCluster::new(&format!("http://127.0.0.1:{}", self.rest_port), self.doors.password.as_str())
            .expect("a client")
    }

    /// Address of its storage agent.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.agent_port)
    }

    /// What `/readyz` says.
    pub async fn ready(&self) -> Result<(), String> {
        let url = format!("http://127.0.0.1:{}/readyz", self.metrics_port);
        let response = reqwest::get(url).await.map_err(|error| error.to_string())?;
        let ready = response.status().is_success();
        let words = response.text().await.map_err(|error| error.to_string())?;
        if ready { Ok(()) } else { Err(words) }
    }

    /// What `/metrics` says.
    pub async fn metrics(&self) -> String {
        let response =
            reqwest::get(format!("http://127.0.0.1:{}/metrics", self.metrics_port)).await.expect("an answer");
        response.text().await.expect("text")
    }

    /// Asks the cluster with a tool that is not ours.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(tool("ipfs-cluster-ctl"))
            .args(["--host", &format!("/ip4/127.0.0.1/tcp/{}", self.rest_port)])
            .args(["--basic-auth", &format!("dsn:{}", self.doors.password), "--force-http"])
            .args(arguments)
            .output()
            .expect("ipfs-cluster-ctl runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Asks kubo with a tool that is not ours.
    pub fn ipfs(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let output = Command::new(tool("ipfs"))
            .env("IPFS_PATH", self.folder.join("data/ipfs"))
            .args(["--api", &format!("/unix{}", self.socket().display())])
            .args(arguments)
            .output()
            .expect("ipfs runs");
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// As the init container: writes all configuration.
    pub fn init(&self) {
        let folder = |name: &str| self.folder.join(name);
        let ran = Command::new(env!("CARGO_BIN_EXE_dsn"))
            .args(["storage", "init", "--node", &self.name, "--host", &format!("machine-{}", self.name)])
            .args(["--storage-max", "1000000000", "--listen", "127.0.0.1"])
            .args(["--kubo-port", &self.kubo_port.to_string(), "--cluster-port", &self.cluster_port.to_string()])
            .args(["--rest-port", &self.rest_port.to_string()])
            .arg("--data-dir")
            .arg(folder("data"))
            .arg("--socket")
            .arg(self.socket())
            .arg("--group-dir")
            .arg(folder("group"))
            .arg("--identity-dir")
            .arg(folder("identity"))
            .arg("--peers-file")
            .arg(folder("peers/peers.json"))
            .output()
            .expect("dsn runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    /// As the kubelet: starts the kubo container.
    pub fn start_kubo(&mut self) {
        let mut command = Command::new(tool("ipfs"));
        command
            .args(["daemon", "--migrate=false", "--enable-gc=false"])
            .env("IPFS_PATH", self.folder.join("data/ipfs"))
            .envs([("LIBP2P_FORCE_PNET", "1"), ("IPFS_TELEMETRY", "off"), ("GOMEMLIMIT", "512MiB")]);
        self.kubo = Some(Process::start(&mut command, &self.folder.join("kubo.log")));
    }

    /// As the kubelet: starts the ipfs-cluster container.
    pub fn start_cluster(&mut self) {
        let mut command = Command::new(tool("ipfs-cluster-service"));
        command.args(["--loglevel", "warn", "daemon"]).env("IPFS_CLUSTER_PATH", self.folder.join("data/cluster"));
        self.cluster = Some(Process::start(&mut command, &self.folder.join("cluster.log")));
    }

    /// As the kubelet: starts the storage agent's container.
    pub fn start_agent(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsn"));
        command
            .args(["storage", "serve", "--node", &self.name])
            .args(["--listen", &format!("127.0.0.1:{}", self.agent_port)])
            .args(["--metrics-listen", &format!("127.0.0.1:{}", self.metrics_port)])
            .args(["--cluster-url", &format!("http://127.0.0.1:{}", self.rest_port)])
            .arg("--socket")
            .arg(self.socket())
            .arg("--group-dir")
            .arg(self.folder.join("group"))
            .arg("--peers-file")
            .arg(self.folder.join("peers/peers.json"));
        self.agent = Some(Process::start(&mut command, &self.folder.join("agent.log")));
    }
}

/// A group of nodes.
pub struct Group {
    folder: TempDir,
    /// Makes its keys and names.
    seed: u8,
    doors: Doors,
    pub nodes: Vec<Node>,
}

impl Group {
    /// So many nodes, up and acquainted.
    pub async fn of(count: u8) -> Self {
        Self::another(count, 1).await
    }

    /// As [`Self::of`], with keys of its own.
    pub async fn another(count: u8, seed: u8) -> Self {
        Self::made(count, seed, Doors::default()).await
    }

    /// As [`Self::of`], with these doors.
    pub async fn with_doors(count: u8, doors: Doors) -> Self {
        Self::made(count, 1, doors).await
    }

    async fn made(count: u8, seed: u8, doors: Doors) -> Self {
        // A unix socket's path has at most 108 bytes, so not below the target folder.
        let folder = tempfile::Builder::new().prefix("dsn").tempdir().expect("a folder");
        let mut group = Self { folder, seed, doors, nodes: vec![] };
        for number in 0..count {
            group.add_files(number);
        }
        group.write_peers();
        for node in &mut group.nodes {
            node.init();
            node.start_kubo();
            node.start_cluster();
            node.start_agent();
        }
        group.settled().await;
        group
    }

    /// One node more, as the operator adds it: the list changes for all, only the new one is started.
    pub async fn join(&mut self) {
        let number = u8::try_from(self.nodes.len()).expect("a small group");
        self.add_files(number);
        self.write_peers();
        let node = self.nodes.last_mut().expect("it was just added");
        node.init();
        node.start_kubo();
        node.start_cluster();
        node.start_agent();
        self.settled().await;
    }

    /// Waits until every node is ready, every kubo knows every other, and every cluster peer has all measurements.
    pub async fn settled(&self) {
        for node in &self.nodes {
            eventually(&format!("{} gets ready", node.name), || node.ready()).await;
            eventually(&format!("{} meets its neighbours", node.name), || async {
                let status = node.reader().status().await.map_err(|error| error.to_string())?;
                if status.connected.len() + 1 == self.nodes.len() { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .await;
            eventually(&format!("{} sees every disk", node.name), || async {
                let peers = node.rest().live_peers().await.map_err(|error| error.to_string())?;
                if peers.len() == self.nodes.len() { Ok(()) } else { Err(format!("{peers:?}")) }
            })
            .await;
        }
    }

    fn add_files(&mut self, number: u8) {
        let name = format!("disk-{number}");
        let folder = self.folder.path().join(&name);
        let put = |sub: &str, key: &str, text: &str| {
            fs::create_dir_all(folder.join(sub)).expect("a folder");
            fs::write(folder.join(sub).join(key), text).expect("a file");
        };
        let (kubo_id, cluster_id) = {
            let seed = |kind: u8| {
                let mut seed = [self.seed; 32];
                seed[..2].copy_from_slice(&[number, kind]);
                Identity::from_seed(seed)
            };
            (seed(0), seed(1))
        };
        put("identity", secret_key::KUBO_ID, kubo_id.peer_id.as_str());
        put("identity", secret_key::KUBO_KEY, &kubo_id.private_key);
        put("identity", secret_key::CLUSTER_ID, cluster_id.peer_id.as_str());
        put("identity", secret_key::CLUSTER_KEY, &cluster_id.private_key);
        put("group", secret_key::SWARM_KEY, &identity::swarm_key([self.seed; 32]));
        put("group", secret_key::CLUSTER_SECRET, &identity::cluster_secret([self.seed; 32]));
        put("group", secret_key::CLUSTER_PASSWORD, &self.doors.password);
        put("group", secret_key::UPLOAD_TOKEN, &self.doors.upload);
        put("group", secret_key::SERVER_TOKEN, &self.doors.server);
        self.nodes.push(Node {
            name,
            folder,
            kubo_id,
            cluster_id,
            kubo_port: free_port(),
            cluster_port: free_port(),
            rest_port: free_port(),
            agent_port: free_port(),
            metrics_port: free_port(),
            doors: self.doors.clone(),
            kubo: None,
            cluster: None,
            agent: None,
        });
    }

    /// As the kubelet after a change of the ConfigMap: every node's file, replaced as a whole.
    fn write_peers(&self) {
        let peers = Peers::new(self.nodes.iter().map(Node::listed));
        for node in &self.nodes {
            let folder = node.folder.join("peers");
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("new"), serde_json::to_string(&peers).expect("JSON")).expect("a file");
            fs::rename(folder.join("new"), folder.join("peers.json")).expect("renamed");
        }
    }
}

impl Drop for Group {
    /// A failed test shows what the programs had to say.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in &self.nodes {
            for log in ["kubo", "cluster", "agent"] {
                let text = fs::read_to_string(node.folder.join(format!("{log}.log"))).unwrap_or_default();
                let last: Vec<&str> = text.lines().rev().take(15).collect();
                eprintln!("--- {} {log}", node.name);
                last.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}
