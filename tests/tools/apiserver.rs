//! A real etcd and kube-apiserver on loopback, for as long as the value lives; no kubelet, and controllers only where they
//! are asked for. For tests that ask what the API server accepts, says and stores, and for benchmarks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{free_port, program, run_with_input, stderr, stdout};

/// The running pair.
pub struct ApiServer {
    folder: TempDir,
    processes: Vec<Child>,
    kubeconfig: PathBuf,
}

impl ApiServer {
    /// Starts both and waits until the API server says that it is ready.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let (etcd_client, etcd_peer, secure) = (free_port(), free_port(), free_port());

        let key = path("service-accounts.key");
        // The form SEC 1: the API server does not find the public half in a PKCS 8 file.
        let made = Command::new("openssl")
            .args(["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out"])
            .arg(&key)
            .status()
            .is_ok_and(|status| status.success());
        assert!(made, "openssl is missing: run hack/cluster/packages");
        fs::write(
            path("audit.yaml"),
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata, userGroups: ['system:serviceaccounts']}, {level: None}]\n",
        )
        .expect("a writable folder");
        fs::write(path("tokens.csv"), "test,admin,1,system:masters\n").expect("a writable folder");
        let kubeconfig = path("kubeconfig");
        fs::write(
            &kubeconfig,
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
                 clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{secure}', insecure-skip-tls-verify: true}}}}]\n\
                 users: [{{name: test, user: {{token: test}}}}]\n\
                 contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
            ),
        )
        .expect("a writable folder");

        let start = |name: &str, arguments: Vec<String>| {
            let log = fs::File::create(path(&format!("{name}.log"))).expect("a writable folder");
            Command::new(program(name))
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file"))
                .stderr(log)
                .spawn()
                .expect("the program starts")
        };
        let etcd = start(
            "etcd",
            vec![
                format!("--data-dir={}", path("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{etcd_client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd_client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{etcd_peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{etcd_peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{etcd_peer}"),
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
            ],
        );
        let apiserver = start(
            "kube-apiserver",
            vec![
                format!("--etcd-servers=http://127.0.0.1:{etcd_client}"),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                format!("--secure-port={secure}"),
                format!("--cert-dir={}", path("certificates").display()),
                format!("--token-auth-file={}", path("tokens.csv").display()),
                "--authorization-mode=RBAC".into(),
                format!("--audit-policy-file={}", path("audit.yaml").display()),
                format!("--audit-log-path={}", path("audit.log").display()),
                "--audit-log-mode=blocking-strict".into(),
                // Nothing creates the default service account here.
                "--disable-admission-plugins=ServiceAccount".into(),
                // Clusters that have it let nobody change owners, or block a deletion, who may not delete.
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into(),
                "--service-cluster-ip-range=10.0.0.0/24".into(),
                "--service-account-issuer=https://127.0.0.1".into(),
                format!("--service-account-key-file={}", key.display()),
                format!("--service-account-signing-key-file={}", key.display()),
                "--endpoint-reconciler-type=none".into(),
            ],
        );
        let mut server = Self { processes: vec![apiserver, etcd], kubeconfig, folder };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let answer = self.kubectl(&["get", "--raw=/readyz"], "");
            if answer.status.success() {
                return;
            }
            let ended = self.processes.iter_mut().any(|process| !matches!(process.try_wait(), Ok(None)));
            assert!(
                !ended && Instant::now() < deadline,
                "the API server does not become ready: {}\n{}",
                stderr(&answer),
                fs::read_to_string(self.folder.path().join("kube-apiserver.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// As [`Self::start`], with the controllers of Kubernetes, which may make so many requests a second (20, unless an
    /// administrator says otherwise): they make Pods of Deployments and collect what has lost its owner.
    pub fn with_controllers(requests_a_second: u32) -> Self {
        let mut server = Self::start();
        let log = fs::File::create(server.folder.path().join("controllers.log")).expect("a writable folder");
        let controllers = Command::new(program("kube-controller-manager"))
            .arg(format!("--kubeconfig={}", server.kubeconfig.display()))
            .arg(format!("--kube-api-qps={requests_a_second}"))
            .arg(format!("--kube-api-burst={}", requests_a_second + requests_a_second / 2))
            .args(["--leader-elect=false", "--bind-address=127.0.0.1"])
            .arg(format!("--secure-port={}", free_port()))
            .arg(format!("--cert-dir={}", server.folder.path().join("controllers").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("the controllers start");
        server.processes.insert(0, controllers);
        server
    }

    /// kubectl against it, with text on standard input.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig.display());
        let cache = format!("--cache-dir={}", self.folder.path().join("discovery").display());
        let all: Vec<&str> = [kubeconfig.as_str(), cache.as_str()].iter().chain(arguments).copied().collect();
        run_with_input("kubectl", &all, input)
    }
}

impl ApiServer {
    /// Its administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where its files and logs are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a ServiceAccount did so far: the events of the audit log.
    pub fn audit(&self, user: &str) -> Vec<Value> {
        fs::read_to_string(self.folder.path().join("audit.log"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["user"]["username"] == user)
            .collect()
    }

    /// A kubeconfig with a token of a ServiceAccount, as its pods hold one.
    pub fn kubeconfig_of_service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let created = self.kubectl(&["create", "token", name, "-n", namespace, "--duration=1h"], "");
        assert!(created.status.success(), "{}", stderr(&created));
        let own = fs::read_to_string(&self.kubeconfig).expect("our own kubeconfig");
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        let token = stdout(&created);
        fs::write(&path, own.replace("token: test", &format!("token: {}", token.trim()))).expect("a writable folder");
        path
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Nothing here is worth a clean end: the folder goes too.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
