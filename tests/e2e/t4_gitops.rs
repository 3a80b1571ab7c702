//! What GitOps tools see (rows K5, K6): nothing moves by itself, and nothing that was applied is changed.

use std::{collections::BTreeMap, io::Write as _, process::Stdio, time::Duration};

use serde_json::Value;

use crate::{
    kube::{eventually, kubectl, text, tool, wait_condition},
    t5_faults::argument_of_the_api_server,
    world::{USER, camera, install_chart, pipeline, recording, storage_node},
};

/// What the operator wrote so far, by what was written, as the API server's audit log tells it. Leases are renewed by
/// whoever leads and are not in it.
pub fn writes() -> BTreeMap<String, u64> {
    let log = argument_of_the_api_server("--audit-log-path");
    let text = std::fs::read_to_string(&log).unwrap_or_else(|error| panic!("{log}: {error}"));
    let mut counted = BTreeMap::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("an event a line");
        if event["stage"] == "ResponseComplete" {
            let word = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (resource, part) = (word("/objectRef/resource"), word("/objectRef/subresource"));
            *counted.entry(format!("{} {resource}/{part}", word("/verb"))).or_default() += 1;
        }
    }
    assert!(counted.contains_key("patch pipelines/status"), "the log does not see the operator: {counted:?}");
    counted
}

/// Waits until what happened before has settled: a quarter of a minute without a write.
pub fn wait_for_rest() {
    eventually("rest", Duration::from_secs(120), || {
        let before = writes();
        std::thread::sleep(Duration::from_secs(15));
        if writes() == before { Ok(()) } else { Err("the operator still writes".to_owned()) }
    });
}

/// What the operator says of everything in the users' namespace.
fn statuses() -> BTreeMap<String, Value> {
    let list: Value = serde_json::from_str(&kubectl(&["-n", USER, "get", "pl,cam,sn", "-o", "json"])).expect("JSON");
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| (text(item, "/metadata/name"), item["status"].clone())).collect()
}

/// Resource version of everything that the operator makes and of what it is made of.
fn versions() -> BTreeMap<String, String> {
    let kinds =
        "pipelines,cameras,storagenodes,deployments,statefulsets,services,configmaps,persistentvolumeclaims,secrets";
    let list: Value =
        serde_json::from_str(&kubectl(&["-n", USER, "get", kinds, "-o", "json"])).expect("kubectl prints JSON");
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| {
            let name = format!("{}/{}", text(item, "/kind"), text(item, "/metadata/name"));
            (name, text(item, "/metadata/resourceVersion"))
        })
        .collect()
}

/// K5: while three cameras record, a minute passes without a write by the operator.
#[test]
fn k5_an_idle_minute_writes_nothing() {
    recording();
    wait_condition(("pipeline", USER, "main"), "Stored", "True", "", Duration::from_secs(180));
    wait_for_rest();
    let (before, said) = (writes(), statuses());
    std::thread::sleep(Duration::from_secs(60));
    let (after, says) = (writes(), statuses());
    let written: Vec<_> = after.iter().filter(|(what, count)| before.get(*what) != Some(count)).collect();
    let changed: Vec<_> = says.iter().filter(|(name, status)| said.get(*name) != Some(status)).collect();
    assert!(written.is_empty(), "written in a minute of rest: {written:?}\nnow: {changed:#?}\nbefore: {said:#?}");
}

/// K5: the same `helm upgrade` again touches nothing of the users', and gives the operator nothing to write.
#[test]
fn k5_the_same_upgrade_again_changes_nothing() {
    recording();
    wait_condition(("pipeline", USER, "main"), "Stored", "True", "", Duration::from_secs(180));
    wait_for_rest();
    let before = (writes(), versions());
    install_chart();
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!((writes(), versions()), before);
}

/// K5: what was applied shows no difference to a second manager, as Argo CD and Flux compare it.
#[test]
fn k5_a_second_manager_sees_no_difference() {
    recording();
    let manifests = [
        camera("h264", &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"),
        pipeline("main", "[h264, h265, oddgop]", ""),
        storage_node("disk-1"),
    ]
    .join("---\n");
    let mut diff = tool("kubectl")
        .args(["diff", "--server-side", "--field-manager=another", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    diff.stdin.take().expect("piped").write_all(manifests.as_bytes()).expect("kubectl reads");
    let output = diff.wait_with_output().expect("kubectl ends");
    // A difference is an exit status, and so is a comparison that did not come about.
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
}
