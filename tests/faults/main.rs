//! The operator under faults (row B3): killed at every write, answered with errors, fought over its children, beside somebody
//! who has the names it needs. Whatever happened, in the end everything is as a fresh one would have made it, nothing of
//! anybody else was touched, and nothing is written any more (oracles 1–3).
//!
//! Against the release binary, a real API server and a real RabbitMQ on loopback. The operator dies at each of its writes, at
//! another moment of it each; with `FAULTS=all` at every moment of each.

mod edits;
mod foreign;
mod kills;
mod lab;
mod proxy;
mod queues;
mod site;
mod state;
#[path = "../tools/mod.rs"]
mod tools;
mod traffic;
mod wire;

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;

use self::{
    lab::{Lab, Way},
    site::Site,
    state::{State, difference},
    traffic::Fault,
};

/// One node, one camera, one pipeline with a ladder: everything the operator makes, once.
const DECLARED: &str = "apiVersion: dsn.network/v1alpha1
kind: StorageNode
metadata: {name: disk}
spec: {managed: {capacity: 1Gi}}
---
apiVersion: dsn.network/v1alpha1
kind: Camera
metadata: {name: gate}
spec: {site: hq, source: {url: rtsp://camera:554/live}}
---
apiVersion: dsn.network/v1alpha1
kind: Pipeline
metadata: {name: hq}
spec:
  cameras: {names: [gate]}
  storage: {replicas: 1}
  transcode:
    sidecar:
      renditions: [{name: low, height: 240, videoBitrateKbps: 300}]
";

/// What people do, one after the other.
const STEPS: [fn(&Lab); 3] = [
    |lab| lab.declare(DECLARED),
    |lab| {
        // Another assignment, and no ladder any more: its queue and its container go.
        let edit = json!({"spec": {"capture": {"segmentSeconds": 6}, "transcode": null}});
        lab.edit("Pipeline", "hq", &edit);
    },
    |lab| [("Pipeline", "hq"), ("Camera", "gate"), ("StorageNode", "disk")].iter().for_each(|(k, n)| lab.delete(k, n)),
];

/// The state after each step without any fault, and how many writes it took on each [`Way`].
struct Fresh {
    states: [State; 3],
    writes: [[u32; 3]; 3],
}

impl Fresh {
    /// All writes to the API server.
    fn api_writes(&self) -> u32 {
        self.writes.iter().map(|[api, ..]| api).sum()
    }
}

fn fresh(site: &Site, name: &str) -> Fresh {
    let lab = Lab::new(site, name);
    lab.start();
    let steps = STEPS.map(|step| {
        lab.let_be();
        step(&lab);
        (lab.rest(), Way::ALL.map(|way| lab.traffic(way).writes()))
    });
    Fresh { writes: steps.each_ref().map(|(_, writes)| *writes), states: steps.map(|(state, _)| state) }
}

/// What a fresh run looks like. Two clean runs must not differ, or the comparison would prove nothing.
fn reference(site: &Site) -> Fresh {
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| fresh(site, "fresh-a"));
        let other = scope.spawn(|| fresh(site, "fresh-b"));
        (one.join().expect("a clean run"), other.join().expect("a clean run"))
    });
    for (one, other) in one.states.iter().zip(&other.states) {
        assert!(one == other, "two clean runs differ: {}", difference(one, other));
    }
    assert!(one.states[0].keys().filter(|name| name.contains("Deployment")).count() == 1, "{:?}", one.states[0]);
    let rows = ["queues", "bindings", "exchanges", "policies", "permissions", "topic-permissions"];
    for row in rows {
        assert!(one.states[0].keys().any(|name| name.starts_with(&format!("{row} "))), "{row}: {:?}", one.states[0]);
    }
    let control = |state: &State| state.keys().any(|name| name.starts_with("queues ") && name.contains("dsn.ctl."));
    assert!(control(&one.states[0]) && !control(&one.states[2]), "{:?}", one.states[2]);
    let ladder = |state: &State| {
        state.iter().any(|(name, object)| name.contains("Deployment") && object.to_string().contains("\"transcoder\""))
    };
    assert!(ladder(&one.states[0]) && !ladder(&one.states[1]), "{:?}", one.states[1]);
    one
}

/// B3, oracles 1 to 3. One test, because its parts share servers that end with it.
#[test]
fn b3_whatever_befalls_the_operator_all_ends_where_a_fresh_one_does() {
    let site = Site::start();
    let fresh = reference(&site);
    let all = std::env::var("FAULTS").is_ok_and(|faults| faults == "all");
    std::thread::scope(|scope| {
        scope.spawn(|| kills::killed_at_any_write(&site, &fresh, all));
        scope.spawn(|| errors_of_the_api_server_are_outlived(&site, &fresh));
        scope.spawn(|| edits::b3_fifty_edits_in_five_seconds_end_as_the_last_one_alone(&site));
        scope.spawn(|| foreign::b3_what_belongs_to_somebody_else_is_left_alone_and_said(&site));
        scope.spawn(|| {
            a_second_writer_makes_no_hot_loop(&site, &fresh);
            k5_a_second_manager_changes_nothing_of_a_sample(&site);
            queues::c1_a_deleted_queue_comes_back_and_its_messages_are_heard_again(&site, &fresh);
        });
    });
}

/// An API server that answers every third write with an error is asked again, with pauses.
fn errors_of_the_api_server_are_outlived(site: &Site, fresh: &Fresh) {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::CONFLICT] {
        let lab = Lab::new(site, &format!("errors-{}", status.as_u16()));
        let api = lab.traffic(Way::Api);
        api.set(Some(Fault::Every(3, status)));
        lab.start();
        for (n, (step, state)) in STEPS.iter().zip(&fresh.states).enumerate() {
            step(&lab);
            lab.settles_at(state, &format!("{status}, after step {n}"));
        }
        let (writes, needed) = (api.writes(), fresh.api_writes());
        assert!(writes < 4 * needed, "{status}: {writes} writes where {needed} are needed");
        lab.rests_at(&fresh.states[2], &format!("{status}, in the end"));
    }
}

/// K5: who applies the samples beside somebody else (Argo CD beside Flux, a person beside both) sees no difference, changes
/// nothing, and gives the operator nothing to do.
fn k5_a_second_manager_changes_nothing_of_a_sample(site: &Site) {
    let lab = Lab::new(site, "samples");
    let samples = ["storagenode", "camera", "pipeline"]
        .map(|kind| std::fs::read_to_string(format!("manifests/{kind}.yaml")).expect("a sample"));
    // The `stringData` of the camera's Secret is never given back, so it differs for anybody.
    let ours: Vec<&str> = samples.iter().flat_map(|text| text.split("\n---\n")).collect();
    let ours: Vec<&str> = ours.into_iter().filter(|object| object.contains("apiVersion: dsn.network/")).collect();
    assert_eq!(ours.len(), 3, "{ours:?}");
    let by = |how: &str, manager: &str| {
        let manager = format!("--field-manager={manager}");
        lab.kubectl(&[how, "--server-side", &manager, "--filename=-"], &ours.join("\n---\n"))
    };
    by("apply", "first");
    lab.start();
    let made = lab.rest();
    assert!(made.keys().any(|name| name.contains("Deployment")), "{:?}", made.keys());
    let before = lab.traffic(Way::Api).writes();
    // A difference is an exit status.
    assert_eq!(by("diff", "second"), "");
    by("apply", "second");
    assert!(lab.rest() == made, "{}", difference(&made, &lab.rest()));
    assert_eq!((by("diff", "first"), by("diff", "second")), (String::new(), String::new()));
    assert_eq!(lab.traffic(Way::Api).writes(), before, "the operator wrote");
}

/// Somebody who changes a child again and again is answered, but not in a hot loop; when they stop, the child is ours and
/// nothing is written any more.
fn a_second_writer_makes_no_hot_loop(site: &Site, fresh: &Fresh) {
    let lab = Lab::new(site, "rival");
    lab.start();
    STEPS[0](&lab);
    lab.settles_at(&fresh.states[0], "before the fight");
    let deployment = lab.kubectl(&["get", "deployment", "-o", "name"], "");
    let before = lab.traffic(Way::Api).writes();
    let begun = Instant::now();
    let mut changed = 0;
    while begun.elapsed() < Duration::from_secs(10) {
        changed += 1;
        let patch = format!(r#"{{"spec":{{"replicas":{}}}}}"#, 2 + changed % 2);
        lab.kubectl(&["patch", deployment.trim(), "--type=merge", "-p", &patch], "");
    }
    let answered = lab.traffic(Way::Api).writes() - before;
    lab.rests_at(&fresh.states[0], "after the fight");
    assert!(answered >= 1, "the operator does not defend its child");
    // One apply and perhaps one status for a change.
    assert!(answered <= 2 * changed + 2, "{answered} writes against {changed}");
}
