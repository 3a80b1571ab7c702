//! What GitOps tools see (rows K5, K6): nothing moves by itself, and nothing that was applied is changed.

use std::{collections::BTreeMap, io::Write as _, process::Stdio, time::Duration};

use serde_json::Value;

use crate::{
    kube::{eventually, kubectl, text, tool, wait_condition},
    world::{USER, camera, install_chart, pipeline, recording, storage_node},
};

/// Writes that the API server has answered, by what was written: everything that the operator writes at all (it applies
/// its children and every status, and creates Secrets). Leases are renewed by whoever leads and are not counted.
pub fn writes() -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for line in kubectl(&["get", "--raw", "/metrics"]).lines() {
        let Some(labels) = line.strip_prefix("apiserver_request_total{") else { continue };
        let (labels, count) = labels.rsplit_once("} ").expect("labels and a value");
        let label = |name: &str| {
            let from = labels.find(&format!("{name}=\"")).map_or(0, |at| at + name.len() + 2);
            labels[from..].split('"').next().unwrap_or_default()
        };
        let ours = label("group") == "dsn.network" || label("resource") == "secrets" || label("verb") == "APPLY";
        if ours
            && label("resource") != "leases"
            && ["APPLY", "PATCH", "PUT", "POST", "DELETE"].contains(&label("verb"))
            // The API server looks after its own.
            && !label("group").ends_with(".apiserver.k8s.io") && label("resource") != "servicecidrs"
        {
            let what = format!("{} {}/{}", label("verb"), label("resource"), label("subresource"));
            *counted.entry(what).or_default() += count.parse::<f64>().expect("a number") as u64;
        }
    }
    assert!(counted.contains_key("APPLY pipelines/status"), "the counter does not see the operator: {counted:?}");
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

/// K5: the same `helm upgrade` again touches nothing of the users'.
#[test]
fn k5_the_same_upgrade_again_changes_nothing() {
    recording();
    wait_condition(("pipeline", USER, "main"), "Stored", "True", "", Duration::from_secs(180));
    let before = versions();
    install_chart();
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(versions(), before);
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
    // The only difference is who else says so now.
    let changed: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| {
            (line.starts_with('+') || line.starts_with('-')) && !line.starts_with("+++") && !line.starts_with("---")
        })
        .map(str::to_owned)
        .collect();
    assert!(changed.is_empty(), "{changed:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
