//! Taking things away: Retain and Delete, the same name again, uninstall and reinstall, the end of a namespace.

use std::{process::Command, time::Duration};

use jiff::Timestamp;

use crate::{
    footage::{media, try_replay},
    kube::{apply, eventually, get, kubectl, list, run, text, tool, try_kubectl, wait_condition},
    t3_stored::{DISKS, held_by, pins_of},
    world::{
        BROKER, GATEWAY, SYSTEM, USER, camera, http_get, install_chart, pipeline, rabbitmqctl, recording, remove, world,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// C1: deleting a Pipeline removes Deployments and queues; footage stays (Retain) or goes (Delete), and every pin with it.
#[test]
fn a_c1_deleting_a_pipeline_removes_children_and_queues_and_obeys_its_policy() {
    world();
    for (name, policy) in [("kept", "Retain"), ("gone", "Delete")] {
        let begun = Timestamp::now();
        apply(&camera(name, &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
        let yaml = pipeline(name, &format!("[{name}]"), "")
            .replace("retention: 24h", &format!("retention: 24h, rollupSeconds: 10, deletionPolicy: {policy}"));
        apply(&yaml);
        wait_condition(("pipeline", USER, name), "Stored", "True", "", 3 * MINUTE);
        let end = Timestamp::now();
        let object = get("pipeline", USER, name).expect("exists");
        let queue = format!("dsn.ctl.{}", text(&object, "/status/instances/0/uid"));
        assert!(queues().contains(&queue));
        let first = eventually("footage", MINUTE, || {
            try_replay(name, begun, end)?.segments.first().map(|s| s.uri.clone()).ok_or("an empty playlist".into())
        });
        let pinned = pins_of(name);
        assert!(!pinned.is_empty(), "its footage is pinned");
        kubectl(&["-n", USER, "delete", "pipeline", name, "--timeout=60s"]);
        eventually("no child and no queue", 2 * MINUTE, || {
            let selector = format!("dsn.network/pipeline={name}");
            for kind in ["deployments", "pods", "configmaps", "services", "persistentvolumeclaims"] {
                let left = list(kind, USER, &selector).len();
                if left > 0 {
                    return Err(format!("{left} {kind}"));
                }
            }
            if queues().contains(&queue) { Err(format!("queue {queue}")) } else { Ok(()) }
        });
        if policy == "Retain" {
            assert!(!media(&first).is_empty(), "retained footage plays");
            assert!(pinned.is_subset(&pins_of(name)), "retained footage stays pinned");
        } else {
            eventually("deleted footage is gone", 2 * MINUTE, || match http_get(&first).0 {
                404 | 410 => Ok(()),
                status => Err(format!("{status}")),
            });
            eventually("no pin of it is left", 2 * MINUTE, || {
                let asked_for = pins_of(name);
                let held: Vec<_> =
                    DISKS.iter().flat_map(|disk| held_by(disk)).filter(|cid| pinned.contains(cid)).collect();
                if asked_for.is_empty() && held.is_empty() { Ok(()) } else { Err(format!("{asked_for:?}, {held:?}")) }
            });
        }
        remove("camera", name);
    }
}

/// Delete and recreate under one name ends clean, with children of its own.
#[test]
fn b_the_same_name_again_starts_clean() {
    world();
    apply(&camera("again", &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
    apply(&pipeline("again", "[again]", ""));
    wait_condition(("camera", USER, "again"), "Capturing", "True", "", 2 * MINUTE);
    let old = text(&get("pipeline", USER, "again").expect("exists"), "/status/instances/0/uid");
    kubectl(&["-n", USER, "delete", "pipeline", "again", "--wait=false"]);
    apply(&pipeline("again", "[again]", ""));
    let new = eventually("a new instance that records", 3 * MINUTE, || {
        let object = get("pipeline", USER, "again").ok_or("not there")?;
        let uid = text(&object, "/status/instances/0/uid");
        let running = text(&object, "/status/running");
        if uid != old && running == "1/1" { Ok(uid) } else { Err(format!("{uid} {running}")) }
    });
    eventually("one set of children", 2 * MINUTE, || {
        let left = list("deployments", USER, "dsn.network/pipeline=again").len();
        let queues = queues();
        match (left, queues.contains(&old), queues.contains(&new)) {
            (1, false, true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    remove("pipeline", "again");
    remove("camera", "again");
}

/// `helm uninstall` ends and keeps what people declared; a reinstall plays the old footage.
#[test]
fn c_uninstall_ends_and_a_reinstall_plays_the_old_footage() {
    let (start, end) = recording();
    let before = try_replay("h264", start, end).expect("plays");
    run(tool("helm").args(["uninstall", "dsn", "--namespace", SYSTEM, "--wait", "--timeout", "3m"]));
    assert!(get("pipeline", USER, "main").is_some(), "uninstall took the Pipeline away");
    BROKER.close();
    GATEWAY.close();
    install_chart();
    let after = eventually("the old footage", 2 * MINUTE, || try_replay("h264", start, end));
    assert_eq!(before.segments.len(), after.segments.len());
    assert!(!media(&after.segments[0].uri).is_empty());
    wait_condition(("camera", USER, "h264"), "Capturing", "True", "", 3 * MINUTE);
}

/// Namespaces end, with and without an operator.
#[test]
fn d_namespaces_end() {
    world();
    kubectl(&["delete", "namespace", USER, "--timeout=300s"]);
    eventually("no queue of an instance", MINUTE, || match queues() {
        text if text.contains("dsn.ctl.") => Err(text),
        _ => Ok(()),
    });
    run(Command::from(tool("helm")).args(["uninstall", "dsn", "--namespace", SYSTEM, "--wait", "--timeout", "3m"]));
    kubectl(&["delete", "namespace", SYSTEM, "--timeout=180s"]);
    assert!(try_kubectl(&["get", "crd", "cameras.dsn.network"]).is_ok(), "uninstall keeps the kinds");
}

fn queues() -> String {
    rabbitmqctl(&["list_queues", "name"])
}
