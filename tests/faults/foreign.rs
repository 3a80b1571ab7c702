//! What belongs to somebody else is left alone, and said (oracle 3: no thief).

use std::{fmt::Write as _, time::Duration};

use axum::http::Method;
use dsn::domain::name;
use serde_json::{Value, json};

use crate::{lab::Lab, site::Site, tools::wait::eventually};

const LAB: &str = "no-thief";
/// Each is taken from a Pipeline of its own, of which it is the name too.
const KINDS: [&str; 3] = ["ConfigMap", "Service", "Deployment"];
/// Seconds between two attempts grow; this is longer than what they have grown to here.
const PATIENCE: Duration = Duration::from_secs(90);

/// A queue of somebody else, one of another namespace's Pipeline, and one whose Pipeline is gone.
const THEIRS: [&str; 2] = ["theirs", "dsn.ctl.6ba7b810-9dad-11d1-80b4-00c04fd430c8"];
const LEFT_OVER: &str = "dsn.ctl.6ba7b811-9dad-11d1-80b4-00c04fd430c8";
/// A user of somebody else, and one who has the name that our agents would have.
const VISITOR: &str = "visitor-of-no-thief";
const NAMESAKE: &str = "dsn-no-thief";

/// B3: objects, queues, bindings and users of somebody else stay as they are; the status says what is in the way and what to
/// do about it, and when that is done all goes on by itself.
pub fn b3_what_belongs_to_somebody_else_is_left_alone_and_said(site: &Site) {
    let lab = Lab::new(site, LAB);
    lab.declare(&declared());
    let objects = KINDS.map(|kind| (kind, child(&lab, kind)));
    for (kind, name) in &objects {
        lab.declare(&theirs(kind, name).to_string());
    }
    at_the_broker(&lab);
    let look = || (objects.each_ref().map(|(kind, name)| lab.object(kind, name)), broker_of_others(&lab));
    let before = look();
    lab.start();

    for (kind, name) in &objects {
        let pipeline = kind.to_lowercase();
        says(&lab, &pipeline, "Ready", ["False", "ForeignObject"], |message| {
            message.starts_with(&format!("{kind} {name:?} exists and belongs to "))
                && message.contains("rename or delete it")
        });
    }
    assert_eq!(look(), before, "something of somebody else was touched");

    for (kind, name) in &objects {
        lab.delete(kind, name);
    }
    for (kind, _) in &objects {
        let pipeline = kind.to_lowercase();
        rolls_out(&lab, &pipeline);
        says(&lab, &pipeline, "Ready", ["True", "RolledOut"], |_| true);
        says(&lab, &pipeline, "ControlPlane", ["False", "QueueFailed"], |message| {
            message.contains(&format!("user {NAMESAKE:?}")) && message.contains("rename or delete it")
        });
    }
    // The sweep has looked at all queues.
    eventually(
        "a queue whose Pipeline is gone goes",
        PATIENCE,
        || lab.log(),
        || (!lab.queues().iter().any(|queue| queue == LEFT_OVER)).then_some(()),
    );
    assert_eq!(broker_of_others(&lab), before.1, "something of somebody else was touched at the broker");

    lab.at_broker(&Method::DELETE, &format!("users/{NAMESAKE}"), None);
    for kind in KINDS {
        says(&lab, &kind.to_lowercase(), "ControlPlane", ["True", "InPlace"], |_| true);
    }
    assert_eq!(lab.at_broker(&Method::GET, &format!("users/{NAMESAKE}"), None)["tags"], json!(["dsn-agent"]));
}

fn declared() -> String {
    let mut text = "apiVersion: dsn.network/v1alpha1\nkind: StorageNode\nmetadata: {name: disk}\n\
                    spec: {managed: {capacity: 1Gi}}\n"
        .to_owned();
    for name in KINDS.map(str::to_lowercase) {
        write!(
            text,
            "---\napiVersion: dsn.network/v1alpha1\nkind: Camera\nmetadata: {{name: {name}}}\n\
             spec: {{site: hq, source: {{url: 'rtsp://camera:554/live'}}}}\n\
             ---\napiVersion: dsn.network/v1alpha1\nkind: Pipeline\nmetadata: {{name: {name}}}\n\
             spec: {{cameras: {{names: [{name}]}}, storage: {{replicas: 1}}}}\n"
        )
        .expect("a String takes everything");
    }
    text
}

/// The name of this child of the Pipeline that is called like its kind.
fn child(lab: &Lab, kind: &str) -> String {
    let pipeline = kind.to_lowercase();
    if kind == "Service" {
        name::live_service(&pipeline, &lab.uid("Pipeline", &pipeline))
    } else {
        name::instance(&pipeline, &pipeline, &lab.instance(&pipeline, &pipeline).to_string())
    }
}

fn theirs(kind: &str, name: &str) -> Value {
    let metadata = json!({"name": name, "labels": {"app.kubernetes.io/managed-by": "Helm"}});
    let pod =
        json!({"metadata": {"labels": {"of": "theirs"}}, "spec": {"containers": [{"name": "c", "image": "theirs"}]}});
    match kind {
        "ConfigMap" => json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": {"of": "theirs"}}),
        "Service" => json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {"ports": [{"port": 80}]}}),
        _ => json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
            "spec": {"selector": {"matchLabels": {"of": "theirs"}}, "template": pod},
        }),
    }
}

/// Somebody was there before us.
fn at_the_broker(lab: &Lab) {
    let put = |path: &str, body: Value| lab.at_broker(&Method::PUT, path, Some(&body));
    let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
    put(&format!("vhosts/{LAB}"), json!({}));
    put(&format!("permissions/{LAB}/guest"), all.clone());
    let owners = [Value::Null, "elsewhere/p/u".into(), format!("{LAB}/gone/u").into()];
    for (queue, owner) in THEIRS.iter().chain([&LEFT_OVER]).zip(owners) {
        let arguments = if owner.is_null() { json!({}) } else { json!({"x-dsn-owner": owner}) };
        put(&format!("queues/{LAB}/{queue}"), json!({"durable": true, "arguments": arguments}));
    }
    put(&format!("exchanges/{LAB}/dsn.events"), json!({"type": "topic", "durable": true}));
    let binding = format!("bindings/{LAB}/e/dsn.events/q/{}", THEIRS[0]);
    lab.at_broker(&Method::POST, &binding, Some(&json!({"routing_key": "evt.#"})));
    for user in [VISITOR, NAMESAKE] {
        put(&format!("users/{user}"), json!({"password": "theirs", "tags": "monitoring"}));
        put(&format!("permissions/{LAB}/{user}"), all.clone());
    }
}

/// What somebody else has at the broker; of a queue what was declared, for the rest counts up.
fn broker_of_others(lab: &Lab) -> Vec<Value> {
    let among = |row: &Value, field: &str, names: &[&str]| names.contains(&row[field].as_str().unwrap_or_default());
    let queues = lab.in_broker("queues").into_iter().filter(|row| among(row, "name", &THEIRS));
    let queues = queues.map(|row| json!([row["name"], row["durable"], row["arguments"]]));
    let bindings = lab.in_broker("bindings").into_iter().filter(|row| among(row, "destination", &THEIRS));
    let mine = |what: &str| lab.in_broker(what).into_iter().filter(move |row| among(row, "user", &[VISITOR, NAMESAKE]));
    let users = [VISITOR, NAMESAKE].map(|user| lab.at_broker(&Method::GET, &format!("users/{user}"), None));
    let (permissions, topics) = (mine("permissions"), mine("topic-permissions"));
    queues.chain(bindings).chain(permissions).chain(topics).chain(users).collect()
}

/// There are no controllers and no nodes here: says that the pod of a Pipeline's only camera runs.
fn rolls_out(lab: &Lab, pipeline: &str) {
    let name = name::instance(pipeline, pipeline, &lab.instance(pipeline, pipeline).to_string());
    let generation = eventually(
        "the Deployment is ours",
        PATIENCE,
        || lab.log(),
        || {
            let deployment = lab.object("Deployment", &name)?;
            let ours = deployment.pointer("/metadata/labels/app.kubernetes.io~1managed-by")? == "dsn";
            ours.then(|| deployment["metadata"]["generation"].clone())
        },
    );
    let one = json!({
        "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
    });
    lab.edit("Deployment", &format!("{name}/status"), &json!({"status": one}));
}

/// Waits until a condition of a Pipeline has this status, this reason and such a message.
fn says(lab: &Lab, pipeline: &str, condition: &str, [status, reason]: [&str; 2], is_such: impl Fn(&str) -> bool) {
    let found = || lab.condition("Pipeline", pipeline, condition);
    let context = || format!("{pipeline}: {condition}: {:?}\n{}", found(), lab.log());
    eventually(&format!("Pipeline {pipeline} says {condition}={status}, {reason}"), PATIENCE, context, || {
        let [found_status, found_reason, message] = found()?;
        (found_status == status && found_reason == reason && is_such(&message)).then_some(())
    });
}
