//! Is a desired object contained in the one the API server holds? The pure half of skipping an apply without a call.
//!
//! The API server adds defaults, reorders nothing, rewrites quantities (`1000m` becomes `1`) and lets others add items
//! to keyed lists; everything else must be there as we wrote it. Called by [`super::apply`] only.

use serde_json::Value;

use crate::domain::quantity;

/// Keys by which lists of Kubernetes are merged, the first that fits the items of a list wins.
const LIST_KEYS: [&str; 6] = ["uid", "mountPath", "name", "containerPort", "port", "topologyKey"];

/// Fields whose direct values are quantities.
const QUANTITY_FIELDS: [&str; 5] = ["limits", "requests", "capacity", "sizeLimit", "overhead"];

/// Maps that are one value as a whole.
const ATOMIC_MAPS: [&str; 2] = ["selector", "nodeSelector"];

/// Whether everything `desired` says also stands in `actual`.
pub fn contains(actual: &Value, desired: &Value) -> bool {
    within(actual, desired, false)
}

fn within(actual: &Value, desired: &Value, quantities: bool) -> bool {
    match (actual, desired) {
        (Value::Object(actual), Value::Object(desired)) => desired.iter().all(|(key, wanted)| {
            let quantities = quantities || QUANTITY_FIELDS.contains(&key.as_str());
            match actual.get(key) {
                // A selector with one label more selects something else: nobody may add to it.
                Some(held) if ATOMIC_MAPS.contains(&key.as_str()) => held == wanted,
                Some(held) => within(held, wanted, quantities),
                // The API server drops empty lists and maps.
                None => is_empty(wanted),
            }
        }),
        (Value::Array(actual), Value::Array(desired)) => {
            match LIST_KEYS.iter().find(|key| distinguishes(key, actual) && distinguishes(key, desired)) {
                Some(key) if !desired.is_empty() => desired.iter().all(|wanted| {
                    actual.iter().any(|held| held.get(key) == wanted.get(key) && within(held, wanted, quantities))
                }),
                _ => {
                    actual.len() == desired.len()
                        && actual.iter().zip(desired).all(|(held, wanted)| within(held, wanted, quantities))
                }
            }
        }
        (Value::String(actual), Value::String(desired)) if quantities && actual != desired => {
            quantity::parse(actual).is_some() && quantity::parse(actual) == quantity::parse(desired)
        }
        _ => actual == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Every item has `key`, and no two the same.
fn distinguishes(key: &str, items: &[Value]) -> bool {
    let mut seen = Vec::with_capacity(items.len());
    items.iter().all(|item| match item.get(key) {
        Some(value) if !seen.contains(&value) => {
            seen.push(value);
            true
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_added_by_the_server_are_no_drift() {
        let desired = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "a", "image": "x", "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}}, "env": []}]}}}});
        let actual = json!({"spec": {"replicas": 1, "progressDeadlineSeconds": 600, "template": {"spec": {"containers": [
            {"name": "a", "image": "x", "imagePullPolicy": "IfNotPresent",
             "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}], "dnsPolicy": "ClusterFirst"}}}});
        assert!(contains(&actual, &desired));
    }

    #[test]
    fn a_foreign_item_in_a_keyed_list_is_no_drift_but_a_missing_one_is() {
        let desired = json!({"containers": [{"name": "a"}]});
        assert!(contains(&json!({"containers": [{"name": "injected"}, {"name": "a"}]}), &desired));
        assert!(!contains(&json!({"containers": [{"name": "injected"}]}), &desired));
    }

    #[test]
    fn drift_is_seen() {
        for (actual, desired) in [
            (json!({"replicas": 2}), json!({"replicas": 1})),
            (json!({}), json!({"data": {"a": "b"}})),
            (json!({"args": ["a", "b"]}), json!({"args": ["a"]})),
            (json!({"args": ["b", "a"]}), json!({"args": ["a", "b"]})),
            (json!({"limits": {"cpu": "2"}}), json!({"limits": {"cpu": "1"}})),
            (json!({"selector": {"app": "a", "x": "y"}}), json!({"selector": {"app": "a"}})),
            (json!({"data": {"x": "1.0"}}), json!({"data": {"x": "1"}})),
            (
                json!({"volumeMounts": [{"name": "spool", "mountPath": "/a"}, {"name": "spool", "mountPath": "/c"}]}),
                json!({"volumeMounts": [{"name": "spool", "mountPath": "/a"}, {"name": "spool", "mountPath": "/b"}]}),
            ),
        ] {
            assert!(!contains(&actual, &desired), "{actual} {desired}");
        }
    }
}
