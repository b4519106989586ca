//! Each fault of the session with a kubelet that keeps running, one by one.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use ix_device_plugin::demo::kubelet::{
    EmbeddedKubelet, KubeletSettings, OwnSocket, RegisterBehaviour,
};
use ix_device_plugin::model::session::Progress;

use crate::support::clock::{soon, within};
use crate::support::fixtures::GPU;
use crate::support::node_rig::NodeRig;
use crate::support::plugin::Plugin;
use crate::support::plugin_client::{lists, next_ids};
use crate::support::test_node::TestNode;

const ONE_SECOND: Duration = Duration::from_secs(1);

/// Waits for so many accepted registrations: a list that is merely still there proves nothing.
async fn registers_within(limit: Duration, kubelet: &EmbeddedKubelet, registrations: u64) {
    let registered = kubelet.wait_for(|view| view.resources[GPU].registrations >= registrations);
    let seen = within(limit, registered).await;
    assert!(seen.is_some(), "not within {limit:?}: {:#?}", *kubelet.view().borrow());
}

#[tokio::test]
async fn a_refused_registration_is_repeated_until_it_is_accepted() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    let refuse = RegisterBehaviour::Refuse("not today".to_owned());
    node.kubelet.set_register_behaviour(refuse).await.unwrap();
    node.start_plugin();
    soon("a fifth call", node.kubelet.wait_for(|view| view.register_calls >= 5)).await.unwrap();
    node.kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_slow_registration_is_waited_for() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    let slow = RegisterBehaviour::Delay(Duration::from_millis(100));
    node.kubelet.set_register_behaviour(slow).await.unwrap();
    node.start_plugin();
    node.recovers().await;
}

#[tokio::test]
async fn a_registration_slower_than_our_timeout_still_counts_when_it_succeeds() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    let slow = RegisterBehaviour::Delay(Duration::from_millis(700));
    node.kubelet.set_register_behaviour(slow).await.unwrap();
    node.start_plugin();
    soon("a second call", node.kubelet.wait_for(|view| view.register_calls == 2)).await.unwrap();
    node.until_current().await;
    node.recovers().await;
}

#[tokio::test]
async fn a_registration_that_hangs_is_cancelled_and_repeated() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.set_register_behaviour(RegisterBehaviour::Hang).await.unwrap();
    node.start_plugin();
    soon("a call", node.kubelet.wait_for(|view| view.register_calls == 1)).await.unwrap();
    node.kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_stream_that_the_kubelet_ends_is_replaced() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    node.kubelet.drop_stream(GPU).await.unwrap();
    let ended = node.kubelet.wait_for(|view| view.resources[GPU].last_stream_end.is_some());
    soon("the stream to end", ended).await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn another_client_s_stream_does_not_hide_that_the_kubelet_s_ended() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let mut foreign = lists(&node.socket()).await;
    assert_eq!(next_ids(&mut foreign).await.unwrap().len(), 4);
    node.kubelet.drop_stream(GPU).await.unwrap();
    let ended = node.kubelet.wait_for(|view| view.resources[GPU].last_stream_end.is_some());
    soon("the stream to end", ended).await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_delay_a_new_session() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let _unread = lists(&node.socket()).await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_socket_that_is_deleted_is_made_again() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    fs::remove_file(node.socket()).unwrap();
    registers_within(ONE_SECOND, &node.kubelet, 2).await;
    node.recovers().await;
}

#[tokio::test]
async fn a_dead_socket_at_our_path_is_replaced() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    fs::remove_file(node.socket()).unwrap();
    drop(UnixListener::bind(node.socket()).unwrap());
    registers_within(ONE_SECOND, &node.kubelet, 2).await;
    node.recovers().await;
}

#[tokio::test]
async fn a_live_socket_at_our_path_has_precedence_and_is_replaced_when_it_is_dead() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let other = node.file("other.sock");
    let listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, node.socket()).unwrap();
    node.kubelet.drop_stream(GPU).await.unwrap();
    node.plugin().reaches(Progress::Yielded).await;
    drop(listener);
    node.recovers().await;
}

#[tokio::test]
async fn an_instance_that_yielded_takes_over_when_the_other_removes_its_socket() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let other = node.file("other.sock");
    let _listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, node.socket()).unwrap();
    node.kubelet.drop_stream(GPU).await.unwrap();
    node.plugin().reaches(Progress::Yielded).await;
    fs::remove_file(node.socket()).unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_directory_that_is_deleted_and_made_again_is_found() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    fs::remove_dir_all(node.kubelet_directory()).unwrap();
    node.plugin().reaches(Progress::Waiting).await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn another_directory_at_the_path_of_the_watched_one_is_found() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    fs::rename(node.kubelet_directory(), node.kubelet_directory().with_extension("old")).unwrap();
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_path_that_cannot_be_bound_is_tried_until_it_can() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    fs::remove_dir_all(node.kubelet_directory()).unwrap();
    // As a full disk does, a file in the place of the directory fails every bind.
    fs::write(node.kubelet_directory(), "in the way").unwrap();
    node.start_plugin();
    node.plugin().reaches(Progress::Waiting).await;
    fs::remove_file(node.kubelet_directory()).unwrap();
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_directory_at_our_path_is_waited_out() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    fs::create_dir(node.socket()).unwrap();
    node.start_plugin();
    node.plugin().reaches(Progress::Waiting).await;
    fs::remove_dir(node.socket()).unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn with_inotify_a_kubelet_that_starts_is_noticed_before_the_next_poll() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    node.start_plugin();
    node.until_socket().await;
    node.kubelet.restart().await.unwrap();
    let half_a_poll = Duration::from_millis(250);
    node.recovers_within(half_a_poll, node.plugin()).await.unwrap();
}

#[tokio::test]
async fn without_inotify_a_kubelet_that_starts_is_noticed_within_two_seconds() {
    let mut node = TestNode::fixture("mr-v100-x4").without_inotify().prepare().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    node.start_plugin();
    node.until_socket().await;
    node.kubelet.restart().await.unwrap();
    node.recovers_within(2 * ONE_SECOND, node.plugin()).await.unwrap();
}

#[tokio::test]
async fn without_inotify_a_deleted_socket_is_noticed_within_two_seconds() {
    let mut node = TestNode::fixture("mr-v100-x4").without_inotify().prepare().await;
    node.start_plugin();
    node.until_current().await;
    fs::remove_file(node.socket()).unwrap();
    registers_within(2 * ONE_SECOND, &node.kubelet, 2).await;
    node.recovers_within(2 * ONE_SECOND, node.plugin()).await.unwrap();
}

/// A node whose own plugin is the older instance, and a newer one; both have a stream.
async fn rolling_update(takeover_bug: bool) -> (NodeRig, Plugin) {
    let settings = KubeletSettings { takeover_bug, ..KubeletSettings::default() };
    let node = TestNode::fixture("mr-v100-x4").kubelet(settings).start().await;
    node.plugin().reaches(Progress::Streaming).await;
    let newer = node.another_plugin();
    newer.reaches(Progress::Streaming).await;
    (node, newer)
}

const EVERY_KUBELET: [bool; 2] = [true, false];

#[tokio::test]
async fn in_a_rolling_update_the_newer_instance_ends_up_with_the_stream() {
    for takeover_bug in EVERY_KUBELET {
        let (mut node, newer) = rolling_update(takeover_bug).await;
        node.stop().await;
        node.recovers_with(&newer).await;
        newer.reaches(Progress::Streaming).await;
        assert!(node.socket().exists(), "the older instance took the newer's socket with it");
    }
}

#[tokio::test]
async fn the_older_instance_takes_over_when_the_newer_ends() {
    for takeover_bug in EVERY_KUBELET {
        let (node, newer) = rolling_update(takeover_bug).await;
        newer.stop().await.unwrap();
        node.recovers().await;
    }
}

#[tokio::test]
async fn the_older_instance_yields_when_both_lose_their_streams_and_takes_over_when_the_newer_ends()
{
    for takeover_bug in EVERY_KUBELET {
        let (node, newer) = rolling_update(takeover_bug).await;
        node.kubelet.drop_stream(GPU).await.unwrap();
        // Whichever comes last stands in the other's place, and there is only one place.
        tokio::select! {
            () = node.plugin().reaches(Progress::Yielded) => {}
            () = newer.reaches(Progress::Yielded) => panic!("the newer instance yielded"),
        }
        node.recovers_with(&newer).await;
        newer.stop().await.unwrap();
        node.recovers().await;
    }
}
