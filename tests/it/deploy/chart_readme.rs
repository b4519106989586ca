//! The chart's README: its table of values is made from the comments of values.yaml.

use serde_json::Value;

use super::chart::CHART;
use super::tools::{text_of, top};

/// One value, as values.yaml explains it.
#[derive(Debug, PartialEq)]
struct ChartValue {
    /// Its keys.
    path: Vec<String>,
    meaning: String,
}

/// The values that have a comment, in order.
fn explained(yaml: &str) -> Vec<ChartValue> {
    let (mut values, mut comment, mut above) = (Vec::new(), Vec::new(), Vec::new());
    for line in yaml.lines() {
        let text = line.trim_start();
        if let Some(sentence) = text.strip_prefix('#') {
            comment.extend(Some(sentence.trim()).filter(|sentence| !sentence.is_empty()));
            continue;
        }
        if let Some(key) = key_of(text) {
            above.retain(|(indent, _)| *indent < line.len() - text.len());
            above.push((line.len() - text.len(), key.to_owned()));
            if !comment.is_empty() {
                let path = above.iter().map(|(_, key)| key.clone()).collect();
                values.push(ChartValue { path, meaning: comment.join(" ") });
            }
        }
        comment.clear();
    }
    values
}

fn key_of(text: &str) -> Option<&str> {
    let (key, _) = text.split_once(':')?;
    key.chars().all(char::is_alphanumeric).then_some(key)
}

fn values_yaml() -> String {
    text_of(format!("{CHART}/values.yaml"))
}

fn table() -> String {
    let yaml = values_yaml();
    let defaults: Value = serde_yaml::from_str(&yaml).unwrap();
    let mut table = "| value | default | meaning |\n| --- | --- | --- |\n".to_owned();
    for ChartValue { path, meaning } in explained(&yaml) {
        let default = defaults.pointer(&format!("/{}", path.join("/"))).unwrap();
        table += &format!("| `{}` | `{default}` | {meaning} |\n", path.join("."));
    }
    table
}

#[test]
fn the_readme_of_the_chart_has_every_value_with_its_default_and_its_comment() {
    let path = format!("{CHART}/README.md");
    let (before, _) = text_of(&path).split_once("## Values\n\n").map(owned).unwrap();
    if super::updates_are_wanted() {
        std::fs::write(top().join(&path), format!("{before}## Values\n\n{}", table())).unwrap();
    }
    let text = text_of(&path);
    let (_, written) = text.split_once("## Values\n\n").unwrap();
    assert!(written == table(), "it is older: {}", super::HOW_TO_UPDATE);
}

fn owned((before, after): (&str, &str)) -> (String, String) {
    (before.to_owned(), after.to_owned())
}

/// A value without a comment has values below it, each with one.
#[track_caller]
fn check_explained(value: &Value, path: &[String], explained: &[ChartValue]) {
    if explained.iter().any(|one| one.path == path) {
        return;
    }
    let below = value.as_object().filter(|below| !below.is_empty());
    let below = below.unwrap_or_else(|| panic!("{} has no comment", path.join(".")));
    for (key, value) in below {
        check_explained(value, &[path, std::slice::from_ref(key)].concat(), explained);
    }
}

#[test]
fn every_value_is_explained() {
    let yaml = values_yaml();
    check_explained(&serde_yaml::from_str(&yaml).unwrap(), &[], &explained(&yaml));
}

#[test]
fn a_comment_belongs_to_the_key_below_it() {
    let value = |path: &[&str], meaning: &str| ChartValue {
        path: path.iter().map(|key| (*key).to_owned()).collect(),
        meaning: meaning.to_owned(),
    };
    let yaml = "# About the file.\n\na:\n  # One\n  # sentence.\n  b: 1\n# C.\nc: {}\n";
    assert_eq!(explained(yaml), [value(&["a", "b"], "One sentence."), value(&["c"], "C.")]);
}
