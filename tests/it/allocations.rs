//! A restarted container gets the answer to its first Allocate again, however old. It may start only
//! while that answer still means the same chips.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ix_device_plugin::daemon::allocation_store::{
    self, AllocationPaths, AllocationStore, AllocationWriter, FILE_NAME, FORMER_FILE_NAME,
};
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::host::files;
use ix_device_plugin::model::allocation::{AllocatedChip, AllocationRecord, AllocationRecords};
use ix_device_plugin::parse::allocations::{parse_allocations, write_allocations};
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
    FailedPrecondition desc = iluvatar.com/gpu: 0000:15:00.0: chip 0000:15:00.0 was allocated as \
    /dev/iluvatar3 but is now /dev/iluvatar4; delete the pod, so that its replacement is allocated \
    devices again";

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
async fn a_container_whose_chip_was_renumbered_is_refused_and_its_replacement_gets_the_right_node()
{
    let stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.change(&renumbered(), |snapshot| has_node(snapshot, "/dev/iluvatar4")).await;

    assert_eq!(stage.start_pod("pod").await.unwrap_err(), REFUSAL);
    stage.log.has(
        "WARN container start refused event=\"StartRefused\" resource=\"iluvatar.com/gpu\" device=0000:15:00.0 \
         error=0000:15:00.0: chip 0000:15:00.0 was allocated as /dev/iluvatar3 but is now \
         /dev/iluvatar4; delete the pod, so that its replacement is allocated devices again",
    );

    stage.kubelet.remove("pod").await.unwrap();
    let given = stage.admit("replacement", GPU, 1).await;
    assert_eq!(ids(&given, GPU), ["0000:15:00.0"]);
    let nodes = stage.start_pod("replacement").await.unwrap();
    assert_eq!(nodes, ["/dev/iluvatar4", "/dev/itrctl"]);
}

#[tokio::test]
async fn a_renumbering_while_the_plugin_was_down_is_detected() {
    let mut stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.stop().await;
    stage.change(&renumbered(), |_| true).await;
    stage.reconfigure("");
    stage.start_again().await;
    assert_eq!(stage.start_pod("pod").await.unwrap_err(), REFUSAL);
}

#[tokio::test]
async fn a_plugin_killed_right_after_a_start_keeps_its_allocation_records() {
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
async fn a_replica_is_verified_as_its_device_is() {
    let stage = one_pod("sharing: {timeSlicing: {replicas: 3}}").await;
    assert_eq!(stage.start_pod("pod").await.unwrap(), ["/dev/iluvatar3", "/dev/itrctl"]);
    stage.change(&renumbered(), |snapshot| has_node(snapshot, "/dev/iluvatar4")).await;
    let refusal = REFUSAL.replacen("0000:15:00.0", "0000:15:00.0::0", 1);
    assert_eq!(stage.start_pod("pod").await.unwrap_err(), refusal);
}

#[tokio::test]
async fn a_removed_chip_is_named() {
    let stage = one_pod("").await;
    let there = before();
    let others = there.lines().filter(|line| !line.starts_with("0000:15:00.0 ->"));
    let without = others.collect::<Vec<_>>().join("\n");
    stage.change(&without, |snapshot| snapshot.inventory.boards.len() == 3).await;
    let refusal = stage.start_pod("pod").await.unwrap_err();
    let said = refusal.split_once("desc = ").unwrap().1;
    assert_eq!(
        said,
        "iluvatar.com/gpu: 0000:15:00.0: chip 0000:15:00.0 was removed after it was allocated; \
         delete the pod, so that its replacement is allocated devices again"
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
async fn a_container_without_a_record_may_start() {
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
async fn a_damaged_file_is_moved_aside_and_allocations_go_on() {
    let mut stage = one_pod("").await;
    stage.start_pod("pod").await.unwrap();
    stage.kill();
    let (path, aside) = (stage.file(FILE_NAME), stage.file("iluvatar-gpu.allocations.damaged"));
    fs::write(&path, "ix-device-plugin alloc").unwrap();

    stage.reconfigure("");
    stage.start_again().await;
    assert!(stage.start_pod("pod").await.is_ok());
    assert_eq!(fs::read_to_string(&aside).unwrap(), "ix-device-plugin alloc");
    let warning = format!(
        "allocation records are damaged; file moved aside event=\"RecordsDamaged\" path={} moved_to={} error=it does not \
         begin with `ix-device-plugin allocations 1`",
        path.display(),
        aside.display()
    );
    assert_eq!(stage.log.lines("WARN"), [warning]);

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
    fs::create_dir(directory.path().join(FILE_NAME)).unwrap();
    let (store, _writer) = open(directory.path());
    assert_eq!(node_of(&store, "0000:15:00.0"), None);
    let path = directory.path().join(FILE_NAME);
    let warning = "cannot read allocation records event=\"RecordsUnreadable\"";
    assert_eq!(
        log.lines("WARN"),
        [format!("{warning} path={} error=Is a directory (os error 21)", path.display())]
    );
}

fn record(node: &str) -> AllocationRecord {
    let (address, id) = ("0000:15:00.0".parse().unwrap(), "1e3e:0002".parse().unwrap());
    AllocationRecord { chips: vec![AllocatedChip { address, id, node: Some(node.to_owned()) }] }
}

fn allocate(store: &AllocationStore, id: &str, node: &str) {
    store.record(GPU, [(id.parse().unwrap(), record(node))].into());
}

fn node_of(store: &AllocationStore, id: &str) -> Option<String> {
    let record = store.find(GPU, id.parse().unwrap())?;
    record.chips[0].node.clone()
}

fn open(directory: &Path) -> (AllocationStore, AllocationWriter) {
    allocation_store::open(AllocationPaths::of(directory), Instant::now())
}

/// A store whose file is kept for as long as the second value lives.
fn store_at(paths: AllocationPaths) -> (AllocationStore, JoinSet<()>) {
    let (store, writer) = allocation_store::open(paths, Instant::now());
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    (store, tasks)
}

fn store(directory: &TempDir) -> (AllocationStore, JoinSet<()>) {
    store_at(AllocationPaths::of(directory.path()))
}

/// The records in the file.
fn records_in(directory: &TempDir) -> AllocationRecords {
    let text = fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
    parse_allocations(&text).unwrap()
}

/// `ID=NODE` of each record.
fn shown(records: &AllocationRecords) -> Vec<String> {
    let records = records.get(GPU).into_iter().flatten();
    let shown = records
        .map(|(id, record)| format!("{id}={}", record.chips[0].node.as_deref().unwrap_or("none")));
    shown.collect()
}

#[tokio::test]
async fn two_instances_keep_each_others_records_and_the_newer_one_counts() {
    let directory = TempDir::new().unwrap();
    let (older, _older_task) = store(&directory);
    allocate(&older, "0000:15:00.0", "/dev/iluvatar3");
    allocate(&older, "0000:2d:00.0", "/dev/iluvatar2");
    soon("the older one", older.synchronised()).await;

    let (newer, _newer_task) = store(&directory);
    assert_eq!(node_of(&newer, "0000:15:00.0").as_deref(), Some("/dev/iluvatar3"));
    allocate(&newer, "0000:15:00.0", "/dev/iluvatar9");
    soon("the newer one", newer.synchronised()).await;

    allocate(&older, "0000:95:00.0", "/dev/iluvatar1");
    soon("the older one", older.synchronised()).await;
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
    let (store, writer) = open(directory.path());
    allocate(&store, "0000:15:00.0", "/dev/iluvatar3");
    let started = Instant::now();
    store.synchronised().await;
    assert_eq!(started.elapsed(), Duration::from_secs(5), "nobody writes");

    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    let started = Instant::now();
    store.synchronised().await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(directory.path().join(FILE_NAME).exists());
    assert_eq!(
        log.lines("WARN"),
        [
            "container starts before its allocation records are in the file; if the plugin restarts, \
          further starts of this container are not verified event=\"StartUnrecorded\" waited=5s"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_delays_a_start_by_five_seconds_and_is_named() {
    let log = Log::capture();
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("not-there");
    let (store, writer) = open(&missing);
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    allocate(&store, "0000:15:00.0", "/dev/iluvatar3");
    let started = Instant::now();
    store.synchronised().await;
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!(node_of(&store, "0000:15:00.0").as_deref(), Some("/dev/iluvatar3"));
    let path = missing.join(FILE_NAME);
    let path = path.display();
    let warning = format!(
        "cannot write allocation records; retrying event=\"RecordsFailed\" path={path} error=No such file or directory (os \
         error 2)"
    );
    assert_eq!(log.lines("WARN")[0], warning);
    assert_eq!(log.lines("WARN").len(), 2, "it is logged once: {:?}", log.lines("WARN"));

    fs::create_dir(&missing).unwrap();
    store.synchronised().await;
    let info =
        format!("allocation records written after failures event=\"RecordsWritten\" path={path}");
    assert_eq!(log.lines("INFO"), [info]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_placed_is_retried() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(FILE_NAME);
    fs::create_dir(&path).unwrap();
    let log = Log::capture();
    let (store, _task) = store(&directory);
    allocate(&store, "0000:15:00.0", "/dev/iluvatar3");
    store.synchronised().await;
    let warnings = log.lines("WARN").join("\n");
    assert!(warnings.contains("cannot write allocation records; retrying"), "{warnings}");
    assert!(warnings.contains("Is a directory (os error 21)"), "{warnings}");

    fs::remove_dir(&path).unwrap();
    store.synchronised().await;
    let file = fs::read_to_string(&path).unwrap();
    assert_eq!(parse_allocations(&file).unwrap()[GPU].len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_allocation_writes_the_file_only_where_it_lacks_the_record() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(FILE_NAME);
    let (store, _task) = store(&directory);
    allocate(&store, "0000:15:00.0", "/dev/iluvatar3");
    store.synchronised().await;
    let version = files::stamp(&path).unwrap();

    // A second is enough for a writer that was woken: this clock stands still while it works.
    let second = Duration::from_secs(1);
    allocate(&store, "0000:15:00.0", "/dev/iluvatar3");
    tokio::time::sleep(second).await;
    store.synchronised().await;
    assert_eq!(files::stamp(&path).unwrap(), version, "nothing changed, nothing is written");

    fs::remove_file(&path).unwrap();
    allocate(&store, "0000:15:00.0", "/dev/iluvatar3");
    tokio::time::sleep(second).await;
    assert_eq!(shown(&records_in(&directory)), ["0000:15:00.0=/dev/iluvatar3"]);

    allocate(&store, "0000:15:00.0", "/dev/iluvatar9");
    tokio::time::sleep(second).await;
    assert_eq!(shown(&records_in(&directory)), ["0000:15:00.0=/dev/iluvatar9"]);
}

#[tokio::test]
async fn a_record_that_another_instance_overwrote_is_restored_before_its_container_starts() {
    let directory = TempDir::new().unwrap();
    let ((older, _older_task), (newer, _newer_task)) = (store(&directory), store(&directory));
    allocate(&older, "0000:15:00.0", "/dev/iluvatar3");
    soon("the older one", older.synchronised()).await;
    // The other one read the file before that and writes what it knows.
    let theirs = [(GPU.to_owned(), [("0000:2d:00.0".parse().unwrap(), record("/dev/x"))].into())];
    fs::write(directory.path().join(FILE_NAME), write_allocations(&theirs.into())).unwrap();

    soon("the older one", older.synchronised()).await;
    let both = ["0000:15:00.0=/dev/iluvatar3", "0000:2d:00.0=/dev/x"];
    assert_eq!(shown(&records_in(&directory)), both);
    soon("the newer one", newer.synchronised()).await;
    assert_eq!(shown(&newer.allocations().records), both);
}

#[tokio::test]
async fn the_last_allocation_counts_even_if_it_repeats_one_before_another_instances() {
    let directory = TempDir::new().unwrap();
    let ((older, _older_task), (newer, _newer_task)) = (store(&directory), store(&directory));
    for (instance, node) in [(&older, "/dev/x3"), (&newer, "/dev/x9"), (&older, "/dev/x3")] {
        allocate(instance, "0000:15:00.0", node);
        soon("the file", instance.synchronised()).await;
        assert_eq!(shown(&records_in(&directory)), [format!("0000:15:00.0={node}")]);
        assert_eq!(node_of(instance, "0000:15:00.0").as_deref(), Some(node));
    }
    soon("the newer one", newer.synchronised()).await;
    assert_eq!(node_of(&newer, "0000:15:00.0").as_deref(), Some("/dev/x3"));
}

/// The older one still serves another resource, and one of that resource's containers starts.
#[tokio::test(start_paused = true)]
async fn an_allocation_that_repeats_one_and_never_starts_overrides_no_later_one() {
    let directory = TempDir::new().unwrap();
    let ((older, _older_task), (newer, _newer_task)) = (store(&directory), store(&directory));
    allocate(&older, "0000:15:00.0", "/dev/x3");
    older.synchronised().await;
    allocate(&older, "0000:15:00.0", "/dev/x3");
    // This clock stands still while a writer works.
    tokio::time::sleep(Duration::from_secs(1)).await;

    allocate(&newer, "0000:15:00.0", "/dev/x9");
    newer.synchronised().await;
    older.synchronised().await;
    newer.synchronised().await;
    assert_eq!(shown(&records_in(&directory)), ["0000:15:00.0=/dev/x9"]);
    assert_eq!(node_of(&newer, "0000:15:00.0").as_deref(), Some("/dev/x9"));
}

#[tokio::test(start_paused = true)]
async fn allocations_have_the_time_at_which_this_process_made_them_and_report_changes() {
    let directory = TempDir::new().unwrap();
    let (older, _older_task) = store(&directory);
    allocate(&older, "0000:15:00.0", "/dev/iluvatar3");
    older.synchronised().await;

    let (store, _task) = store(&directory);
    let mut changes = store.subscribe();
    assert_eq!(shown(&changes.borrow_and_update().records), ["0000:15:00.0=/dev/iluvatar3"]);
    assert!(changes.borrow_and_update().allocated_at.is_empty());
    tokio::time::sleep(Duration::from_secs(7)).await;
    allocate(&store, "0000:2d:00.0", "/dev/iluvatar2");
    soon("its own", changes.changed()).await;
    let allocations = changes.borrow_and_update();
    let id = "0000:2d:00.0".parse().unwrap();
    assert_eq!(allocations.records[GPU].len(), 2);
    assert_eq!(allocations.allocated_at[GPU], [(id, Duration::from_secs(7))].into());
    store.synchronised().await;

    allocate(&older, "0000:95:00.0", "/dev/iluvatar1");
    older.synchronised().await;
    store.synchronised().await;
    soon("the other's", changes.changed()).await;
    assert_eq!(changes.borrow_and_update().records[GPU].len(), 3);
    assert_eq!(store.allocations().allocated_at[GPU].len(), 1);
}

/// A file of these records as it was written under its former name.
fn former_text(records: &[(&str, &str)]) -> String {
    let records = records.iter().map(|(id, node)| (id.parse().unwrap(), record(node)));
    let records = AllocationRecords::from([(GPU.to_owned(), records.collect())]);
    write_allocations(&records).replacen("allocations 1", "handouts 1", 1)
}

#[tokio::test]
async fn a_file_under_the_former_name_is_moved_to_the_new_one() {
    let directory = TempDir::new().unwrap();
    let former = directory.path().join(FORMER_FILE_NAME);
    fs::write(&former, former_text(&[("0000:15:00.0", "/dev/iluvatar3")])).unwrap();
    let (store, writer) = open(directory.path());
    assert_eq!(node_of(&store, "0000:15:00.0").as_deref(), Some("/dev/iluvatar3"));
    assert!(former.exists(), "its records are not in the new file yet");

    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    soon("the new file", store.synchronised()).await;
    assert_eq!(shown(&records_in(&directory)), ["0000:15:00.0=/dev/iluvatar3"]);
    assert!(!former.exists());
}

#[tokio::test(start_paused = true)]
async fn a_file_under_the_former_name_stays_until_the_new_one_is_written() {
    let directory = TempDir::new().unwrap();
    let (path, former) =
        (directory.path().join(FILE_NAME), directory.path().join(FORMER_FILE_NAME));
    fs::write(&former, former_text(&[("0000:15:00.0", "/dev/iluvatar3")])).unwrap();
    fs::create_dir(&path).unwrap();
    let (store, _task) = store(&directory);
    store.synchronised().await;
    assert!(former.exists());
    fs::remove_dir(&path).unwrap();
    store.synchronised().await;
    assert_eq!(shown(&records_in(&directory)), ["0000:15:00.0=/dev/iluvatar3"]);
    assert!(!former.exists());
}

#[tokio::test]
async fn where_both_files_have_a_record_the_one_under_the_new_name_counts() {
    let directory = TempDir::new().unwrap();
    let former = directory.path().join(FORMER_FILE_NAME);
    let (first, task) = store(&directory);
    allocate(&first, "0000:15:00.0", "/dev/iluvatar9");
    soon("the new file", first.synchronised()).await;
    drop(task);
    let old = [("0000:15:00.0", "/dev/iluvatar3"), ("0000:2d:00.0", "/dev/iluvatar2")];
    fs::write(&former, former_text(&old)).unwrap();

    let (second, _task) = store(&directory);
    soon("the new file", second.synchronised()).await;
    let both = ["0000:15:00.0=/dev/iluvatar9", "0000:2d:00.0=/dev/iluvatar2"];
    assert_eq!(shown(&records_in(&directory)), both);
    assert_eq!(shown(&second.allocations().records), both);
    assert!(!former.exists());
}

#[tokio::test]
async fn a_damaged_file_under_the_former_name_is_moved_aside() {
    let log = Log::capture();
    let directory = TempDir::new().unwrap();
    let former = directory.path().join(FORMER_FILE_NAME);
    let text = former_text(&[("0000:15:00.0", "/dev/iluvatar3")]);
    fs::write(&former, text.replace("iluvatar3", "iluvatar4")).unwrap();
    let (store, _task) = store(&directory);
    assert_eq!(node_of(&store, "0000:15:00.0"), None);
    assert!(!former.exists() && directory.path().join("iluvatar-gpu.handouts.damaged").exists());
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("allocation records are damaged"), "{warnings:?}");
    soon("nothing to write", store.synchronised()).await;
    assert!(!directory.path().join(FILE_NAME).exists());
}

#[tokio::test]
async fn a_file_under_the_former_name_that_cannot_be_removed_is_named_and_does_no_harm() {
    let log = Log::capture();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, former_text(&[("0000:15:00.0", "/dev/iluvatar3")])).unwrap();
    // Nobody can remove a name in there, whatever his rights.
    let file = fs::File::open(file).unwrap();
    let former = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let paths =
        || AllocationPaths { current: directory.path().join(FILE_NAME), former: former.clone() };
    let (first, task) = store_at(paths());
    allocate(&first, "0000:15:00.0", "/dev/iluvatar9");
    soon("the new file", first.synchronised()).await;
    drop(task);
    let (second, _task) = store_at(paths());
    soon("the new file", second.synchronised()).await;
    assert_eq!(shown(&second.allocations().records), ["0000:15:00.0=/dev/iluvatar9"]);
    let warning = format!(
        "cannot remove the former file of allocation records; remove it by hand \
         event=\"RecordsFailed\" path={} \
         error=Operation not permitted (os error 1)",
        former.display()
    );
    assert_eq!(log.lines("WARN"), [warning.clone(), warning]);
}
