//! Finds and runs the programs that tests hold beside ours (helm, kubectl, …). They are built from pinned sources by
//! `hack/cluster/build-tools`; a test that needs one and does not find it fails and says so, it is never skipped.

#![allow(dead_code, reason = "each test target uses its part")]

pub mod apiserver;
pub mod broker;
pub mod wait;

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A port of loopback that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Path of a pinned program.
pub fn program(name: &str) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = || variable("HOME").expect("HOME is set").join(".cache");
    let cache = variable("DSN_CACHE").unwrap_or_else(|| variable("XDG_CACHE_HOME").unwrap_or_else(home).join("dsn"));
    let path = cache.join("tools/bin").join(name);
    assert!(path.exists(), "{} is missing: run hack/cluster/build-tools", path.display());
    path
}

/// Runs a pinned program to its end.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).current_dir(repository()).output().expect("the program starts")
}

/// Runs a pinned program to its end with text on its standard input.
pub fn run_with_input(name: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program(name))
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("it has a standard input").write_all(input.as_bytes()).expect("it reads its input");
    child.wait_with_output().expect("it ends")
}

/// A file of a Go module that a folder of hack/cluster/tools pins; fetched if it is not there yet.
pub fn module_file(family: &str, module: &str, file: &str) -> PathBuf {
    let output = Command::new("go")
        .args(["mod", "download", "-json", module])
        .env("GOWORK", "off")
        .current_dir(repository().join("hack/cluster/tools").join(family))
        .output()
        .expect("Go runs");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let folder = said["Dir"].as_str().unwrap_or_else(|| panic!("{module}: {}{}", said["Error"], stderr(&output)));
    Path::new(folder).join(file)
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The documents of a YAML stream, empty ones left out.
pub fn documents(yaml: &str) -> Vec<serde_json::Value> {
    use serde::Deserialize;
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| serde_json::Value::deserialize(document).expect("a YAML document"))
        .filter(|document| !document.is_null())
        .collect()
}

/// The arguments that the rendered chart gives the operator, for a pod of that name.
pub fn operator_arguments(objects: &[serde_json::Value], namespace: &str, pod: &str) -> Vec<String> {
    let deployment = objects
        .iter()
        .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == "dsn-operator")
        .expect("the chart has an operator");
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments = arguments.as_array().expect("arguments").iter();
    arguments
        .map(|argument| argument.as_str().expect("text"))
        .map(|argument| argument.replace("$(POD_NAMESPACE)", namespace).replace("$(POD_NAME)", pod))
        .collect()
}

/// All files below a folder of the repository whose names end so, sorted.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&repository().join(folder), ending, &mut found);
    found.sort();
    found
}
