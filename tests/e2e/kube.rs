//! The cluster under test, through kubectl: what a person at a terminal would see.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Repository root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The cluster's kubeconfig: `DSN_E2E_KUBECONFIG`, else the local cluster `test`. Never the ambient KUBECONFIG, which
/// may be someone's production.
pub fn kubeconfig() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        std::env::var("DSN_E2E_KUBECONFIG").unwrap_or_else(|_| {
            let printed = run(Command::new(root().join("hack/cluster/cluster")).args(["kubeconfig", "test"]));
            String::from_utf8_lossy(&printed).trim().to_owned()
        })
    })
}

/// A tool built by hack/cluster/build-tools.
pub fn tool(name: &str) -> Command {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    let bin = BIN.get_or_init(|| {
        let cache = std::env::var("DSN_CACHE").map(PathBuf::from).unwrap_or_else(|_| {
            std::env::var("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|_| PathBuf::from(std::env::var("HOME").expect("HOME is set")).join(".cache"))
                .join("dsn")
        });
        cache.join("tools/bin")
    });
    let path = bin.join(name);
    assert!(path.exists(), "{name} is missing in {}: run hack/cluster/build-tools", bin.display());
    let mut command = Command::new(path);
    command.env("KUBECONFIG", kubeconfig());
    command
}

/// Runs a command to its end; panics with everything it said when it fails.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout).chars().take(4000).collect::<String>(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// kubectl, its standard output as text.
pub fn kubectl(arguments: &[&str]) -> String {
    String::from_utf8_lossy(&run(tool("kubectl").args(arguments))).into_owned()
}

/// kubectl that may fail: Ok(stdout) or Err(stderr).
pub fn try_kubectl(arguments: &[&str]) -> Result<String, String> {
    let output = tool("kubectl").args(arguments).stdin(Stdio::null()).output().expect("kubectl starts");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// One object, or None when it does not exist.
pub fn get(kind: &str, namespace: &str, name: &str) -> Option<Value> {
    match try_get(kind, namespace, name) {
        Ok(object) => Some(object),
        Err(error) if error.contains("NotFound") => None,
        Err(error) => panic!("{error}"),
    }
}

/// One object; for waits, in which an API server may be away.
pub fn try_get(kind: &str, namespace: &str, name: &str) -> Result<Value, String> {
    let text = try_kubectl(&["get", kind, "-n", namespace, name, "-o", "json"])
        .map_err(|error| format!("kubectl get {kind} {namespace}/{name}: {error}"))?;
    Ok(serde_json::from_str(&text).expect("kubectl prints JSON"))
}

/// All objects of a kind that carry a label.
pub fn list(kind: &str, namespace: &str, selector: &str) -> Vec<Value> {
    let text = kubectl(&["get", kind, "-n", namespace, "-l", selector, "-o", "json"]);
    let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Applies a manifest server-side, as GitOps tools do; Err = what the API server said.
pub fn try_apply(manifest: &str) -> Result<String, String> {
    let mut child = tool("kubectl")
        .args(["apply", "--server-side", "--field-manager=e2e", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl ends");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Applies a manifest; panics when it is refused.
pub fn apply(manifest: &str) {
    try_apply(manifest).unwrap_or_else(|error| panic!("{error}\n{manifest}"));
}

/// Waits until `condition` gives a value; panics with what was last seen when the deadline passes.
pub fn eventually<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > within => panic!("{what}: not within {} s; seen: {seen}", within.as_secs()),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// (status, reason, message) of a condition.
pub fn condition(object: &Value, kind: &str) -> Option<(String, String, String)> {
    let condition = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Waits until a condition has a status (and a reason, unless empty); returns its message.
pub fn wait_condition(
    resource: (&str, &str, &str),
    kind: &str,
    status: &str,
    reason: &str,
    within: Duration,
) -> String {
    let (plural, namespace, name) = resource;
    eventually(&format!("{plural} {namespace}/{name} {kind}={status}/{reason}"), within, || {
        let object = try_get(plural, namespace, name)?;
        match condition(&object, kind) {
            Some((s, r, message)) if s == status && (reason.is_empty() || r == reason) => Ok(message),
            other => Err(format!("{other:?}")),
        }
    })
}

/// A text in an object, by JSON pointer.
pub fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
