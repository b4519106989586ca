//! A machine that can be pulled apart, the built daemon that follows it, and a kubelet here.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ix_device_plugin::demo::kubelet::{EmbeddedKubelet, NodeView, Settings};
use ix_device_plugin::demo::machine::PlayMachine;
use ix_device_plugin::host::scan::scan;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::machine::Machine;
use ix_device_plugin::parse::node_file::parse_node_file;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::kernel::Chips;

pub(crate) const GPU: &str = "iluvatar.com/gpu";

/// Longer than anything takes; whoever waits for this has failed.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(60);

/// The daemon looks when it is told to, and never by itself.
pub(crate) const QUIET: &str = "discovery: {rescan: 1h}\nhealth: {interval: 1h}\n";

/// The daemon's process and what it said.
pub(crate) struct Daemon {
    child: Child,
    log: watch::Receiver<Vec<String>>,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built for this test");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (said, log) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                said.send_modify(|log: &mut Vec<String>| log.push(line));
            }
        });
        Self { child, log }
    }

    /// Waits until it said a line with `text` at least `times`.
    pub(crate) async fn said(&self, text: &str, times: usize) {
        let mut log = self.log.clone();
        let seen = log.wait_for(|log| count(log, text) >= times);
        let seen = timeout(FOR_EVER, seen).await.is_ok_and(|seen| seen.is_ok());
        assert!(seen, "`{text}` was not said {times} times:\n{}", self.log());
    }

    /// How many lines with `text` it has said.
    pub(crate) fn count(&self, text: &str) -> usize {
        count(&self.log.borrow(), text)
    }

    pub(crate) fn looks(&self) -> usize {
        self.count(LOOKED)
    }

    pub(crate) fn log(&self) -> String {
        self.log.borrow().join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it is our child and was not waited for");
    }

    /// The exit code, once it has said all that it had to say.
    pub(crate) async fn ends(mut self) -> Option<i32> {
        let mut log = self.log.clone();
        let ended = timeout(FOR_EVER, async { while log.changed().await.is_ok() {} }).await;
        assert!(ended.is_ok(), "it does not end:\n{}", self.log());
        self.child.wait().expect("it is our child").code()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// A file of its directory in /proc.
    pub(crate) fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid())).expect("it lives")
    }

    /// Memory in use, in KiB: `VmRSS`, or `RssAnon`, which leaves out the pages of files, for those
    /// come and go as the kernel has room.
    pub(crate) fn memory(&self, kind: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect("the kernel counts it")
    }
}

/// What is said of each look at the machine.
pub(crate) const LOOKED: &str = "looked at the machine";

/// What is said of each reason to look, the first of which is that listening began.
pub(crate) const HINT: &str = "a hint to look again";

fn count(log: &[String], text: &str) -> usize {
    log.iter().filter(|line| line.contains(text)).count()
}

impl Drop for Daemon {
    /// As `kill -9`.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything of a node but its daemon, which comes and goes.
pub(crate) struct PluggedNode {
    pub(crate) machine: PlayMachine,
    pub(crate) boards: Vec<Board>,
    pub(crate) kubelet: EmbeddedKubelet,
    at_first: Machine,
    directory: TempDir,
}

impl PluggedNode {
    /// `node` is the name of a shipped machine, `config` the text of the configuration.
    pub(crate) async fn unpack(node: &str, config: &str) -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(top.join(format!("fixtures/nodes/{node}.node")));
        Self::of(&text.expect("it is shipped"), config).await
    }

    /// `node` is the text of a machine.
    pub(crate) async fn of(node: &str, config: &str) -> Self {
        let at_first = parse_node_file(node).expect("a machine");
        let machine = PlayMachine::unpack(at_first.clone()).expect("there is room");
        let looked = scan(&machine.root(), &Config::default()).expect("it can be looked at");
        let directory = TempDir::new().expect("there is room");
        std::fs::write(directory.path().join("config.yaml"), config).expect("it is ours");
        let kubelet_directory = directory.path().join("kubelet");
        let kubelet = EmbeddedKubelet::start(&kubelet_directory, Settings::default()).await;
        let kubelet = kubelet.expect("the directory is ours");
        Self { machine, boards: looked.inventory.boards, kubelet, at_first, directory }
    }

    /// A daemon that listens, and whose first list is here.
    pub(crate) async fn daemon(&self) -> Daemon {
        let daemon = Daemon::start(&mut self.command());
        daemon.said(HINT, 1).await;
        self.sees("every board", |healthy| healthy.len() == self.boards.len()).await;
        daemon
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ix-device-plugin"));
        command.env_clear().arg("-v").arg("--root").arg(self.root());
        command.arg("--config").arg(self.directory.path().join("config.yaml"));
        command.arg("run").arg("--kubelet-dir").arg(self.kubelet_directory());
        command.env("IX_HTTP", "off");
        command
    }

    pub(crate) fn kubelet_directory(&self) -> PathBuf {
        self.directory.path().join("kubelet")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.machine.root().path().to_owned()
    }

    pub(crate) fn chips(&self, board: &Board) -> Chips {
        Chips::of(board, &self.at_first)
    }

    /// Waits until the ids that can be allocated are as `wanted`.
    pub(crate) async fn sees(&self, what: &str, wanted: impl Fn(&BTreeSet<String>) -> bool) {
        let seen = self.kubelet.wait_for(|view| wanted(&healthy(view)));
        let seen = timeout(FOR_EVER, seen).await;
        assert!(seen.is_ok(), "not {what}: {:#?}", *self.kubelet.view().borrow());
    }

    /// Waits until this board can be allocated, or cannot.
    pub(crate) async fn sees_board(&self, board: &Board, there: bool) {
        let id = board.address.to_string();
        let what = if there { "there" } else { "gone" };
        self.sees(&format!("{id} {what}"), |healthy| healthy.contains(&id) == there).await;
    }

    pub(crate) fn lists(&self) -> u64 {
        let view = self.kubelet.view().borrow().clone();
        view.resources.get(GPU).map_or(0, |resource| resource.lists_received)
    }
}

/// Ids that can be allocated.
pub(crate) fn healthy(view: &NodeView) -> BTreeSet<String> {
    let devices = view.resources.get(GPU).into_iter().flat_map(|resource| &resource.devices);
    let healthy = devices.filter(|(_, device)| device.health == Health::Healthy);
    healthy.map(|(id, _)| id.clone()).collect()
}
