//! The operator under faults (row B3): killed at every write, answered with errors, fought over its children. Whatever
//! happened, in the end everything is as a fresh one would have made it, and nothing is written any more (oracles 1–3).
//!
//! Against the release binary, a real API server and a real RabbitMQ on loopback. A run of the whole sweep is long:
//! `FAULTS=all`; without it every third write is tried, at another moment each.

mod lab;
mod proxy;
#[path = "../tools/mod.rs"]
mod tools;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde_json::Value;

use self::{
    lab::{Lab, Site, difference},
    proxy::{Fault, Moment},
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
    |lab| drop(lab.kubectl(&["apply", "-f", "-"], DECLARED)),
    |lab| {
        // Another assignment, and no ladder any more: its queue and its container go.
        let edit = r#"{"spec":{"capture":{"segmentSeconds":6},"transcode":null}}"#;
        lab.kubectl(&["patch", "pipeline", "hq", "--type=merge", "-p", edit], "");
    },
    |lab| drop(lab.kubectl(&["delete", "pipeline/hq", "camera/gate", "storagenode/disk", "--wait=false"], "")),
];

type State = BTreeMap<String, Value>;

/// The state after each step without any fault, and how many writes it took in all.
struct Fresh {
    states: Vec<State>,
    writes: u32,
}

fn fresh(site: &Site, name: &str) -> Fresh {
    let lab = Lab::new(site, name);
    lab.start();
    lab.proxy.set(None);
    let states = STEPS.iter().map(|step| {
        step(&lab);
        lab.rest()
    });
    let states: Vec<_> = states.collect();
    Fresh { writes: lab.proxy.writes(), states }
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
    assert!(one.states[0].keys().any(|name| name.starts_with("queues ") && name.contains("dsn.ctl.")));
    let ladder = |state: &State| {
        state.iter().any(|(name, object)| name.contains("Deployment") && object.to_string().contains("\"transcoder\""))
    };
    assert!(ladder(&one.states[0]) && !ladder(&one.states[1]), "{:?}", one.states[1]);
    assert!(!one.states[2].keys().any(|name| name.contains("dsn.ctl.")), "{:?}", one.states[2]);
    Fresh { writes: one.writes.min(other.writes), ..one }
}

/// B3, oracles 1 to 3. One test, because its parts share servers that end with it.
#[test]
fn b3_whatever_befalls_the_operator_all_ends_where_a_fresh_one_does() {
    let site = Site::start();
    let fresh = reference(&site);
    killed_at_any_write(&site, &fresh);
    std::thread::scope(|scope| {
        scope.spawn(|| errors_of_the_api_server_are_outlived(&site, &fresh));
        scope.spawn(|| {
            a_second_writer_makes_no_hot_loop(&site, &fresh);
            a_deleted_queue_of_the_recorder_comes_back(&site, &fresh);
            k5_a_second_manager_changes_nothing_of_a_sample(&site);
        });
    });
}

/// Goes through all steps; whatever was broken by then, each ends where a fresh one does.
fn steps_end_as_fresh(lab: &Lab, fresh: &Fresh, what: &str) {
    for (n, step) in STEPS.iter().enumerate() {
        step(lab);
        lab.settles_at(&fresh.states[n], &format!("{what}, after step {n}"));
    }
}

/// SIGKILL at the writes of a reconcile, before, between commit and answer, and after the answer.
fn killed_at_any_write(site: &Site, fresh: &Fresh) {
    let all = std::env::var("FAULTS").is_ok_and(|faults| faults == "all");
    // A revived operator says some things again: the last writes come later than in a fresh run.
    let last = if all { fresh.writes + 5 } else { fresh.writes };
    eprintln!("a fresh run takes {} writes", fresh.writes);
    let moments = [Moment::Before, Moment::Committed, Moment::Answered];
    std::thread::scope(|scope| {
        for (m, moment) in (0_u32..).zip(moments) {
            scope.spawn(move || {
                for n in (1..=last).filter(|n| all || n % 9 == m * 3) {
                    let lab = Lab::new(site, &format!("kill-{m}-{n}"));
                    lab.proxy.set(Some(Fault::At(n, moment, lab.killer())));
                    lab.start();
                    let what = format!("killed at write {n}, {moment:?}");
                    steps_end_as_fresh(&lab, fresh, &what);
                    // It may have died after the last look.
                    lab.revive();
                    let was_reached = !lab.proxy.is_armed();
                    assert_eq!(lab.deaths(), u32::from(was_reached), "{what}");
                    // A broker that answers late or early makes one status more or less.
                    assert!(was_reached || n + 3 > fresh.writes, "{what}: it was never reached");
                }
            });
        }
    });
}

/// An API server that answers every third write with an error is asked again, with pauses.
fn errors_of_the_api_server_are_outlived(site: &Site, fresh: &Fresh) {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::CONFLICT] {
        let lab = Lab::new(site, &format!("errors-{}", status.as_u16()));
        lab.proxy.set(Some(Fault::Every(3, status)));
        lab.start();
        steps_end_as_fresh(&lab, fresh, &status.to_string());
        let writes = lab.proxy.writes();
        assert!(writes < 4 * fresh.writes, "{status}: {writes} writes where {} are needed", fresh.writes);
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
    lab.proxy.set(None);
    let made = lab.rest();
    assert!(made.keys().any(|name| name.contains("Deployment")), "{:?}", made.keys());
    let before = lab.proxy.writes();
    // A difference is an exit status.
    assert_eq!(by("diff", "second"), "");
    by("apply", "second");
    assert!(lab.rest() == made, "{}", difference(&made, &lab.rest()));
    assert_eq!((by("diff", "first"), by("diff", "second")), (String::new(), String::new()));
    assert_eq!(lab.proxy.writes(), before, "the operator wrote");
}

/// The recorder, whose consumer ends with its queue, begins anew by saying hello; nothing else tells that it is gone.
fn a_deleted_queue_of_the_recorder_comes_back(site: &Site, fresh: &Fresh) {
    const QUEUE: &str = "dsn.recorder";
    let lab = Lab::new(site, "queueless");
    lab.start();
    lab.proxy.set(None);
    STEPS[0](&lab);
    lab.settles_at(&fresh.states[0], "before the queue is deleted");
    assert!(lab.queues().iter().any(|name| name == QUEUE));
    lab.delete_queue(QUEUE);
    assert!(!lab.queues().iter().any(|name| name == QUEUE));
    lab.say("sys.hello");
    lab.settles_at(&fresh.states[0], "after its queue was deleted");
}

/// Somebody who changes a child again and again is answered, but not in a hot loop; when they stop, the child is ours and
/// nothing is written any more.
fn a_second_writer_makes_no_hot_loop(site: &Site, fresh: &Fresh) {
    let lab = Lab::new(site, "rival");
    lab.start();
    lab.proxy.set(None);
    STEPS[0](&lab);
    lab.settles_at(&fresh.states[0], "before the fight");
    let deployment = lab.kubectl(&["get", "deployment", "-o", "name"], "");
    let before = lab.proxy.writes();
    let begun = Instant::now();
    let mut changed = 0;
    while begun.elapsed() < Duration::from_secs(10) {
        changed += 1;
        let patch = format!(r#"{{"spec":{{"replicas":{}}}}}"#, 2 + changed % 2);
        lab.kubectl(&["patch", deployment.trim(), "--type=merge", "-p", &patch], "");
    }
    let answered = lab.proxy.writes() - before;
    lab.settles_at(&fresh.states[0], "after the fight");
    assert!(answered >= 1, "the operator does not defend its child");
    // One apply and perhaps one status for a change.
    assert!(answered <= 2 * changed + 2, "{answered} writes against {changed}");
}
