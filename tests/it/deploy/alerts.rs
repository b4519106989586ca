//! Alerts and dashboard: what they ask for exists, promtool reads it, and each alert fires when it should.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::chart::{CHART, rendered};
use super::metrics::{check_query, metrics_of, served};
use super::objects::{Alert, Object, RecordingRule, RuleFile, only, strict};
use super::tools::{Tool, text_of};

fn alerts() -> Vec<Alert> {
    let file = serde_yaml::from_str(&text_of(alerts_file())).unwrap();
    let file: Box<RuleFile> = strict(file).unwrap();
    file.alerts()
}

fn recording_rules_file() -> PathBuf {
    PathBuf::from(CHART).join("files/recording-rules.yaml")
}

fn recording_rules() -> Vec<RecordingRule> {
    let file = serde_yaml::from_str(&text_of(recording_rules_file())).unwrap();
    let file: Box<RuleFile> = strict(file).unwrap();
    file.recordings()
}

fn alerts_file() -> PathBuf {
    PathBuf::from(CHART).join("files/alerts.yaml")
}

fn dashboard() -> Value {
    serde_json::from_str(&text_of(format!("{CHART}/files/dashboard.json"))).unwrap()
}

/// Every query of the dashboard, with the title of its panel.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (panel["title"].clone(), target["expr"].clone()))
    });
    let text = |value: Value| value.as_str().unwrap().to_owned();
    targets.map(|(title, query)| (text(title), text(query))).collect()
}

#[test]
fn alerts_ask_only_for_metrics_that_exist() {
    for alert in alerts().iter().filter(|alert| alert.name != "IluvatarPluginDown") {
        check_query(&alert.expr);
    }
}

#[test]
fn an_alert_names_what_is_wrong_where_and_how_bad() {
    for Alert { name, labels, annotations, .. } in alerts() {
        let severity = labels["severity"].as_str();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let keys: Vec<_> = annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, ["description", "runbook_url", "summary"], "{name}");
        let is_of_the_cluster = name == "IluvatarPluginAbsent";
        assert!(annotations["summary"].contains("$labels.node") != is_of_the_cluster, "{name}");
        assert!(annotations["description"].ends_with('.'), "{name}");
    }
}

#[test]
fn each_alert_links_to_its_heading_in_the_readme() {
    let readme = text_of("README.md");
    for Alert { name, annotations, .. } in alerts() {
        let link = format!("README.md#{}", name.to_lowercase());
        assert_eq!(annotations["runbook_url"], link);
        assert!(readme.contains(&format!("\n#### {name}\n")), "no heading {name}");
    }
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist() {
    for (_, query) in dashboard_queries() {
        check_query(&query);
    }
    let variables = dashboard()["templating"]["list"].clone();
    let definitions =
        variables.as_array().unwrap().iter().filter_map(|one| one["definition"].as_str());
    let definitions: Vec<_> = definitions.collect();
    assert_eq!(definitions.len(), 2);
    for definition in definitions {
        assert_eq!(metrics_of(definition).len(), 1, "{definition}");
        assert!(served().keys().any(|name| metrics_of(definition).contains(*name)));
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let shown: BTreeSet<_> =
        dashboard_queries().iter().flat_map(|(_, query)| metrics_of(query)).collect();
    let served: BTreeSet<_> = served().into_keys().map(str::to_owned).collect();
    assert_eq!(shown, served);
}

#[test]
fn no_two_panels_lie_on_each_other() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for (x, y) in (at("x")..at("x") + at("w"))
            .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert((x, y)), "{}", panel["title"]);
        }
    }
}

#[test]
fn promtool_reads_every_alert() {
    let Some(promtool) = Tool::named("promtool") else { return };
    let said =
        promtool.stdout(&["check", "rules", "--lint-fatal", alerts_file().to_str().unwrap()]);
    assert!(said.contains(&format!("SUCCESS: {} rules found", alerts().len())), "{said}");
}

#[test]
fn recording_rules_join_what_the_plugin_serves_with_what_the_vendors_exporter_measures() {
    for RecordingRule { name, expr } in recording_rules() {
        check_query(&expr);
        let measured = name.split(':').nth(1).unwrap();
        assert!(expr.contains(&format!("max by (uuid) ({measured})")), "{name}: {expr}");
    }
    let Some(promtool) = Tool::named("promtool") else { return };
    let file = recording_rules_file();
    let said = promtool.stdout(&["check", "rules", "--lint-fatal", file.to_str().unwrap()]);
    assert!(said.contains(&format!("SUCCESS: {} rules found", recording_rules().len())), "{said}");
    let story = "tests/it/deploy/recording.test.yaml";
    assert!(promtool.stdout(&["test", "rules", story]).contains("SUCCESS"));
    for RecordingRule { name, .. } in recording_rules() {
        assert!(text_of(story).contains(&format!("expr: {name}\n")), "{name} is not tested");
    }
}

#[test]
fn promtool_reads_every_query_of_the_dashboard() {
    let Some(promtool) = Tool::named("promtool") else { return };
    let rules = dashboard_queries().into_iter().enumerate().map(|(number, (_, query))| {
        // Grafana puts names in the place of its variables.
        json!({"record": format!("panel:{number}"), "expr": query.replace("$node", ".*").replace("$resource", ".*")})
    });
    let rules: Vec<_> = rules.collect();
    let count = rules.len();
    let file = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("dashboard.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let said = promtool.stdout(&["check", "rules", path.to_str().unwrap()]);
    assert!(said.contains(&format!("SUCCESS: {count} rules found")), "{said}");
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    let Some(promtool) = Tool::named("promtool") else { return };
    let story = "tests/it/deploy/alerts.test.yaml";
    let said = promtool.stdout(&["test", "rules", story]);
    assert!(said.contains("SUCCESS"), "{said}");
    let story: Value = serde_yaml::from_str(&text_of(story)).unwrap();
    let told: BTreeSet<_> = story["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .filter(|expected| !expected["exp_alerts"].as_array().unwrap().is_empty())
        .map(|expected| expected["alertname"].as_str().unwrap().to_owned())
        .collect();
    let all: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(told, all, "each is made to fire once");
}

#[test]
fn the_chart_installs_the_same_alerts_but_those_switched_off() {
    let Some(objects) = rendered("everything") else { return };
    let rule = only(objects.into_iter().filter_map(|object| match object {
        Object::PrometheusRule(rule) => Some(rule),
        _ => None,
    }));
    assert_eq!(rule.spec.clone().recordings(), recording_rules());
    let installed = rule.spec.alerts();
    let mut expected = alerts();
    expected.retain(|alert| alert.name != "IluvatarLinkBelowMaximum");
    for alert in &mut expected {
        let runbook = alert.annotations.get_mut("runbook_url").unwrap();
        *runbook = runbook.replace("README.md", "https://docs.example.com/ix-device-plugin");
    }
    assert_eq!(installed, expected);
}

#[test]
fn the_chart_installs_the_same_dashboard() {
    let Some(objects) = rendered("everything") else { return };
    let text = objects.iter().find_map(|object| match object {
        Object::ConfigMap(map) => map.data.as_ref()?.get("ix-device-plugin.json").cloned(),
        _ => None,
    });
    let installed: Value = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(installed, dashboard());
}
