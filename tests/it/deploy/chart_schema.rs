//! The schema of the chart's values, which includes the schema of the configuration.

use ix_device_plugin::wire::config_schema::config_schema;
use serde_json::{Map, Value, json};

use super::chart::CHART;
use super::tools::{text_of, top};

/// Keys of the configuration that the chart itself refuses, with the remedy.
const REFUSED_BY_CHART: [&str; 3] = [
    "/properties/flags/properties/usevolcano",
    "/properties/flags/properties/reset_gpu",
    "/properties/sharing/properties/mps",
];

fn schema() -> Value {
    serde_json::from_str(&text_of(format!("{CHART}/values.schema.json"))).unwrap()
}

/// The program's schema, as it is part of another one. The chart refuses the rest with better
/// messages than a schema has.
fn included() -> Value {
    let mut schema = config_schema();
    let object = schema.as_object_mut().unwrap();
    for keyword in ["$schema", "not"] {
        assert!(object.shift_remove(keyword).is_some(), "{keyword}");
    }
    for pointer in REFUSED_BY_CHART {
        let key = schema.pointer_mut(pointer).unwrap();
        *key = json!({"description": key["description"]});
    }
    schema
}

#[test]
fn the_schema_of_the_values_includes_the_one_of_the_configuration() {
    let mut schema = schema();
    if super::updates_are_wanted() {
        schema["properties"]["config"] = included();
        let text = serde_json::to_string_pretty(&schema).unwrap();
        std::fs::write(top().join(format!("{CHART}/values.schema.json")), text + "\n").unwrap();
    }
    let config = &schema["properties"]["config"];
    assert!(*config == included(), "it is older: {}", super::HOW_TO_UPDATE);
}

fn is_replaced(schema: &Value) -> bool {
    schema["description"].as_str().is_some_and(|text| text.starts_with("Of the replaced chart"))
}

#[test]
fn every_value_is_in_the_schema_and_has_a_default() {
    let values: Map<_, _> = serde_yaml::from_str(&text_of(format!("{CHART}/values.yaml"))).unwrap();
    let mut known = schema()["properties"].as_object().unwrap().clone();
    assert!(known.remove("global").is_some(), "Helm gives it to every chart");
    known.retain(|_, schema| !is_replaced(schema));
    let sorted = |keys: &Map<String, Value>| {
        let mut keys: Vec<_> = keys.keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(sorted(&known), sorted(&values));
}
