//! The built program: its signals, its exit code, its log.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ix_device_plugin::demo::kubelet::{EmbeddedKubelet, Settings};
use tokio::sync::mpsc;

use crate::support::clock::{soon, within};
use crate::support::daemon::{FOUR_BOARDS, GPU, Host};
use crate::support::plugin_client::{lists, next_ids};

/// Longer than the drain of two seconds.
const DEADLINE: Duration = Duration::from_secs(3);

struct Process {
    child: Child,
    log: mpsc::UnboundedReceiver<String>,
}

impl Process {
    fn run(root: &Path, kubelet_directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ix-device-plugin"))
            .arg("run")
            .arg("--root")
            .arg(root)
            .arg("--kubelet-dir")
            .arg(kubelet_directory)
            .args(["--http", "off"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, log }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until the log has a line with this text.
    async fn says(&mut self, text: &str) {
        let said = async { while !self.log.recv().await.expect("it ended").contains(text) {} };
        soon(text, said).await;
    }

    /// The exit code, once its log has ended; none where it is still there after the deadline.
    async fn ends(&mut self) -> Option<i32> {
        within(DEADLINE, async { while self.log.recv().await.is_some() {} }).await?;
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/nodes").join(name)
}

async fn counts(kubelet: &EmbeddedKubelet, capacity: usize) {
    let counted = kubelet.wait_for(|view| {
        view.resources.get(GPU).is_some_and(|gpu| gpu.streams_open > 0 && gpu.lists_received > 0)
            && view.capacity(GPU) == capacity
    });
    soon(&format!("{capacity} devices"), counted).await.unwrap();
}

#[tokio::test]
async fn sigterm_ends_it_with_0_while_streams_are_open_and_takes_its_socket_away() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let mut process = Process::run(&fixture("mr-v100-x4.node"), &host.directory);
    counts(&kubelet, 4).await;
    let mut stream = lists(&host.socket()).await;
    let _unread = lists(&host.socket()).await;
    assert_eq!(next_ids(&mut stream).await.unwrap().len(), 4);

    process.signal("TERM");

    assert_eq!(process.ends().await, Some(0));
    assert!(!host.socket().exists());
}

#[tokio::test]
async fn sigterm_leaves_the_socket_of_a_newer_instance_alone() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let mut older = Process::run(&fixture("mr-v100-x4.node"), &host.directory);
    counts(&kubelet, 4).await;
    let mut newer = Process::run(&fixture("mr-v100-x4.node"), &host.directory);
    newer.says("the kubelet has our list").await;

    older.signal("TERM");

    assert_eq!(older.ends().await, Some(0));
    counts(&kubelet, 4).await;
    assert!(host.socket().exists());
}

#[tokio::test]
async fn sigterm_ends_it_while_the_kubelet_is_away() {
    let host = Host::new(FOUR_BOARDS);
    let mut process = Process::run(&fixture("mr-v100-x4.node"), &host.directory);
    process.says("cannot listen").await;
    process.signal("TERM");
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn sighup_leads_to_another_look() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let process = Process::run(host.machine.root().path(), &host.directory);
    counts(&kubelet, 4).await;
    fs::remove_file(host.machine.root().path().join("sys/bus/pci/devices/0000:ad:00.0")).unwrap();
    process.signal("HUP");
    let less = kubelet.wait_for(|view| view.allocatable(GPU) == 3);
    soon("the board to be unhealthy", less).await.unwrap();
}

#[tokio::test]
async fn without_a_gpu_it_stays_up_lists_nothing_and_says_why() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let mut process = Process::run(&fixture("empty-host.node"), &host.directory);
    process.says("no Iluvatar chips found; waiting for one").await;
    counts(&kubelet, 0).await;
    process.signal("TERM");
    assert_eq!(process.ends().await, Some(0));
}

#[tokio::test]
async fn a_machine_that_cannot_be_read_yet_is_tried_again_and_never_listed_as_empty() {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(Settings::default()).await;
    let root = host.machine.root();
    fs::rename(root.path().join("sys"), root.path().join("later")).unwrap();
    let mut process = Process::run(root.path(), &host.directory);
    process.says("cannot look at the machine").await;
    assert_eq!(kubelet.view().borrow().register_calls, 0);

    fs::rename(root.path().join("later"), root.path().join("sys")).unwrap();

    counts(&kubelet, 4).await;
    assert_eq!(kubelet.view().borrow().resources[GPU].lists_received, 1);
}
