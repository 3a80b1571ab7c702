//! What a person sees who declares things, rightly and wrongly. Runs while the shared recording grows.

use std::time::Duration;

use crate::{
    kube::{apply, eventually, get, kubectl, list, text, try_apply, try_kubectl, wait_condition},
    world::{USER, camera, credentials, pipeline, remove, storage_node, world},
};

const MINUTE: Duration = Duration::from_secs(60);

/// K2: the three kinds become Ready, `kubectl wait` and `kubectl get` work as on any well-kept resource.
#[test]
fn k2_three_kinds_become_ready_and_read_well() {
    let first_picture = world().first_picture;
    assert!(first_picture < MINUTE, "first picture after {first_picture:?}");
    for resource in ["camera/h264", "pipeline/main", "storagenode/disk-1"] {
        kubectl(&["-n", USER, "wait", "--for=condition=Ready", resource, "--timeout=60s"]);
    }
    let table = kubectl(&["-n", USER, "get", "pl,cam,sn"]);
    for wanted in ["3/3", "h264 640x360 25fps", "hevc", "Running"] {
        assert!(table.contains(wanted), "{wanted:?} is missing in\n{table}");
    }
    println!("{table}");
}

/// C1, C3: one queue per instance, its assignment in a ConfigMap, acknowledged; the counter of running instances.
#[test]
fn c1_every_instance_has_its_own_queue_and_assignment() {
    world();
    let main = get("pipeline", USER, "main").expect("exists");
    let rows = main["status"]["instances"].as_array().cloned().unwrap_or_default();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(text(&main, "/status/running"), "3/3");
    // An agent listens some seconds after it has begun to speak.
    eventually("a consumer of each queue", Duration::from_secs(60), || {
        let broker = ["-n", "dsn-system", "exec", "dsn-rabbitmq-0", "--"];
        let list = ["rabbitmqctl", "-q", "-p", "dsn", "list_queues", "name", "consumers"];
        let queues = try_kubectl(&[broker.as_slice(), &list].concat())?;
        let is_heard = |row: &serde_json::Value| {
            let queue = format!("dsn.ctl.{}", row["uid"].as_str().expect("a uid"));
            queues.lines().any(|line| line.starts_with(&queue) && line.ends_with("\t1"))
        };
        if rows.iter().all(is_heard) { Ok(()) } else { Err(queues) }
    });
    assert_eq!(list("configmaps", USER, "dsn.network/pipeline=main").len(), 3);
}

/// Bad manifests are refused at `kubectl apply` with a sentence that says what to write; nothing is created.
#[test]
fn bad_input_is_refused_with_a_sentence() {
    world();
    let long = "n".repeat(60);
    let cases = [
        (camera("bad", "http://camera/stream", "x"), "rtsp://"),
        (camera("bad", "rtsp://admin:secret@camera/stream", "x"), "credentialsSecretRef"),
        (camera("bad", "rtsp://cämera/stream", "x"), "ASCII"),
        (camera("bad", "rtsp://", "x"), "host"),
        (camera(&long, "rtsp://camera/stream", "x"), "52 characters"),
        (pipeline("bad", "[]", ""), "at least one Camera"),
        (pipeline("bad", "[a]", "").replace("cameras: {names: [a]}", "cameras: {}"), "selector"),
        (pipeline("bad", "[a]", "").replace("24h", "30d"), "720h for 30 days"),
        (pipeline("bad", "[a]", "  capture: {segmentSeconds: 0}\n"), "1 to 30"),
        (pipeline(&long, "[a]", ""), "52 characters"),
        (storage_node(&long), "40 characters"),
        (storage_node("bad").replace("2Gi", "10Mi"), "at least 1Gi"),
    ];
    for (manifest, sentence) in cases {
        match try_apply(&manifest) {
            Ok(said) => panic!("accepted: {said}\n{manifest}"),
            Err(refusal) => assert!(refusal.contains(sentence), "{sentence:?} is missing in: {refusal}"),
        }
    }
    for kind in ["camera", "pipeline", "storagenode"] {
        assert!(get(kind, USER, "bad").is_none(), "a half-created {kind} stays");
    }
}

/// A missing Secret is named; once it is there the camera records without anybody's help.
#[test]
fn a_missing_secret_is_named_and_found_when_it_comes() {
    world();
    apply(&camera("late", &format!("rtsp://camera.{USER}.svc:8554/h264"), "late-login"));
    apply(&pipeline("late", "[late]", ""));
    let message = wait_condition(("camera", USER, "late"), "Capturing", "False", "SecretMissing", MINUTE);
    assert!(message.contains("late-login") && message.contains("username"), "{message}");
    apply(&credentials("late-login", "s3cret/pass:word"));
    // The kubelet refreshes mounted Secrets about once a minute.
    wait_condition(("camera", USER, "late"), "Capturing", "True", "", 3 * MINUTE);
    remove("pipeline", "late");
    remove("camera", "late");
}

/// A wrong password is said, with the Secret to look at, and never shown.
#[test]
fn a_wrong_password_is_said_and_never_shown() {
    world();
    apply(&credentials("wrong-login", "hunter2-wrong"));
    apply(&camera("wrong", &format!("rtsp://camera.{USER}.svc:8554/h264"), "wrong-login"));
    apply(&pipeline("wrong", "[wrong]", ""));
    let message = wait_condition(("camera", USER, "wrong"), "Capturing", "False", "Unauthorized", 2 * MINUTE);
    assert!(message.contains("wrong-login"), "{message}");
    // The agent reports faster than the kubelet tells the API server that its container runs.
    let logs = eventually("the logs of camera wrong", MINUTE, || {
        try_kubectl(&["-n", USER, "logs", "-l", "dsn.network/camera=wrong", "--all-containers", "--tail=-1"])
    });
    assert!(logs.contains("Unauthorized"), "the logs do not say what is wrong: {logs}");
    let said = kubectl(&["-n", USER, "get", "pl,cam,events,configmaps", "-o", "yaml"]) + &logs;
    assert!(!said.contains("hunter2-wrong"), "the password is shown");
    remove("pipeline", "wrong");
    remove("camera", "wrong");
}

/// An unplugged camera is Ready and not Capturing, with a message that says what to do.
#[test]
fn an_unplugged_camera_is_ready_and_not_capturing() {
    world();
    // Loopback port 9: refuses at once.
    apply(&camera("unplugged", "rtsp://127.0.0.1:9/stream", "camera-login"));
    apply(&pipeline("unplugged", "[unplugged]", ""));
    kubectl(&["-n", USER, "wait", "--for=condition=Ready", "camera/unplugged", "pipeline/unplugged", "--timeout=90s"]);
    let message = wait_condition(("camera", USER, "unplugged"), "Capturing", "False", "CameraUnreachable", 2 * MINUTE);
    assert!(message.contains("127.0.0.1:9"), "{message}");
    remove("pipeline", "unplugged");
    remove("camera", "unplugged");
}

/// What CEL cannot see is a condition: claims, empty selectors, too few nodes.
#[test]
fn what_the_schema_cannot_see_is_a_condition() {
    world();
    apply(&pipeline("second", "[h264]", ""));
    let message = wait_condition(("pipeline", USER, "second"), "CamerasAccepted", "False", "ClaimedBy", MINUTE);
    assert!(message.contains("h264") && message.contains("main"), "{message}");
    apply(&pipeline("second", "[nobody]", ""));
    let message = wait_condition(("pipeline", USER, "second"), "CamerasAccepted", "False", "CameraNotFound", MINUTE);
    assert!(message.contains("nobody"), "{message}");
    remove("pipeline", "second");
    apply(&pipeline("none", "[x]", "").replace("{names: [x]}", "{selector: {matchLabels: {nothing: here}}}"));
    wait_condition(("pipeline", USER, "none"), "CamerasAccepted", "False", "NoCamerasSelected", MINUTE);
    remove("pipeline", "none");
    apply(&pipeline("many", "[x]", "").replace("replicas: 2", "replicas: 5"));
    let message = wait_condition(("pipeline", USER, "many"), "Stored", "False", "TooFewStorageNodes", MINUTE);
    assert!(message.contains('5') && message.contains('3'), "{message}");
    remove("pipeline", "many");
}
