//! Holds the invariants that `src/lib.rs` states, by reading the sources: who may import what, who may call what.

mod tools;

use std::path::Path;

/// Code lines of a file with their numbers: no comments, nothing from `#[cfg(test)]` on.
fn code(file: &Path) -> Vec<(usize, String)> {
    std::fs::read_to_string(file)
        .expect("a readable source")
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line.to_owned()))
        .collect()
}

/// Path below the repository, with slashes.
fn name(file: &Path) -> String {
    file.strip_prefix(tools::repository()).expect("a file of ours").to_string_lossy().into_owned()
}

/// Every line of the files that contains one of the words, as `path:line: text`.
fn mentions(files: &[std::path::PathBuf], words: &[&str]) -> Vec<String> {
    files
        .iter()
        .flat_map(|file| code(file).into_iter().map(move |(number, line)| (name(file), number, line)))
        .filter(|(_, _, line)| words.iter().any(|word| line.contains(word)))
        .map(|(file, number, line)| format!("{file}:{number}: {}", line.trim()))
        .collect()
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Names that open a door to the outside world.
const IO: [&str; 14] = [
    "tokio",
    "kube::Api",
    "kube::Client",
    "kube_runtime",
    "kube::runtime",
    "reqwest",
    "axum",
    "sqlx",
    "lapin",
    "std::fs",
    "std::net",
    "std::process",
    "notify::",
    "crate::clients",
];

#[test]
fn the_domain_is_pure() {
    let mut words = IO.to_vec();
    words.extend(["kube::", "async fn", ".await", "SystemTime::now", "Timestamp::now", "Instant::now"]);
    assert_none(&mentions(&tools::files("src/domain", ".rs"), &words), "src/domain does no I/O and reads no clock");
}

#[test]
fn plan_desired_and_status_of_the_operator_are_pure() {
    let pure: Vec<_> = tools::files("src/operator", ".rs")
        .into_iter()
        .filter(|file| {
            let name = name(file);
            name.ends_with("/plan.rs")
                || name.ends_with("/desired.rs")
                || name.ends_with("/status.rs")
                || name.contains("/plan/")
                || name.contains("/desired/")
                || name.contains("/status/")
        })
        .collect();
    let mut words = IO.to_vec();
    words.extend(["async fn", ".await", "SystemTime::now", "Timestamp::now", "Instant::now"]);
    assert_none(&mentions(&pure, &words), "plan, desired and status take what observe read and the time as arguments");
}

#[test]
fn only_the_operator_declares_queues_and_exchanges() {
    let others: Vec<_> = tools::files("src", ".rs")
        .into_iter()
        .filter(|file| {
            let name = name(file);
            !name.starts_with("src/operator/") && !name.starts_with("src/clients/broker")
        })
        .collect();
    let words =
        ["declare_queue(", "declare_exchange(", "queue_declare(", "exchange_declare(", "queue_bind(", "bind_queue("];
    assert_none(&mentions(&others, &words), "only src/operator declares queues, exchanges and bindings");
}

#[test]
fn sql_stands_in_the_catalogue_only() {
    let others: Vec<_> =
        tools::files("src", ".rs").into_iter().filter(|file| !name(file).starts_with("src/catalogue/")).collect();
    let words = ["sqlx::", "INSERT INTO", "DELETE FROM", "UPDATE "];
    assert_none(&mentions(&others, &words), "only src/catalogue speaks SQL");
}

#[test]
fn the_agent_and_the_runner_know_neither_kubernetes_nor_the_catalogue() {
    let mut inside = tools::files("src/agent", ".rs");
    inside.extend(tools::files("src/runner", ".rs"));
    assert_none(
        &mentions(&inside, &["kube::", "crate::operator", "crate::recorder", "crate::catalogue"]),
        "capture waits for nothing behind it",
    );
    let runner = tools::files("src/runner", ".rs");
    assert_none(
        &mentions(&runner, &["lapin", "reqwest", "crate::clients"]),
        "the runner speaks to ffmpeg and to files only",
    );
}

/// The server asks Kubernetes nothing: its pod carries no token.
#[test]
fn the_server_knows_no_kubernetes_client() {
    let mut server = tools::files("src/gateway", ".rs");
    server.extend(tools::files("src/recorder", ".rs"));
    server.extend(tools::files("src/catalogue", ".rs"));
    assert_none(
        &mentions(&server, &["kube::", "kube_runtime", "crate::operator"]),
        "what the server knows comes by message",
    );
}

#[test]
fn no_module_is_named_after_nothing() {
    let vague = ["utils", "util", "helpers", "helper", "manager", "common", "misc"];
    let found: Vec<String> = tools::files("src", ".rs")
        .iter()
        .map(|file| name(file))
        .filter(|name| name.split('/').any(|part| vague.contains(&part.trim_end_matches(".rs"))))
        .collect();
    assert_none(&found, "a module is named after what it knows");
}

#[test]
fn every_module_says_what_it_is() {
    let found: Vec<String> = tools::files("src", ".rs")
        .iter()
        .filter(|file| !std::fs::read_to_string(file).expect("a readable source").starts_with("//!"))
        .map(|file| name(file))
        .collect();
    assert_none(&found, "a module opens with what it is, what it is not and who calls it");
}
