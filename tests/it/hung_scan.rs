//! A scan that hangs in the kernel, as in a driver that does, holds up nothing else.

#![expect(clippy::disallowed_methods, reason = "a test changes the machine's files itself")]

use std::fs;
use std::path::PathBuf;

use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::parse::config::Overrides;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::fixtures::GPU;
use crate::support::hang::Hang;
use crate::support::node_rig::{NodeRig, is_streaming};
use crate::support::skip;
use crate::support::test_node::TestNode;

/// What a scan reads and a health sample does not.
fn vendor(node: &NodeRig) -> PathBuf {
    node.chip_directory(node.boards[0].address).join("vendor")
}

/// The file, where the kernel lets it hang.
fn hang(node: &NodeRig) -> Option<Hang> {
    let hang = Hang::open_of(&vendor(node));
    if hang.is_none() {
        skip("fanotify's permission events need root");
    }
    hang
}

#[tokio::test]
async fn while_a_scan_hangs_samples_and_configuration_still_reach_the_kubelet() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    fs::write(&file, "health: {interval: 1s}").unwrap();
    let source = ConfigSource::new(Some(&file), Overrides::default());
    let node = TestNode::fixture("mr-v100-x4").config_file(&source).with_http().start().await;
    let Some(mut hang) = hang(&node) else { return };
    node.plugin().rescan().await;
    hang.is_hit().await;

    let chip = node.boards[1].address;
    fs::write(node.chip_directory(chip).join("config"), [0xff; 64]).unwrap();
    node.until_health(&chip.to_string(), Some(Health::Unhealthy)).await;
    fs::write(&file, "resourceName: example.com/other").unwrap();
    node.plugin().reload.notify_one();
    node.until("the new name", |view| is_streaming(view, "example.com/other")).await;
    node.shows("/livez", "the inventory loop is making progress").await;
    node.shows("/metrics", "rescan_in_progress_seconds ").await;
    assert!(node.plugin().snapshots.borrow().is_some());

    drop(hang);
    fs::write(&file, "").unwrap();
    node.plugin().reload.notify_one();
    node.until("the old name", |view| is_streaming(view, GPU)).await;
}

#[tokio::test]
async fn a_first_scan_that_hangs_leaves_probes_and_sigterm_answered_also_where_devices_are_shared()
{
    let shared = "sharing: {timeSlicing: {replicas: 2}}";
    let node = TestNode::fixture("mr-v100-x4").config(shared).prepare().await;
    let Some(mut hang) = hang(&node) else { return };
    let mut process = node.start_process();
    hang.is_hit().await;
    process.shows("/livez", "the inventory loop is making progress").await;
    process.shows("/readyz", "has not finished").await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ends().await, Some(0));
}
