//! `/metrics`: names and zeros from the start, and what each event does to them.

use std::fs;

use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::OwnSocket;
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::parse::config::Overrides;
use ix_device_plugin::wire::metrics::{METRICS, MetricKind};
use ix_device_plugin::wire::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, PreferredAllocationRequest,
};
use tempfile::TempDir;

use super::four_boards;
use crate::deploy::tools::Tool;
use crate::support::binary::Ran;
use crate::support::fixtures::{GPU, node_text};
use crate::support::node_rig::NodeRig;
use crate::support::test_node::TestNode;

const PREFIX: &str = "iluvatar_device_plugin_";
const OF_GPU: &str = "resource=\"iluvatar.com/gpu\"";

/// Waits until each of these series has this value.
async fn counts(node: &NodeRig, series: &[&str]) {
    for series in series {
        let series = series.replace("GPU", OF_GPU);
        node.shows("/metrics", &format!("\n{PREFIX}{series}\n")).await;
    }
}

/// A plugin that has scanned, and that no kubelet knows.
async fn alone(fixture: &str) -> NodeRig {
    let mut node = TestNode::fixture(fixture).with_http().prepare().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    node.start_plugin();
    node.shows("/readyz", "there is no kubelet on this node").await;
    node
}

/// What took how long is not the same twice.
fn without_durations(text: &str) -> String {
    let line = |line: &str| match line.split_once("rescan_duration_seconds_") {
        Some(_) if !line.starts_with('#') => String::new(),
        _ => line.replace(env!("CARGO_PKG_VERSION"), "VERSION") + "\n",
    };
    text.lines().map(line).collect()
}

#[tokio::test]
async fn every_series_is_there_from_the_start_as_open_metrics() {
    let node = alone("mr-v100-x4").await;
    let answer = node.asked("/metrics").await;
    assert_eq!(answer.code, 200);
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.head.contains(content_type), "{}", answer.head);
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots/http");
    let text = without_durations(&answer.text);
    settings.bind(|| insta::assert_snapshot!("metrics-at-the-start", text));
}

#[tokio::test]
async fn every_metric_of_the_table_is_exposed_as_what_it_is_and_no_other() {
    let node = alone("mr-v100-x4").await;
    let text = node.asked("/metrics").await.text;
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exposed: Vec<_> = kinds.map(str::to_owned).collect();
    let expected = METRICS.iter().map(|row| {
        let is_counter = row.kind == MetricKind::Counter;
        let name = if is_counter { row.name.trim_end_matches("_total") } else { row.name };
        format!("{name} {}", row.kind.name())
    });
    assert_eq!(exposed, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_session_is_counted() {
    let node = four_boards("").await;
    counts(
        &node,
        &[
            "registrations_total{GPU,result=\"accepted\"} 1",
            "registrations_total{GPU,result=\"refused\"} 0",
            "open_streams{GPU} 1.0",
            "lists_sent_total{GPU} 1",
            "devices{GPU,health=\"healthy\"} 4.0",
            "devices{GPU,health=\"unhealthy\"} 0.0",
            "source_up{source=\"inotify\"} 1.0",
            "source_up{source=\"netlink\"} 0.0",
        ],
    )
    .await;
    node.shows("/metrics", &format!("{PREFIX}time_to_first_list_seconds{{{OF_GPU}}} ")).await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    counts(&node, &["open_streams{GPU} 0.0"]).await;
}

#[tokio::test]
async fn allocations_and_starts_are_counted_by_how_they_ended() {
    let node = four_boards("").await;
    node.admit("pod", GPU, 1).await;
    node.start_pod("pod").await.unwrap();
    let mut client = node.client("iluvatar-gpu.sock").await;
    let devices_ids = vec!["0000:99:00.0".to_owned()];
    let container_requests = vec![ContainerAllocateRequest { devices_ids }];
    client.allocate(AllocateRequest { container_requests }).await.unwrap_err();
    client.get_preferred_allocation(PreferredAllocationRequest::default()).await.unwrap();
    counts(
        &node,
        &[
            "allocations_total{GPU,result=\"granted\"} 1",
            "allocations_total{GPU,result=\"refused\"} 1",
            "allocation_duration_seconds_count{GPU} 2",
            "allocation_duration_seconds_bucket{le=\"+Inf\",GPU} 2",
            "container_starts_total{GPU,result=\"allowed\"} 1",
            "container_starts_total{GPU,result=\"refused\"} 0",
        ],
    )
    .await;
    let text = node.asked("/metrics").await.text;
    let preferred = format!("{PREFIX}preferred_allocation_duration_seconds_count{{{OF_GPU}}} ");
    let asked = text.lines().find_map(|line| line.strip_prefix(&preferred)).unwrap();
    assert!(asked.parse::<u32>().unwrap() >= 1, "{asked}");
}

#[tokio::test]
async fn a_scan_is_counted_under_what_led_to_it() {
    let node = four_boards("").await;
    counts(&node, &["rescans_total{trigger=\"start\"} 1"]).await;
    let causes = [
        ("request", RescanTrigger::Request),
        ("uevent", RescanTrigger::Uevent),
        ("poll", RescanTrigger::Poll),
    ];
    for (cause, trigger) in causes {
        let series = |count: u8| format!("rescans_total{{trigger=\"{cause}\"}} {count}");
        counts(&node, &[&series(0)]).await;
        node.plugin().triggers.send(trigger).await.unwrap();
        counts(&node, &[&series(1)]).await;
    }
    let all = ["rescans_total{trigger=\"timer\"} 0", "rescan_duration_seconds_count 4"];
    counts(&node, &all).await;
}

#[tokio::test]
async fn a_broken_device_has_a_series_for_each_reason_until_it_is_mended_or_gone() {
    const MISSING: &str = "device_unhealthy{GPU,device=\"0000:15:00.0\",\
                           reason=\"DeviceNodeMissing\"} 1.0";
    let node = four_boards("").await;
    let whole = node_text("mr-v100-x4");
    let lines = whole.lines().filter(|line| *line != "iluvatar3 : c 508:3");
    let broken = lines.collect::<Vec<_>>().join("\n");
    let is_broken = |snapshot: &NodeSnapshot| !snapshot.inventory.boards[0].reasons.is_empty();
    for next in [whole.clone(), node_text("empty-host")] {
        node.change(&broken, is_broken).await;
        counts(&node, &[MISSING, "devices{GPU,health=\"unhealthy\"} 1.0"]).await;
        node.change(&next, |snapshot| {
            !snapshot.inventory.boards.iter().any(|it| !it.reasons.is_empty())
        })
        .await;
        counts(&node, &["devices{GPU,health=\"unhealthy\"} 0.0"]).await;
        let text = node.asked("/metrics").await.text;
        assert!(!text.contains("device_unhealthy{"), "{text}");
    }
    let text = node.asked("/metrics").await.text;
    assert!(!text.contains("chip=\""), "{text}");
}

#[tokio::test]
async fn a_reload_is_counted_and_a_refused_one_leaves_the_file_behind() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    fs::write(&file, "").unwrap();
    let source = ConfigSource::new(Some(&file), Overrides::default());
    let node = TestNode::fixture("mr-v100-x4").config_file(&source).with_http();
    let node = node.start().await;
    counts(&node, &["config_current 1.0", "config_reloads_total{result=\"refused\"} 0"]).await;

    fs::write(&file, "bords: {}").unwrap();
    counts(&node, &["config_current 0.0", "config_reloads_total{result=\"refused\"} 1"]).await;

    fs::write(&file, "resourceName: a.b/gpu").unwrap();
    counts(
        &node,
        &[
            "config_current 1.0",
            "config_reloads_total{result=\"applied\"} 1",
            "config_reloads_total{result=\"refused\"} 1",
            "registrations_total{resource=\"a.b/gpu\",result=\"accepted\"} 1",
        ],
    )
    .await;
    // The old name's series go with it.
    let text = node.asked("/metrics").await.text;
    assert!(!text.contains(OF_GPU), "{text}");
}

#[tokio::test]
async fn a_link_below_its_maximum_is_one_chip_s() {
    let node = alone("mr-v100-x4").await;
    counts(&node, &["link_below_maximum{chip=\"0000:15:00.0\"} 0.0"]).await;
    let version = "sys/devices/pci0000:14/0000:14:02.0/0000:15:00.0/current_link_width";
    fs::write(node.root().join(version), "4\n").unwrap();
    node.plugin().triggers.send(RescanTrigger::Request).await.unwrap();
    counts(&node, &["link_below_maximum{chip=\"0000:15:00.0\"} 1.0"]).await;
    counts(&node, &["link_below_maximum{chip=\"0000:2d:00.0\"} 0.0"]).await;
}

#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let Some(promtool) = Tool::named("promtool") else { return };
    let node = four_boards("").await;
    node.admit("pod", GPU, 1).await;
    let answer = node.asked_for("/metrics", "text/plain").await;
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let Ran { code, stdout, stderr } = promtool.fed(&["check", "metrics"], &answer.text);
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "", ""));
}
