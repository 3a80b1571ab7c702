//! Metrics, alerts, runbooks and the dashboard tell one story: what an alert or a panel asks for is exported, each alert
//! has its runbook, and Prometheus itself says that the alerts fire when they shall.

#[path = "../tools/mod.rs"]
mod tools;

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;
use tools::{stderr, stdout};

const ALERTS: &str = "charts/dsn/files/alerts.yaml";
const DASHBOARD: &str = "charts/dsn/files/dashboards/dsn.json";

fn read(file: &str) -> String {
    std::fs::read_to_string(tools::repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn rules() -> Vec<Value> {
    let groups = tools::documents(&read(ALERTS)).remove(0);
    let groups = groups["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// Every text that stands under one of these keys, however deep.
fn texts<'a>(value: &'a Value, keys: &[&str], found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner.as_str() {
                    Some(text) if keys.contains(&key.as_str()) => found.push(text),
                    _ => texts(inner, keys, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| texts(inner, keys, found)),
        _ => {}
    }
}

/// The metrics of ours that an expression names.
fn metrics(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("dsn_"))
        .map(str::to_owned)
        .collect()
}

/// (metric, its labels) of docs/metrics.md, which unit tests hold to what is exported.
fn documented() -> Vec<(String, String)> {
    let page = read("docs/metrics.md");
    let mut found = Vec::new();
    for cells in page.lines().filter(|line| line.starts_with("| `dsn_")).map(|line| line.split('|').collect::<Vec<_>>())
    {
        let name = cells[1].trim().trim_matches('`');
        let labels = cells[3].to_owned();
        if cells[2].trim() == "histogram" {
            found.extend(["_bucket", "_sum", "_count"].map(|suffix| (format!("{name}{suffix}"), labels.clone())));
        } else {
            found.push((name.to_owned(), labels));
        }
    }
    assert!(found.len() > 30, "the page was not understood: {found:?}");
    found
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_exported() {
    let known: BTreeSet<String> = documented().into_iter().map(|(name, _)| name).collect();
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let rules = Value::Array(rules());
    let mut expressions = Vec::new();
    texts(&rules, &["expr"], &mut expressions);
    let alerts = expressions.len();
    texts(&dashboard, &["expr", "query"], &mut expressions);
    assert!(alerts >= 15 && expressions.len() > alerts + 30, "{} expressions", expressions.len());
    for expression in expressions {
        let asked = metrics(expression);
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {expression}");
    }
}

#[test]
fn every_alert_says_what_is_wrong_and_where_to_read_on() {
    let runbooks = read("docs/runbooks.md");
    let tests = read("tests/monitoring/alerts.yaml");
    let sections: BTreeSet<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut alerts = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().expect("a name").to_owned();
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 15),
                "{name}: {annotation}"
            );
        }
        let wanted = format!("docs/runbooks.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], wanted.as_str());
        assert!(sections.contains(name.as_str()), "docs/runbooks.md has no section {name}");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().expect("a severity")), "{name}");
        assert!(tests.contains(&format!("\"{name}\"")), "{name} is not in tests/monitoring/alerts.yaml");
        assert!(alerts.insert(name.clone()), "{name} twice");
    }
    let names: BTreeSet<&str> = alerts.iter().map(String::as_str).collect();
    let orphans: Vec<_> = sections.difference(&names).collect();
    assert!(orphans.is_empty(), "docs/runbooks.md speaks of alerts that there are not: {orphans:?}");
}

/// promtool parses every expression, the dashboard's too, and runs the rules over hours of made-up metrics.
#[test]
fn prometheus_evaluates_every_expression_and_fires_what_shall_fire() {
    let folder = tempfile::tempdir().expect("a folder");
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").args(arguments).current_dir(folder.path()).output();
        let output = output.expect("promtool is missing: run hack/cluster/packages");
        assert!(output.status.success(), "promtool {arguments:?}: {}{}", stdout(&output), stderr(&output));
    };
    let rules = tools::repository().join(ALERTS);
    promtool(&["check", "rules", rules.to_str().expect("a path")]);

    let tests = read("tests/monitoring/alerts.yaml");
    let tests = tests.replace("[ALERTS]", &format!("[{:?}]", rules.display().to_string()));
    std::fs::write(folder.path().join("alerts.yaml"), tests).expect("a writable folder");
    promtool(&["test", "rules", "alerts.yaml"]);

    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let mut expressions = Vec::new();
    texts(&dashboard, &["expr"], &mut expressions);
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| serde_json::json!({"record": format!("panel:{number}"), "expr": expression}))
        .collect();
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(folder.path().join("dashboard.yaml"), file.to_string()).expect("a writable folder");
    promtool(&["check", "rules", "dashboard.yaml"]);
}

/// Labels by which alerts and panels group are those of the metric or those that the chart's PodMonitors add.
#[test]
fn labels_that_are_asked_for_exist() {
    let output = tools::run("helm", &["template", "dsn", "charts/dsn", "--set", "monitoring.enabled=true"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let objects = tools::documents(&stdout(&output));
    let added: BTreeSet<String> = objects
        .iter()
        .filter(|object| object["kind"] == "PodMonitor")
        .flat_map(|monitor| {
            monitor["spec"]["podMetricsEndpoints"][0]["relabelings"].as_array().cloned().unwrap_or_default()
        })
        .map(|relabeling| relabeling["targetLabel"].as_str().expect("a label").to_owned())
        .collect();
    assert_eq!(added, ["camera", "group", "pipeline", "storage_node"].map(str::to_owned).into());
    // What Prometheus and its operator add, and what aggregation leaves.
    let usual = ["namespace", "pod", "container", "le", "severity", "alertname"];
    let own: BTreeSet<String> = documented()
        .into_iter()
        .flat_map(|(_, labels)| labels.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    for rule in rules() {
        let text = rule.to_string();
        let by = text.split("by (").skip(1).filter_map(|rest| rest.split(')').next()).flat_map(|list| list.split(", "));
        let used = text
            .split("$labels.")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next());
        for label in by.chain(used) {
            let known = usual.contains(&label) || own.contains(label) || added.contains(label);
            assert!(known, "{}: no metric has the label {label}", rule["alert"]);
        }
    }
}

/// The rules of the chart are the file's, for the namespace of the release and with the address of one's own runbooks.
#[test]
fn the_chart_takes_the_rules_to_its_namespace() {
    let values = "monitoring.enabled=true,monitoring.runbooks=https://wiki.example.com/a/very/long/way/down/to/the/runbooks/of/the/cameras";
    let output = tools::run("helm", &["template", "dsn", "charts/dsn", "--namespace", "video", "--set", values]);
    assert!(output.status.success(), "{}", stderr(&output));
    let objects = tools::documents(&stdout(&output));
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").expect("rendered");
    let rendered = rule["spec"]["groups"][0]["rules"].as_array().expect("rules");
    let expected: Vec<Value> = rules()
        .into_iter()
        .map(|rule| {
            let text = rule.to_string().replace("namespace=\\\"dsn-system\\\"", "namespace=\\\"video\\\"").replace(
                "docs/runbooks.md",
                "https://wiki.example.com/a/very/long/way/down/to/the/runbooks/of/the/cameras",
            );
            serde_json::from_str(&text).expect("JSON")
        })
        .collect();
    assert_eq!(rendered, &expected);
    assert!(!rule.to_string().contains("dsn-system"));
}
