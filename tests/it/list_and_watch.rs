//! What a ListAndWatch stream carries.

use ix_device_plugin::model::config::{Config, ResourceRule, Sharing, SharingPolicy};
use ix_device_plugin::model::health::Health;

use crate::support::clock::soon;
use crate::support::fixtures::GPU;
use crate::support::plugin_client::{lists, next_ids};
use crate::support::test_node::TestNode;

const ALL: [&str; 4] = ["0000:15:00.0", "0000:2d:00.0", "0000:95:00.0", "0000:ad:00.0"];

#[tokio::test]
async fn a_stream_begins_with_the_whole_list_and_goes_on_with_changes() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let mut stream = lists(&node.socket()).await;
    assert_eq!(next_ids(&mut stream).await.unwrap(), ALL);
    let board = node.plugin().last_board().await;
    // Looks that find nothing new say nothing: the next message is the change.
    node.plugin().rescan().await;
    node.plugin().rescan().await;
    node.unplug(&board).await;
    assert_eq!(next_ids(&mut stream).await.unwrap(), ALL[..3]);
    node.replug(&board).await;
    // The board may have been seen half plugged in; it ends whole.
    while next_ids(&mut stream).await.unwrap() != ALL {}
}

#[tokio::test]
async fn every_stream_gets_every_change() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(lists(&node.socket()).await);
    }
    for stream in &mut streams {
        assert_eq!(next_ids(stream).await.unwrap(), ALL);
    }
    node.unplug(&node.plugin().last_board().await).await;
    for stream in &mut streams {
        assert_eq!(next_ids(stream).await.unwrap(), ALL[..3]);
    }
}

/// Each list is longer than what a client buffers unread: 64 KiB.
fn long_lists() -> Config {
    let policy = SharingPolicy::Spread;
    let sharing = Sharing { replicas: 500, fail_requests_greater_than_one: false, policy };
    let rule = ResourceRule { sharing: Some(sharing), ..ResourceRule::default() };
    Config { resources: vec![rule], ..Config::default() }
}

#[tokio::test]
async fn a_reader_that_does_not_read_delays_no_other_and_skips_what_is_outdated() {
    let node = TestNode::fixture("mr-v100-x4").configured(long_lists()).start().await;
    let mut slow = lists(&node.socket()).await;
    let board = node.plugin().last_board().await;
    let changes = 10;
    for _ in 0..changes {
        node.unplug(&board).await;
        let less = node.kubelet.wait_for(|view| view.capacity(GPU) == 1500);
        soon("the kubelet to see a board less", less).await.unwrap();
        node.replug(&board).await;
        let whole = node.kubelet.wait_for(|view| view.allocatable(GPU) == 2000);
        soon("the kubelet to see the board again", whole).await.unwrap();
    }
    node.unplug(&board).await;
    let mut read = 1;
    while next_ids(&mut slow).await.unwrap().len() != 1500 || read == 1 {
        read += 1;
    }
    assert!(read < changes, "{read} lists were kept for a client that did not read");
}

#[tokio::test]
async fn a_vanished_board_leaves_the_list_and_a_broken_one_stays_in_it() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    node.machine.stop_answering("0000:15:00.0".parse().unwrap()).unwrap();
    node.plugin().rescan().await;
    let broken = node.kubelet.wait_for(|view| view.allocatable(GPU) == 3);
    let view = soon("a broken board", broken).await.unwrap();
    assert_eq!(view.capacity(GPU), 4);
    assert_eq!(view.resources[GPU].devices["0000:15:00.0"].health, Health::Unhealthy);

    node.unplug(&node.plugin().last_board().await).await;
    let vanished = node.kubelet.wait_for(|view| view.capacity(GPU) == 3);
    let view = soon("a vanished board", vanished).await.unwrap();
    assert!(!view.resources[GPU].devices.contains_key("0000:ad:00.0"));
}

#[tokio::test]
async fn a_stream_ends_in_good_order_at_shutdown() {
    let mut node = TestNode::fixture("mr-v100-x4").start().await;
    let mut stream = lists(&node.socket()).await;
    assert_eq!(next_ids(&mut stream).await.unwrap(), ALL);
    node.stop().await;
    assert_eq!(next_ids(&mut stream).await, None);
    assert!(!node.socket().exists());
}

#[tokio::test]
async fn a_node_without_a_gpu_lists_zero_devices() {
    let node = TestNode::fixture("empty-host").start().await;
    let view = node.kubelet.view().borrow().clone();
    assert_eq!((view.capacity(GPU), view.resources[GPU].streams_open), (0, 1));
}
