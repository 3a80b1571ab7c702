//! What GitOps tools make of our objects: Argo CD's health script, run by a Lua of the version and with the libraries that
//! Argo CD has. Flux needs nothing: kstatus reads `Ready`.

mod tools;

use std::{
    fmt::Write as _,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// A JSON value as a Lua expression.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        // Lua 5.1 has decimal escapes only.
        Value::String(text) => {
            let escaped = text.bytes().fold(String::new(), |mut lua, byte| {
                write!(lua, "\\{byte:03}").expect("a String takes everything");
                lua
            });
            format!("\"{escaped}\"")
        }
        Value::Array(list) => format!("{{{}}}", list.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<_> = map.iter().map(|(key, inner)| format!("[{key:?}] = {}", lua(inner))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// What the script says of each object: (status, message).
fn health(objects: &[Value]) -> Vec<(String, String)> {
    let script = tools::repository().join("manifests/argocd/health.lua");
    // Argo CD opens the libraries base, package and table, and nothing else: no string, no os.
    let driver = format!(
        "local script = assert(loadfile({:?}))\n\
         for _, obj in ipairs({}) do\n\
           local world = {{obj = obj, ipairs = ipairs, pairs = pairs, next = next, type = type, tostring = tostring,\n\
             tonumber = tonumber, table = table, assert = assert, error = error, select = select, unpack = unpack}}\n\
           setfenv(script, world)\n\
           local said = script()\n\
           print(said.status .. '\\t' .. (said.message or ''))\n\
         end\n",
        script.display().to_string(),
        lua(&Value::Array(objects.to_vec()))
    );
    let mut child = Command::new("lua5.1")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lua5.1 is missing: run hack/cluster/packages");
    child.stdin.take().expect("it has a standard input").write_all(driver.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", tools::stderr(&output));
    let said: Vec<_> = tools::stdout(&output)
        .lines()
        .map(|line| line.split_once('\t').expect("status and message"))
        .map(|(status, message)| (status.to_owned(), message.to_owned()))
        .collect();
    assert_eq!(said.len(), objects.len());
    said
}

/// An object of generation 2 with conditions (type, status, reason) that speak of a generation.
fn object(spoken_of: i64, conditions: &[(&str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason)| {
            json!({"type": kind, "status": status, "reason": reason, "observedGeneration": spoken_of,
                   "message": format!("of {reason}")})
        })
        .collect();
    json!({"metadata": {"name": "x", "generation": 2}, "spec": {},
           "status": {"observedGeneration": spoken_of, "conditions": conditions}})
}

#[test]
fn argo_cd_sees_the_health_of_our_kinds() {
    const READY: (&str, &str, &str) = ("Ready", "True", "RolledOut");
    let fine = |kind, reason| (kind, "True", reason);
    let wrong = |kind, reason| (kind, "False", reason);
    let open = |kind, reason| (kind, "Unknown", reason);
    let with_instance = |state: &str| {
        let mut pipeline = object(2, &[READY, wrong("Capturing", "NoneCapturing")]);
        pipeline["status"]["instances"] = json!([{"state": state}, {"state": "Running"}]);
        pipeline
    };
    let table: Vec<(&str, Value, &str, &str)> = vec![
        ("just created", json!({"metadata": {"generation": 1}}), "Progressing", "waiting for the operator"),
        ("no conditions yet", json!({"metadata": {"generation": 1}, "status": {}}), "Progressing", "waiting"),
        ("an edit not seen yet", object(1, &[READY]), "Progressing", "to see the change"),
        (
            "a pipeline at work",
            {
                let all = [
                    READY,
                    fine("CamerasAccepted", "AllAccepted"),
                    fine("Capturing", "AllCapturing"),
                    fine("Stored", "Stored"),
                    fine("ControlPlane", "InPlace"),
                ];
                object(2, &all)
            },
            "Healthy",
            "of RolledOut",
        ),
        (
            "rolling out",
            object(2, &[wrong("Ready", "RollingOut"), wrong("Capturing", "Starting")]),
            "Progressing",
            "Ready: of RollingOut",
        ),
        (
            "refused",
            object(2, &[wrong("Ready", "Forbidden"), open("Capturing", "Unknown")]),
            "Degraded",
            "Ready: of Forbidden",
        ),
        ("a bad address", object(2, &[wrong("Ready", "InvalidAddress")]), "Degraded", "Ready: of InvalidAddress"),
        (
            "an unplugged camera",
            object(2, &[READY, wrong("Capturing", "CameraUnreachable")]),
            "Degraded",
            "Capturing: of CameraUnreachable",
        ),
        ("a camera that nobody records", object(2, &[READY, wrong("Capturing", "NotSelected")]), "Healthy", ""),
        (
            "waiting for the first picture",
            object(2, &[READY, wrong("Capturing", "Starting")]),
            "Progressing",
            "Capturing",
        ),
        (
            "paused",
            object(2, &[("Ready", "True", "Paused"), wrong("Capturing", "Paused"), fine("Stored", "Stored")]),
            "Suspended",
            "Capturing: of Paused",
        ),
        ("stopped", object(2, &[("Ready", "True", "Stopped"), wrong("Capturing", "Stopped")]), "Suspended", ""),
        (
            "paused, and the rest cannot be stored",
            object(2, &[READY, wrong("Capturing", "Paused"), wrong("Stored", "Lagging")]),
            "Degraded",
            "Stored: of Lagging",
        ),
        ("a pipeline whose pods have just come up", with_instance("Starting"), "Progressing", "Capturing"),
        ("a pipeline with a camera that fails", with_instance("Failing"), "Degraded", "Capturing"),
        (
            "rolling out, and nothing captures",
            object(2, &[wrong("Ready", "RollingOut"), wrong("Capturing", "NoneCapturing")]),
            "Progressing",
            "Ready",
        ),
        (
            "nothing is stored yet",
            object(2, &[READY, fine("Capturing", "AllCapturing"), open("Stored", "Pending")]),
            "Progressing",
            "Stored",
        ),
        ("a disk is offline", object(2, &[READY, wrong("Online", "NotAnswering")]), "Degraded", "Online"),
        ("a camera leaves", object(2, &[READY, wrong("Capturing", "Draining")]), "Progressing", "of Draining"),
        (
            "a camera leaves a pipeline at work",
            object(2, &[READY, fine("Capturing", "AllCapturing"), wrong("Drained", "Draining")]),
            "Progressing",
            "Drained: of Draining",
        ),
        (
            "a camera cannot leave",
            object(2, &[READY, fine("Capturing", "AllCapturing"), wrong("Drained", "DrainStuck")]),
            "Degraded",
            "Drained: of DrainStuck",
        ),
        (
            "a disk starts",
            object(2, &[wrong("Ready", "RollingOut"), wrong("Online", "Starting")]),
            "Progressing",
            "Ready",
        ),
    ];
    let objects: Vec<Value> = table.iter().map(|(_, object, ..)| object.clone()).collect();
    for ((case, _, status, message), said) in table.iter().zip(health(&objects)) {
        assert!(said.0 == *status && said.1.contains(message), "{case}: {said:?}, expected {status} …{message}…");
    }
}

/// The conditions of a StorageNode as the operator concludes them, case by case (the snapshot of its truth table).
#[test]
fn argo_cd_understands_what_the_operator_says_of_a_storage_node() {
    let table = "src/operator/storage_node/snapshots/dsn__operator__storage_node__status__tests__truth_table.snap";
    let table = std::fs::read_to_string(tools::repository().join(table)).expect("the table is there");
    let cases: Vec<(&str, Value)> = table
        .split("\n# ")
        .skip(1)
        .map(|case| {
            let (name, lines) = case.split_once('\n').expect("a name and conditions");
            let condition = |line| -> Option<(&str, &str, &str)> {
                let (said, _) = str::split_once(line, ": ")?;
                let (kind, said) = said.split_once('=')?;
                let (status, reason) = said.split_once(' ')?;
                Some((kind, status, reason))
            };
            let conditions: Vec<_> = lines.lines().map(|line| condition(line).expect("a condition")).collect();
            (name, object(2, &conditions))
        })
        .collect();
    assert!(cases.len() > 6, "the table was not understood: {cases:?}");
    let objects: Vec<Value> = cases.iter().map(|(_, object)| object.clone()).collect();
    for ((case, _), (status, message)) in cases.iter().zip(health(&objects)) {
        // Before it has ever been up, what is wrong is part of the rolling out.
        let expected = if *case == "running" { "Healthy" } else { "Progressing" };
        assert_eq!(status, expected, "{case}: {message}");
    }
}

/// Each row of docs/conditions.md gives a health, and what is wrong is never called healthy.
#[test]
fn argo_cd_calls_nothing_healthy_that_is_not() {
    let page = std::fs::read_to_string(tools::repository().join("docs/conditions.md")).expect("the page is there");
    let (mut kind, mut cases) = (String::new(), Vec::new());
    for cells in page.lines().filter(|line| line.starts_with("| ")).map(|line| line.split('|').collect::<Vec<_>>()) {
        let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        kind = quoted(cells[1]).pop().unwrap_or(kind);
        let truth = cells[2].trim().to_owned();
        cases.extend(quoted(cells[3]).into_iter().map(|reason| (kind.clone(), truth.clone(), reason)));
    }
    assert!(cases.len() > 50, "the page was not understood: {cases:?}");
    let objects: Vec<Value> = cases
        .iter()
        .map(|(kind, truth, reason)| {
            let said = (kind.as_str(), truth.as_str(), reason.as_str());
            if kind == "Ready" { object(2, &[said]) } else { object(2, &[("Ready", "True", "RolledOut"), said]) }
        })
        .collect();
    for ((kind, truth, reason), (status, _)) in cases.iter().zip(health(&objects)) {
        let rests = ["NotSelected", "NoCameras", "NoCamerasSelected"].contains(&reason.as_str());
        let expected: &[&str] = match truth.as_str() {
            "True" => &["Healthy"],
            "Unknown" => &["Progressing"],
            "False" if rests => &["Healthy"],
            "False" => &["Degraded", "Progressing", "Suspended"],
            other => panic!("{kind} {other}"),
        };
        assert!(expected.contains(&status.as_str()), "{kind} {truth} {reason}: {status}");
    }
}
