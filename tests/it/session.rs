//! Each fault of the session with a kubelet that keeps running, one by one.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use ix_device_plugin::demo::kubelet::{EmbeddedKubelet, OwnSocket, RegisterBehaviour, Settings};
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::session::Progress;

use crate::support::clock::{soon, within};
use crate::support::daemon::{
    Daemon, FOUR_BOARDS, GPU, Host, has_list, recovers, recovers_within, streaming_node,
};
use crate::support::plugin_client::{lists, next_ids};

const ONE_SECOND: Duration = Duration::from_secs(1);

/// Waits for so many accepted registrations: a list that is merely still there proves nothing.
async fn registers_within(limit: Duration, kubelet: &EmbeddedKubelet, registrations: u64) {
    let registered = kubelet.wait_for(|view| view.resources[GPU].registrations >= registrations);
    let seen = within(limit, registered).await;
    assert!(seen.is_some(), "not within {limit:?}: {:#?}", *kubelet.view().borrow());
}

#[tokio::test]
async fn a_refused_registration_is_repeated_until_it_is_accepted() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let refuse = RegisterBehaviour::Refuse("not today".to_owned());
    kubelet.set_register_behaviour(refuse).await.unwrap();
    let daemon = host.daemon();
    soon("a fifth call", kubelet.wait_for(|view| view.register_calls >= 5)).await.unwrap();
    kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_slow_registration_is_waited_for() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let slow = RegisterBehaviour::Delay(Duration::from_millis(100));
    kubelet.set_register_behaviour(slow).await.unwrap();
    let daemon = host.daemon();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_registration_slower_than_our_timeout_still_counts_when_it_succeeds() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let slow = RegisterBehaviour::Delay(Duration::from_millis(700));
    kubelet.set_register_behaviour(slow).await.unwrap();
    let daemon = host.daemon();
    soon("a second call", kubelet.wait_for(|view| view.register_calls == 2)).await.unwrap();
    has_list(&kubelet, &daemon).await;
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_registration_that_hangs_is_cancelled_and_repeated() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    kubelet.set_register_behaviour(RegisterBehaviour::Hang).await.unwrap();
    let daemon = host.daemon();
    soon("a call", kubelet.wait_for(|view| view.register_calls == 1)).await.unwrap();
    kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_stream_that_the_kubelet_ends_is_replaced() {
    let (host, kubelet, daemon) = streaming_node().await;
    kubelet.drop_stream(GPU).await.unwrap();
    let ended = kubelet.wait_for(|view| view.resources[GPU].last_stream_end.is_some());
    soon("the stream to end", ended).await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn another_client_s_stream_does_not_hide_that_the_kubelet_s_ended() {
    let (host, kubelet, daemon) = streaming_node().await;
    let mut foreign = lists(&host.socket()).await;
    assert_eq!(next_ids(&mut foreign).await.unwrap().len(), 4);
    kubelet.drop_stream(GPU).await.unwrap();
    let ended = kubelet.wait_for(|view| view.resources[GPU].last_stream_end.is_some());
    soon("the stream to end", ended).await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_delay_a_new_session() {
    let (host, kubelet, daemon) = streaming_node().await;
    let _unread = lists(&host.socket()).await;
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_socket_that_is_deleted_is_made_again() {
    let (host, kubelet, daemon) = streaming_node().await;
    fs::remove_file(host.socket()).unwrap();
    registers_within(ONE_SECOND, &kubelet, 2).await;
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_dead_socket_at_our_path_is_replaced() {
    let (host, kubelet, daemon) = streaming_node().await;
    fs::remove_file(host.socket()).unwrap();
    drop(UnixListener::bind(host.socket()).unwrap());
    registers_within(ONE_SECOND, &kubelet, 2).await;
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_live_socket_at_our_path_has_precedence_and_is_replaced_when_it_is_dead() {
    let (host, kubelet, daemon) = streaming_node().await;
    let other = host.directory.join("other.sock");
    let listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, host.socket()).unwrap();
    kubelet.drop_stream(GPU).await.unwrap();
    daemon.is(Progress::Yielded).await;
    drop(listener);
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn an_instance_that_yielded_takes_over_when_the_other_removes_its_socket() {
    let (host, kubelet, daemon) = streaming_node().await;
    let other = host.directory.join("other.sock");
    let _listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, host.socket()).unwrap();
    kubelet.drop_stream(GPU).await.unwrap();
    daemon.is(Progress::Yielded).await;
    fs::remove_file(host.socket()).unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_directory_that_is_deleted_and_made_again_is_found() {
    let (host, kubelet, daemon) = streaming_node().await;
    kubelet.stop(OwnSocket::Removed).await.unwrap();
    host.remove_directory();
    daemon.is(Progress::Waiting).await;
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn another_directory_at_the_path_of_the_watched_one_is_found() {
    let (host, kubelet, daemon) = streaming_node().await;
    fs::rename(&host.directory, host.directory.with_extension("old")).unwrap();
    kubelet.restart().await.unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_path_that_cannot_be_bound_is_tried_until_it_can() {
    let host = Host::new(FOUR_BOARDS);
    // Like a full disk, a file at the path of the directory makes every bind fail.
    fs::write(&host.directory, "in the way").unwrap();
    let daemon = host.daemon();
    daemon.is(Progress::Waiting).await;
    fs::remove_file(&host.directory).unwrap();
    let kubelet = host.kubelet(Settings::default()).await;
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn a_directory_at_our_path_is_waited_out() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    fs::create_dir(host.socket()).unwrap();
    let daemon = host.daemon();
    daemon.is(Progress::Waiting).await;
    fs::remove_dir(host.socket()).unwrap();
    recovers(&host, &kubelet, &daemon).await;
}

#[tokio::test]
async fn with_inotify_a_kubelet_that_starts_is_noticed_before_the_next_poll() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    kubelet.stop(OwnSocket::Removed).await.unwrap();
    let daemon = host.daemon();
    host.socket_is_there(true).await;
    kubelet.restart().await.unwrap();
    let half_a_poll = Duration::from_millis(250);
    recovers_within(half_a_poll, &host, &kubelet, &daemon).await.unwrap();
}

#[tokio::test]
async fn without_inotify_a_kubelet_that_starts_is_noticed_within_two_seconds() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    kubelet.stop(OwnSocket::Removed).await.unwrap();
    let daemon = host.daemon_with(Config::default(), false);
    host.socket_is_there(true).await;
    kubelet.restart().await.unwrap();
    recovers_within(2 * ONE_SECOND, &host, &kubelet, &daemon).await.unwrap();
}

#[tokio::test]
async fn without_inotify_a_deleted_socket_is_noticed_within_two_seconds() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let daemon = host.daemon_with(Config::default(), false);
    has_list(&kubelet, &daemon).await;
    fs::remove_file(host.socket()).unwrap();
    registers_within(2 * ONE_SECOND, &kubelet, 2).await;
    recovers_within(2 * ONE_SECOND, &host, &kubelet, &daemon).await.unwrap();
}

/// An older and a newer instance, both with a stream.
async fn rolling_update(host: &Host, settings: Settings) -> RollingUpdate {
    let kubelet = host.kubelet(settings).await;
    let older = host.daemon();
    older.is(Progress::Streaming).await;
    let newer = host.daemon();
    newer.is(Progress::Streaming).await;
    RollingUpdate { kubelet, older, newer }
}

struct RollingUpdate {
    kubelet: EmbeddedKubelet,
    older: Daemon,
    newer: Daemon,
}

const EVERY_KUBELET: [bool; 2] = [true, false];

#[tokio::test]
async fn in_a_rolling_update_the_newer_instance_ends_up_with_the_stream() {
    for takeover_bug in EVERY_KUBELET {
        let host = Host::new(FOUR_BOARDS);
        let settings = Settings { takeover_bug, ..Settings::default() };
        let RollingUpdate { kubelet, older, newer } = rolling_update(&host, settings).await;
        older.stop().await.unwrap();
        recovers(&host, &kubelet, &newer).await;
        newer.is(Progress::Streaming).await;
        assert!(host.socket().exists(), "the older instance took the newer's socket with it");
    }
}

#[tokio::test]
async fn the_older_instance_takes_over_when_the_newer_ends() {
    for takeover_bug in EVERY_KUBELET {
        let host = Host::new(FOUR_BOARDS);
        let settings = Settings { takeover_bug, ..Settings::default() };
        let RollingUpdate { kubelet, older, newer } = rolling_update(&host, settings).await;
        newer.stop().await.unwrap();
        recovers(&host, &kubelet, &older).await;
    }
}

#[tokio::test]
async fn the_older_instance_yields_when_both_lose_their_streams_and_takes_over_when_the_newer_ends()
{
    for takeover_bug in EVERY_KUBELET {
        let host = Host::new(FOUR_BOARDS);
        let settings = Settings { takeover_bug, ..Settings::default() };
        let RollingUpdate { kubelet, older, newer } = rolling_update(&host, settings).await;
        kubelet.drop_stream(GPU).await.unwrap();
        // Both have one path; the socket there is the newer instance's.
        tokio::select! {
            () = older.is(Progress::Yielded) => {
                recovers(&host, &kubelet, &newer).await;
                newer.stop().await.unwrap();
                recovers(&host, &kubelet, &older).await;
            }
            () = newer.is(Progress::Yielded) => panic!("the newer instance yielded"),
        }
    }
}
