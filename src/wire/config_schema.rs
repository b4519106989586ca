//! The JSON Schema (draft 2020-12) of the configuration file, for editors and for checks before a
//! file reaches a node. It is generated from the table that the reader uses.
//!
//! It describes the shape of a file. What only the parser can check, for example that two resources
//! overlap, it leaves open.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use crate::model::health::ReasonCode;
use crate::parse::config::key::{ConfigKey, TextForm, ValueKind};
use crate::parse::config::keys::{CONFIG, RESOURCE_NAME, RESOURCES};

/// The schema of the whole file.
#[must_use]
pub fn config_schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of ix-device-plugin",
    });
    // An empty file means the defaults.
    merge(&mut schema, nullable(section(&CONFIG)));
    let both = [RESOURCE_NAME.name, RESOURCES.name].map(|name| (name.to_owned(), not_null()));
    let both = json!({
        "type": "object",
        "required": [RESOURCE_NAME.name, RESOURCES.name],
        "properties": Map::from_iter(both),
    });
    merge(&mut schema, json!({ "not": both }));
    schema
}

fn not_null() -> Value {
    json!({ "not": { "type": "null" } })
}

fn section(keys: &[&ConfigKey]) -> Value {
    let properties = keys.iter().map(|key| (key.name.to_owned(), property(key)));
    let properties: Map<_, _> = properties.collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required = keys.iter().filter(|key| key.is_required).map(|key| key.name);
    let required: Vec<_> = required.collect();
    if !required.is_empty() {
        merge(&mut schema, json!({ "required": required }));
    }
    schema
}

/// The value of a key. A null counts as absent, so a required key must not be null.
fn property(key: &ConfigKey) -> Value {
    let mut schema = json!({ "description": key.meaning });
    let kind = kind(&key.kind);
    merge(&mut schema, if key.is_required { kind } else { nullable(kind) });
    if let Ok(default) = serde_json::from_str::<Value>(key.default) {
        merge(&mut schema, json!({ "default": default }));
    }
    schema
}

fn kind(kind: &ValueKind) -> Value {
    match kind {
        ValueKind::Anything => json!({}),
        ValueKind::Refused => json!({ "type": [] }),
        ValueKind::EmptyMapping => json!({ "type": "object", "maxProperties": 0 }),
        ValueKind::Boolean => json!({ "type": "boolean" }),
        ValueKind::False => json!({ "enum": [false] }),
        ValueKind::Integer(range) => {
            let (least, most) = range().into_inner();
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        ValueKind::Text(form) => text(*form),
        ValueKind::Word(words) => json!({ "enum": words() }),
        ValueKind::Either(kinds) => {
            json!({ "anyOf": kinds.iter().map(self::kind).collect::<Vec<_>>() })
        }
        ValueKind::List(length, item) => list(length, &self::kind(item)),
        ValueKind::Map(form, value) => map(*form, self::kind(value)),
        ValueKind::Signals(value) => {
            let names = ReasonCode::ALL.iter().map(|code| code.name().to_owned());
            let properties: Map<_, _> = names.map(|name| (name, self::kind(value))).collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
        ValueKind::Section(keys) => section(keys),
    }
}

fn text(form: TextForm) -> Value {
    match form {
        TextForm::Any => json!({ "type": "string", "minLength": 1 }),
        _ => json!({ "type": "string", "pattern": pattern(form) }),
    }
}

/// A regular expression of ECMA 262, as JSON Schema has them.
fn pattern(form: TextForm) -> &'static str {
    match form {
        TextForm::Any => ".",
        TextForm::Duration => "^[0-9]+(ms|s|m|h)$",
        TextForm::Address => "^[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[01][0-9a-fA-F]\\.[0-7]$",
        TextForm::PciId => "^[0-9a-fA-F]{4}:[0-9a-fA-F]{4}$",
        TextForm::VendorId => "^(0x)?[0-9a-fA-F]{4}$",
        TextForm::AbsolutePath => "^/",
        TextForm::DeviceNode => "^/dev/.",
    }
}

fn list(length: &RangeInclusive<usize>, item: &Value) -> Value {
    let mut schema = json!({ "type": "array", "items": item });
    if *length.start() > 0 {
        merge(&mut schema, json!({ "minItems": length.start() }));
    }
    if *length.end() < usize::MAX {
        merge(&mut schema, json!({ "maxItems": length.end() }));
    }
    schema
}

fn map(form: TextForm, value: Value) -> Value {
    let by_name = Map::from_iter([(pattern(form).to_owned(), value)]);
    json!({ "type": "object", "patternProperties": by_name, "additionalProperties": false })
}

/// The same, and null.
fn nullable(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        let kinds = match kind.take() {
            Value::Array(kinds) => kinds,
            kind => vec![kind],
        };
        *kind = kinds.into_iter().chain(["null".into()]).collect();
    } else if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    } else if let Some(kinds) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        kinds.push(json!({ "type": "null" }));
    }
    schema
}

fn merge(schema: &mut Value, more: Value) {
    if let (Value::Object(members), Value::Object(more)) = (schema, more) {
        members.extend(more);
    }
}
