//! No secret shows anywhere but in Secrets (oracle 5): not in an object, an event, a log, a metric, the arguments or the
//! environment of a process.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use base64::Engine;
use rustix::process::Pid;
use serde_json::Value;

use crate::{
    kube::{kubectl, list, text, try_kubectl},
    t5_faults::{processes, recording_cameras},
    world::{SYSTEM, USER},
};

/// Shorter ones are user names and the like.
const LEAST: usize = 10;

/// Every secret value with where it comes from, in the spellings in which it could show.
fn secrets() -> BTreeMap<String, Vec<String>> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut secrets = BTreeMap::new();
    for namespace in [SYSTEM, USER] {
        for secret in
            list("secrets", namespace, "").iter().filter(|secret| text(secret, "/type") != "helm.sh/release.v1")
        {
            // Peer ids are public: they name the nodes.
            let values = secret["data"].as_object().into_iter().flatten().filter(|(key, _)| !key.ends_with("-id"));
            for (key, encoded) in values {
                let decoded = base64.decode(encoded.as_str().unwrap_or_default()).expect("base64");
                let Ok(value) = String::from_utf8(decoded) else { continue };
                let value = value.trim().to_owned();
                if value.len() < LEAST {
                    continue;
                }
                let percent: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                let spellings = vec![base64.encode(&value), percent, value];
                secrets.insert(format!("{namespace}/{}/{key}", text(secret, "/metadata/name")), spellings);
            }
        }
    }
    assert!(secrets.keys().any(|name| name.ends_with("camera-login/password")), "{:?}", secrets.keys());
    assert!(secrets.keys().any(|name| name.contains("dsn-master")), "{:?}", secrets.keys());
    secrets
}

/// (place, text) of everything that people and other programs get to see.
fn places() -> Vec<(String, String)> {
    let mut places = Vec::new();
    for namespace in [SYSTEM, USER] {
        let kinds = "pods,deployments,statefulsets,configmaps,services,events,pl,cam,sn,leases,persistentvolumeclaims";
        let objects: Value =
            serde_json::from_str(&kubectl(&["-n", namespace, "get", kinds, "-o", "json"])).expect("JSON");
        // The camera server is the test's own, and is given its password openly.
        let ours = objects["items"].as_array().expect("a list").iter().map(Value::to_string);
        let ours: Vec<_> = ours.filter(|object| !object.contains("CAMERA_PASSWORD")).collect();
        places.push((format!("objects of {namespace}"), ours.concat()));
        for pod in list("pods", namespace, "") {
            let name = text(&pod, "/metadata/name");
            let mut containers: Vec<&Value> = pod["spec"]["containers"].as_array().into_iter().flatten().collect();
            containers.extend(pod["spec"]["initContainers"].as_array().into_iter().flatten());
            for container in containers {
                let container_name = text(container, "/name");
                for previous in [false, true] {
                    let previous = format!("--previous={previous}");
                    let log = try_kubectl(&["-n", namespace, "logs", &name, "-c", &container_name, &previous]);
                    places.push((format!("log of {name}/{container_name}"), log.unwrap_or_default()));
                }
                let ports = container["ports"].as_array().into_iter().flatten();
                for port in ports.filter(|port| port["name"].as_str().is_some_and(|name| name.starts_with("metrics"))) {
                    let port = &port["containerPort"];
                    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
                    places.push((format!("metrics of {name}:{port}"), kubectl(&["get", "--raw", &path])));
                }
            }
        }
    }
    // ffmpeg must be given the camera's password, and nobody else sees its arguments: its container shares no process
    // namespace.
    let runners = containers("runner");
    for process in processes(|_, groups| groups.contains("kubepods")) {
        let (arguments, environment) = of_process(process);
        let program = arguments.split(' ').next().unwrap_or_default().to_owned();
        if environment.contains("CAMERA_PASSWORD=") {
            continue;
        }
        let is_capture = program.ends_with("ffmpeg") || program.ends_with("ffprobe");
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.as_raw_nonzero())).unwrap_or_default();
        if !(is_capture && runners.iter().any(|id| groups.contains(id))) {
            places.push((format!("arguments of {program}"), arguments));
        }
        places.push((format!("environment of {program}"), environment));
    }
    places.extend(an_ffmpeg_of_a_ladder());
    places
}

/// (arguments, environment) of a process; empty when it has ended.
fn of_process(process: Pid) -> (String, String) {
    let read = |file: &str| {
        let bytes = fs::read(format!("/proc/{}/{file}", process.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    (read("cmdline"), read("environ"))
}

/// Ids of the users' containers of this name, as they stand in their processes' control groups.
fn containers(name: &str) -> Vec<String> {
    let pods = list("pods", USER, "");
    let statuses = pods.iter().flat_map(|pod| pod["status"]["containerStatuses"].as_array().into_iter().flatten());
    let ids = statuses.filter(|status| text(status, "/name") == name).map(|status| text(status, "/containerID"));
    ids.filter_map(|id| Some(id.split_once("://")?.1.to_owned())).collect()
}

/// The transcoder's ffmpeg lives for a fraction of a second: one is waited for. It reads what a camera sent, and gets to see
/// nothing of ours.
fn an_ffmpeg_of_a_ladder() -> [(String, String); 2] {
    let transcoders = containers("transcoder");
    assert!(!transcoders.is_empty(), "there is no ladder");
    let begun = Instant::now();
    loop {
        let is_ours = |words: &[&str], groups: &str| {
            words[0].ends_with("ffmpeg") && transcoders.iter().any(|id| groups.contains(id))
        };
        for process in processes(is_ours) {
            let (arguments, environment) = of_process(process);
            if arguments.contains("libx264") && !environment.is_empty() {
                return [
                    ("arguments of a transcoder's ffmpeg".to_owned(), arguments),
                    ("environment of a transcoder's ffmpeg".to_owned(), environment),
                ];
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no ffmpeg of {transcoders:?} within a minute");
    }
}

/// Oracle 5.
#[test]
fn no_secret_shows_outside_of_secrets() {
    recording_cameras();
    let (secrets, places) = (secrets(), places());
    let seen = |fits: &dyn Fn(&str, &str) -> bool| places.iter().any(|(place, said)| fits(place, said));
    for what in ["log of", "metrics of", "arguments of", "environment of"] {
        assert!(seen(&|place, said| place.starts_with(what) && !said.is_empty()), "nothing seen: {what}");
    }
    // Of a ladder, too; its log is empty while all is well.
    assert!(seen(&|place, _| place.starts_with("log of") && place.ends_with("/transcoder")), "no log of a transcoder");
    assert!(seen(&|_, said| said == "dsn transcoder "), "no arguments of a transcoder");
    let mut shown = Vec::new();
    for (place, said) in &places {
        for (secret, spellings) in &secrets {
            if spellings.iter().any(|spelling| said.contains(spelling)) {
                shown.push(format!("{secret} in the {place}"));
            }
        }
    }
    shown.dedup();
    assert!(shown.is_empty(), "{shown:#?}");
}
