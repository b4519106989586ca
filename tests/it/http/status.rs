//! `/status` and `status`: the document, and the table that is made from it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use ix_device_plugin::decide::kubelet::probes::{ScanState, SessionState, readiness};
use ix_device_plugin::decide::node::state::snapshot_of;
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::device::DeviceId;
use ix_device_plugin::model::pod_usage::{Holder, PodDevice};
use ix_device_plugin::model::session::Progress;
use ix_device_plugin::parse::config::{Overrides, parse_config};
use ix_device_plugin::wire::metrics::input::Build;
use ix_device_plugin::wire::metrics::meters::ResourceMeters;
use ix_device_plugin::wire::report::paint::Paint;
use ix_device_plugin::wire::report::status::{
    OngoingError, SourceCondition, Status, StatusInput, status,
};
use ix_device_plugin::wire::report::status_table::status_table;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::fixtures::{GPU, node_text, scan_text};
use crate::support::test_node::TestNode;

fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots/http");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// 2026-11-23T12:00:00Z.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_435_200)
}

fn ago(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two pods share the first device.
fn pod_devices() -> Vec<PodDevice> {
    let device: DeviceId = "0000:41:00.0".parse().unwrap();
    let held = |pod: &str| PodDevice {
        resource: GPU.to_owned(),
        device,
        chips: vec![device.address],
        holder: Holder {
            namespace: "team".to_owned(),
            pod: pod.to_owned(),
            container: "main".to_owned(),
        },
    };
    vec![held("serve"), held("train")]
}

/// A node on which much is wrong.
fn failing() -> Status {
    let config = parse_config("sharing: {timeSlicing: {replicas: 2}}").unwrap();
    let scan = scan_text(&node_text("vfio-and-unbound"), &config);
    let mut snapshot = (*snapshot_of(scan, &config)).clone();
    snapshot.pod_devices = Some(pod_devices());
    let standing = SessionState {
        resource: GPU.to_owned(),
        progress: Progress::Waiting,
        has_kubelet: true,
        is_registered: false,
        last_error: Some(
            "cannot register: the kubelet refused: not today; trying again".to_owned(),
        ),
        since_last_step: Duration::ZERO,
    };
    let looked = ScanState { has_succeeded: true, ..ScanState::default() };
    let netlink = "cannot open netlink: Operation not permitted".to_owned();
    let facts = StatusInput {
        dra: None,
        build: Build { version: "1.2.3", revision: "0123abc" },
        now: noon(),
        uptime: ago(90_061),
        readiness: readiness(&looked, std::slice::from_ref(&standing), None),
        config: &config,
        config_file: Some("/ixconfig/ix-config".to_owned()),
        refused_config: Some(OngoingError {
            text: "/ixconfig/ix-config has 1 problem\n  bords: unknown key".to_owned(),
            age: ago(60),
        }),
        scanning: None,
        scanned: Some((ago(5), Duration::from_micros(2_345))),
        scan_error: Some(OngoingError { text: "cannot read /sys".to_owned(), age: ago(4) }),
        snapshot: Some(&snapshot),
        sessions: &[(standing, ResourceMeters::default())],
        sources: BTreeMap::from([
            ("netlink", SourceCondition::Down(netlink, Some(ago(90_000)))),
            ("inotify", SourceCondition::Up(None)),
            ("ixml", SourceCondition::Unused("libixml is off".to_owned())),
        ]),
    };
    status(&facts)
}

#[test]
fn a_failing_node_reads_as_a_table() {
    golden("status-of-a-failing-node.table", &status_table(&failing(), Paint::Plain));
}

#[test]
fn a_failing_node_reads_as_json_and_back() {
    let text = serde_json::to_string_pretty(&failing()).unwrap();
    golden("status-of-a-failing-node.json", &text);
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), failing());
}

/// What is not the same twice is shown by its kind.
fn timeless(value: &mut Value) {
    const TIMES: [&str; 6] =
        ["startedAt", "uptimeSeconds", "since", "scannedAt", "scanSeconds", "firstListSeconds"];
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match (&*member, TIMES.contains(&&**name) || name == "version") {
                    (Value::String(_), true) => *member = Value::from(format!("[{name}]")),
                    (Value::Number(_), true) => *member = Value::from(-1),
                    _ => timeless(member),
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(timeless),
        _ => {}
    }
}

#[tokio::test]
async fn a_running_plugin_reports_everything() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    fs::write(&file, "").unwrap();
    let source = ConfigSource::new(Some(&file), Overrides::default());
    let node = TestNode::fixture("mr-v100-x4").config_file(&source).with_http();
    let node = node.start().await;
    node.shows("/readyz", "the kubelet has its list").await;
    fs::write(&file, "bords: {}").unwrap();
    node.shows("/status", "\"current\": false").await;
    let answer = node.asked("/status").await;
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let mut document: Value = serde_json::from_str(&answer.text).unwrap();
    timeless(&mut document);
    let text = serde_json::to_string_pretty(&document).unwrap();
    let text = text.replace(file.to_str().unwrap(), "[file]");
    golden("status-of-a-running-plugin.json", &text);
}

#[tokio::test]
async fn before_the_first_scan_there_are_names_and_what_is_missing() {
    let mut node = TestNode::fixture("mr-v100-x4").with_http().prepare().await;
    fs::rename(node.root().join("sys"), node.root().join("away")).unwrap();
    node.start_plugin();
    node.shows("/readyz", "cannot be scanned").await;
    let document: Value = serde_json::from_str(&node.asked("/status").await.text).unwrap();
    assert_eq!(document["ready"], Value::Bool(false));
    assert_eq!(document["resources"][0]["name"], GPU);
    assert_eq!(document["resources"][0]["session"], Value::Null);
    assert_eq!(document["machine"]["scannedAt"], Value::Null);
    let error = document["machine"]["error"]["text"].as_str().unwrap();
    assert!(error.starts_with("cannot read "), "{error}");
}

#[test]
fn the_active_configuration_reads_back_as_itself() {
    let config = parse_config("sharing: {timeSlicing: {replicas: 2}}").unwrap();
    let document = serde_json::to_value(failing()).unwrap();
    let active = document["configuration"]["active"].to_string();
    // JSON is YAML.
    assert_eq!(parse_config(&active).unwrap(), config);
    assert_ne!(config, Config::default());
}
