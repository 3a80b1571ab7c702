//! Schema of a label selector with bounds and sentences: Kubernetes' own leaves both to the server that evaluates it, and
//! there a mistake would come to light only as a Pipeline that records nothing. The Rust type stays Kubernetes' own.

use schemars::{Schema, SchemaGenerator, json_schema};

/// What a label's key may be: an optional DNS prefix and a name.
const KEY: &str = "^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$";
/// What a label's value may be.
const VALUE: &str = "^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$";

/// For `#[schemars(schema_with = …)]` on a field of type `Option<LabelSelector>`.
pub fn schema(_: &mut SchemaGenerator) -> Schema {
    let letters =
        "labels and their values are ASCII letters, digits, '-', '_' and '.', at most 63 of them, e.g. site: hq";
    json_schema!({
        "type": "object",
        "description": "Labels of Cameras; `{}` takes every Camera of the namespace, absent takes none.",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels that a Camera carries, all of them, e.g. `site: hq`.",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 63},
                "x-kubernetes-validations": [{
                    "rule": format!("self.all(key, key.matches('{KEY}') && self[key].matches('{VALUE}'))"),
                    "message": format!("selector.matchLabels: {letters}"),
                }],
            },
            "matchExpressions": {
                "type": "array",
                "description": "Conditions on labels of a Camera, all of which hold.",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "maxLength": 317, "description": "Key of the label."},
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "`In` and `NotIn` compare with `values`, `Exists` and `DoesNotExist` take none.",
                        },
                        "values": {
                            "type": "array",
                            "description": "Values of the label.",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                            "x-kubernetes-list-type": "atomic",
                        },
                    },
                    "x-kubernetes-validations": [
                        {
                            "rule": format!("self.key.matches('{KEY}') && (!has(self.values) || self.values.all(value, value.matches('{VALUE}')))"),
                            "message": format!("selector.matchExpressions: {letters}"),
                        },
                        {
                            "rule": "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
                            "message": "selector.matchExpressions: In and NotIn compare: give values, e.g. values: [hq]",
                        },
                        {
                            "rule": "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
                            "message": "selector.matchExpressions: Exists and DoesNotExist compare with nothing: leave values out",
                        },
                    ],
                },
            },
        },
    })
}
