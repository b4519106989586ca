//! An operator keeps a board or a chip from new pods: the built command, its file, a plugin and a
//! kubelet.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ix_device_plugin::daemon::cordon_watch::CordonWatch;
use ix_device_plugin::demo::kubelet::OwnSocket;
use ix_device_plugin::host::cordon_file::FILE_NAME;
use ix_device_plugin::model::cordon::{CordonList, CordonUsage};
use ix_device_plugin::model::health::{Health, ReasonCode};
use ix_device_plugin::model::warning::WarningCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::binary::{Ran, binary, ran};
use crate::support::clock::soon;
use crate::support::fixtures::GPU;
use crate::support::log::Log;
use crate::support::node_rig::{NodeRig, ids};
use crate::support::test_node::TestNode;

const X8: &str = "bi-v150-x8";

/// The first and the last board of that machine, and the chips of the last.
const FIRST: &str = "0000:13:00.0";
const LAST: &str = "0000:64:00.0";
const CHIPS_OF_LAST: [&str; 2] = ["0000:64:00.0", "0000:67:00.0"];

/// The command on a shipped machine whose kubelet has this directory.
fn command(directory: &Path, arguments: &[&str]) -> Ran {
    let mut command = binary();
    command.args(arguments).env("IX_KUBELET_DIR", directory);
    command.env("IX_ROOT", format!("fixtures/nodes/{X8}.node"));
    ran(&command.output().unwrap())
}

impl NodeRig {
    /// Runs `cordon` or `uncordon` on this node, which must work.
    fn operator(&self, arguments: &[&str]) -> String {
        let Ran { code, stdout, stderr } = command(&self.kubelet_directory(), arguments);
        assert_eq!((code, &*stderr), (Some(0), ""), "{arguments:?}");
        stdout
    }
}

#[tokio::test]
async fn a_cordoned_board_goes_to_no_new_pod_and_its_pod_keeps_it_until_it_ends() {
    let node = TestNode::fixture(X8).with_pod_resources().with_http().start().await;
    let held = ids(&node.admit("train", GPU, 1).await, GPU).remove(0);
    let nodes = node.start_pod("train").await.unwrap();

    node.operator(&["cordon", &held, "--reason", "RMA-1234"]);
    node.until_health(&held, Some(Health::Unhealthy)).await;
    node.shows("/metrics", &format!("cordoned_pods{{cordon=\"{held}\"}} 1.0\n")).await;
    let document = node.asked("/status").await.text;
    let status: Value = serde_json::from_str(&document).unwrap();
    let expected = json!([{
        "id": held,
        "chips": node.board(&held).chips.iter().map(|it| it.address.to_string()).collect::<Vec<_>>(),
        "reason": "RMA-1234",
        "pods": ["default/train/main"],
    }]);
    assert_eq!(status["cordons"], expected);
    let device = status["resources"][0]["devices"].as_array().unwrap();
    let device = device.iter().find(|device| device["id"] == *held).unwrap();
    assert_eq!(device["reasons"].as_array().unwrap().len(), 1, "one for both chips");
    assert_eq!(device["reasons"][0]["code"], "Cordoned");
    assert_eq!(device["reasons"][0]["detail"], "RMA-1234");

    // Its container may restart, and the others get the others.
    assert_eq!(node.start_pod("train").await.unwrap(), nodes);
    assert!(!ids(&node.admit("rest", GPU, 7).await, GPU).contains(&held));

    node.kubelet.remove("train").await.unwrap();
    node.shows("/metrics", &format!("cordoned_pods{{cordon=\"{held}\"}} 0.0\n")).await;
    node.plugin()
        .until_snapshot("it to be drained", |it| it.cordons[0].usage == CordonUsage::Drained)
        .await;
    node.until_health(&held, Some(Health::Unhealthy)).await;
    assert_eq!(node.operator(&["uncordon", &held]), format!("uncordoned {held}\n"));
    node.until_health(&held, Some(Health::Healthy)).await;
    assert_eq!(node.plugin().snapshot().await.cordons, []);
}

#[tokio::test]
async fn a_board_that_no_pod_holds_is_drained_at_once_and_unknown_without_pod_resources() {
    let node = TestNode::fixture(X8).with_pod_resources().start().await;
    node.operator(&["cordon", LAST]);
    let is_drained = |usage: &CordonUsage| *usage == CordonUsage::Drained;
    node.plugin()
        .until_snapshot("a cordon", |it| it.cordons.iter().any(|it| is_drained(&it.usage)))
        .await;

    let node = TestNode::fixture(X8).with_http().start().await;
    node.operator(&["cordon", LAST]);
    node.until_health(LAST, Some(Health::Unhealthy)).await;
    assert_eq!(node.plugin().snapshot().await.cordons[0].usage, CordonUsage::Unknown);
    assert!(!node.asked("/metrics").await.text.contains("cordoned_pods{"));
}

/// The first list that a new plugin makes has the cordon already.
async fn is_cordoned_from_the_first_list(node: &mut NodeRig) {
    node.start_plugin();
    let snapshot = node.plugin().snapshot().await;
    let device = snapshot.resources[0].find(LAST.parse().unwrap()).unwrap();
    let codes: Vec<_> = device.reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [ReasonCode::Cordoned]);
    node.until_current().await;
    node.until_health(LAST, Some(Health::Unhealthy)).await;
}

#[tokio::test]
async fn a_cordon_outlives_the_plugin_and_the_node() {
    let mut node = TestNode::fixture(X8).start().await;
    node.operator(&["cordon", LAST]);
    node.until_health(LAST, Some(Health::Unhealthy)).await;
    node.stop().await;
    is_cordoned_from_the_first_list(&mut node).await;
    node.kill();
    is_cordoned_from_the_first_list(&mut node).await;

    // A reboot: everything ends, sockets are gone, other files stay.
    node.kill();
    node.kubelet.stop(OwnSocket::Removed).await.unwrap();
    let _ = fs::remove_file(node.socket());
    node.kubelet.restart().await.unwrap();
    is_cordoned_from_the_first_list(&mut node).await;
    node.operator(&["uncordon", LAST]);
    node.until_health(LAST, Some(Health::Healthy)).await;
}

#[tokio::test]
async fn a_cordoned_board_that_leaves_comes_back_cordoned() {
    let node = TestNode::fixture(X8).start().await;
    node.operator(&["cordon", LAST, "--reason", "fan"]);
    node.until_health(LAST, Some(Health::Unhealthy)).await;
    let board = node.board(LAST);
    node.unplug(&board).await;
    node.until_health(LAST, None).await;
    let listed = node.operator(&["cordon", "--list"]);
    assert!(listed.contains(LAST), "{listed}");
    node.replug(&board).await;
    node.until_health(LAST, Some(Health::Unhealthy)).await;
    assert_eq!(node.board(LAST).reasons[0].code, ReasonCode::Cordoned);
}

#[tokio::test]
async fn all_replicas_of_a_cordoned_device_are_cordoned() {
    let config = "sharing: {timeSlicing: {replicas: 4}}";
    let mut node = TestNode::fixture(X8).config(config).with_pod_resources().start().await;
    let held = ids(&node.admit("train", GPU, 1).await, GPU).remove(0);
    let device = held.split("::").next().unwrap().to_owned();
    let nodes = node.start_pod("train").await.unwrap();
    node.operator(&["cordon", &device]);
    for replica in 0..4 {
        node.until_health(&format!("{device}::{replica}"), Some(Health::Unhealthy)).await;
    }
    node.until_healthy(7 * 4).await;
    assert_eq!(node.start_pod("train").await.unwrap(), nodes);
    node.kill();
    node.start_again().await;
    node.until_healthy(7 * 4).await;

    let board = node.board(&device);
    node.unplug(&board).await;
    node.replug(&board).await;
    node.until_health(&held, Some(Health::Unhealthy)).await;
    node.until_healthy(7 * 4).await;
    let refused = command(&node.kubelet_directory(), &["cordon", &held]);
    let message = format!(
        "error: `{held}` is a replica, and replicas of a device are cordoned together; type {device}\n"
    );
    assert_eq!((refused.code, refused.stderr), (Some(1), message));
}

#[tokio::test]
async fn a_chip_is_cordoned_alone_where_chips_are_offered_and_with_its_board_where_boards_are() {
    let [lower, upper] = CHIPS_OF_LAST;
    let node = TestNode::fixture(X8).start().await;
    let said = node.operator(&["cordon", upper]);
    let expected = format!(
        "cordoned {upper} (chips {upper}): new pods do not get {GPU} {lower}; pods that have it keep \
         it\n"
    );
    assert_eq!(said, expected);
    node.until_health(lower, Some(Health::Unhealthy)).await;

    let node = TestNode::fixture(X8).config("flags: {splitboard: true}").start().await;
    node.operator(&["cordon", lower, "--splitboard"]);
    node.until_health(lower, Some(Health::Unhealthy)).await;
    node.until_health(upper, Some(Health::Healthy)).await;
    // The same id as a board's, and then all of it is free again.
    let said = node.operator(&["cordon", lower]);
    assert!(said.starts_with(&format!("cordoned {lower} (chips {lower}, {upper}): ")), "{said}");
    node.until_health(upper, Some(Health::Unhealthy)).await;
    node.operator(&["uncordon", lower]);
    node.until_healthy(16).await;
}

#[tokio::test]
async fn a_damaged_file_loses_no_cordon_of_a_running_plugin_and_is_reported_until_it_is_deleted() {
    let mut node = TestNode::fixture(X8).with_http().start().await;
    node.operator(&["cordon", LAST]);
    node.until_health(LAST, Some(Health::Unhealthy)).await;
    fs::write(node.file("half"), "ix-device-plugin cord").unwrap();
    fs::rename(node.file("half"), node.file(FILE_NAME)).unwrap();
    let warning = "warnings{code=\"CordonFileUnusable\"} 1.0\n";
    node.shows("/metrics", warning).await;
    let listed = node.operator(&["cordon", "--list"]);
    assert!(listed.contains(LAST), "{listed}");
    let aside = node.file(&format!("{FILE_NAME}.damaged"));
    assert_eq!(fs::read_to_string(&aside).unwrap(), "ix-device-plugin cord");

    // Damaged while no plugin ran, it can only be reported.
    node.kill();
    fs::write(node.file(FILE_NAME), "{}").unwrap();
    node.start_again().await;
    node.shows("/metrics", warning).await;
    node.until_health(LAST, Some(Health::Healthy)).await;
    let snapshot = node.plugin().snapshot().await;
    let warnings = snapshot.warnings.iter();
    let warnings: Vec<_> =
        warnings.filter(|it| it.code == WarningCode::CordonFileUnusable).collect();
    assert!(warnings[0].detail.contains(&*aside.display().to_string()), "{warnings:?}");
    fs::remove_file(&aside).unwrap();
    node.shows("/metrics", "warnings{code=\"CordonFileUnusable\"} 0.0\n").await;
}

#[track_caller]
fn check(directory: &Path, arguments: &[&str], expected: (i32, &str, &str)) {
    let (code, stdout, stderr) = expected;
    let expected = Ran { code: Some(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() };
    assert_eq!(command(directory, arguments), expected, "{arguments:?}");
}

#[test]
fn the_commands_say_what_they_did_and_what_can_be_typed() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    check(at, &["cordon", "--list"], (0, "nothing is cordoned\n", ""));
    let cordoned = "cordoned 0000:13:00.0 (chips 0000:13:00.0, 0000:16:00.0): new pods do not get \
                    iluvatar.com/gpu 0000:13:00.0; pods that have it keep it\n";
    check(at, &["cordon", FIRST, "--reason", "fan fails, ticket 7"], (0, cordoned, ""));
    let listed = "CORDONED      CHIPS                      REASON\n\
                  0000:13:00.0  0000:13:00.0,0000:16:00.0  fan fails, ticket 7\n";
    check(at, &["cordon", "--list"], (0, listed, ""));

    let part = "error: 0000:16:00.0 is cordoned as part of 0000:13:00.0; type `uncordon \
                0000:13:00.0`\n";
    check(at, &["uncordon", "0000:16:00.0"], (1, "", part));
    let other = format!("error: {LAST} is not cordoned; cordoned: {FIRST}\n");
    check(at, &["uncordon", LAST], (1, "", &other));
    check(at, &["uncordon", FIRST], (0, "uncordoned 0000:13:00.0\n", ""));
    let none = format!("error: {FIRST} is not cordoned; nothing is cordoned\n");
    check(at, &["uncordon", FIRST], (1, "", &none));

    let Ran { code, stderr, .. } = command(at, &["cordon", "0000:99:00.0"]);
    assert_eq!(code, Some(1));
    let unknown = "error: 0000:99:00.0 is not a board or chip of this machine; the boards are \
                   0000:13:00.0, ";
    assert!(stderr.starts_with(unknown) && stderr.contains("; the chips are "), "{stderr}");
    let Ran { code, stderr, .. } = command(at, &["cordon", "gpu0"]);
    assert_eq!(code, Some(1));
    let no_address = "error: `gpu0` is not a PCI address such as `0000:13:00.0`; the boards are ";
    assert!(stderr.starts_with(no_address), "{stderr}");
    assert_eq!(command(at, &["cordon", FIRST, "--reason", "a\nb"]).code, Some(2));
    assert_eq!(command(at, &["cordon"]).code, Some(2));
    assert_eq!(command(at, &["cordon", FIRST, "--list"]).code, Some(2));
    assert_eq!(fs::read_dir(at).unwrap().count(), 0, "files are left");
}

#[test]
fn a_command_that_finds_a_damaged_file_sets_it_aside_and_says_so() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(FILE_NAME);
    fs::write(&file, "{}").unwrap();
    let Ran { code, stderr, .. } = command(directory.path(), &["cordon", "--list"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("iluvatar-gpu.cordons is damaged: it does not begin with"), "{stderr}");
    let Ran { code, stderr, .. } = command(directory.path(), &["cordon", FIRST]);
    let expected = format!(
        "warning: {0} was damaged (it does not begin with `ix-device-plugin cordons 1`) and moved to \
         {0}.damaged; cordon again what it held\n",
        file.display()
    );
    assert_eq!((code, stderr), (Some(0), expected));
}

#[test]
fn without_the_kubelets_directory_the_flag_that_names_it_is_named() {
    let directory = TempDir::new().unwrap();
    let absent = directory.path().join("absent");
    let expected = format!(
        "error: cannot change the cordons in {}/{FILE_NAME} (see --kubelet-dir): No such file or \
         directory (os error 2)\n",
        absent.display()
    );
    check(&absent, &["cordon", FIRST], (1, "", &expected));
}

/// A watch of a directory, under a clock that stands still while anything happens.
struct CordonWatchRig {
    cordons: watch::Receiver<CordonList>,
    _tasks: JoinSet<()>,
}

impl CordonWatchRig {
    fn start(directory: &Path, inotify: bool) -> Self {
        let (watch, cordons) = CordonWatch::open(directory, inotify);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch.run(Instant::now(), CancellationToken::new()));
        Self { cordons, _tasks: tasks }
    }

    async fn noticed_after(&mut self) -> Duration {
        let started = Instant::now();
        soon("a change", self.cordons.changed()).await.unwrap();
        self.cordons.borrow_and_update();
        started.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_noticed_at_once_with_inotify_and_within_a_second_without() {
    for (inotify, limit) in [(true, Duration::ZERO), (false, Duration::from_secs(1))] {
        let directory = TempDir::new().unwrap();
        let mut watching = CordonWatchRig::start(directory.path(), inotify);
        tokio::time::sleep(Duration::from_secs(600)).await;
        for arguments in [&["cordon", FIRST][..], &["cordon", LAST], &["uncordon", FIRST]] {
            assert_eq!(command(directory.path(), arguments).code, Some(0));
            let after = watching.noticed_after().await;
            assert!(after <= limit, "{after:?}");
        }
        assert!(watching.cordons.borrow().cordons.keys().eq([&LAST.parse().unwrap()]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_leaves_the_last_known_cordons() {
    let (directory, log) = (TempDir::new().unwrap(), Log::capture());
    assert_eq!(command(directory.path(), &["cordon", FIRST]).code, Some(0));
    let mut watching = CordonWatchRig::start(directory.path(), false);
    let path = directory.path().join(FILE_NAME);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    watching.noticed_after().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let list = watching.cordons.borrow().clone();
    assert!(list.cordons.contains_key(&FIRST.parse().unwrap()));
    assert!(list.problem.unwrap().starts_with("cannot read the cordons in "));
    assert_eq!(log.lines("WARN").len(), 1, "{:?}", log.lines("WARN"));
}
