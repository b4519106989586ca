//! What a ListAndWatch stream carries.

use ix_device_plugin::demo::kubelet::Settings;
use ix_device_plugin::model::config::{Config, ResourceRule, Sharing, SharingPolicy};
use ix_device_plugin::model::health::Health;

use crate::support::clock::soon;
use crate::support::daemon::{FOUR_BOARDS, GPU, Host, node_with, streaming_node};
use crate::support::plugin_client::{lists, next_ids};

const ALL: [&str; 4] = ["0000:15:00.0", "0000:2d:00.0", "0000:95:00.0", "0000:ad:00.0"];

#[tokio::test]
async fn a_stream_begins_with_the_whole_list_and_continues_with_changes() {
    let (host, _kubelet, daemon) = streaming_node().await;
    let mut stream = lists(&host.socket()).await;
    assert_eq!(next_ids(&mut stream).await.unwrap(), ALL);
    let board = daemon.last_board().await;
    // Scans that find nothing new send nothing: the next message is the change.
    daemon.look_again().await;
    daemon.look_again().await;
    daemon.unplug(&host, &board).await;
    assert_eq!(next_ids(&mut stream).await.unwrap(), ALL[..3]);
    daemon.replug(&host, &board).await;
    // The board may have been seen half plugged in; it ends whole.
    while next_ids(&mut stream).await.unwrap() != ALL {}
}

#[tokio::test]
async fn every_stream_gets_every_change() {
    let (host, _kubelet, daemon) = streaming_node().await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(lists(&host.socket()).await);
    }
    for stream in &mut streams {
        assert_eq!(next_ids(stream).await.unwrap(), ALL);
    }
    daemon.unplug(&host, &daemon.last_board().await).await;
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
async fn a_client_that_does_not_read_delays_no_other_and_skips_outdated_lists() {
    let (host, kubelet, daemon) = node_with(FOUR_BOARDS, long_lists()).await;
    let mut slow = lists(&host.socket()).await;
    let board = daemon.last_board().await;
    let changes = 10;
    for _ in 0..changes {
        daemon.unplug(&host, &board).await;
        let less = kubelet.wait_for(|view| view.capacity(GPU) == 1500);
        soon("the kubelet to see a board less", less).await.unwrap();
        daemon.replug(&host, &board).await;
        let whole = kubelet.wait_for(|view| view.allocatable(GPU) == 2000);
        soon("the kubelet to see the board again", whole).await.unwrap();
    }
    daemon.unplug(&host, &board).await;
    let mut read = 1;
    while next_ids(&mut slow).await.unwrap().len() != 1500 || read == 1 {
        read += 1;
    }
    assert!(read < changes, "{read} lists were kept for a client that did not read");
}

#[tokio::test]
async fn a_vanished_board_leaves_the_list_and_a_broken_one_stays_in_it() {
    let (host, kubelet, daemon) = streaming_node().await;
    host.machine.silence("0000:15:00.0".parse().unwrap()).unwrap();
    daemon.look_again().await;
    let broken = kubelet.wait_for(|view| view.allocatable(GPU) == 3);
    let view = soon("a broken board", broken).await.unwrap();
    assert_eq!(view.capacity(GPU), 4);
    assert_eq!(view.resources[GPU].devices["0000:15:00.0"].health, Health::Unhealthy);

    daemon.unplug(&host, &daemon.last_board().await).await;
    let vanished = kubelet.wait_for(|view| view.capacity(GPU) == 3);
    let view = soon("a vanished board", vanished).await.unwrap();
    assert!(!view.resources[GPU].devices.contains_key("0000:ad:00.0"));
}

#[tokio::test]
async fn a_stream_ends_without_an_error_at_shutdown() {
    let (host, _kubelet, daemon) = streaming_node().await;
    let mut stream = lists(&host.socket()).await;
    assert_eq!(next_ids(&mut stream).await.unwrap(), ALL);
    daemon.stop().await.unwrap();
    assert_eq!(next_ids(&mut stream).await, None);
    assert!(!host.socket().exists());
}

#[tokio::test]
async fn a_node_without_a_gpu_lists_zero_devices() {
    let host = Host::new(include_str!("../../fixtures/nodes/empty-host.node"));
    let kubelet = host.kubelet(Settings::default()).await;
    let _daemon = host.daemon();
    let listed = kubelet.wait_for(|view| {
        view.resources.get(GPU).is_some_and(|resource| resource.lists_received > 0)
    });
    let view = soon("a list", listed).await.unwrap();
    assert_eq!((view.capacity(GPU), view.resources[GPU].streams_open), (0, 1));
}
