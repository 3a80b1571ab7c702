//! Control by message (rows K4, C3, C4): pods stay, ffmpeg obeys.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    footage::{key, try_replay},
    kube::{apply, eventually, get, kubectl, text, wait_condition},
    world::{USER, camera, capture_pod, http_get, incarnation, pipeline, remove, world},
};

const MINUTE: Duration = Duration::from_secs(60);

/// K4, C3: pause, resume and another segment length go by message: pod uid and restart counts stay as they were.
#[test]
fn k4_c3_pause_resume_and_edit_leave_the_pod_alone() {
    world();
    let begun = Timestamp::now();
    apply(&camera("steered", &format!("rtsp://camera.{USER}.svc:8554/h264"), "camera-login"));
    apply(&pipeline("steered", "[steered]", ""));
    wait_condition(("camera", USER, "steered"), "Capturing", "True", "", 2 * MINUTE);
    let before = incarnation(&capture_pod("steered").expect("one pod"));
    let sessions = |until: Timestamp| -> Result<Vec<String>, String> {
        let mut seen: Vec<String> = try_replay("steered", begun, until)?.segments.iter().map(|s| key(s).2).collect();
        seen.dedup();
        Ok(seen)
    };

    // The Pipeline tells a moment later than the Camera: its children come first.
    let counted = |wanted: &str| {
        eventually("the counter of running instances", MINUTE, || match running("steered") {
            told if told == wanted => Ok(()),
            other => Err(other),
        });
    };
    apply(&pipeline("steered", "[steered]", "  state: Paused\n"));
    wait_condition(("camera", USER, "steered"), "Capturing", "False", "Paused", MINUTE);
    counted("0/1");
    kubectl(&["-n", USER, "wait", "--for=condition=Ready", "pipeline/steered", "--timeout=30s"]);

    apply(&pipeline("steered", "[steered]", "  state: Running\n"));
    wait_condition(("camera", USER, "steered"), "Capturing", "True", "", MINUTE);
    counted("1/1");

    apply(&pipeline("steered", "[steered]", "  capture: {segmentSeconds: 2}\n"));
    // A third session, with segments of two seconds.
    eventually("segments of two seconds in a third session", 2 * MINUTE, || {
        let now = Timestamp::now();
        let seen = sessions(now)?;
        let last = try_replay("steered", begun, now)?.segments.last().map_or(0.0, |s| s.duration);
        if seen.len() == 3 && last < 2.5 { Ok(()) } else { Err(format!("{} sessions, last {last} s", seen.len())) }
    });
    assert_eq!(before, incarnation(&capture_pod("steered").expect("one pod")), "the pod was touched");

    // Each break is marked, and in `gaps` with its reason.
    let list = try_replay("steered", begun, Timestamp::now()).expect("plays");
    assert_eq!(list.segments.iter().filter(|s| s.discontinuity).count(), 2);
    let reasons = gap_reasons("steered", begun);
    assert!(reasons.contains(&"Paused".to_owned()) && reasons.contains(&"Reconfigured".to_owned()), "{reasons:?}");
    remove("pipeline", "steered");
    remove("camera", "steered");
}

/// C4: every start and stop stands in an append-only record whose chain of hashes verifies.
#[test]
fn c4_starts_and_stops_are_in_a_verified_ledger() {
    world();
    let (status, body) = http_get("/api/ledger");
    assert_eq!(status, 200);
    let ledger: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(ledger["verified"], true, "{ledger}");
    let entries = ledger["entries"].as_array().expect("entries");
    assert!(entries.iter().filter(|e| e["event"] == "start").count() >= 3, "{ledger}");
}

fn running(name: &str) -> String {
    text(&get("pipeline", USER, name).expect("exists"), "/status/running")
}

/// Reasons of the gaps of a camera since a time, as the coverage lists them.
pub fn gap_reasons(camera: &str, since: Timestamp) -> Vec<String> {
    let (status, body) =
        http_get(&format!("/api/cameras/{USER}/{camera}/coverage?from={since}&to={}", Timestamp::now()));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let coverage: Value = serde_json::from_slice(&body).expect("JSON");
    coverage["gaps"]
        .as_array()
        .unwrap_or_else(|| panic!("no gaps in {coverage}"))
        .iter()
        .map(|gap| text(gap, "/reason"))
        .collect()
}
