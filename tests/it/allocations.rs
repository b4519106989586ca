//! A restarted container gets the answer to its first Allocate again, however old; it may start only
//! while that still means the same chips.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::time::Duration;

use ix_device_plugin::daemon::allocation_store::{self, AllocationStore, FILE_NAME};
use ix_device_plugin::decide::node::advertise::NodeSnapshot;
use ix_device_plugin::model::allocation::{AllocatedChip, AllocationRecord};
use ix_device_plugin::parse::allocations::parse_allocations;
use ix_device_plugin::wire::v1beta1::PreStartContainerRequest;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::clock::soon;
use crate::support::fixtures::{GPU, node_text};
use crate::support::log::Log;
use crate::support::node_rig::{NodeRig, ids};
use crate::support::test_node::TestNode;

/// Four chips; the one at 15:00.0 is /dev/iluvatar3.
fn before() -> String {
    node_text("mr-v100-x4")
}

/// The chip at 15:00.0 left and came back with another minor.
fn renumbered() -> String {
    before().replace("iluvatar3", "iluvatar4").replace("508:3", "508:4")
}

fn has_node(snapshot: &NodeSnapshot, path: &str) -> bool {
    snapshot
        .inventory
        .chips()
        .iter()
        .any(|chip| chip.node.as_ref().is_some_and(|it| it.path == path))
}

const REFUSAL: &str = "device plugin PreStartContainer rpc failed with err: rpc error: code = \
    FailedPrecondition desc = iluvatar.com/gpu: 0000:15:00.0: chip 0000:15:00.0 was handed out as \
    /dev/iluvatar3 and is /dev/iluvatar4 now; delete the pod, so that its successor gets devices \
    anew";

/// A node on which `pod` holds 15:00.0.
async fn one_pod(yaml: &str) -> NodeRig {
    let stage = TestNode::new(&before()).config(yaml).start().await;
    let given = stage.admit("pod", GPU, 1).await;
    assert!(ids(&given, GPU)[0].starts_with("0000:15:00.0"), "{given:?}");
    assert_eq!(given.containers[0].injection.devices[0].host_path, "/dev/iluvatar3");
    stage
}

#[tokio::test]
async fn a_container_starts_again_and_again_while_nothing_changes() {
    let stage = one_pod("").await;
    for _ in 0..3 {
        let nodes = stage.start_pod("pod").await.unwrap();
        assert_eq!(nodes, ["/dev/iluvatar3", "/dev/itrctl"]);
    }
    assert_eq!(stage.log.lines("WARN"), [""; 0]);
}

#[tokio::test]
async fn a_container_whose_chip_was_renumbered_is_refused_and_its_successor_gets_the_right_node() {
    let stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.change(&renumbered(), |snapshot| has_node(snapshot, "/dev/iluvatar4")).await;

    assert_eq!(stage.start_pod("pod").await.unwrap_err(), REFUSAL);
    stage.log.has(
        "WARN a container may not start: 0000:15:00.0: chip 0000:15:00.0 was handed out as \
             /dev/iluvatar3 and is /dev/iluvatar4 now; delete the pod, so that its successor gets \
             devices anew resource=\"iluvatar.com/gpu\"",
    );

    stage.kubelet.remove("pod").await.unwrap();
    let given = stage.admit("successor", GPU, 1).await;
    assert_eq!(ids(&given, GPU), ["0000:15:00.0"]);
    let nodes = stage.start_pod("successor").await.unwrap();
    assert_eq!(nodes, ["/dev/iluvatar4", "/dev/itrctl"]);
}

#[tokio::test]
async fn a_renumbering_while_the_plugin_was_away_is_noticed() {
    let mut stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.stop().await;
    stage.change(&renumbered(), |_| true).await;
    stage.reconfigure("");
    stage.start_again().await;
    assert_eq!(stage.start_pod("pod").await.unwrap_err(), REFUSAL);
}

#[tokio::test]
async fn a_plugin_killed_right_after_a_start_knows_what_was_handed_out() {
    let mut stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.kill();
    let file = fs::read_to_string(stage.file(FILE_NAME)).unwrap();
    let records = parse_allocations(&file).unwrap();
    let record = &records[GPU][&"0000:15:00.0".parse().unwrap()];
    assert_eq!(record.chips[0].node.as_deref(), Some("/dev/iluvatar3"));

    stage.change(&renumbered(), |_| true).await;
    stage.reconfigure("");
    stage.start_again().await;
    assert_eq!(stage.start_pod("pod").await.unwrap_err(), REFUSAL);
}

#[tokio::test]
async fn a_replica_is_checked_as_its_device_is() {
    let stage = one_pod("sharing: {timeSlicing: {replicas: 3}}").await;
    assert_eq!(stage.start_pod("pod").await.unwrap(), ["/dev/iluvatar3", "/dev/itrctl"]);
    stage.change(&renumbered(), |snapshot| has_node(snapshot, "/dev/iluvatar4")).await;
    let refusal = REFUSAL.replacen("0000:15:00.0", "0000:15:00.0::0", 1);
    assert_eq!(stage.start_pod("pod").await.unwrap_err(), refusal);
}

#[tokio::test]
async fn a_chip_that_left_is_named() {
    let stage = one_pod("").await;
    let there = before();
    let others = there.lines().filter(|line| !line.starts_with("0000:15:00.0 ->"));
    let without = others.collect::<Vec<_>>().join("\n");
    stage.change(&without, |snapshot| snapshot.inventory.boards.len() == 3).await;
    let refusal = stage.start_pod("pod").await.unwrap_err();
    let said = refusal.split_once("desc = ").unwrap().1;
    assert_eq!(
        said,
        "iluvatar.com/gpu: 0000:15:00.0: chip 0000:15:00.0 has left since it was handed out; \
         delete the pod, so that its successor gets devices anew"
    );
}

#[tokio::test]
async fn a_reloaded_driver_with_another_major_is_the_same_hardware() {
    let stage = one_pod("").await;
    let reloaded = before().replace("508:", "511:");
    let has_major = |snapshot: &NodeSnapshot| {
        let chips = snapshot.inventory.chips();
        chips.iter().all(|chip| {
            let number = chip.node.as_ref().and_then(|node| node.number);
            number.is_some_and(|number| number.major == 511)
        })
    };
    stage.change(&reloaded, has_major).await;
    assert_eq!(stage.start_pod("pod").await.unwrap(), ["/dev/iluvatar3", "/dev/itrctl"]);
}

#[tokio::test]
async fn a_container_with_what_another_plugin_handed_out_may_start() {
    let mut stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.kill();
    fs::remove_file(stage.file(FILE_NAME)).unwrap();
    stage.change(&renumbered(), |_| true).await;
    stage.reconfigure("");
    stage.start_again().await;
    assert!(stage.start_pod("pod").await.is_ok());
}

#[tokio::test]
async fn a_container_of_a_plugin_whose_ids_were_uuids_may_start() {
    let stage = TestNode::new(&before()).config("").start().await;
    let uuid = "GPU-5fa0ba9a-21f6-5c4c-8e0b-2a6b4f9a7c1d".to_owned();
    let request = PreStartContainerRequest { devices_ids: vec![uuid] };
    let mut client = stage.client("iluvatar-gpu.sock").await;
    client.pre_start_container(request).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_nothing_else_happens() {
    let mut stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.kill();
    let (path, aside) = (stage.file(FILE_NAME), stage.file("iluvatar-gpu.damaged"));
    fs::write(&path, "ix-device-plugin hand").unwrap();

    stage.reconfigure("");
    stage.start_again().await;
    assert!(stage.start_pod("pod").await.is_ok());
    assert_eq!(fs::read_to_string(&aside).unwrap(), "ix-device-plugin hand");
    let said = format!(
        "the file of what was handed out is damaged and set aside: it does not begin with \
         `ix-device-plugin handouts 1` path={} aside={}",
        path.display(),
        aside.display()
    );
    assert_eq!(stage.log.lines("WARN"), [said]);

    let second = stage.admit("second", GPU, 1).await;
    stage.start_pod("second").await.unwrap();
    let records = parse_allocations(&fs::read_to_string(&path).unwrap()).unwrap();
    let id = ids(&second, GPU)[0].parse().unwrap();
    assert_eq!(records[GPU].keys().collect::<Vec<_>>(), [&id]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_counts_as_empty_and_is_named() {
    let log = Log::capture();
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_owned();
    let (store, _keeper) = allocation_store::open(path.clone());
    assert_eq!(node_of(&store, "0000:15:00.0"), None);
    let said = "cannot read what was handed out: Is a directory (os error 21) path=";
    assert_eq!(log.lines("WARN"), [format!("{said}{}", path.display())]);
}

fn record(node: &str) -> AllocationRecord {
    let (address, id) = ("0000:15:00.0".parse().unwrap(), "1e3e:0002".parse().unwrap());
    AllocationRecord { chips: vec![AllocatedChip { address, id, node: Some(node.to_owned()) }] }
}

fn remember(store: &AllocationStore, id: &str, node: &str) {
    store.record(GPU, [(id.parse().unwrap(), record(node))]);
}

fn node_of(store: &AllocationStore, id: &str) -> Option<String> {
    let record = store.find(GPU, id.parse().unwrap())?;
    record.chips[0].node.clone()
}

/// A ledger whose file is kept for as long as the second value lives.
fn store(directory: &TempDir) -> (AllocationStore, JoinSet<()>) {
    let (store, writer) = allocation_store::open(directory.path().join(FILE_NAME));
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    (store, tasks)
}

#[tokio::test]
async fn two_instances_keep_each_others_entries_and_the_newer_one_counts() {
    let directory = TempDir::new().unwrap();
    let (older, _older_task) = store(&directory);
    remember(&older, "0000:15:00.0", "/dev/iluvatar3");
    remember(&older, "0000:2d:00.0", "/dev/iluvatar2");
    soon("the older one", older.settled()).await;

    let (newer, _newer_task) = store(&directory);
    assert_eq!(node_of(&newer, "0000:15:00.0").as_deref(), Some("/dev/iluvatar3"));
    remember(&newer, "0000:15:00.0", "/dev/iluvatar9");
    soon("the newer one", newer.settled()).await;

    remember(&older, "0000:95:00.0", "/dev/iluvatar1");
    soon("the older one", older.settled()).await;
    let (third, _third_task) = store(&directory);
    for instance in [&older, &third] {
        assert_eq!(node_of(instance, "0000:15:00.0").as_deref(), Some("/dev/iluvatar9"));
        assert_eq!(node_of(instance, "0000:2d:00.0").as_deref(), Some("/dev/iluvatar2"));
        assert_eq!(node_of(instance, "0000:95:00.0").as_deref(), Some("/dev/iluvatar1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_the_file_and_not_longer_than_five_seconds() {
    let log = Log::capture();
    let directory = TempDir::new().unwrap();
    let (store, writer) = allocation_store::open(directory.path().join(FILE_NAME));
    remember(&store, "0000:15:00.0", "/dev/iluvatar3");
    let started = Instant::now();
    store.settled().await;
    assert_eq!(started.elapsed(), Duration::from_secs(5), "nobody writes");

    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    let started = Instant::now();
    store.settled().await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(directory.path().join(FILE_NAME).exists());
    assert_eq!(
        log.lines("WARN"),
        ["a container starts before what it was given is in the file; should the plugin restart, \
          that container's devices are not checked again waited=5s"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_delays_a_start_by_five_seconds_and_is_named() {
    let log = Log::capture();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("not-there").join(FILE_NAME);
    let (store, writer) = allocation_store::open(path.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    remember(&store, "0000:15:00.0", "/dev/iluvatar3");
    let started = Instant::now();
    store.settled().await;
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!(node_of(&store, "0000:15:00.0").as_deref(), Some("/dev/iluvatar3"));
    let path = path.display();
    let expected = format!(
        "cannot write what was handed out: No such file or directory (os error 2); trying again \
         path={path}"
    );
    assert_eq!(log.lines("WARN")[0], expected);
    assert_eq!(log.lines("WARN").len(), 2, "it is said once: {:?}", log.lines("WARN"));

    fs::create_dir(directory.path().join("not-there")).unwrap();
    store.settled().await;
    assert_eq!(log.lines("INFO"), [format!("what was handed out is written again path={path}")]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_put_in_its_place_is_tried_again() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(FILE_NAME);
    fs::create_dir(&path).unwrap();
    let log = Log::capture();
    let (store, _task) = store(&directory);
    remember(&store, "0000:15:00.0", "/dev/iluvatar3");
    store.settled().await;
    let said = log.lines("WARN").join("\n");
    let sentence = "cannot write what was handed out: Is a directory (os error 21); trying again";
    assert!(said.contains(sentence), "{said}");

    fs::remove_dir(&path).unwrap();
    store.settled().await;
    let file = fs::read_to_string(&path).unwrap();
    assert_eq!(parse_allocations(&file).unwrap()[GPU].len(), 1);
}
