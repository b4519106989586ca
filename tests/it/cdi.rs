//! Devices by name, through the Container Device Interface: the file that the daemon keeps, read as
//! a container runtime reads it, and what Allocate answers while the file is there or is not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use container_device_interface::cache::Cache;
use container_device_interface::spec::parse_spec;
use container_device_interface::spec_dirs::with_spec_dirs;
use container_device_interface::{schema, version};
use ix_device_plugin::daemon::cdi_writer::CdiWriter;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::Admission;
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::host::directory_watch::DirectoryWatch;
use ix_device_plugin::model::cdi::CdiSpec;
use ix_device_plugin::model::device::DeviceNode;
use ix_device_plugin::model::log_event::LogEvent;
use ix_device_plugin::parse::config::{Overrides, parse_config};
use nix::sys::signal::Signal;
use oci_spec::runtime::Spec as OciSpec;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::clock::soon;
use crate::support::fixtures::{GPU, inventory_of, node_text};
use crate::support::node_rig::{NodeRig, ids};
use crate::support::process::PluginProcess;
use crate::support::test_node::TestNode;

const FILE: &str = "iluvatar.com-gpu.json";
/// One spec of the kind of ours, as the vendor's tool writes it.
const OTHER: &str = "cdiVersion: 0.5.0\nkind: iluvatar.com/gpu\ndevices:\n- name: '0'\n  \
                     containerEdits: {deviceNodes: [{path: /dev/iluvatar0}]}\n";

/// A directory of specs.
struct Specs(TempDir);

impl Specs {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join(FILE)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn inode(&self) -> u64 {
        fs::metadata(self.file()).unwrap().ino()
    }

    fn names(&self) -> BTreeSet<String> {
        fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// A configuration that writes here, and more of it.
    fn config(&self, more: &str) -> String {
        on(self.path(), more)
    }

    fn on(&self, fixture: &str) -> TestNode {
        TestNode::fixture(fixture).config(&self.config(""))
    }

    /// Waits until the directory is as `wanted`.
    async fn until(&self, what: &str, wanted: impl Fn() -> bool) {
        let watch = DirectoryWatch::open(self.path()).unwrap();
        while !wanted() {
            soon(what, watch.changed()).await.unwrap();
        }
    }

    /// Waits until there is another file than that of this inode.
    async fn until_not(&self, inode: u64) {
        let differs = || fs::metadata(self.file()).is_ok_and(|there| there.ino() != inode);
        self.until("another file", differs).await;
    }

    /// What a container runtime has read from here.
    fn runtime(&self) -> Cache {
        let mut cache = Cache::default();
        with_spec_dirs(&[self.path().to_str().unwrap()])(&mut cache);
        cache.refresh().unwrap();
        cache
    }
}

fn on(directory: &Path, more: &str) -> String {
    format!("cdi:\n  enabled: true\n  specDir: {}\n{more}", directory.display())
}

impl NodeRig {
    /// Waits until a runtime would find what is `wanted`.
    async fn finds(&self, what: &str, wanted: impl Fn(Option<&CdiSpec>) -> bool) {
        let mut view = self.plugin().cdi.clone();
        let found = view.wait_for(|spec| wanted(spec.as_deref()));
        soon(what, found).await.unwrap();
    }

    async fn finds_names(&self, count: usize) {
        let counted = |spec: Option<&CdiSpec>| spec.map_or(0, |spec| spec.devices.len()) == count;
        self.finds(&format!("{count} names"), counted).await;
    }
}

async fn play(fixture: &str, specs: &Specs) -> NodeRig {
    let stage = specs.on(fixture).start().await;
    stage.finds("the spec", |spec| spec.is_some()).await;
    stage
}

fn given(admission: &Admission) -> (Vec<&str>, Vec<&str>) {
    let injection = &admission.containers[0].injection;
    let names = injection.cdi_devices.iter().map(String::as_str);
    let nodes = injection.devices.iter().map(|device| device.host_path.as_str());
    (names.collect(), nodes.collect())
}

/// The same directory with nodes that every machine has, so that a runtime can look at them.
fn with_real_nodes(specs: &Specs) -> Specs {
    let nodes = [
        ("iluvatar0", "null"),
        ("iluvatar1", "zero"),
        ("iluvatar2", "full"),
        ("iluvatar3", "random"),
        ("itrctl", "urandom"),
    ];
    let text = nodes.iter().fold(specs.text(), |text, (ours, real)| text.replace(ours, real));
    let real = Specs::new();
    fs::write(real.file(), text).unwrap();
    real
}

#[tokio::test]
async fn a_runtime_gives_a_container_the_nodes_of_its_names() {
    let specs = Specs::new();
    let stage = play("mr-v100-x4", &specs).await;
    let admission = stage.admit("pod", GPU, 4).await;
    let (names, nodes) = given(&admission);
    assert_eq!((names.len(), nodes.len()), (4, 0));

    let mut container = OciSpec::default();
    let names = names.into_iter().map(str::to_owned).collect();
    with_real_nodes(&specs).runtime().inject_devices(Some(&mut container), names).unwrap();

    let linux = container.linux().as_ref().unwrap();
    let nodes = linux.devices().iter().flatten();
    let mut nodes: Vec<_> = nodes
        .map(|node| format!("{} {}:{}", node.path().display(), node.major(), node.minor()))
        .collect();
    nodes.sort();
    let expected =
        ["/dev/full 1:7", "/dev/null 1:3", "/dev/random 1:8", "/dev/urandom 1:9", "/dev/zero 1:5"];
    assert_eq!(nodes, expected);
    let rules = linux.resources().as_ref().unwrap().devices().iter().flatten();
    let allowed = rules.filter(|rule| rule.allow()).map(|rule| rule.access().clone().unwrap());
    assert_eq!(allowed.collect::<Vec<_>>(), ["rw"; 5]);
}

#[tokio::test]
async fn the_file_is_valid_in_the_lowest_version_and_names_every_chip_and_every_whole_board() {
    let specs = Specs::new();
    let _stage = play("bi-v150-x8", &specs).await;
    schema::validate_builtin(specs.text().as_bytes()).unwrap();
    let lowest = version::minimum_required_version(&parse_spec(&specs.file()).unwrap()).unwrap();
    assert!(specs.text().contains(&format!("\"cdiVersion\": \"{lowest}\"")), "{lowest}");
    let names = specs.runtime().list_devices();
    assert_eq!(names.len(), 24);
    for name in ["0000:13:00.0", "0000:16:00.0", "board-0000:13:00.0"] {
        assert!(names.contains(&format!("iluvatar.com/gpu={name}")), "{names:?}");
    }
    assert_eq!(fs::metadata(specs.file()).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(specs.names(), [FILE.to_owned()].into());
}

#[tokio::test]
async fn allocate_names_chips_and_leaves_nodes_out_and_the_environment_stays() {
    let specs = Specs::new();
    let stage = play("bi-v150-x8", &specs).await;
    let admission = stage.admit("pod", GPU, 1).await;
    let board = &ids(&admission, GPU)[0];
    let snapshot = stage.plugin().snapshots.borrow().clone().unwrap();
    let device = snapshot.resources[0].find(board.parse().unwrap()).unwrap();
    let chips: Vec<_> = device.chips.iter().map(ToString::to_string).collect();
    let names: Vec<_> = chips.iter().map(|chip| format!("iluvatar.com/gpu={chip}")).collect();
    assert_eq!(names.len(), 2);
    let (given, nodes) = given(&admission);
    assert_eq!((given, nodes), (names.iter().map(String::as_str).collect(), vec![]));
    let envs = &admission.containers[0].injection.envs;
    assert_eq!(envs["IX_VISIBLE_DEVICES"], chips.join(","));
    assert_eq!(envs["IX_REPLICA_DEVICES"], *board);
}

#[tokio::test]
async fn device_specs_are_allocated_too_where_so_configured() {
    let specs = Specs::new();
    let stage = TestNode::fixture("mr-v100-x4")
        .config(&specs.config("  deviceSpecs: true\n"))
        .start()
        .await;
    stage.finds_names(4).await;
    let admission = stage.admit("pod", GPU, 1).await;
    let names = vec!["iluvatar.com/gpu=0000:15:00.0"];
    assert_eq!(given(&admission), (names, vec!["/dev/iluvatar3", "/dev/itrctl"]));
}

#[tokio::test]
async fn replicas_of_one_device_have_one_name() {
    let specs = Specs::new();
    let more = "sharing: {timeSlicing: {replicas: 3, policy: pack}}\n";
    let stage = TestNode::fixture("mr-v100-x4").config(&specs.config(more)).start().await;
    stage.finds_names(4).await;
    let admission = stage.admit("pod", GPU, 3).await;
    assert_eq!(given(&admission).0, ["iluvatar.com/gpu=0000:15:00.0"]);
}

#[tokio::test]
async fn several_resources_share_one_spec() {
    let specs = Specs::new();
    let more = "resources: [{name: a.b/one, match: {addresses: ['0000:15:00.0']}}, \
                {name: a.b/two, match: {addresses: ['0000:2d:00.0']}}]\n";
    let stage = TestNode::fixture("mr-v100-x4").config(&specs.config(more)).start().await;
    stage.finds_names(4).await;
    stage.until("the second", |view| view.capacity("a.b/two") == 1).await;
    let admission = stage.admit("pod", "a.b/two", 1).await;
    assert_eq!(given(&admission).0, ["iluvatar.com/gpu=0000:2d:00.0"]);
}

/// The kubelet replays old answers: a name must not have become another's by then.
#[tokio::test]
async fn names_mean_the_same_whether_boards_are_split_or_not() {
    let (whole, split) = (Specs::new(), Specs::new());
    let _whole = play("bi-v150-x8", &whole).await;
    let stage = TestNode::fixture("bi-v150-x8")
        .config(&split.config("flags: {splitboard: true}\n"))
        .start()
        .await;
    stage.finds_names(24).await;
    assert_eq!(split.text(), whole.text());
    let admission = stage.admit("pod", GPU, 1).await;
    let chip = &ids(&admission, GPU)[0];
    assert_eq!(given(&admission).0, [format!("iluvatar.com/gpu={chip}")]);
}

#[tokio::test]
async fn by_default_no_spec_is_written_and_nodes_are_allocated() {
    let specs = Specs::new();
    let stage = TestNode::fixture("mr-v100-x4")
        .config(&format!("cdi: {{specDir: {}}}", specs.path().display()))
        .start()
        .await;
    let admission = stage.admit("pod", GPU, 1).await;
    assert_eq!(given(&admission), (vec![], vec!["/dev/iluvatar3", "/dev/itrctl"]));
    assert_eq!(specs.names(), BTreeSet::new());
}

#[tokio::test]
async fn a_container_with_a_name_restarts_with_the_node_that_its_chip_has_then() {
    let specs = Specs::new();
    let node = node_text("mr-v100-x4");
    let stage = play("mr-v100-x4", &specs).await;
    let admission = stage.admit("pod", GPU, 1).await;
    assert_eq!(given(&admission).0, ["iluvatar.com/gpu=0000:15:00.0"]);
    let renumbered = node.replace("iluvatar3", "iluvatar4").replace("508:3", "508:4");
    let is_there = |node: &DeviceNode| node.path == "/dev/iluvatar4";
    let has_it = |snapshot: &NodeSnapshot| {
        snapshot.inventory.chips().iter().any(|chip| chip.node.as_ref().is_some_and(is_there))
    };
    stage.change(&renumbered, has_it).await;
    stage.start_pod("pod").await.unwrap();
    assert!(specs.text().contains("/dev/iluvatar4") && !specs.text().contains("/dev/iluvatar3"));
}

#[tokio::test]
async fn a_container_with_a_name_is_refused_once_cdi_is_off() {
    let specs = Specs::new();
    let mut stage = play("mr-v100-x4", &specs).await;
    stage.admit("pod", GPU, 1).await;
    stage.start_pod("pod").await.unwrap();
    stage.stop().await;
    stage.reconfigure("");
    stage.start_again().await;
    assert_eq!(
        stage.start_pod("pod").await.unwrap_err(),
        "device plugin PreStartContainer rpc failed with err: rpc error: code = \
         FailedPrecondition desc = iluvatar.com/gpu: 0000:15:00.0: chip 0000:15:00.0 was allocated \
         as iluvatar.com/gpu=0000:15:00.0, but no CDI spec gives that name its device node now; \
         delete the pod, so that its replacement is allocated devices again"
    );
}

/// The machine without its second chip.
fn without_one(node: &str) -> String {
    node.lines()
        .filter(|line| !line.contains("0000:2d:00.0 ->"))
        .fold(String::new(), |text, line| text + line + "\n")
}

#[tokio::test]
async fn the_file_follows_the_machine_and_is_written_only_when_its_content_changes() {
    let specs = Specs::new();
    let node = node_text("mr-v100-x4");
    let stage = play("mr-v100-x4", &specs).await;
    let before = specs.inode();
    // The link is narrower: a new list for the operator, nothing new for a runtime.
    let narrower = node.replace("current_link_width = 16", "current_link_width = 8");
    assert_ne!(narrower, node);
    let boards = stage.plugin().snapshots.borrow().clone().unwrap().inventory.boards.clone();
    stage.change(&narrower, |snapshot| snapshot.inventory.boards != boards).await;
    assert_eq!(specs.inode(), before);

    stage.change(&without_one(&node), |snapshot| snapshot.inventory.boards.len() == 3).await;
    stage.finds_names(3).await;
    assert!(!specs.text().contains("0000:2d:00.0"));
    assert_ne!(specs.inode(), before);
    stage.change(&node, |snapshot| snapshot.inventory.boards.len() == 4).await;
    stage.finds_names(4).await;
}

#[tokio::test]
async fn without_any_device_there_is_no_file() {
    let specs = Specs::new();
    let stage = play("mr-v100-x4", &specs).await;
    stage.change(&node_text("empty-host"), |snapshot| snapshot.inventory.boards.is_empty()).await;
    specs.until("no file", || !specs.file().exists()).await;
    assert_eq!(specs.names(), BTreeSet::new());
    assert_eq!(stage.log.lines("WARN").iter().filter(|line| line.contains("CDI")).count(), 0);
}

#[tokio::test]
async fn a_clean_stop_removes_the_file_and_a_kill_leaves_it_to_the_next_instance() {
    let specs = Specs::new();
    let mut stage = play("mr-v100-x4", &specs).await;
    stage.kill();
    let left = specs.inode();
    stage.start_plugin();
    specs.until_not(left).await;
    stage.stop().await;
    assert_eq!(specs.names(), BTreeSet::new());
}

#[tokio::test]
async fn an_older_instance_that_stops_keeps_the_newer_ones_file() {
    let specs = Specs::new();
    let mut older = play("mr-v100-x4", &specs).await;
    let of_older = specs.inode();
    let _newer = play("mr-v100-x4", &specs).await;
    specs.until_not(of_older).await;
    let of_newer = specs.inode();

    older.stop().await;

    assert_eq!(specs.inode(), of_newer);
}

#[tokio::test]
async fn an_instance_whose_file_is_removed_writes_it_again() {
    let specs = Specs::new();
    let older = play("mr-v100-x4", &specs).await;
    let of_older = specs.inode();
    let mut newer = play("mr-v100-x4", &specs).await;
    specs.until_not(of_older).await;
    let of_newer = specs.inode();
    // While it is open, its inode is given to no other file.
    let _held = fs::File::open(specs.file()).unwrap();
    newer.stop().await;
    specs.until_not(of_newer).await;
    older.finds_names(4).await;
}

#[tokio::test]
async fn a_foreign_file_is_kept_and_nodes_are_allocated() {
    let specs = Specs::new();
    fs::write(specs.file(), "{}").unwrap();
    let stage = specs.on("mr-v100-x4").start().await;
    let said = format!("WARN {} was not written by this plugin", specs.file().display());
    stage.log.event(LogEvent::CdiFailed).await;
    stage.log.has(&said);
    let admission = stage.admit("pod", GPU, 1).await;
    assert_eq!(given(&admission), (vec![], vec!["/dev/iluvatar3", "/dev/itrctl"]));
    assert_eq!(specs.text(), "{}");

    fs::remove_file(specs.file()).unwrap();
    stage.finds_names(4).await;
    stage.log.has("INFO problems of the CDI spec are solved");
    let admission = stage.admit("other", GPU, 1).await;
    assert_eq!(given(&admission).0.len(), 1);
}

#[tokio::test]
async fn our_file_edited_by_hand_is_foreign() {
    let specs = Specs::new();
    let mut stage = play("mr-v100-x4", &specs).await;
    let edited = specs.text().replace("\"rw\"", "\"rwm\"");
    fs::write(specs.path().join("new"), &edited).unwrap();
    fs::rename(specs.path().join("new"), specs.file()).unwrap();
    stage.finds("nothing of ours", |spec| spec.is_none()).await;
    stage.stop().await;
    assert_eq!(specs.text(), edited);
}

#[tokio::test]
async fn a_link_in_the_place_of_our_file_is_not_followed() {
    let specs = Specs::new();
    let target = specs.path().join("target");
    std::os::unix::fs::symlink(&target, specs.file()).unwrap();
    let stage = specs.on("mr-v100-x4").start().await;
    stage.log.event(LogEvent::CdiFailed).await;
    stage.log.has("was not written by this plugin");
    assert!(!target.exists());
}

#[tokio::test]
async fn another_file_of_the_kind_is_reported_and_both_stay() {
    let specs = Specs::new();
    fs::write(specs.path().join("ix.yaml"), OTHER).unwrap();
    let stage = play("mr-v100-x4", &specs).await;
    stage.log.has("ix.yaml is another spec of kind iluvatar.com/gpu");
    assert_eq!(specs.runtime().list_devices().len(), 5);
    assert_eq!(stage.log.lines("WARN").len(), 1, "{:?}", stage.log.lines("WARN"));
}

#[tokio::test]
async fn another_file_with_a_name_of_ours_prevents_our_spec_while_it_exists() {
    let specs = Specs::new();
    let stage = play("mr-v100-x4", &specs).await;
    let same = OTHER.replace("'0'", "'0000:2d:00.0'");
    let (new, other) = (specs.path().join("new"), specs.path().join("ix.yaml"));
    fs::write(&new, same).unwrap();
    fs::rename(new, &other).unwrap();
    stage.finds("nothing of ours", |spec| spec.is_none()).await;
    stage.log.event(LogEvent::CdiFailed).await;
    stage.log.has("ix.yaml also defines iluvatar.com/gpu=0000:2d:00.0");
    assert_eq!(specs.runtime().list_devices(), ["iluvatar.com/gpu=0000:2d:00.0"]);
    let admission = stage.admit("pod", GPU, 1).await;
    assert_eq!(given(&admission).0, [""; 0]);

    fs::remove_file(other).unwrap();
    stage.finds_names(4).await;
    assert_eq!(specs.runtime().list_devices().len(), 4);
}

#[tokio::test]
async fn a_missing_directory_is_never_created_and_is_used_as_soon_as_it_exists() {
    let above = TempDir::new().unwrap();
    let directory = above.path().join("cdi");
    let mut stage = TestNode::fixture("mr-v100-x4").config(&on(&directory, "")).start().await;
    let said = format!(
        "cannot write the CDI spec to {}: No such file or directory (os error 2); allocating plain \
         device nodes; mount the host's directory there, writable, create it if it is missing, or \
         set cdi.enabled: false",
        directory.display()
    );
    stage.log.event(LogEvent::CdiFailed).await;
    stage.log.has(&said);
    let admission = stage.admit("pod", GPU, 1).await;
    assert_eq!(given(&admission).1.len(), 2);
    assert!(!directory.exists());

    fs::create_dir(&directory).unwrap();
    stage.finds_names(4).await;
    assert_eq!(stage.log.lines("WARN"), [format!("{said} event=\"CdiFailed\"")]);
    stage.stop().await;
    assert!(!directory.join(FILE).exists());
}

#[tokio::test]
async fn the_configuration_turns_cdi_on_moves_the_file_and_turns_it_off() {
    let (first, second) = (Specs::new(), Specs::new());
    let config = first.path().join("config");
    fs::write(&config, "").unwrap();
    let source = ConfigSource::new(Some(&config), Overrides::default());
    let mut stage = TestNode::fixture("mr-v100-x4").config_file(&source).start().await;
    let change = |text: &str| {
        fs::write(&config, text).unwrap();
        stage.plugin().reload.notify_one();
    };
    change(&first.config(""));
    stage.finds_names(4).await;
    assert!(first.file().exists());

    change(&second.config(""));
    second.until("the file", || second.file().exists()).await;
    assert!(!first.file().exists());
    stage.finds_names(4).await;

    change("");
    stage.finds("nothing", |spec| spec.is_none()).await;
    let admission = stage.admit("pod", GPU, 1).await;
    assert_eq!(given(&admission), (vec![], vec!["/dev/iluvatar3", "/dev/itrctl"]));
    stage.stop().await;
    assert!(!second.file().exists());
}

#[tokio::test(start_paused = true)]
async fn without_inotify_a_removed_file_is_back_within_two_seconds() {
    let specs = Specs::new();
    let config = parse_config(&specs.config("")).unwrap();
    let inventory = inventory_of(&node_text("mr-v100-x4"), &config);
    let (_offers, receiver) = watch::channel(Some(Arc::new(NodeSnapshot::new(inventory, &config))));
    let (writer, mut view) = CdiWriter::new(receiver, false);
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    soon("the spec", view.wait_for(Option::is_some)).await.unwrap();

    let removed = Instant::now();
    fs::remove_file(specs.file()).unwrap();
    // It may be back before anybody sees that a runtime found nothing.
    soon("a change", view.changed()).await.unwrap();
    soon("the spec again", view.wait_for(Option::is_some)).await.unwrap();
    assert!(removed.elapsed() <= Duration::from_secs(2), "{:?}", removed.elapsed());
    assert!(specs.file().exists());
}

#[tokio::test]
async fn every_user_can_read_the_file_and_sigterm_removes_it() {
    let specs = Specs::new();
    let node = specs.on("mr-v100-x4").prepare().await;
    let program = node.command();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(program.get_program());
    let mut process = PluginProcess::start(shell.args(program.get_args()));
    node.until_healthy(4).await;
    specs.until("the file", || specs.file().exists()).await;
    assert_eq!(fs::metadata(specs.file()).unwrap().permissions().mode() & 0o7777, 0o644);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ends().await, Some(0));
    assert_eq!(specs.names(), BTreeSet::new());
}
