//! Holds the invariants that `src/lib.rs` states, by reading the sources: who may import what, who may call what.

mod tools;

use std::path::Path;

/// Code lines of a file with their numbers: no comments, nothing from the module of its tests on, which ends a file.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(file).expect("a readable source");
    let lines: Vec<&str> = text.lines().collect();
    // Trap: the same words also stand before one that lies in a file of its own, and the code goes on below that.
    let are_tests = |number: &usize| {
        let mut after = lines[number + 1..].iter().skip_while(|line| line.trim_start().starts_with("#["));
        lines[*number] == "#[cfg(test)]"
            && after.next().is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let end = (0..lines.len()).find(are_tests).unwrap_or(lines.len());
    let numbered = lines[..end].iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    numbered.map(|(number, line)| (number + 1, (*line).to_owned())).collect()
}

/// Path below the repository, with slashes.
fn name(file: &Path) -> String {
    file.strip_prefix(tools::repository()).expect("a file of ours").to_string_lossy().into_owned()
}

/// Every line of the files that contains one of the words, as `path:line: text`.
fn mentions(files: &[std::path::PathBuf], words: &[&str]) -> Vec<String> {
    files
        .iter()
        .filter(|file| !is_test(file))
        .flat_map(|file| code(file).into_iter().map(move |(number, line)| (name(file), number, line)))
        .filter(|(_, _, line)| words.iter().any(|word| line.contains(word)))
        .map(|(file, number, line)| format!("{file}:{number}: {}", line.trim()))
        .collect()
}

/// Whole files of tests and what they build their cases with; the module above says `#[cfg(test)]`.
fn is_test(file: &Path) -> bool {
    let name = name(file);
    name.ends_with("/tests.rs") || name.contains("/tests/") || name.ends_with("/fixture.rs")
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Names that open a door to the outside world.
const IO: [&str; 15] = [
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
    "std::net::Tcp",
    "std::net::Udp",
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

/// Two databases, each with one owner: the server's catalogue and the outbox on an agent's own volume.
#[test]
fn sql_stands_in_the_catalogue_and_in_the_agents_outbox_only() {
    let others: Vec<_> = tools::files("src", ".rs")
        .into_iter()
        .filter(|file| {
            let name = name(file);
            !name.starts_with("src/catalogue/") && !name.starts_with("src/agent/outbox")
        })
        .collect();
    let words = ["sqlx::", "INSERT INTO", "DELETE FROM", "UPDATE "];
    assert_none(&mentions(&others, &words), "only src/catalogue and src/agent/outbox speak SQL");
}

#[test]
fn only_the_recorder_writes_the_catalogue() {
    let others: Vec<_> = tools::files("src", ".rs")
        .into_iter()
        .filter(|file| {
            let name = name(file);
            // src/server.rs opens it and hands the writer to the recorder, the reader to the gateway.
            !name.starts_with("src/catalogue/") && !name.starts_with("src/recorder/") && name != "src/server.rs"
        })
        .filter(|file| code(file).iter().any(|(_, line)| line.contains("catalogue")))
        .collect();
    assert_none(&mentions(&others, &["Writer"]), "whoever is not the recorder reads the catalogue through a Reader");
}

#[test]
fn the_agent_and_the_runner_know_neither_kubernetes_nor_the_catalogue() {
    let mut inside = tools::files("src/agent", ".rs");
    inside.extend(tools::files("src/runner", ".rs"));
    inside.extend(tools::files("src/transcoder", ".rs"));
    assert_none(
        &mentions(&inside, &["kube::", "crate::operator", "crate::recorder", "crate::catalogue"]),
        "capture waits for nothing behind it",
    );
    let mut runner = tools::files("src/runner", ".rs");
    runner.extend(tools::files("src/transcoder", ".rs"));
    assert_none(
        &mentions(&runner, &["lapin", "reqwest", "crate::clients"]),
        "runner and transcoder speak to ffmpeg and to files only",
    );
}

/// A catalogue that is away or slow keeps nobody from watching live.
#[test]
fn live_reads_no_sql() {
    let live = [tools::repository().join("src/gateway/live.rs")];
    assert_none(&mentions(&live, &["catalogue", "sqlx", "recorder"]), "live comes from the capture pods alone");
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
        .filter(|file| !is_test(file))
        .filter(|file| !std::fs::read_to_string(file).expect("a readable source").starts_with("//!"))
        .map(|file| name(file))
        .collect();
    assert_none(&found, "a module opens with what it is, what it is not and who calls it");
}

/// Words in the same form that no condition ever carries: they end a process or are states in counters.
const NO_CONDITION: [&str; 4] = ["Failing", "MasterKeyMissing", "NotStored", "Running"];

/// The page that promises to list them all once lacked those that an administrator needs most.
#[test]
fn every_reason_in_the_code_is_documented() {
    let page = std::fs::read_to_string(tools::repository().join("docs/conditions.md")).expect("the page is there");
    let files: Vec<_> = ["src/operator", "src/runner", "src/agent", "src/domain"]
        .iter()
        .flat_map(|folder| tools::files(folder, ".rs"))
        .filter(|file| !is_test(file))
        .collect();
    let reason_of = |line: &str| -> Option<String> {
        let gives = ["reason: \"", "problem(\"", "Problem(\""].iter().find_map(|start| line.split_once(start));
        let matched = line.trim_start().starts_with("Self::").then(|| line.split_once("=> \"")).flatten();
        let word = gives.or(matched)?.1.split('"').next()?;
        let camel =
            word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphanumeric());
        camel.then(|| word.to_owned())
    };
    let missing: Vec<String> = files
        .iter()
        .flat_map(|file| code(file).into_iter().filter_map(|(_, line)| reason_of(&line)))
        .filter(|reason| !NO_CONDITION.contains(&reason.as_str()) && !page.contains(&format!("`{reason}`")))
        .collect();
    assert_none(&missing, "docs/conditions.md does not explain");
}

/// docs/conditions.md names reasons that the code gives, word for word.
#[test]
fn documented_reasons_exist_in_the_code() {
    let page = std::fs::read_to_string(tools::repository().join("docs/conditions.md")).expect("the page is there");
    let sources: String = tools::files("src", ".rs")
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("a readable source"))
        .collect();
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|-"));
    let missing: Vec<String> = rows
        .filter_map(|row| row.split('|').nth(3))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .filter(|reason| !sources.contains(&format!("\"{reason}\"")))
        .collect();
    assert_none(&missing, "docs/conditions.md names reasons that nothing gives");
}
