//! A node in one process: the whole daemon, the embedded kubelet, and a machine that can be pulled
//! apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::app::{self, Settings};
use ix_device_plugin::daemon::inventory_owner::{SnapshotReceiver, Trigger};
use ix_device_plugin::daemon::sessions::SessionsView;
use ix_device_plugin::decide::node::advertise::NodeSnapshot;
use ix_device_plugin::decide::node::removed::Retention;
use ix_device_plugin::demo::kubelet::{EmbeddedKubelet, NodeView, Settings as KubeletSettings};
use ix_device_plugin::demo::machine::PlayMachine;
use ix_device_plugin::host::directory_watch::DirectoryWatch;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::session::Progress;
use ix_device_plugin::parse::node_file::parse_node_file;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::clock::{soon, within};

pub(crate) const GPU: &str = "iluvatar.com/gpu";
/// The name that existing probes look for.
pub(crate) const SOCKET: &str = "iluvatar-gpu.sock";
/// Four boards of one chip each.
pub(crate) const FOUR_BOARDS: &str = include_str!("../../../fixtures/nodes/mr-v100-x4.node");

/// What left is off the list at once: these tests are about the list's way to the kubelet.
pub(crate) const NOT_AT_ALL: Retention =
    Retention { unknown: Duration::ZERO, released: Duration::ZERO };

/// What the session promises.
const ONE_SECOND: Duration = Duration::from_secs(1);

/// A machine with a device plugin directory, and nothing that runs.
pub(crate) struct Host {
    _above: TempDir,
    pub(crate) directory: PathBuf,
    pub(crate) machine: Arc<PlayMachine>,
}

impl Host {
    /// The device plugin directory does not exist yet.
    pub(crate) fn new(node: &str) -> Self {
        Self::of(machine(node))
    }

    pub(crate) fn of(machine: Arc<PlayMachine>) -> Self {
        let above = TempDir::new().unwrap();
        Self { directory: above.path().join("device-plugins"), _above: above, machine }
    }

    pub(crate) async fn kubelet(&self, settings: KubeletSettings) -> EmbeddedKubelet {
        EmbeddedKubelet::start(&self.directory, settings).await.unwrap()
    }

    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_with(Config::default(), true)
    }

    pub(crate) fn daemon_with(&self, config: Config, inotify: bool) -> Daemon {
        Daemon::start(&self.machine, config, &self.directory, inotify)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    pub(crate) fn remove_directory(&self) {
        fs::remove_dir_all(&self.directory).unwrap();
    }

    /// Waits until there is a socket of ours, or none any more.
    pub(crate) async fn socket_is_there(&self, is_there: bool) {
        let appeared = async {
            let mut watch = None;
            while self.socket().exists() != is_there {
                match &watch {
                    None => watch = Some(DirectoryWatch::open(&self.directory).unwrap()),
                    Some(watch) => watch.changed().await.unwrap(),
                }
            }
        };
        soon("our socket to come or go", appeared).await;
    }
}

pub(crate) fn machine(node: &str) -> Arc<PlayMachine> {
    Arc::new(PlayMachine::unpack(parse_node_file(node).unwrap()).unwrap())
}

/// The whole daemon; dropping it kills it.
pub(crate) struct Daemon {
    pub(crate) snapshots: SnapshotReceiver,
    pub(crate) sessions: watch::Receiver<SessionsView>,
    pub(crate) triggers: mpsc::Sender<Trigger>,
    stop: oneshot::Sender<()>,
    running: JoinSet<anyhow::Result<()>>,
}

impl Daemon {
    fn start(machine: &PlayMachine, config: Config, directory: &Path, inotify: bool) -> Self {
        let bound = app::build(Settings {
            root: machine.root(),
            config,
            config_source: None,
            kubelet_directory: directory.to_owned(),
            pod_resources_socket: None,
            retention: NOT_AT_ALL,
            ixml: None,
            http: None,
            inotify,
            uevents: false,
        });
        let (snapshots, sessions) = (bound.snapshots.clone(), bound.sessions.clone());
        let triggers = bound.triggers.clone();
        let (stop, stopped) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(bound.run_until_stopped(async {
            let _ = stopped.await;
        }));
        Self { snapshots, sessions, triggers, stop, running }
    }

    /// Ends as with SIGTERM.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stop);
        soon("the daemon to end", self.running.join_next()).await.unwrap().unwrap()
    }

    pub(crate) async fn is(&self, wanted: Progress) {
        let reached = async {
            let mut sessions = self.sessions.clone();
            let view = sessions.wait_for(|view| view.contains_key(GPU)).await.unwrap();
            let mut progress = view[GPU].clone();
            drop(view);
            progress.wait_for(|progress| *progress == wanted).await.unwrap();
        };
        soon(&format!("the session to be {wanted:?}"), reached).await;
    }

    pub(crate) async fn snapshot(&self) -> Arc<NodeSnapshot> {
        let mut snapshots = self.snapshots.clone();
        let snapshot = soon("the first scan", snapshots.wait_for(Option::is_some)).await;
        snapshot.unwrap().clone().unwrap()
    }

    pub(crate) async fn last_board(&self) -> Board {
        self.snapshot().await.inventory.boards.last().unwrap().clone()
    }

    pub(crate) async fn look_again(&self) {
        self.triggers.send(Trigger::Uevent).await.unwrap();
    }

    /// Puts the board back and waits until the daemon has seen it whole.
    pub(crate) async fn replug(&self, host: &Host, board: &Board) {
        host.machine.replug(board).unwrap();
        self.look_again().await;
        let mut snapshots = self.snapshots.clone();
        let is_back = |snapshot: &Option<Arc<NodeSnapshot>>| {
            snapshot.as_ref().is_some_and(|snapshot| snapshot.inventory.boards.contains(board))
        };
        soon("the board", snapshots.wait_for(is_back)).await.unwrap();
    }

    /// Waits until the daemon has seen that the board is gone.
    pub(crate) async fn unplug(&self, host: &Host, board: &Board) {
        host.machine.unplug(board).unwrap();
        self.look_again().await;
        let mut snapshots = self.snapshots.clone();
        let is_gone = |snapshot: &Option<Arc<NodeSnapshot>>| {
            snapshot.as_ref().is_some_and(|snapshot| !snapshot.inventory.boards.contains(board))
        };
        soon("the board to go", snapshots.wait_for(is_gone)).await.unwrap();
    }

    /// Whether the kubelet has our present list, over an open stream.
    pub(crate) fn is_current(&self, view: &NodeView) -> bool {
        let snapshot = self.snapshots.borrow().clone();
        let resource = snapshot.as_deref().and_then(|snapshot| snapshot.resource(GPU));
        let (Some(ours), Some(theirs)) = (resource, view.resources.get(GPU)) else { return false };
        let ids = ours.listed().map(|(id, _)| id.to_string());
        let healthy = ours.listed().filter(|(_, device)| device.health == Health::Healthy);
        theirs.registered
            && theirs.streams_open > 0
            && ids.eq(theirs.devices.keys().cloned())
            && theirs.allocatable == healthy.count()
    }
}

/// Holds the invariant: within `limit` the kubelet has our list, and a change of it also arrives,
/// which a session that only looks well would lose.
pub(crate) async fn recovers_within(
    limit: Duration,
    host: &Host,
    kubelet: &EmbeddedKubelet,
    daemon: &Daemon,
) -> Result<(), String> {
    let behind = |what: &str| format!("{what}: {:#?}", *kubelet.view().borrow());
    let has_list = kubelet.wait_for(|view| daemon.is_current(view));
    within(limit, has_list).await.ok_or_else(|| behind("no list"))?.map_err(|e| e.to_string())?;
    let board = daemon.last_board().await;
    let before = daemon.snapshot().await.inventory.boards.len();
    daemon.unplug(host, &board).await;
    let has_less =
        kubelet.wait_for(|view| daemon.is_current(view) && view.capacity(GPU) == before - 1);
    within(limit, has_less).await.ok_or_else(|| behind("no change"))?.map_err(|e| e.to_string())?;
    daemon.replug(host, &board).await;
    Ok(())
}

/// As [`recovers_within`] one second.
pub(crate) async fn recovers(host: &Host, kubelet: &EmbeddedKubelet, daemon: &Daemon) {
    recovers_within(ONE_SECOND, host, kubelet, daemon).await.unwrap_or_else(|why| panic!("{why}"));
}

/// A node whose kubelet has our list.
pub(crate) async fn streaming_node() -> (Host, EmbeddedKubelet, Daemon) {
    let host = Host::new(FOUR_BOARDS);
    let kubelet = host.kubelet(KubeletSettings::default()).await;
    let daemon = host.daemon();
    has_list(&kubelet, &daemon).await;
    (host, kubelet, daemon)
}

pub(crate) async fn has_list(kubelet: &EmbeddedKubelet, daemon: &Daemon) {
    daemon.snapshot().await;
    let has_list = kubelet.wait_for(|view| daemon.is_current(view));
    soon("the kubelet to have our list", has_list).await.unwrap();
}

/// A node on which a kubelet has the list of `node` under `config`.
pub(crate) async fn node_with(node: &str, config: Config) -> (Host, EmbeddedKubelet, Daemon) {
    let host = Host::new(node);
    let kubelet = host.kubelet(KubeletSettings::default()).await;
    let resource = config.resources[0].name.clone();
    let daemon = host.daemon_with(config, true);
    let listed = kubelet.wait_for(|view| {
        view.resources.get(&resource).is_some_and(|resource| resource.lists_received > 0)
    });
    soon("a first list", listed).await.unwrap();
    (host, kubelet, daemon)
}
