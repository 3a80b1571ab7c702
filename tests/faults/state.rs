//! What there is, in the API server and the broker, without what differs between two clean runs.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// Objects and the broker's rows, by kind and name.
pub type State = BTreeMap<String, Value>;

/// No instance ever reports here: what is said of them changes with time, from "not yet" to "no more".
pub fn leave_out_instances(object: &mut Value) {
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    status.retain(|field, _| !["message", "instances"].contains(&field.as_str()));
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != "Capturing" && condition["type"] != "Transcoding");
    }
}

/// What is there and should not be, and the other way round.
pub fn difference(wanted: &State, found: &State) -> String {
    let mut lines = Vec::new();
    for (name, value) in wanted {
        match found.get(name) {
            None => lines.push(format!("missing: {name}")),
            Some(other) if other != value => lines.push(format!("{name}:\n  fresh: {value}\n  found: {other}")),
            Some(_) => {}
        }
    }
    lines.extend(
        found.keys().filter(|name| !wanted.contains_key(*name)).map(|name| format!("not in a fresh one: {name}")),
    );
    lines.join("\n")
}

/// Takes away what two clean runs do not have in common: names of namespaces, uids, keys, times and what counts up.
pub struct Mask {
    namespace: String,
    patterns: [(Regex, &'static str); 7],
}

impl Mask {
    /// For the run in this namespace.
    pub fn new(namespace: &str) -> Self {
        let pattern = |text: &str| Regex::new(text).expect("a pattern");
        Self {
            namespace: namespace.to_owned(),
            patterns: [
                (pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
                (pattern("12D3Koo[0-9A-Za-z]+"), "PEER"),
                // The API server's choice.
                (pattern(r"\b10\.0\.0\.[0-9]+\b"), "SERVICE"),
                (pattern("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"), "TIME"),
                (pattern(r"\b[0-9a-f]{8,64}\b"), "HEX"),
                (pattern(r#""revision":[0-9]+"#), "\"revision\":0"),
                // One that was paused before is told to start, which says the same.
                (pattern(r#""op":"start""#), "\"op\":\"apply\""),
            ],
        }
    }

    /// In a text.
    pub fn text(&self, text: &str) -> String {
        let own = text.replace(&self.namespace, "NAMESPACE");
        self.patterns.iter().fold(own, |text, (pattern, word)| pattern.replace_all(&text, *word).into_owned())
    }

    /// In all texts and names of a value.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                let masked = std::mem::take(fields).into_iter().map(|(key, mut value)| {
                    // What the API server and a restart count is no state.
                    if ["observedGeneration", "generation", "lastTransitionTime", "resourceVersion"]
                        .contains(&key.as_str())
                    {
                        value = Value::Null;
                    }
                    self.value(&mut value);
                    (self.text(&key), value)
                });
                *fields = masked.collect();
            }
            _ => {}
        }
    }
}
