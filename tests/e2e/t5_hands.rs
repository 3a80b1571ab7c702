//! Hands that meddle while two cameras record (rows K5, V9, B3): what somebody changes, deletes or edits in a hurry ends
//! where a fresh installation would be, and then nothing is written any more.

use std::{
    collections::BTreeSet,
    sync::OnceLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::Signal;

use crate::{
    footage::try_replay,
    kube::{apply, eventually, get, kubectl, list, text, try_get, wait_condition},
    subscriber::Subscriber,
    t4_gitops::wait_for_rest,
    t5_faults::{
        CAMERAS, RECORDER_QUEUE, await_a_recorder_that_listens, await_a_recorder_that_takes_nothing, declared, in_pod,
        lock_the_catalogue, recording_cameras, signal, unlock, whole,
    },
    world::{SYSTEM, USER, capture_pod, incarnation, rabbitmqctl},
};

const MINUTE: Duration = Duration::from_secs(60);

/// B3: fifty edits in seconds while the leading operator is killed: the last one is what is in effect, and then it is
/// quiet.
#[test]
fn b3_fifty_edits_and_a_killed_leader_end_at_the_last_edit() {
    recording_cameras();
    let before = CAMERAS.map(|(name, ..)| incarnation(&capture_pod(name).expect("one pod")));
    let holder = text(&get("lease", SYSTEM, "dsn-operator").expect("exists"), "/spec/holderIdentity");
    let leader = in_pod(&holder, SYSTEM, "dsn");
    let edits = |numbers: std::ops::Range<i32>| {
        // What the last one says nobody else does.
        let seconds = numbers.map(|edit| if edit == 49 { 10 } else { 2 + edit % 5 });
        let edit = |seconds| declared(&format!("  capture: {{segmentSeconds: {seconds}}}\n"));
        apply(&seconds.map(edit).collect::<Vec<_>>().join("---\n"));
    };
    let begun = Instant::now();
    edits(0..25);
    signal(&leader, Signal::KILL);
    edits(25..50);
    eprintln!("fifty edits within {:?}", begun.elapsed());
    eventually("the last edit in effect", 2 * MINUTE, || {
        let now = Timestamp::now();
        for (name, ..) in CAMERAS {
            let last =
                try_replay(name, now - Duration::from_secs(30), now)?.segments.last().map_or(0.0, |s| s.duration);
            // ffmpeg cuts at the first keyframe after multiples of the length.
            if !(9.5..13.0).contains(&last) {
                return Err(format!("segments of {last} s"));
            }
        }
        let maps = list("configmaps", USER, "dsn.network/pipeline=faults");
        let said: Vec<_> = maps.iter().map(|map| text(map, "/data/assignment.json")).collect();
        let all = said.len() == 2 && said.iter().all(|text| text.contains("\"segmentSeconds\":10"));
        let declared = try_get("pipeline", USER, "faults")?;
        let [wanted, seen] = ["/metadata/generation", "/status/observedGeneration"].map(|at| declared.pointer(at));
        if all && wanted == seen { Ok(()) } else { Err(format!("{said:?}; {wanted:?}, {seen:?}")) }
    });
    wait_condition(("pipeline", USER, "faults"), "ControlPlane", "True", "", MINUTE);
    wait_for_rest();
    let after = CAMERAS.map(|(name, ..)| incarnation(&capture_pod(name).expect("one pod")));
    assert_eq!(after, before, "a capture pod was touched");
}

/// Drift: what somebody changes or deletes by hand comes back, and then nothing is written any more.
#[test]
fn k5_children_changed_or_deleted_by_hand_come_back() {
    recording_cameras();
    let selector = "dsn.network/pipeline=faults,dsn.network/camera=f2";
    let deployment = text(&list("deployments", USER, selector)[0], "/metadata/name");
    let template =
        || text(&get("deployment", USER, &deployment).expect("exists"), "/spec/template/spec/containers/0/image");
    let image = template();
    kubectl(&["-n", USER, "set", "image", &format!("deployment/{deployment}"), "*=localhost/nothing:1"]);
    eventually("the image as it was", MINUTE, || if template() == image { Ok(()) } else { Err(template()) });
    let map = text(&list("configmaps", USER, selector)[0], "/metadata/name");
    kubectl(&["-n", USER, "delete", "configmap", &map]);
    eventually("the assignment again", MINUTE, || get("configmap", USER, &map).map(drop).ok_or("none".to_owned()));
    kubectl(&["-n", USER, "delete", "deployment", &deployment, "--wait=true"]);
    eventually("the Deployment again", MINUTE, || {
        get("deployment", USER, &deployment).map(drop).ok_or("none".to_owned())
    });

    let instance = text(&list("deployments", USER, selector)[0], "/metadata/labels/dsn.network~1instance");
    let own = format!("dsn.ctl.{instance}");
    rabbitmqctl(&["delete_queue", &own]);
    // An edit finds it missing, declares it and arrives (or by the mounted ConfigMap, if that is quicker).
    kubectl(&["-n", USER, "patch", "pipeline", "faults", "--type=merge", "-p", r#"{"spec":{"state":"Paused"}}"#]);
    wait_condition(("camera", USER, "f2"), "Capturing", "False", "Paused", MINUTE);
    eventually("the queue again", MINUTE, || {
        let queues = rabbitmqctl(&["list_queues", "name"]);
        if queues.contains(&own) { Ok(()) } else { Err(queues) }
    });
    kubectl(&["-n", USER, "patch", "pipeline", "faults", "--type=merge", "-p", r#"{"spec":{"state":"Running"}}"#]);
    for (name, ..) in CAMERAS {
        wait_condition(("camera", USER, name), "Capturing", "True", "", 2 * MINUTE);
    }
    wait_condition(("pipeline", USER, "faults"), "Stored", "True", "", 3 * MINUTE);
    wait_for_rest();
}

/// From when to when the cameras recorded what was announced to a queue of the recorder that somebody then deleted, with
/// all that waited in it.
pub fn announced_to_a_deleted_queue() -> (Timestamp, Timestamp) {
    static SPAN: OnceLock<(Timestamp, Timestamp)> = OnceLock::new();
    *SPAN.get_or_init(|| {
        recording_cameras();
        let begun = Timestamp::now();
        // The recorder is quick: something waits only while it cannot write.
        let catalogue = lock_the_catalogue();
        await_a_recorder_that_takes_nothing();
        // Who else listens makes the broker content: agents take what no recorder heard for announced.
        let somebody = Subscriber::start();
        eventually("an announcement of each camera", MINUTE, || {
            let heard: BTreeSet<_> =
                somebody.with(|heard| heard.segments.values().map(|segment| text(segment, "/cameraName")).collect());
            let all = CAMERAS.iter().all(|(name, ..)| heard.contains(&format!("{USER}/{name}")));
            if all { Ok(()) } else { Err(format!("{heard:?}")) }
        });
        rabbitmqctl(&["delete_queue", RECORDER_QUEUE]);
        unlock(catalogue);
        await_a_recorder_that_listens();
        (begun, Timestamp::now())
    })
}

/// V9: the recorder's queue, deleted by hand, is there again within seconds and takes what is announced from then on. What
/// went with it is announced again after five minutes, when other tests have passed
/// (`t5_survived::v9_what_went_with_a_deleted_queue_is_announced_again`).
#[test]
fn v9_the_recorders_queue_deleted_by_hand_comes_back() {
    let (_, since) = announced_to_a_deleted_queue();
    for (name, ..) in CAMERAS {
        whole(name, "source", since, since + Duration::from_secs(10), MINUTE);
    }
}
