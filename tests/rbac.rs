//! What the operator asks for and what the chart allows it are the same: it runs against a real API server as its own
//! ServiceAccount, with the arguments that the chart renders, and the API server's audit log tells what it did.

mod tools;

use std::{
    collections::BTreeSet,
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tools::{apiserver::ApiServer, stderr, stdout};

/// (verb, group, resource).
type Right = (String, String, String);

/// Rights that a run of a minute on an API server without controllers gives no occasion for.
const RARELY_USED: [(&str, &str); 8] = [
    // Only where OwnerReferencesPermissionEnforcement is on.
    ("update", "finalizers"),
    // Nothing is deleted here before its owner is, and owners' children are the garbage collector's business.
    ("delete", ""),
    // Server-side apply is a PATCH; these come with reads by name and with lost leases.
    ("get", ""),
    ("update", "leases"),
    ("create", ""),
    // A Lease is asked for by name unless it is somebody else's; an Event is patched when it comes again.
    ("list", "leases"),
    ("watch", "leases"),
    ("patch", "events"),
];

struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rendered(values: &[&str]) -> String {
    let mut arguments = vec!["template", "dsn", "charts/dsn", "-n", "dsn-system"];
    for value in values {
        arguments.extend(["--set", value]);
    }
    let output = tools::run("helm", &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

/// Rights in the rules of all roles, status and finalizers as `resource/status`.
fn granted(objects: &[Value]) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .map_or_else(Vec::new, |all| all.iter().map(|v| v.as_str().unwrap_or_default().to_owned()).collect())
    };
    let mut rights = BTreeSet::new();
    for object in
        objects.iter().filter(|object| object["metadata"]["labels"]["app.kubernetes.io/component"] == "operator")
    {
        for rule in object["rules"].as_array().unwrap_or(&Vec::new()) {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        rights.insert((verb, group.clone(), resource.clone()));
                    }
                }
            }
        }
    }
    rights
}

/// (what it did, what it was refused), from the audit log.
fn audited(api: &ApiServer) -> (BTreeSet<Right>, Vec<String>) {
    let (mut used, mut refused) = (BTreeSet::new(), Vec::new());
    for event in api.audit("system:serviceaccount:dsn-system:dsn-operator") {
        let object = &event["objectRef"];
        let Some(resource) = object["resource"].as_str() else { continue };
        let resource = object["subresource"].as_str().map_or(resource.to_owned(), |sub| format!("{resource}/{sub}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if event["responseStatus"]["code"] == 403 {
            refused.push(format!("{} {resource} in {}", text(&event["verb"]), text(&object["namespace"])));
        }
        used.insert((text(&event["verb"]), text(&object["apiGroup"]), resource));
    }
    (used, refused)
}

/// Starts the operator as the chart would, as far as a process can: same arguments, same ServiceAccount.
fn start(api: &ApiServer, objects: &[Value]) -> Operator {
    let arguments = tools::operator_arguments(objects, "dsn-system", "dsn-operator-0");
    let log = File::create(api.folder().join("operator.log")).expect("a writable folder");
    let child = Command::new(env!("CARGO_BIN_EXE_dsn"))
        .args(arguments)
        .arg("--metrics-listen=127.0.0.1:0")
        .env("KUBECONFIG", api.kubeconfig_of_service_account("dsn-system", "dsn-operator"))
        .env("DSN_LOG", "info")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("dsn starts");
    Operator(child)
}

/// Waits until the operator has made what the demonstration's manifests ask for.
fn wait_for_children(api: &ApiServer) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let kinds = "deployments,statefulsets,services,configmaps,persistentvolumeclaims,secrets";
        let made = stdout(&api.kubectl(&["get", kinds, "-n", "demo", "-o", "name"], ""));
        let count = |prefix: &str| made.lines().filter(|line| line.starts_with(prefix)).count();
        // Two cameras and the camera server; three storage nodes.
        if count("deployment.apps/") == 3 && count("statefulset.apps/") == 3 && count("secret/") >= 6 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the operator made only:\n{made}\n{}",
            std::fs::read_to_string(api.folder().join("operator.log")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Runs the operator over the demonstration: create, edit, take away.
fn exercise(values: &[&str]) -> (BTreeSet<Right>, BTreeSet<Right>, Vec<String>) {
    let api = ApiServer::start();
    let apply = |manifest: &str| {
        let output = api.kubectl(&["apply", "--server-side", "-f", "-"], manifest);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    apply(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: dsn-system}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n",
    );
    apply(&rendered(values));
    let objects = tools::documents(&rendered(values));
    let _operator = start(&api, &objects);
    let applied = api.kubectl(&["apply", "-f", "manifests/demo"], "");
    assert!(applied.status.success(), "{}", stderr(&applied));
    wait_for_children(&api);
    // A camera leaves, a node goes, the segment length changes.
    for arguments in [
        vec!["label", "camera", "yard", "-n", "demo", "site-"],
        vec!["delete", "storagenode", "disk-3", "-n", "demo"],
        vec![
            "patch",
            "pipeline",
            "hq",
            "-n",
            "demo",
            "--type=merge",
            "-p",
            r#"{"spec":{"capture":{"segmentSeconds":6}}}"#,
        ],
        vec!["delete", "pipeline", "hq", "-n", "demo"],
    ] {
        let output = api.kubectl(&arguments, "");
        assert!(output.status.success(), "{}", stderr(&output));
        std::thread::sleep(Duration::from_secs(2));
    }
    let (used, refused) = audited(&api);
    (granted(&objects), used, refused)
}

#[test]
fn the_operator_is_refused_nothing_and_granted_nothing_it_does_not_use() {
    let (granted, used, refused) = exercise(&[]);
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
    let idle: Vec<_> = granted
        .difference(&used)
        .filter(|(verb, _, resource)| !RARELY_USED.iter().any(|(v, r)| verb == v && resource.ends_with(r)))
        .collect();
    assert!(idle.is_empty(), "granted and never used: {idle:?}");
}

#[test]
fn one_namespace_is_served_without_a_cluster_role() {
    let (_, _, refused) = exercise(&["watchNamespace=demo", "rbac.aggregate=false"]);
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
}
