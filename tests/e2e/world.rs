//! The installation all tests share: the chart, a synthetic camera, three storage nodes, three cameras that record.
//!
//! Set up once, on first use. Tests that only read share the one recording; a test that changes something makes its own
//! Camera and Pipeline and removes them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use base64::Engine;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    kube::{apply, eventually, get, kubectl, root, run, text, tool, try_get, wait_condition},
    subscriber::Subscriber,
};

/// Namespace of the operator, the server and the broker.
pub const SYSTEM: &str = "dsn-system";
/// Namespace of everything a user declares; enforces the `restricted` Pod Security level.
pub const USER: &str = "e2e";
/// Frames after which the clip behind a synthetic camera begins anew.
pub const CLIP_25_FPS: u16 = 7500;
/// The same for the clip with 15 frames per second.
pub const CLIP_15_FPS: u16 = 4500;
/// Length of the recording that the reading tests share.
pub const RECORDING: Duration = Duration::from_secs(200);

/// The installation.
pub struct World {
    /// Everything announced on the topic since before the first camera was declared.
    pub announcements: Subscriber,
    /// When every camera of the shared Pipeline had begun to record.
    pub recording_since: Timestamp,
    /// Seconds from applying the resources to the first picture on disk.
    pub first_picture: Duration,
}

/// The installation, made on first use.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        install_chart();
        let announcements = Subscriber::start();
        let (recording_since, first_picture) = declare();
        World { announcements, recording_since, first_picture }
    })
}

/// Blocks until the shared recording is long enough; returns its (start, end) for a replay.
pub fn recording() -> (Timestamp, Timestamp) {
    let start = world().recording_since;
    let end = start + RECORDING;
    // Segments of 4 s are announced after they are sealed and uploaded: leave them time.
    let ready = end + Duration::from_secs(20);
    let now = Timestamp::now();
    if now < ready {
        std::thread::sleep(Duration::try_from(ready - now).expect("positive"));
    }
    (start, start + Duration::from_secs(180))
}

/// Installs or upgrades the chart with the locally built images.
pub fn install_chart() {
    let chart = root().join("charts/dsn");
    run(tool("helm").args(["upgrade", "--install", "dsn"]).arg(&chart).args([
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--values",
        root().join("hack/local-values.yaml").to_str().expect("UTF-8 path"),
        "--wait",
        "--timeout",
        "4m",
    ]));
}

fn declare() -> (Timestamp, Duration) {
    apply(&format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {USER}
  labels: {{pod-security.kubernetes.io/enforce: restricted}}
"
    ));
    apply(&camera_server());
    kubectl(&["-n", USER, "rollout", "status", "deployment/camera", "--timeout=120s"]);
    for node in ["disk-1", "disk-2", "disk-3"] {
        apply(&storage_node(node));
    }
    apply(&credentials("camera-login", "s3cret/pass:word"));
    let applied = Instant::now();
    for (name, path) in [("h264", "h264"), ("h265", "h265"), ("oddgop", "oddgop")] {
        apply(&camera(name, &format!("rtsp://camera.{USER}.svc:8554/{path}"), "camera-login"));
    }
    apply(&pipeline("main", "[h264, h265, oddgop]", ""));
    for name in ["h264", "h265", "oddgop"] {
        wait_condition(("camera", USER, name), "Capturing", "True", "", Duration::from_secs(120));
    }
    (Timestamp::now() + Duration::from_secs(5), applied.elapsed())
}

/// A Secret with a camera's user name and password.
pub fn credentials(name: &str, password: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {USER}}}
type: kubernetes.io/basic-auth
stringData: {{username: viewer, password: \"{password}\"}}
"
    )
}

/// A Camera.
pub fn camera(name: &str, url: &str, secret: &str) -> String {
    format!(
        "apiVersion: dsn.network/v1alpha1
kind: Camera
metadata: {{name: {name}, namespace: {USER}, labels: {{made-by: e2e}}}}
spec:
  site: hq
  source:
    url: {url}
    credentialsSecretRef: {{name: {secret}}}
"
    )
}

/// A Pipeline over named cameras; `more` is further YAML of the spec, indented by two.
pub fn pipeline(name: &str, cameras: &str, more: &str) -> String {
    format!(
        "apiVersion: dsn.network/v1alpha1
kind: Pipeline
metadata: {{name: {name}, namespace: {USER}}}
spec:
  cameras: {{names: {cameras}}}
  storage: {{replicas: 2, retention: 24h}}
  spool: {{size: 1Gi}}
{more}"
    )
}

/// A StorageNode of the group `default`.
pub fn storage_node(name: &str) -> String {
    format!(
        "apiVersion: dsn.network/v1alpha1
kind: StorageNode
metadata: {{name: {name}, namespace: {USER}}}
spec: {{managed: {{capacity: 2Gi}}}}
"
    )
}

/// go2rtc behind digest authentication, with the clips of images/camera.
fn camera_server() -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: camera, namespace: {USER}}}
spec:
  selector: {{matchLabels: {{app: camera}}}}
  strategy: {{type: Recreate}}
  template:
    metadata: {{labels: {{app: camera}}}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: {{runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: camera
          image: localhost/dsn/camera:dev
          imagePullPolicy: IfNotPresent
          env:
            - {{name: CAMERA_USERNAME, value: viewer}}
            - {{name: CAMERA_PASSWORD, value: \"s3cret/pass:word\"}}
            - {{name: CAMERA_STREAMS, value: \"h264 h265 oddgop\"}}
          ports: [{{containerPort: 8554}}]
          readinessProbe: {{tcpSocket: {{port: 8554}}, periodSeconds: 1}}
          securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
          volumeMounts: [{{name: tmp, mountPath: /tmp}}]
      volumes: [{{name: tmp, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: camera, namespace: {USER}}}
spec:
  selector: {{app: camera}}
  ports: [{{port: 8554}}]
"
    )
}

/// A port of the cluster on loopback, through `kubectl port-forward`; re-opened when its pod went away.
pub struct Forward {
    target: &'static str,
    remote: u16,
    open: Mutex<Option<(Child, String)>>,
}

impl Forward {
    /// Forwards a port of a Service of the system namespace.
    pub const fn new(target: &'static str, remote: u16) -> Self {
        Self { target, remote, open: Mutex::new(None) }
    }

    /// `127.0.0.1:<port>`, open. kubectl chooses the port: one left over from an earlier run can't be taken for ours.
    pub fn address(&self) -> String {
        let mut open = self.open.lock().expect("no test panics while it opens a forward");
        if let Some((child, address)) = open.as_mut()
            && child.try_wait().is_ok_and(|status| status.is_none())
        {
            return address.clone();
        }
        let (child, address) =
            eventually(&format!("port-forward to {}", self.target), Duration::from_secs(90), || self.start());
        *open = Some((child, address.clone()));
        address
    }

    fn start(&self) -> Result<(Child, String), String> {
        let mut child = tool("kubectl")
            .args(["-n", SYSTEM, "port-forward", self.target, &format!(":{}", self.remote)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        // "Forwarding from 127.0.0.1:40123 -> 8080"
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let said = output.read_line(&mut line);
        // It says a line for each connection: somebody must read them, or it stands still when the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        match line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next()) {
            Some(address) if said.is_ok() => Ok((child, address.to_owned())),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("kubectl said {line:?}"))
            }
        }
    }

    /// Closes the forward, so that the next use opens a fresh one.
    pub fn close(&self) {
        if let Some((mut child, _)) = self.open.lock().expect("no test panics while it opens a forward").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The gateway.
pub static GATEWAY: Forward = Forward::new("service/dsn-server", 8080);
/// The broker's AMQP port.
pub static BROKER: Forward = Forward::new("service/dsn-rabbitmq", 5672);

/// The broker's own tool, in our vhost: what it prints.
pub fn rabbitmqctl(arguments: &[&str]) -> String {
    let inside = ["-n", SYSTEM, "exec", "dsn-rabbitmq-0", "--", "rabbitmqctl", "-q", "-p", "dsn"];
    kubectl(&[&inside, arguments].concat())
}

/// A decoded value of a Secret.
pub fn secret(namespace: &str, name: &str, key: &str) -> String {
    let object = get("secret", namespace, name).unwrap_or_else(|| panic!("Secret {namespace}/{name} exists"));
    let encoded = text(&object, &format!("/data/{}", key.replace('/', "~1")));
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64")).expect("UTF-8")
}

/// `Basic …` of the admin.
pub fn admin() -> String {
    let password = secret(SYSTEM, "dsn-admin", "password");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}")))
}

/// URL of a path of the gateway.
pub fn gateway(path: &str) -> String {
    format!("http://{}{path}", GATEWAY.address())
}

/// GET as admin: (status, body).
pub fn http_get(path: &str) -> (u16, Vec<u8>) {
    http_get_as(path, Some(&admin()))
}

/// GET with or without an `Authorization` header.
pub fn http_get_as(path: &str, authorization: Option<&str>) -> (u16, Vec<u8>) {
    fetch(path, authorization).unwrap_or_else(|error| panic!("{error}"))
}

/// GET as admin; for waits, in which API server and gateway may be away.
pub fn try_http_get(path: &str) -> Result<(u16, Vec<u8>), String> {
    // The forward and the password come through the API server.
    try_get("secret", SYSTEM, "dsn-admin")?;
    fetch(path, Some(&admin()))
}

fn fetch(path: &str, authorization: Option<&str>) -> Result<(u16, Vec<u8>), String> {
    let url = gateway(path);
    let answer = runtime().block_on(async {
        let mut request = reqwest::Client::new().get(&url).timeout(Duration::from_secs(60));
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await?.to_vec()))
    });
    answer.map_err(|error: reqwest::Error| format!("GET {url}: {error}"))
}

/// Path of a replay.
pub fn replay_path(camera: &str, start: Timestamp, end: Timestamp) -> String {
    format!("/hls/{USER}/{camera}/replay.m3u8?start={start}&end={end}")
}

/// The one runtime of the tests.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    })
}

/// The capture pod of a camera in a Pipeline, when there is exactly one that is not going away.
pub fn capture_pod(camera: &str) -> Result<Value, String> {
    let selector = format!("dsn.network/camera={camera}");
    let pods: Vec<Value> = crate::kube::list("pods", USER, &selector)
        .into_iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect();
    match pods.as_slice() {
        [pod] => Ok(pod.clone()),
        others => Err(format!("{} pods of camera {camera}", others.len())),
    }
}

/// (uid, restart counts of its containers) of a pod.
pub fn incarnation(pod: &Value) -> (String, Vec<i64>) {
    let restarts = pod["status"]["containerStatuses"].as_array().map_or_else(Vec::new, |statuses| {
        statuses.iter().map(|status| status["restartCount"].as_i64().unwrap_or(-1)).collect()
    });
    (text(pod, "/metadata/uid"), restarts)
}

/// Removes what a test declared; waits until it is gone.
pub fn remove(kind: &str, name: &str) {
    kubectl(&["delete", kind, "-n", USER, name, "--ignore-not-found", "--wait=true", "--timeout=120s"]);
    if kind == "pipeline" {
        // The next test shall not meet what goes.
        let selector = format!("dsn.network/pipeline={name}");
        eventually("its pods are gone", Duration::from_secs(120), || {
            match crate::kube::list("pods", USER, &selector).len() {
                0 => Ok(()),
                pods => Err(format!("{pods} pods")),
            }
        });
    }
}
