//! The configuration while the daemon runs: a good change is applied and costs no session, a bad one
//! changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::daemon::config_watch::ConfigWatch;
use ix_device_plugin::daemon::telemetry::Telemetry;
use ix_device_plugin::demo::kubelet::NodeView;
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::config::{Config, Granularity};
use ix_device_plugin::parse::config::Overrides;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::clock::soon;
use crate::support::fixtures::GPU;
use crate::support::http::until_status;
use crate::support::log::Log;
use crate::support::node_rig::{NodeRig, is_streaming};
use crate::support::test_node::TestNode;

/// A line of the metrics after one reload was refused.
const REFUSED: &str = "\niluvatar_device_plugin_config_reloads_total{result=\"refused\"} 1\n";

const SPLIT: &str = "flags: {splitboard: true}";

/// The file of one node.
const OWN: &str = "ix-config.node-1";

/// A ConfigMap volume: the file is a link through `..data`, which is swapped by a rename.
struct ConfigMap {
    directory: TempDir,
    version: u32,
}

impl ConfigMap {
    fn mounted(text: &str) -> Self {
        let mut volume = Self { directory: TempDir::new().unwrap(), version: 0 };
        volume.swap(text);
        symlink("..data/ix-config", volume.file()).unwrap();
        volume
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ix-config")
    }

    fn swap(&mut self, text: &str) {
        self.swap_both(text, None);
    }

    /// As the kubelet does it: a new directory, a new link to it, the link renamed, the old
    /// directory removed. The second text is of a node's own file.
    fn swap_both(&mut self, text: &str, own: Option<&str>) {
        let at = |name: &str| self.directory.path().join(name);
        let (old, new) = (format!("..v{}", self.version), format!("..v{}", self.version + 1));
        fs::create_dir(at(&new)).unwrap();
        fs::write(at(&new).join("ix-config"), text).unwrap();
        if let Some(own) = own {
            fs::write(at(&new).join(OWN), own).unwrap();
        }
        symlink(&new, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        // The first time there is none.
        let _ = fs::remove_dir_all(at(&old));
        // Links to the files come after them, and go after them.
        let _ = fs::remove_file(at(OWN));
        if own.is_some() {
            symlink(Path::new("..data").join(OWN), at(OWN)).unwrap();
        }
        self.version += 1;
    }

    fn source(&self) -> ConfigSource {
        ConfigSource::new(Some(&self.file()), Overrides::default())
    }
}

/// The last step of the path of the file that `/status` names.
fn named_file(status: &serde_json::Value) -> &str {
    status["configuration"]["file"].as_str().unwrap().rsplit('/').next().unwrap()
}

fn registrations(view: &NodeView, resource: &str) -> u64 {
    view.resources.get(resource).map_or(0, |it| it.registrations)
}

/// Eight boards of two chips; the kubelet has a list of boards.
async fn eight_boards(volume: &ConfigMap) -> NodeRig {
    let node = following(volume).start().await;
    assert_eq!(node.kubelet.view().borrow().capacity(GPU), 8);
    node
}

fn following(volume: &ConfigMap) -> TestNode {
    TestNode::fixture("bi-v150-x8").config_file(&volume.source()).with_http()
}

async fn a_change_reaches_the_kubelet_on_the_same_stream(mut volume: ConfigMap, node: TestNode) {
    let node = node.start().await;
    volume.swap(SPLIT);
    let view = node.until("sixteen chips", |view| view.capacity(GPU) == 16).await;
    assert_eq!((view.register_calls, registrations(&view, GPU)), (1, 1));
    let resource = &view.resources[GPU];
    assert_eq!((resource.streams_open, &resource.last_stream_end), (1, &None));
}

#[tokio::test]
async fn a_swapped_config_map_changes_the_list_and_keeps_the_stream() {
    let volume = ConfigMap::mounted("");
    let node = following(&volume);
    a_change_reaches_the_kubelet_on_the_same_stream(volume, node).await;
}

#[tokio::test]
async fn a_swapped_config_map_is_noticed_without_inotify() {
    let volume = ConfigMap::mounted("");
    let node = following(&volume).without_inotify();
    a_change_reaches_the_kubelet_on_the_same_stream(volume, node).await;
}

#[tokio::test]
async fn another_resource_name_starts_a_session_and_ends_the_old_one() {
    let mut volume = ConfigMap::mounted("");
    let node = eight_boards(&volume).await;
    volume.swap("resourceName: example.com/gpu");
    let view = node
        .until("the other name", |view| {
            is_streaming(view, "example.com/gpu") && !view.resources[GPU].registered
        })
        .await;
    assert_eq!(view.capacity("example.com/gpu"), 8);
    assert_eq!(view.resources[GPU].streams_open, 0);
    assert_eq!(view.allocatable(GPU), 0);
    let mut sessions = node.plugin().sessions.clone();
    let names = |view: &std::collections::BTreeMap<String, _>| view.keys().cloned().collect();
    let names: Vec<_> = names(&*soon("it", sessions.wait_for(|it| it.len() == 1)).await.unwrap());
    assert_eq!(names, ["example.com/gpu"]);
    assert!(node.file("iluvatar-gpu.sock").exists(), "what probes look for");
}

#[tokio::test]
async fn a_resource_keeps_its_session_and_socket_when_another_comes_before_it() {
    const ONE: &str = "resources: [{name: a.b/one, match: {addresses: ['0000:13:00.0']}}]";
    const TWO: &str = "resources: [{name: a.b/two, match: {addresses: ['0000:1c:00.0']}}, \
                       {name: a.b/one, match: {addresses: ['0000:13:00.0']}}]";
    const OTHER: &str = "resources: [{name: a.b/two, match: {addresses: ['0000:1c:00.0']}}]";
    let mut volume = ConfigMap::mounted(ONE);
    let node = following(&volume).start().await;
    volume.swap(TWO);
    let view = node.until("the second", |view| is_streaming(view, "a.b/two")).await;
    assert_eq!(registrations(&view, "a.b/one"), 1);
    assert!(is_streaming(&view, "a.b/one"));
    assert!(node.file("iluvatar-gpu-a.b_two.sock").exists());

    // The name that probes look for is taken over.
    volume.swap(OTHER);
    let moved = |view: &NodeView| {
        is_streaming(view, "a.b/two")
            && registrations(view, "a.b/two") == 2
            && view.resources["a.b/one"].streams_open == 0
    };
    node.until("the first socket's new owner", moved).await;
    assert!(node.file("iluvatar-gpu.sock").exists());
}

#[tokio::test]
async fn a_bad_file_changes_nothing_is_reported_whole_and_once_and_a_good_one_still_works() {
    let mut volume = ConfigMap::mounted("");
    let node = eight_boards(&volume).await;
    volume.swap("flags: {splitbord: true, usevolcano: true}");
    let said = format!(
        "WARN configuration refused; the last valid one stays active: {} has 2 problems\n  line 1: \
         flags.splitbord: unknown key; did you mean `splitboard`?\n  line 1: flags.usevolcano: \
         Volcano mode is not supported; set it to false event=\"ConfigurationRefused\"\n",
        volume.file().display()
    );
    node.shows("/metrics", REFUSED).await;
    node.log.has(&said);
    assert_eq!(node.kubelet.view().borrow().capacity(GPU), 8);

    node.plugin().reload.notify_one();
    volume.swap(SPLIT);
    let view = node.until("sixteen chips", |view| view.capacity(GPU) == 16).await;
    assert_eq!(view.register_calls, 1);
    assert_eq!(node.log.lines("WARN").len(), 1, "{:?}", node.log.lines("WARN"));
}

#[tokio::test]
async fn more_replicas_than_a_kubelet_reads_change_nothing_and_the_number_that_fits_is_named() {
    let mut volume = ConfigMap::mounted("");
    let node = eight_boards(&volume).await;
    volume.swap("sharing: {timeSlicing: {replicas: 20000}}");
    node.shows("/metrics", REFUSED).await;
    node.log.has(
        "WARN configuration refused; the last valid one stays active: iluvatar.com/gpu: 20000 replicas of each \
         of 8 devices make a list above the kubelet's limit of 4 MiB; at most 9552 fit event=\"ConfigurationRefused\"\n",
    );
    volume.swap("sharing: {timeSlicing: {replicas: 3}}");
    node.until("24 replicas", |view| view.capacity(GPU) == 24).await;
}

/// A watch of one file under a clock that stands still while anything happens.
struct ConfigWatchRig {
    config: watch::Receiver<Arc<Config>>,
    requests: Arc<Notify>,
    log: Log,
    _tasks: JoinSet<()>,
}

impl ConfigWatchRig {
    fn start(source: &ConfigSource, inotify: bool) -> Self {
        let log = Log::capture();
        let (sender, config) = watch::channel(Arc::new(source.load().unwrap()));
        let (_, snapshots) = watch::channel(None);
        let requests = Arc::new(Notify::new());
        let follow = ConfigWatch::new(
            source.clone(),
            sender,
            snapshots,
            Arc::clone(&requests),
            inotify,
            Telemetry::default(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(follow.run(CancellationToken::new()));
        Self { config, requests, log, _tasks: tasks }
    }

    async fn change(&mut self) -> (Arc<Config>, Duration) {
        let started = Instant::now();
        soon("a change", self.config.changed()).await.unwrap();
        (Arc::clone(&self.config.borrow_and_update()), started.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn without_inotify_a_change_is_noticed_within_a_second() {
    let mut volume = ConfigMap::mounted("");
    let mut watching = ConfigWatchRig::start(&volume.source(), false);
    for text in [SPLIT, "", SPLIT] {
        volume.swap(text);
        let (_, after) = watching.change().await;
        assert!(after <= Duration::from_secs(1), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_inotify_a_change_is_noticed_at_once_also_of_a_file_that_is_written_in_place() {
    let mut volume = ConfigMap::mounted("");
    let mut watching = ConfigWatchRig::start(&volume.source(), true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    volume.swap(SPLIT);
    assert_eq!(watching.change().await.1, Duration::ZERO);

    let directory = TempDir::new().unwrap();
    let path = directory.path().join("ix-config");
    fs::write(&path, "").unwrap();
    let source = ConfigSource::new(Some(&path), Overrides::default());
    let mut watching = ConfigWatchRig::start(&source, true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    fs::write(&path, SPLIT).unwrap();
    assert_eq!(watching.change().await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_a_link_has_elsewhere_is_noticed_within_a_second() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (path, file) = (directory.path().join("ix-config"), elsewhere.path().join("file"));
    fs::write(&file, "").unwrap();
    symlink(&file, &path).unwrap();
    let source = ConfigSource::new(Some(&path), Overrides::default());
    let mut watching = ConfigWatchRig::start(&source, true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    fs::write(&file, SPLIT).unwrap();
    let (_, after) = watching.change().await;
    assert!(after <= Duration::from_secs(1), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_at_once() {
    let mut volume = ConfigMap::mounted("");
    let mut watching = ConfigWatchRig::start(&volume.source(), false);
    tokio::time::sleep(Duration::from_millis(100)).await;
    volume.swap(SPLIT);
    watching.requests.notify_one();
    let (config, after) = watching.change().await;
    assert_eq!(config.resources[0].granularity, Granularity::Chip);
    assert_eq!(after, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn at_its_default_place_a_file_may_come_and_go() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("ix-config");
    let source = ConfigSource::optional(&path, Overrides::default());
    let mut watching = ConfigWatchRig::start(&source, false);
    fs::write(&path, SPLIT).unwrap();
    assert_eq!(watching.change().await.0.resources[0].granularity, Granularity::Chip);
    fs::remove_file(&path).unwrap();
    assert_eq!(*watching.change().await.0, Config::default());
    assert_eq!(watching.log.lines("WARN"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_named_and_is_gone_leaves_the_last_good_configuration() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("ix-config");
    fs::write(&path, SPLIT).unwrap();
    let source = ConfigSource::new(Some(&path), Overrides::default());
    let mut watching = ConfigWatchRig::start(&source, false);
    fs::remove_file(&path).unwrap();
    let said = format!(
        "configuration refused; the last valid one stays active: cannot read the configuration {}: No such \
         file or directory (os error 2) event=\"ConfigurationRefused\"",
        path.display()
    );
    // The file is read many times in that time; nothing is said twice.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(watching.log.lines("WARN"), [said]);
    assert!(!watching.config.has_changed().unwrap());

    fs::write(&path, "").unwrap();
    assert_eq!(*watching.change().await.0, Config::default());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_comes_later_is_found_and_then_watched() {
    let directory = TempDir::new().unwrap();
    let path: &Path = &directory.path().join("ixconfig/ix-config");
    let mut watching =
        ConfigWatchRig::start(&ConfigSource::optional(path, Overrides::default()), true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    fs::create_dir(directory.path().join("ixconfig")).unwrap();
    fs::write(path, SPLIT).unwrap();
    let (config, after) = watching.change().await;
    assert_eq!(config.resources[0].granularity, Granularity::Chip);
    assert!(after <= Duration::from_secs(1), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_file_of_this_node_comes_changes_and_goes_and_is_read_instead_while_it_is_there() {
    for inotify in [true, false] {
        let mut volume = ConfigMap::mounted("");
        let mut watching = ConfigWatchRig::start(&volume.source().for_node("node-1"), inotify);
        let mut of_another = ConfigWatchRig::start(&volume.source().for_node("node-2"), inotify);
        let replicas = |config: &Config| config.resources[0].sharing.map(|it| it.replicas);

        volume.swap_both("", Some(SPLIT));
        let (config, after) = watching.change().await;
        assert_eq!(config.resources[0].granularity, Granularity::Chip);
        assert!(after <= Duration::from_secs(1), "{after:?}");
        // The common file changes too; whoever has one of its own does not read it.
        volume.swap_both("resourceName: a.b/c", Some("sharing: {timeSlicing: {replicas: 3}}"));
        let (config, after) = watching.change().await;
        assert_eq!((replicas(&config), &*config.resources[0].name), (Some(3), GPU));
        assert!(after <= Duration::from_secs(1), "{after:?}");
        assert_eq!(of_another.change().await.0.resources[0].name, "a.b/c");
        volume.swap_both("", None);
        let (config, after) = watching.change().await;
        assert_eq!(*config, Config::default());
        assert!(after <= Duration::from_secs(1), "{after:?}");
        assert_eq!(watching.log.lines("WARN"), [""; 0]);
    }
}

#[tokio::test]
async fn a_wrong_file_of_this_node_changes_nothing_and_is_named_until_it_is_right() {
    let mut volume = ConfigMap::mounted("");
    let source = volume.source().for_node("node-1");
    let node = TestNode::fixture("bi-v150-x8").config_file(&source).with_http().start().await;
    let status = async |what: &str, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        until_status(node.address().await, what, wanted).await
    };
    status("the common file", &|it| named_file(it) == "ix-config").await;
    volume.swap_both("", Some("flags: {splitbord: true}"));
    let refused = status("a refusal", &|it| it["configuration"]["current"] == false).await;
    assert_eq!(named_file(&refused), OWN);
    let text = refused["configuration"]["refused"]["text"].as_str().unwrap();
    assert!(text.contains(OWN) && text.contains("splitbord"), "{text}");
    assert_eq!(node.kubelet.view().borrow().capacity(GPU), 8);

    volume.swap_both("", Some(SPLIT));
    node.until("sixteen chips", |view| view.capacity(GPU) == 16).await;
    let active = status("its own file", &|it| it["configuration"]["current"] == true).await;
    assert_eq!(named_file(&active), OWN);
    volume.swap_both("", None);
    node.until("eight boards", |view| view.capacity(GPU) == 8).await;
    status("the common file", &|it| named_file(it) == "ix-config").await;
}
