//! What an operator reads, whole: each message that no other test holds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::daemon::allocation_store::{self, AllocationPaths};
use ix_device_plugin::daemon::cdi_writer::CdiWriter;
use ix_device_plugin::daemon::plugin_service::{PluginService, Sources};
use ix_device_plugin::daemon::telemetry::Telemetry;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::RegisterBehaviour;
use ix_device_plugin::host::kubelet::RegisterError;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::log_event::LogEvent;
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::wire::v1beta1::device_plugin_server::DevicePlugin;
use ix_device_plugin::wire::v1beta1::{
    AllocateRequest, PreStartContainerRequest, PreferredAllocationRequest,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

use crate::support::binary::{Ran, run};
use crate::support::fixtures::{GPU, inventory_of, node_text};
use crate::support::node_rig::{NodeRig, is_streaming};
use crate::support::test_node::TestNode;

async fn four_boards() -> NodeRig {
    TestNode::fixture("mr-v100-x4").with_http().start().await
}

#[tokio::test]
async fn a_scan_that_fails_is_logged_once_and_the_list_stays() {
    let stage = four_boards().await;
    let devices = stage.root().join("sys/bus/pci/devices");
    fs::rename(&devices, stage.root().join("away")).unwrap();
    for _ in 0..3 {
        stage.plugin().triggers.send(RescanTrigger::Request).await.unwrap();
    }
    let said = format!(
        "WARN scan failed; keeping the last inventory and retrying event=\"ScanFailed\" \
         error=\"cannot read {}: No such file or directory (os error 2); is /sys mounted here?\"\n",
        devices.display()
    );
    stage.log.event(LogEvent::ScanFailed).await;
    stage.log.has(&said);
    assert_eq!(stage.kubelet.view().borrow().allocatable(GPU), 4);
    assert_eq!(stage.log.lines("WARN").len(), 1, "{:?}", stage.log.lines("WARN"));
}

#[tokio::test]
async fn a_board_that_breaks_and_one_that_leaves_are_named_with_the_reason() {
    let stage = four_boards().await;
    let node = node_text("mr-v100-x4");
    let without_node = node.lines().filter(|line| *line != "iluvatar3 : c 508:3");
    let without_node = without_node.collect::<Vec<_>>().join("\n");
    let unhealthy = |snapshot: &NodeSnapshot| !snapshot.inventory.boards[0].reasons.is_empty();
    stage.change(&without_node, unhealthy).await;
    let broken = "device is unhealthy event=\"DeviceUnhealthy\" resource=\"iluvatar.com/gpu\" \
                  device=0000:15:00.0 from=Healthy since=TIME to=Unhealthy \
                  reasons=\"DeviceNodeMissing: 0000:15:00.0: /dev/iluvatar3 is announced in /sys \
                  but is not in /dev\"";
    let said = stage.log.lines("WARN");
    assert_eq!(said.iter().map(|line| without_time(line)).collect::<Vec<_>>(), [broken]);

    stage.change(&node_text("empty-host"), |snapshot| snapshot.inventory.boards.is_empty()).await;
    let left = ["0000:15:00.0", "0000:2d:00.0", "0000:95:00.0", "0000:ad:00.0"];
    let left =
        left.map(|board| format!("board left event=\"BoardLeft\" board={board} model=\"MR-V100\""));
    assert_eq!(stage.log.lines("WARN")[1..], left);
    stage.log.has("INFO no Iluvatar chips found; waiting for one event=\"NoChips\" functions=");
}

/// The line with TIME for the time after `since=`, which must be one.
fn without_time(line: &str) -> String {
    let (before, after) = line.split_once("since=\"").unwrap();
    let (time, after) = after.split_once('"').unwrap();
    assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    format!("{before}since=TIME{after}")
}

#[tokio::test]
async fn a_kubelet_that_refuses_is_quoted_once() {
    let mut stage = TestNode::fixture("mr-v100-x4").prepare().await;
    let refuse = RegisterBehaviour::Refuse("not today".to_owned());
    stage.kubelet.set_register_behaviour(refuse).await.unwrap();
    stage.start_plugin();
    stage.until("three calls", |view| view.register_calls >= 3).await;
    stage.kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    stage.until("a stream", |view| is_streaming(view, GPU)).await;
    let said = "cannot register; trying again event=\"RegistrationFailed\" \
                resource=\"iluvatar.com/gpu\" error=\"the kubelet refused: not today\"";
    assert_eq!(stage.log.lines("WARN"), [said]);
}

#[tokio::test]
async fn why_a_session_restarts_is_logged() {
    let stage = four_boards().await;
    let streams = |view: &ix_device_plugin::demo::kubelet::NodeView, count| {
        is_streaming(view, GPU) && view.resources[GPU].registrations == count
    };
    stage.kubelet.drop_stream(GPU).await.unwrap();
    stage.until("the second stream", |view| streams(view, 2)).await;
    fs::remove_file(stage.file("iluvatar-gpu.sock")).unwrap();
    stage.until("the third stream", |view| streams(view, 3)).await;
    let reasons = [
        "the kubelet's stream ended",
        "the plugin's socket was removed, as a starting kubelet does",
    ];
    let said = reasons.map(|reason| {
        format!(
            "session ended; starting it again event=\"SessionRestarted\" \
             resource=\"iluvatar.com/gpu\" reason=\"{reason}\""
        )
    });
    assert_eq!(stage.log.lines("WARN"), said);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named_once() {
    let mut stage = TestNode::fixture("mr-v100-x4").prepare().await;
    stage.kubelet.stop(ix_device_plugin::demo::kubelet::OwnSocket::Removed).await.unwrap();
    let directory = stage.file("");
    fs::remove_dir_all(&directory).unwrap();
    stage.start_plugin();
    let path = stage.file("iluvatar-gpu.sock");
    let said = format!(
        "WARN cannot listen; trying again event=\"ListenFailed\" resource=\"iluvatar.com/gpu\" \
         error=\"{}: No such file or directory (os error 2)\"\n",
        path.display()
    );
    stage.log.event(LogEvent::ListenFailed).await;
    stage.log.has(&said);
    stage.kubelet.restart().await.unwrap();
    stage.until("a stream", |view| is_streaming(view, GPU)).await;
    assert_eq!(stage.log.lines("WARN").len(), 1, "{:?}", stage.log.lines("WARN"));
}

#[test]
fn a_kubelet_that_is_silent_or_away_is_described() {
    let silent = RegisterError::TimedOut(Duration::from_secs(2));
    assert_eq!(silent.to_string(), "the kubelet did not answer within 2s");
    let refused = std::io::Error::from_raw_os_error(111);
    let away = RegisterError::Connect(PathBuf::from("/k/kubelet.sock"), refused);
    let said = "cannot connect to /k/kubelet.sock: Connection refused (os error 111)";
    assert_eq!(away.to_string(), said);
}

/// What each RPC that needs a list answers under this offer.
async fn refusals(snapshot: Option<NodeSnapshot>) -> Vec<(Code, String)> {
    let directory = TempDir::new().unwrap();
    let (store, _keeper) =
        allocation_store::open(AllocationPaths::of(directory.path()), Instant::now());
    let (_sender, snapshots) = watch::channel(snapshot.map(Arc::new));
    let (_writer, cdi) = CdiWriter::new(snapshots.clone(), false);
    let sources = Sources { snapshots, store, cdi, telemetry: Telemetry::default() };
    let (service, _) = PluginService::new(GPU.to_owned(), sources, CancellationToken::new());
    let preference = PreferredAllocationRequest::default();
    let preference = service.get_preferred_allocation(Request::new(preference)).await.map(drop);
    let allocation = service.allocate(Request::new(AllocateRequest::default())).await.map(drop);
    let start = PreStartContainerRequest::default();
    let start = service.pre_start_container(Request::new(start)).await.map(drop);
    [preference, allocation, start]
        .into_iter()
        .filter_map(Result::err)
        .map(|status| (status.code(), status.message().to_owned()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn before_the_first_scan_and_without_its_resource_a_service_returns_an_error() {
    let unknown = (Code::Unavailable, "the machine has not been scanned yet".to_owned());
    assert_eq!(refusals(None).await, [unknown.clone(), unknown.clone(), unknown]);

    let inventory = inventory_of(&node_text("mr-v100-x4"), &Config::default());
    let mut config = Config::default();
    config.resources[0].name = "example.com/gpu".to_owned();
    let gone = (Code::NotFound, "iluvatar.com/gpu is no longer configured".to_owned());
    assert_eq!(refusals(Some(NodeSnapshot::new(inventory, &config))).await, [gone.clone(), gone]);
}

#[track_caller]
fn check_start(arguments: &[&str], code: i32, expected: &str) {
    let ran = run(&[&["run", "--kubelet-dir=/not/there"], arguments].concat());
    let Ran { code: ended, stdout, stderr } = ran;
    let last = stderr.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>();
    assert_eq!((ended, &*stdout, &*last.join("\n")), (Some(code), "", expected));
}

/// The root is logged before anything of it is read, so a wrong configuration is no hindrance.
#[test]
fn the_log_names_the_node_file_that_was_given() {
    let node = "--root=fixtures/nodes/mr-v100-x4.node";
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "sharing: {timeSlicing: {replicas: 20000}}").unwrap();
    let Ran { code, stderr, .. } = run(&["run", node, "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains(" root=fixtures/nodes/mr-v100-x4.node "), "{stderr}");
}

#[test]
fn a_failed_start_names_the_reason_and_exits_with_its_code() {
    check_start(
        &["--root=/not/there"],
        1,
        "error: cannot read the root /not/there: No such file or directory (os error 2)",
    );
    check_start(
        &["--root=rustfmt.toml"],
        1,
        "error: rustfmt.toml is not a machine: line 1: `max_width = 100` is before the first \
         `[PATH]`; put it below a directory",
    );
    check_start(
        &["--config=/not/there"],
        3,
        "error: cannot read the configuration /not/there: No such file or directory (os error 2)",
    );
}
