//! The kubelet stops and starts; each time it starts, it removes all sockets.

use std::path::Path;
use std::time::Duration;

use ix_device_plugin::demo::kubelet::{OwnSocket, RegisterBehaviour, Settings};
use ix_device_plugin::model::session::Progress;
use tokio::net::UnixListener;

use crate::support::clock::{soon, within};
use crate::support::daemon::{FOUR_BOARDS, GPU, Host, has_list, recovers, streaming_node};

#[tokio::test]
async fn a_kubelet_that_runs_at_the_start_gets_the_list() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let daemon = host.daemon();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_kubelet_that_was_away_at_the_start_gets_the_list_when_it_starts() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    kubelet.stop(OwnSocket::Removed).await.unwrap();
    let daemon = host.daemon();
    host.socket_is_there(true).await;
    daemon.is(Progress::Waiting).await;
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_kubelet_that_makes_its_directory_gets_the_list() {
    let host = Host::new(FOUR_BOARDS);
    let daemon = host.daemon();
    daemon.is(Progress::Waiting).await;
    let kubelet = host.kubelet(Settings::default()).await;
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_restart_before_the_socket_is_bound_loses_nothing() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let daemon = host.daemon();
    // The daemon has not run yet: this task has not waited.
    assert!(!host.socket().exists());
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_restart_between_bind_and_register_loses_nothing() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    kubelet.stop(OwnSocket::LeftBehind).await.unwrap();
    let daemon = host.daemon();
    host.socket_is_there(true).await;
    assert_eq!(kubelet.view().borrow().register_calls, 0);
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_restart_during_a_call_of_register_loses_nothing() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    kubelet.set_register_behaviour(RegisterBehaviour::Hang).await.unwrap();
    let daemon = host.daemon();
    let called = kubelet.wait_for(|view| view.register_calls > 0);
    soon("a call of Register", called).await.unwrap();
    kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_restart_while_streaming_loses_nothing() {
    let (host, kubelet, daemon) = streaming_node().await;
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn many_restarts_in_a_row_lose_nothing() {
    let (host, kubelet, daemon) = streaming_node().await;
    for _ in 0..20 {
        kubelet.restart().await.unwrap();
        tokio::task::yield_now().await;
    }
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_kubelet_that_was_killed_leaves_a_socket_that_refuses_and_is_waited_for() {
    let (host, kubelet, daemon) = streaming_node().await;
    kubelet.stop(OwnSocket::LeftBehind).await.unwrap();
    daemon.is(Progress::Waiting).await;
    host.socket_is_there(true).await;
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_kubelet_that_was_stopped_is_waited_for() {
    let (host, kubelet, daemon) = streaming_node().await;
    kubelet.stop(OwnSocket::Removed).await.unwrap();
    daemon.is(Progress::Waiting).await;
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_kubelet_without_the_take_over_bug_is_served_as_well() {
    let host = Host::new(FOUR_BOARDS);
    let settings = Settings { takeover_bug: false, ..Settings::default() };
    let kubelet = host.kubelet(settings).await;
    let daemon = host.daemon();
    has_list(&kubelet, &daemon).await;
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

/// Listens on `path` in the kubelet's place and hangs up on so many calls.
async fn hang_up_on(calls: usize, path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    for _ in 0..calls {
        drop(soon("a call", listener.accept()).await.unwrap());
    }
}

#[tokio::test]
async fn calls_that_failed_while_the_kubelet_was_away_do_not_delay_the_next_registration() {
    // From the seventh failure on, the next attempt is at least this far away.
    let longest_wait = Duration::from_millis(250);
    let (host, kubelet, daemon) = streaming_node().await;
    kubelet.stop(OwnSocket::Removed).await.unwrap();
    hang_up_on(8, &host.directory.join("kubelet.sock")).await;
    kubelet.restart().await.unwrap();
    let registered = kubelet.wait_for(|view| view.resources[GPU].registrations == 2);
    let registered = within(longest_wait / 2, registered).await;
    assert!(registered.is_some(), "{:#?}", *kubelet.view().borrow());
    recovers(&host, &kubelet, &daemon).await;
}
