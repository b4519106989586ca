//! The built program: its signals, its exit code, its log.

use std::fs;

use ix_device_plugin::demo::kubelet::OwnSocket;
use nix::sys::signal::Signal;

use crate::support::fixtures::GPU;
use crate::support::node_rig::NodeRig;
use crate::support::plugin_client::{lists, next_ids};
use crate::support::test_node::TestNode;

/// Waits until the kubelet has this number of devices over an open stream.
async fn counts(node: &NodeRig, capacity: usize) {
    node.until(&format!("{capacity} devices"), |view| {
        view.resources.get(GPU).is_some_and(|gpu| gpu.streams_open > 0 && gpu.lists_received > 0)
            && view.capacity(GPU) == capacity
    })
    .await;
}

#[tokio::test]
async fn sigterm_ends_it_with_0_while_streams_are_open_and_takes_its_socket_away() {
    let node = TestNode::fixture("mr-v100-x4").prepare().await;
    let mut process = node.start_process();
    counts(&node, 4).await;
    let mut stream = lists(&node.socket()).await;
    let _unread = lists(&node.socket()).await;
    assert_eq!(next_ids(&mut stream).await.unwrap().len(), 4);

    process.signal(Signal::SIGTERM);

    assert_eq!(process.ends().await, Some(0));
    assert!(!node.socket().exists());
    assert!(process.warnings().is_empty(), "something was cut off: {:#?}", process.warnings());
}

#[tokio::test]
async fn sigterm_leaves_the_socket_of_a_newer_instance_alone() {
    let node = TestNode::fixture("mr-v100-x4").prepare().await;
    let mut older = node.start_process();
    counts(&node, 4).await;
    let newer = node.start_process();
    newer.counts("open_streams", "", 1).await;

    older.signal(Signal::SIGTERM);

    assert_eq!(older.ends().await, Some(0));
    counts(&node, 4).await;
    assert!(node.socket().exists());
}

#[tokio::test]
async fn sigterm_ends_it_while_the_kubelet_is_away() {
    let node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    fs::remove_dir_all(node.kubelet_directory()).unwrap();
    let mut process = node.start_process();
    process.warning().await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn sighup_leads_to_another_scan() {
    let node = TestNode::fixture("mr-v100-x4").prepare().await;
    let process = node.start_process();
    counts(&node, 4).await;
    fs::remove_file(node.root().join("sys/bus/pci/devices/0000:ad:00.0")).unwrap();
    process.signal(Signal::SIGHUP);
    node.until_healthy(3).await;
}

#[tokio::test]
async fn without_a_gpu_it_stays_up_lists_nothing_and_logs_why() {
    let node = TestNode::fixture("empty-host").prepare().await;
    let mut process = node.start_process();
    counts(&node, 0).await;
    process.event("an empty scan", |event| event["event"] == "NoChips").await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn a_machine_that_cannot_be_read_yet_is_tried_again_and_never_listed_as_empty() {
    let node = TestNode::fixture("mr-v100-x4").prepare().await;
    let (sys, later) = (node.root().join("sys"), node.root().join("later"));
    fs::rename(&sys, &later).unwrap();
    let process = node.start_process();
    process.counts("rescans_total", "retry", 1).await;
    assert_eq!(node.kubelet.view().borrow().register_calls, 0);

    fs::rename(&later, &sys).unwrap();

    counts(&node, 4).await;
    assert_eq!(node.kubelet.view().borrow().resources[GPU].lists_received, 1);
}
