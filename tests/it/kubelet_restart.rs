//! The kubelet stops and starts; each time it starts, it removes all sockets.

use std::path::Path;

use ix_device_plugin::demo::kubelet::{KubeletSettings, OwnSocket, RegisterBehaviour};
use ix_device_plugin::model::session::Progress;
use tokio::net::UnixListener;

use crate::support::clock::soon;
use crate::support::test_node::TestNode;

#[tokio::test]
async fn a_kubelet_that_is_there_at_the_start_gets_the_list() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.start_plugin();
    node.recovers().await;
}

#[tokio::test]
async fn a_kubelet_that_was_away_at_the_start_gets_the_list_when_it_comes() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    node.start_plugin();
    node.until_socket().await;
    node.plugin().reaches(Progress::Waiting).await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_kubelet_that_comes_with_its_directory_gets_the_list() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    std::fs::remove_dir_all(node.kubelet_directory()).unwrap();
    node.start_plugin();
    node.plugin().reaches(Progress::Waiting).await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_restart_before_the_socket_is_bound_loses_nothing() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.start_plugin();
    // The daemon has not run yet: this task has not waited.
    assert!(!node.socket().exists());
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_restart_between_bind_and_register_loses_nothing() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.stop(OwnSocket::LeftBehind).await.unwrap();
    node.start_plugin();
    node.until_socket().await;
    assert_eq!(node.kubelet.view().borrow().register_calls, 0);
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_restart_while_register_is_under_way_loses_nothing() {
    let mut node = TestNode::fixture("mr-v100-x4").prepare().await;
    node.kubelet.set_register_behaviour(RegisterBehaviour::Hang).await.unwrap();
    node.start_plugin();
    let called = node.kubelet.wait_for(|view| view.register_calls > 0);
    soon("a call of Register", called).await.unwrap();
    node.kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_restart_while_streaming_loses_nothing() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn many_restarts_in_a_row_lose_nothing() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    for _ in 0..20 {
        node.kubelet.restart().await.unwrap();
        tokio::task::yield_now().await;
    }
    node.recovers().await;
}

#[tokio::test]
async fn a_kubelet_that_was_killed_leaves_a_socket_that_refuses_and_is_waited_for() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    node.kubelet.stop(OwnSocket::LeftBehind).await.unwrap();
    node.plugin().reaches(Progress::Waiting).await;
    node.until_socket().await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_kubelet_that_ends_in_good_order_is_waited_for() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    node.plugin().reaches(Progress::Waiting).await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

#[tokio::test]
async fn a_kubelet_without_the_take_over_bug_is_served_as_well() {
    let settings = KubeletSettings { takeover_bug: false, ..KubeletSettings::default() };
    let node = TestNode::fixture("mr-v100-x4").kubelet(settings).start().await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}

/// Listens on `path` in the kubelet's place and hangs up on so many calls.
async fn hang_up_on(calls: usize, path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    for _ in 0..calls {
        drop(soon("a call", listener.accept()).await.unwrap());
    }
}

/// How soon is a matter of the session's state machine, whose tests hold it in simulated time.
#[tokio::test]
async fn calls_that_failed_while_the_kubelet_was_away_do_not_keep_it_from_registering_again() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    hang_up_on(8, &node.kubelet_directory().join("kubelet.sock")).await;
    node.kubelet.restart().await.unwrap();
    node.recovers().await;
}
