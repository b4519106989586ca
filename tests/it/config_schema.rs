//! The table of configuration keys, and the JSON Schema that is generated from it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ix_device_plugin::model::config::Config;
use ix_device_plugin::parse::config::key::{ConfigKey, ValueKind};
use ix_device_plugin::parse::config::keys::CONFIG;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::wire::config_schema::config_schema;
use ix_device_plugin::wire::config_yaml::effective_yaml;
use serde_json::Value;

use crate::config::files;

/// A file with this one key, `path` from the top, and its value in YAML.
fn file_with(path: &[&str], value: &str) -> String {
    format!("{{{}: {value}{}", path.join(": {"), "}".repeat(path.len()))
}

/// Each key below `keys` that has a value of its own, with its path.
fn leaves(
    keys: &[&'static ConfigKey],
    above: &[&'static str],
) -> Vec<(Vec<&'static str>, &'static ConfigKey)> {
    let below = |key: &&'static ConfigKey| {
        let path = [above, &[key.name]].concat();
        match key.kind {
            ValueKind::Section(keys) => leaves(keys, &path),
            _ => vec![(path, *key)],
        }
    };
    keys.iter().flat_map(below).collect()
}

#[test]
fn a_key_with_its_default_means_the_default_to_the_reader_and_to_the_schema() {
    let leaves = leaves(&CONFIG, &[]);
    assert!(leaves.len() > 20, "{leaves:?}");
    for (path, key) in leaves {
        let value = if key.default.is_empty() { "null" } else { key.default };
        let text = file_with(&path, value);
        assert_eq!(parse_config(&text), Ok(Config::default()), "{text}");
        assert_eq!(violations_of(&text), [""; 0], "{text}");
    }
}

#[test]
fn the_annotated_file_has_every_key_with_its_default() {
    let (_, text) =
        files("good").into_iter().find(|(path, _)| path.ends_with("annotated.yaml")).unwrap();
    let file: Value = serde_yaml::from_str(&text).unwrap();
    for (path, key) in leaves(&CONFIG, &[]) {
        let value = file.pointer(&format!("/{}", path.join("/")));
        if !key.default.is_empty() && key.name != "mps" {
            let default: Value = serde_json::from_str(key.default).unwrap();
            assert_eq!(value, Some(&default), "{path:?}");
        }
    }
}

#[test]
fn every_good_file_is_inside_the_schema_and_so_is_its_effective_form() {
    for (path, text) in files("good") {
        let effective = effective_yaml(&parse_config(&text).unwrap());
        for text in [text, effective] {
            assert_eq!(violations_of(&text), [""; 0], "{}\n{text}", path.display());
        }
    }
}

#[test]
fn every_bad_file_with_an_unknown_key_or_a_wrong_type_is_outside_the_schema() {
    let mut refused = Vec::new();
    for (path, text) in files("bad") {
        let problems = parse_config(&text).unwrap_err().to_string();
        let is_structural = problems.contains("unknown key") || path.ends_with("wrong-types.yaml");
        if is_structural {
            assert_ne!(violations_of(&text), [""; 0], "{}", path.display());
            refused.push(path);
        }
    }
    assert!(refused.len() >= 3, "{refused:?}");
}

#[test]
fn each_unknown_key_violates_the_schema_by_itself() {
    for text in [
        "bords: {}",
        "flags: {splitbord: true}",
        "resources: [{name: a.b/c, x: 1}]",
        "resources: [{name: a.b/c, match: {modle: x}}]",
        "health: {signals: {Aer: warn}}",
    ] {
        assert_eq!(violations_of(text).len(), 1, "{text}: {:?}", violations_of(text));
        assert!(parse_config(text).is_err(), "{text}");
    }
}

#[test]
fn the_schema_reads_as_an_editor_gets_it() {
    let text = serde_json::to_string_pretty(&config_schema()).unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("config-schema.json", text));
}

fn violations_of(text: &str) -> Vec<String> {
    // A tag has no place in JSON.
    let value: Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) => return vec![error.to_string()],
    };
    let mut violations = Vec::new();
    validate(&config_schema(), &value, "", &mut violations);
    violations
}

/// As much of JSON Schema as ours uses, but for the patterns.
fn validate(schema: &Value, value: &Value, path: &str, violations: &mut Vec<String>) {
    let Value::Object(rules) = schema else { panic!("{schema} is not a schema") };
    for (rule, argument) in rules {
        let holds = match rule.as_str() {
            "$schema" | "title" | "description" | "default" | "pattern" => true,
            "type" => {
                let types =
                    argument.as_array().map_or_else(|| vec![argument.clone()], Clone::clone);
                types.iter().any(|name| has_type(value, name.as_str().unwrap()))
            }
            "enum" => argument.as_array().unwrap().contains(value),
            "anyOf" => argument.as_array().unwrap().iter().any(|schema| is_valid(schema, value)),
            "not" => !is_valid(argument, value),
            "minimum" => value.as_u64().is_none_or(|number| number >= argument.as_u64().unwrap()),
            "maximum" => value.as_u64().is_none_or(|number| number <= argument.as_u64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| !text.is_empty()),
            "minItems" => length(value).is_none_or(|items| items >= argument.as_u64().unwrap()),
            "maxItems" => length(value).is_none_or(|items| items <= argument.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_none_or(serde_json::Map::is_empty),
            "required" => value.as_object().is_none_or(|members| {
                argument
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|name| members.contains_key(name.as_str().unwrap()))
            }),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(argument, item, &format!("{path}[{index}]"), violations);
                }
                true
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = argument.get(name) {
                        validate(schema, member, &format!("{path}.{name}"), violations);
                    }
                }
                true
            }
            "patternProperties" => {
                let schema = argument.as_object().unwrap().values().next().unwrap();
                for (name, member) in value.as_object().into_iter().flatten() {
                    validate(schema, member, &format!("{path}.{name}"), violations);
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(*argument, Value::Bool(false));
                let is_known = |name: &String| {
                    rules.contains_key("patternProperties")
                        || rules["properties"].get(name).is_some()
                };
                value.as_object().is_none_or(|members| members.keys().all(is_known))
            }
            other => panic!("the schema uses `{other}`, which this test does not know"),
        };
        if !holds {
            violations.push(format!("{path}: {value} violates {rule} {argument}"));
        }
    }
}

fn is_valid(schema: &Value, value: &Value) -> bool {
    let mut violations = Vec::new();
    validate(schema, value, "", &mut violations);
    violations.is_empty()
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("`{other}` is not a type of ours"),
    }
}

fn length(value: &Value) -> Option<u64> {
    value.as_array().map(|items| items.len() as u64)
}
