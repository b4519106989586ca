//! A machine, a kubelet and the daemon, in one process.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ix_device_plugin::app::{self, Running, Settings};
use ix_device_plugin::daemon::inventory_owner::Trigger;
use ix_device_plugin::decide::node::removed::{Retention, removed};
use ix_device_plugin::demo::kubelet::{
    EmbeddedKubelet, NodeView, PodRequest, Settings as KubeletSettings,
};
use ix_device_plugin::demo::machine::PlayMachine;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::parse::sysfs::PCI_DEVICES;
use tempfile::TempDir;
use tokio::time::timeout;

pub(crate) const GPU: &str = "iluvatar.com/gpu";

/// Eight boards of two chips.
const X8: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/nodes/bi-v150-x8.node"));

/// The embedded kubelet knows its pods at any time, so it may be taken at its word.
pub(crate) const AT_ONCE: Retention =
    Retention { unknown: Duration::from_secs(300), released: Duration::ZERO };

/// Longer than anything here takes; a test that waits for this has failed.
const FOR_EVER: Duration = Duration::from_secs(30);

/// The kubelet's pod resources, where it serves them.
pub(crate) fn pod_resources(directory: &TempDir) -> PathBuf {
    directory.path().join("pod-resources/kubelet.sock")
}

pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) machine: PlayMachine,
    pub(crate) kubelet: EmbeddedKubelet,
    pub(crate) plugin: Option<Running>,
    config: Config,
    socket: Option<PathBuf>,
    retention: Retention,
}

impl Node {
    /// The kubelet tells who holds what, and the plugin asks it.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = Some(pod_resources(&directory));
        Self::start_with(directory, Config::default(), socket, AT_ONCE).await
    }

    /// With a plugin that asks at `socket`.
    pub(crate) async fn start_with(
        directory: TempDir,
        config: Config,
        socket: Option<PathBuf>,
        retention: Retention,
    ) -> Self {
        let settings = KubeletSettings {
            pod_resources_socket: Some(pod_resources(&directory)),
            ..KubeletSettings::default()
        };
        let kubelet = EmbeddedKubelet::start(directory.path(), settings)
            .await
            .expect("the directory is ours");
        let machine =
            PlayMachine::unpack(parse_node_file(X8).expect("a good fixture")).expect("room for it");
        let mut node =
            Self { directory, machine, kubelet, plugin: None, config, socket, retention };
        node.start_plugin();
        node.until(|view| view.allocatable(GPU) >= 8).await;
        node
    }

    pub(crate) fn start_plugin(&mut self) {
        self.plugin = Some(app::build(Settings {
            root: self.machine.root(),
            config: self.config.clone(),
            config_source: None,
            kubelet_directory: self.directory.path().to_owned(),
            pod_resources_socket: self.socket.clone(),
            retention: self.retention,
            ixml: None,
            http: None,
            inotify: true,
            uevents: false,
        }));
    }

    pub(crate) fn plugin(&self) -> &Running {
        self.plugin.as_ref().expect("the plugin runs")
    }

    pub(crate) async fn until(&self, seen: impl FnMut(&NodeView) -> bool) -> NodeView {
        let view = timeout(FOR_EVER, self.kubelet.wait_for(seen)).await;
        view.expect("the kubelet never saw it").expect("the kubelet runs")
    }

    pub(crate) async fn until_health(&self, id: &str, health: Option<Health>) {
        self.until(|view| {
            let devices = &view.resources[GPU].devices;
            devices.get(id).map(|device| device.health) == health
        })
        .await;
    }

    /// Waits until the plugin's list gives this reason for a device that left.
    pub(crate) async fn until_reason(&self, part: &str) {
        let mut snapshots = self.plugin().snapshots.clone();
        let gives = snapshots.wait_for(|snapshot| {
            let mut removed = snapshot.iter().flat_map(|snapshot| removed(snapshot));
            removed.any(|(_, device)| device.reasons.iter().any(|it| it.detail.contains(part)))
        });
        timeout(FOR_EVER, gives).await.expect("the reason never came").expect("the plugin runs");
    }

    pub(crate) async fn look(&self) {
        self.plugin().triggers.send(Trigger::Uevent).await.expect("the plugin runs");
    }

    pub(crate) fn board(&self, id: &str) -> Board {
        let snapshot = self.plugin().snapshots.borrow().clone().expect("it looked");
        let address: PciAddress = id.parse().expect("an address");
        let board = snapshot.inventory.boards.iter().find(|board| board.address == address);
        board.expect("the board is there").clone()
    }

    pub(crate) async fn unplug(&self, board: &Board) {
        self.machine.unplug(board).expect("the files are ours");
        self.look().await;
    }

    pub(crate) async fn replug(&self, board: &Board) {
        self.machine.replug(board).expect("the files are ours");
        self.look().await;
    }

    /// The device and the nodes that a pod with one device gets.
    pub(crate) async fn admit(&self, pod: &str) -> (String, Vec<String>) {
        let admission =
            self.kubelet.admit(PodRequest::single(pod, GPU, 1)).await.expect("a free one");
        let container = &admission.containers[0];
        let nodes = container.injection.devices.iter().map(|device| device.host_path.clone());
        (container.devices[GPU][0].clone(), nodes.collect())
    }

    pub(crate) async fn status(&self, pod: &str) -> Health {
        let status = self.kubelet.allocated_resources_status(pod).await.expect("the kubelet runs");
        *status["main"][GPU].values().next().expect("the pod holds one")
    }

    pub(crate) async fn start_container(&self, pod: &str) -> Result<(), String> {
        let started = self.kubelet.start_container(pod, "main").await;
        started.map(drop).map_err(|error| error.to_string())
    }

    /// Where the machine has the chip's own files.
    pub(crate) fn directory_of(&self, chip: PciAddress) -> PathBuf {
        let listed = self.machine.root().path().join(PCI_DEVICES).join(chip.to_string());
        fs::canonicalize(listed).expect("the chip is there")
    }
}
