//! Node labels: the feature file from the start of the plugin to its end, clean or not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::log_event::LogEvent;
use ix_device_plugin::parse::config::Overrides;
use ix_device_plugin::wire::feature_file::FILE_NAME;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::clock::{eventually, skip_ahead};
use crate::support::test_node::TestNode;

/// After so long the file is written anew.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// After so long a file that is missing is noticed.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The directory of feature files.
struct Features(TempDir);

impl Features {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn config(&self) -> String {
        format!("labels: {{enabled: true, directory: {}}}\n", self.0.path().display())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(FILE_NAME)
    }

    fn inode(&self) -> Option<u64> {
        fs::metadata(self.file()).ok().map(|file| file.ino())
    }

    /// Waits until the file is another than the one with this inode.
    async fn until_written(&self, before: Option<u64>) -> u64 {
        let is_new = async || self.inode().filter(|inode| Some(*inode) != before);
        eventually("another feature file", is_new).await
    }

    async fn until_line(&self, line: &str) {
        let has_line = async || self.text().lines().any(|it| it == line).then_some(());
        eventually(line, has_line).await;
    }

    async fn until_gone(&self) {
        let is_gone = async || self.inode().is_none().then_some(());
        eventually("no feature file", is_gone).await;
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.0.path()).unwrap().next().is_none()
    }
}

fn eight_boards(config: &str) -> TestNode {
    TestNode::fixture("bi-v150-x8").config(config)
}

#[tokio::test]
async fn the_file_has_the_hardware_and_an_expiry_and_follows_the_hardware() {
    let features = Features::new();
    let node = eight_boards(&features.config()).start().await;
    features.until_written(None).await;
    let text = features.text();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let labels: Vec<_> = lines.iter().filter(|line| line.contains("/gpu.")).copied().collect();
    let expected = [
        "iluvatar.com/gpu.boards=8",
        "iluvatar.com/gpu.chips=16",
        "iluvatar.com/gpu.count=16",
        "iluvatar.com/gpu.present=true",
    ];
    assert_eq!(labels, expected);
    assert!(lines.iter().any(|it| it.starts_with("iluvatar.com/ix.driver-version.full=")));
    let expiry = text.lines().find_map(|line| line.strip_prefix("# +expiry-time=")).unwrap();
    let expiry = humantime::parse_rfc3339(expiry).unwrap();
    let left = expiry.duration_since(SystemTime::now()).unwrap();
    assert!(left > 2 * REFRESH_INTERVAL, "{left:?}");

    node.unplug(&node.boards[0]).await;
    features.until_line("iluvatar.com/gpu.boards=7").await;
    features.until_line("iluvatar.com/gpu.chips=14").await;
}

#[tokio::test]
async fn the_file_is_renewed_long_before_it_expires_and_when_it_is_missing() {
    let features = Features::new();
    let _node = eight_boards(&features.config()).start().await;
    let first = features.until_written(None).await;
    // Kept open, so that no other file has its inode.
    let _first = fs::File::open(features.file()).unwrap();
    skip_ahead(REFRESH_INTERVAL + CHECK_INTERVAL).await;
    features.until_written(Some(first)).await;
    fs::remove_file(features.file()).unwrap();
    skip_ahead(CHECK_INTERVAL).await;
    features.until_written(None).await;
}

#[tokio::test]
async fn a_plugin_that_stops_leaves_nothing() {
    let features = Features::new();
    let mut node = eight_boards(&features.config()).start().await;
    features.until_written(None).await;
    node.stop().await;
    assert!(features.is_empty());
}

#[tokio::test]
async fn the_file_of_a_newer_instance_stays_when_the_older_one_stops() {
    let features = Features::new();
    let mut node = eight_boards(&features.config()).start().await;
    let older = features.until_written(None).await;
    let newer = node.another_plugin();
    let inode = features.until_written(Some(older)).await;
    node.stop().await;
    assert_eq!(features.inode(), Some(inode));
    newer.stop().await.unwrap();
    assert!(features.is_empty());
}

#[tokio::test]
async fn sigterm_removes_the_file_and_sigkill_leaves_it_to_expire() {
    let features = Features::new();
    let node = eight_boards(&features.config()).prepare().await;
    let mut killed = node.start_process();
    features.until_written(None).await;
    killed.signal(Signal::SIGKILL);
    killed.ends().await;
    assert!(features.text().contains("# +expiry-time="));

    let left = features.inode();
    let _left = fs::File::open(features.file()).unwrap();
    let mut stopped = node.start_process();
    features.until_written(left).await;
    stopped.signal(Signal::SIGTERM);
    assert_eq!(stopped.ends().await, Some(0));
    assert!(features.is_empty());
}

#[tokio::test]
async fn a_node_that_loses_its_last_chip_loses_its_labels() {
    let features = Features::new();
    let node = eight_boards(&features.config()).start().await;
    features.until_written(None).await;
    for board in &node.boards {
        node.unplug(board).await;
    }
    features.until_gone().await;
}

#[tokio::test]
async fn labels_that_are_switched_off_are_removed() {
    let features = Features::new();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    fs::write(&file, features.config()).unwrap();
    let source = ConfigSource::new(Some(&file), Overrides::default());
    let _node = TestNode::fixture("bi-v150-x8").config_file(&source).start().await;
    features.until_written(None).await;
    fs::write(&file, "labels: {enabled: false}").unwrap();
    features.until_gone().await;
}

#[tokio::test]
async fn a_missing_directory_is_reported_once_and_used_when_it_is_there() {
    let features = Features::new();
    let directory = features.0.path().join("features.d");
    let config = format!("labels: {{enabled: true, directory: {}}}\n", directory.display());
    let node = eight_boards(&config).start().await;
    node.log.event(LogEvent::LabelsFailed).await;
    skip_ahead(CHECK_INTERVAL).await;
    fs::create_dir(&directory).unwrap();
    skip_ahead(CHECK_INTERVAL).await;
    let is_there = async || directory.join(FILE_NAME).exists().then_some(());
    eventually("the feature file", is_there).await;
    let warnings = node.log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}
