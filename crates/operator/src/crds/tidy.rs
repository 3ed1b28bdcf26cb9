//! From what kube and schemars derive to what an API server enforces and a person reads.
//!
//! | derived | tidied | since |
//! | --- | --- | --- |
//! | `nullable: true` on all that is optional | nothing | `null` would count as present in a rule of exactly one |
//! | `format: uint32`, `maximum: 20.0` | `format: int64`, `maximum: 20` | newer servers warn of formats that they do not know |
//! | lines as the source wraps them | one line | `kubectl explain` wraps by itself |
//! | "Auto-generated derived type …" | the kind's own description | |

use serde_json::{Map, Value, json};

/// Text that Kubernetes takes for an amount, as `250m` or `1Gi`.
const QUANTITY: &str = r"^[0-9]+(\.[0-9]+)?([mkMGTPE]|[KMGTPE]i)?$";

/// Tidies the schema of a kind.
pub(super) fn tidy(schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"];
    let about_kind = std::mem::replace(&mut spec["description"], json!("What is wanted."));
    schema["description"] = about_kind;
    walk(schema);
}

fn walk(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("nullable");
    fields.remove("title");
    plain_numbers(fields);
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = first_paragraph(text);
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            walk(property);
            known_elsewhere(name, property);
        }
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(below) {
            walk(below);
        }
    }
}

/// JSON schema's numbers are floats, and its formats Rust's.
fn plain_numbers(fields: &mut Map<String, Value>) {
    let format = match fields.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16") => Some("int32"),
        Some("uint32" | "uint64") => Some("int64"),
        _ => None,
    };
    if let Some(format) = format {
        fields.insert("format".to_owned(), json!(format));
    }
    for limit in ["minimum", "maximum"] {
        let whole = fields.get(limit).and_then(whole_number);
        if let Some(whole) = whole {
            fields.insert(limit.to_owned(), json!(whole));
        }
    }
}

/// A float without a fraction, as the integer that it is.
fn whole_number(value: &Value) -> Option<i64> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
    format!("{number:.0}").parse().ok()
}

/// What Kubernetes' own types say at more length than is of use here, or do not say.
fn known_elsewhere(name: &str, property: &mut Value) {
    match name {
        // One entry a type: an update of one condition leaves the others alone.
        "conditions" => {
            property["x-kubernetes-list-type"] = json!("map");
            property["x-kubernetes-list-map-keys"] = json!(["type"]);
        }
        "resources" => {
            // Claims of devices: what runs here needs none, and older servers do not know them.
            if let Some(properties) = property["properties"].as_object_mut() {
                properties.remove("claims");
            }
            for amounts in ["limits", "requests"] {
                let about = "An amount, in quotes: `\"1\"`, `250m`, `512Mi`.";
                property["properties"][amounts]["additionalProperties"] =
                    json!({"description": about, "pattern": QUANTITY, "type": "string"});
            }
        }
        _ => {}
    }
}

fn first_paragraph(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_become_what_servers_and_people_expect() {
        let mut schema = json!({
            "description": "Auto-generated", "title": "Thing", "type": "object",
            "properties": { "spec": {
                "description": "A thing,\nin two lines.\n\nMore.", "type": "object", "nullable": true,
                "properties": {
                    "port": {"type": "integer", "format": "uint16", "minimum": 1.0, "maximum": 65535.0},
                    "share": {"type": "number", "minimum": 0.5},
                },
            }},
        });
        tidy(&mut schema);
        let expected = json!({
            "description": "A thing, in two lines.", "type": "object",
            "properties": { "spec": {
                "description": "What is wanted.", "type": "object",
                "properties": {
                    "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535},
                    "share": {"type": "number", "minimum": 0.5},
                },
            }},
        });
        assert_eq!(schema, expected);
    }
}
