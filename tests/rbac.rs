//! What the operator asks for and what the chart allows it are the same: it runs against a real API server as its own
//! ServiceAccount, with the arguments that the chart renders, and the API server's audit log tells what it did.

mod tools;

use std::{
    collections::BTreeSet,
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tools::{apiserver::ApiServer, stderr, stdout, wait::eventually};

/// (verb, group, resource).
type Right = (String, String, String);

/// Rights that a run of a minute on an API server without controllers and without a broker gives no occasion for.
const RARELY_USED: [(&str, &str); 11] = [
    // A child is looked at by name only where somebody else has taken its name.
    ("get", "deployments"),
    ("get", "statefulsets"),
    ("get", "configmaps"),
    ("get", "services"),
    ("get", "persistentvolumeclaims"),
    ("get", "poddisruptionbudgets"),
    // The sweep of the broker asks for the owners of what it finds there.
    ("get", "cameras"),
    ("get", "pipelines"),
    // Asked for by the admission plug-in when a group gains or loses a node, which is a change of owners.
    ("delete", "services"),
    ("delete", "poddisruptionbudgets"),
    // An Event is patched when it comes again.
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
        // A server-side apply of what is not there yet needs the right to create it.
        if event["verb"] == "patch" && event["responseStatus"]["code"] == 201 {
            used.insert(("create".to_owned(), text(&object["apiGroup"]), resource.clone()));
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

/// Waits until `look` sees it; on failure shows the operator's log.
fn wait_for<T>(api: &ApiServer, what: &str, look: impl FnMut() -> Option<T>) -> T {
    let log = || std::fs::read_to_string(api.folder().join("operator.log")).unwrap_or_default();
    eventually(what, Duration::from_secs(60), log, look)
}

/// kubectl in the namespace of the demonstration.
fn kubectl(api: &ApiServer, arguments: &[&str]) -> String {
    let output = api.kubectl(&[&["--namespace=demo"], arguments].concat(), "");
    assert!(output.status.success(), "kubectl {arguments:?}: {}", stderr(&output));
    stdout(&output)
}

fn list(api: &ApiServer, kinds: &str, selector: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(&kubectl(api, &["get", kinds, "-l", selector, "-o", "json"])).expect("JSON");
    list["items"].as_array().cloned().expect("a list")
}

/// Waits until the operator has made what the demonstration's manifests ask for.
fn wait_for_children(api: &ApiServer) {
    wait_for(api, "the children of two cameras and three storage nodes", || {
        let kinds = "deployments,statefulsets,services,configmaps,persistentvolumeclaims,secrets";
        let made = kubectl(api, &["get", kinds, "-o", "name"]);
        let count = |prefix: &str| made.lines().filter(|line| line.starts_with(prefix)).count();
        // Two cameras and the camera server; three storage nodes.
        (count("deployment.apps/") == 3 && count("statefulset.apps/") == 3 && count("secret/") >= 6).then_some(())
    });
}

/// The assignment of a camera, and the name of the `ConfigMap` that holds it.
fn assignment(api: &ApiServer, camera: &str) -> Option<(String, Value)> {
    let held = list(api, "configmaps", &format!("dsn.network/camera={camera}")).pop()?;
    let text = held["data"]["assignment.json"].as_str().expect("an assignment");
    Some((held["metadata"]["name"].as_str()?.to_owned(), serde_json::from_str(text).expect("JSON")))
}

/// A camera leaves its Pipeline, and the ten minutes for which an empty volume is waited for are over: what it leaves
/// behind is removed.
fn a_camera_leaves(api: &ApiServer) {
    kubectl(api, &["label", "camera", "yard", "site-"]);
    let (name, mut told) = wait_for(api, "the camera is told to go", || {
        assignment(api, "yard").filter(|(_, told)| told["data"]["activity"] == "Draining")
    });
    told["issuedAt"] = "2026-01-01T00:00:00Z".into();
    let aged = json!({"data": {"assignment.json": told.to_string()}}).to_string();
    kubectl(api, &["patch", "configmap", &name, "--type=merge", "-p", &aged]);
    wait_for(api, "nothing is left of the camera", || {
        let left = list(api, "deployments,persistentvolumeclaims,configmaps", "dsn.network/camera=yard");
        // Nobody is here who would let a claim go that was deleted.
        left.iter().all(|object| object["metadata"]["deletionTimestamp"].is_string()).then_some(())
    });
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
    kubectl(&api, &["apply", "-f", "manifests/demo"]);
    wait_for_children(&api);
    a_camera_leaves(&api);
    kubectl(&api, &["delete", "storagenode", "disk-3"]);
    wait_for(&api, "the others know that a node is gone", || {
        let peers = list(&api, "configmaps", "app.kubernetes.io/component=storage").pop()?;
        (!peers["data"].to_string().contains("disk-3")).then_some(())
    });
    kubectl(&api, &["patch", "pipeline", "hq", "--type=merge", "-p", r#"{"spec":{"capture":{"segmentSeconds":6}}}"#]);
    wait_for(&api, "the other camera is told the new length", || {
        assignment(&api, "lobby").filter(|(_, told)| told["data"]["segmentSeconds"] == 6)
    });
    kubectl(&api, &["delete", "pipeline", "hq"]);
    wait_for(&api, "the deletion is seen", || {
        let log = std::fs::read_to_string(api.folder().join("operator.log")).ok()?;
        log.contains("Pipeline deleted").then_some(())
    });
    let (used, refused) = audited(&api);
    (granted(&objects), used, refused)
}

#[test]
fn the_operator_is_refused_nothing_and_granted_nothing_it_does_not_use() {
    let (granted, used, refused) = exercise(&[]);
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
    let rare = |(verb, _, resource): &Right| RARELY_USED.contains(&(verb.as_str(), resource.as_str()));
    let idle: Vec<_> = granted.difference(&used).filter(|right| !rare(right)).collect();
    assert!(idle.is_empty(), "granted and never used: {idle:?}");
    assert_eq!(granted.iter().filter(|right| rare(right)).count(), RARELY_USED.len(), "excused and not granted");
    for resource in ["deployments", "persistentvolumeclaims", "configmaps"] {
        assert!(
            used.iter().any(|right| right.0 == "delete" && right.2 == resource),
            "{resource} of a camera that left"
        );
    }
}

#[test]
fn one_namespace_is_served_without_a_cluster_role() {
    let (_, _, refused) = exercise(&["watchNamespace=demo", "rbac.aggregate=false"]);
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
}
