//! The values: each does something, each is described, and what means nothing is refused.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{EXTERNAL, render, text, tools};

#[test]
fn values_that_mean_nothing_are_refused() {
    let cases = [
        (vec!["operator.replica=3"], "'replica' not allowed"),
        (vec!["image.tag=x"], "'image' not allowed"),
        (vec!["images.operator.tag="], "/images/operator/tag"),
        (vec!["images.operator.registry=https://registry.example.com"], "/images/operator/registry"),
        (vec!["images.pullPolicy=Sometimes"], "/images/pullPolicy"),
        (vec!["server.service.type=External"], "/server/service/type"),
        (vec!["server.service.nodePort=80"], "/server/service/nodePort"),
        (vec!["server.storage.size=lots"], "/server/storage/size"),
        (vec!["watchNamespace=a,b"], ""),
        (vec!["watchNamespace=Zürich"], "/watchNamespace"),
        (vec!["broker.vhost=a b"], "/broker/vhost"),
        (vec!["monitoring.interval=30"], "/monitoring/interval"),
        (vec!["monitoring.runbooks=docs/runbooks.md#top"], "/monitoring/runbooks"),
        (vec!["networkPolicy.enabled=yes"], "got string, want boolean"),
        (vec!["operator.replicas=many"], "got string, want integer"),
        (vec!["broker.bundled.enabled=false"], "/broker/external/host"),
        (vec!["broker.bundled.enabled=false", "broker.external.host=b"], "/broker/external/managementUrl"),
        (vec!["broker.external.host=rabbitmq.messaging.svc"], "/broker/external/host"),
        (
            [&EXTERNAL[..], &["broker.external.managementUrl=http://u:p@b:15672"]].concat(),
            "/broker/external/managementUrl",
        ),
    ];
    for (values, place) in cases {
        let refusal = render(&values).expect_err(&format!("{values:?} is accepted"));
        assert!(refusal.contains(place), "{values:?}: {refusal}");
    }
}

/// Free-form from here on: Kubernetes' own types.
const FREE: [&str; 6] = ["resources", "nodeSelector", "affinity", "podAnnotations", "annotations", "labels"];

fn values() -> Value {
    let file = tools::repository().join("charts/dsn/values.yaml");
    serde_yaml_ng::from_str(&std::fs::read_to_string(file).expect("a file")).expect("YAML")
}

/// A value that nobody reads is a promise that is not kept.
#[test]
fn every_value_changes_what_is_rendered() {
    fn leaves(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        let free = FREE.iter().any(|free| path.ends_with(&format!(".{free}")));
        match value.as_object() {
            Some(map) if !free => map.iter().for_each(|(key, inner)| leaves(inner, &format!("{path}.{key}"), found)),
            _ => found.push((path.trim_start_matches('.').to_owned(), value.clone())),
        }
    }
    let another = |path: &str, value: &Value| -> Value {
        let ends = |ending: &str| path.ends_with(ending);
        match value {
            _ if ends("pullPolicy") => "Always".into(),
            _ if ends("service.type") => "NodePort".into(),
            _ if ends("nodePort") => 30123.into(),
            _ if ends("size") => "9Gi".into(),
            _ if ends("memoryHighWatermark") => "400MiB".into(),
            _ if ends("managementUrl") => "http://other:1".into(),
            _ if ends("interval") => "45s".into(),
            _ if ends("tolerations") => serde_json::json!([{"operator": "Exists"}]),
            _ if ends("resources") => serde_json::json!({"requests": {"cpu": "1m"}}),
            Value::Bool(was) => (!was).into(),
            Value::Number(was) => (was.as_u64().expect("a small number") + 1).into(),
            Value::Array(_) => serde_json::json!(["other"]),
            Value::Object(_) => serde_json::json!({"other": "value"}),
            _ => "other".into(),
        }
    };
    // Helm takes --set-json before --set, whatever their order: what comes first must be JSON too.
    let json = |setting: &str| -> String {
        let (path, value) = setting.split_once('=').expect("path=value");
        let raw = serde_json::from_str::<Value>(value).is_ok();
        if raw { setting.to_owned() } else { format!("{path}={value:?}") }
    };
    let rendered = |context: &[&str], more: Option<&String>| -> String {
        let settings: Vec<String> = context.iter().map(|setting| json(setting)).chain(more.cloned()).collect();
        let options: Vec<&str> = settings.iter().flat_map(|setting| ["--set-json", setting.as_str()]).collect();
        text("dsn", &options).unwrap_or_else(|error| panic!("{settings:?}: {error}"))
    };
    let mut before = BTreeMap::new();
    let mut all = Vec::new();
    leaves(&values(), "", &mut all);
    assert!(all.len() > 60, "{all:?}");
    // `a_broker_of_ones_own_replaces_the_bundled_one` shows what it does: alone it is refused.
    all.retain(|(path, _)| path != "broker.bundled.enabled");
    for (path, value) in all {
        let context: &[&str] = match path.as_str() {
            _ if path.starts_with("broker.external.") => &EXTERNAL,
            _ if path.starts_with("monitoring.") && path != "monitoring.enabled" => &["monitoring.enabled=true"],
            "server.service.nodePort" => &["server.service.type=NodePort"],
            _ => &[],
        };
        let before = before.entry(context).or_insert_with(|| rendered(context, None));
        let setting = format!("{path}={}", another(&path, &value));
        assert_ne!(*before, rendered(context, Some(&setting)), "{setting} changes nothing");
    }
}

/// Every value of values.yaml is described in the schema, and the other way round.
#[test]
fn values_and_schema_name_the_same_keys() {
    fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
        if let Some(map) = value.as_object() {
            for (key, inner) in map {
                let path = format!("{path}/{key}");
                if !FREE.contains(&key.as_str()) {
                    keys(inner, &path, found);
                }
                found.push(path);
            }
        }
    }
    fn schema_keys(schema: &Value, root: &Value, path: &str, found: &mut Vec<String>) {
        let schema = schema["$ref"]
            .as_str()
            .map_or(schema, |reference| root.pointer(reference.trim_start_matches('#')).expect("a definition"));
        if let Some(map) = schema["properties"].as_object() {
            for (key, inner) in map {
                let path = format!("{path}/{key}");
                schema_keys(inner, root, &path, found);
                found.push(path);
            }
        }
    }
    let file = tools::repository().join("charts/dsn/values.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("a file")).expect("JSON");
    let (mut named, mut described) = (Vec::new(), Vec::new());
    keys(&values(), "", &mut named);
    schema_keys(&schema, &schema, "", &mut described);
    // Helm's own, for charts that hold this one.
    described.retain(|path| path != "/global");
    named.sort();
    described.sort();
    assert_eq!(named, described);
}
