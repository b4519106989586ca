//! A node: a machine that can be changed, an embedded kubelet, and the plugin, either in this process
//! or as the built binary.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::decide::kubelet::socket_name::FIRST_SOCKET;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::{Admission, EmbeddedKubelet, NodeView, PodRequest};
use ix_device_plugin::demo::machine::DemoMachine;
use ix_device_plugin::host::directory_watch::DirectoryWatch;
use ix_device_plugin::host::files;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use tempfile::TempDir;
use tonic::transport::Channel;

use super::binary::binary;
use super::clock::{LIVENESS_LIMIT, soon, within};
use super::fixtures::GPU;
use super::kernel::Chips;
use super::log::Log;
use super::plugin::Plugin;
use super::plugin_client::connect;
use super::process::PluginProcess;
use super::test_node::{ANY_PORT, TestNode};

/// A node, and the plugin in this process while one runs.
pub(crate) struct NodeRig {
    pub(crate) kubelet: EmbeddedKubelet,
    pub(crate) machine: Arc<DemoMachine>,
    pub(crate) log: Log,
    /// The boards that were there at first.
    pub(crate) boards: Vec<Board>,
    node: TestNode,
    host: TempDir,
    plugin: Option<Plugin>,
}

impl NodeRig {
    pub(super) async fn new(mut node: TestNode) -> Self {
        let (log, host) = (Log::capture(), TempDir::new().unwrap());
        node.kubelet.pod_resources_socket = Some(host.path().join(POD_RESOURCES));
        let directory = host.path().join(DEVICE_PLUGINS);
        let kubelet = EmbeddedKubelet::start(&directory, node.kubelet.clone()).await.unwrap();
        let (machine, boards) = (Arc::clone(&node.machine), node.boards.clone());
        Self { kubelet, machine, log, boards, node, host, plugin: None }
    }

    // -- The plugin in this process

    pub(crate) fn start_plugin(&mut self) {
        self.plugin = Some(self.another_plugin());
    }

    /// A second plugin on this node, as in a rolling update.
    pub(crate) fn another_plugin(&self) -> Plugin {
        self.node.start_plugin(self.kubelet_directory(), self.pod_resources_socket())
    }

    pub(crate) fn plugin(&self) -> &Plugin {
        self.plugin.as_ref().unwrap()
    }

    /// Ends the plugin's tasks wherever they are, as a kill does.
    pub(crate) fn kill(&mut self) {
        drop(self.plugin.take());
    }

    pub(crate) async fn stop(&mut self) {
        self.plugin.take().unwrap().stop().await.unwrap();
    }

    /// The configuration of plugins that start from now on.
    pub(crate) fn reconfigure(&mut self, yaml: &str) {
        self.node = self.node.clone().config(yaml);
    }

    /// Another plugin in place of one that was stopped or killed; waits until it has the stream.
    pub(crate) async fn start_again(&mut self) {
        let resource = self.node.config.resources[0].name.clone();
        let lists =
            |view: &NodeView| view.resources.get(&resource).map_or(0, |it| it.lists_received);
        let before = lists(&self.kubelet.view().borrow());
        self.start_plugin();
        let is_next = |view: &NodeView| is_streaming(view, &resource) && lists(view) > before;
        self.until("the next stream", is_next).await;
    }

    /// Waits until the kubelet has the plugin's present list.
    pub(crate) async fn until_current(&self) {
        self.plugin().snapshot().await;
        self.until("the kubelet to have our list", |view| self.plugin().is_current(view)).await;
    }

    /// Holds the session's invariant: the kubelet gets our list, and also the next change of it, which
    /// a session that only seems well would lose.
    pub(crate) async fn recovers(&self) {
        self.recovers_with(self.plugin()).await;
    }

    pub(crate) async fn recovers_with(&self, plugin: &Plugin) {
        self.recovers_within(LIVENESS_LIMIT, plugin).await.unwrap_or_else(|why| panic!("{why}"));
    }

    pub(crate) async fn recovers_within(
        &self,
        limit: Duration,
        plugin: &Plugin,
    ) -> Result<(), String> {
        let behind = |what: &str| format!("{what}: {:#?}", *self.kubelet.view().borrow());
        let is_current = self.kubelet.wait_for(|view| plugin.is_current(view));
        within(limit, is_current).await.ok_or_else(|| behind("no list"))?.unwrap();
        let board = plugin.last_board().await;
        let before = plugin.snapshot().await.inventory.boards.len();
        self.unplug_from(plugin, &board).await;
        let has_less =
            |view: &NodeView| plugin.is_current(view) && view.capacity(GPU) == before - 1;
        let changed = self.kubelet.wait_for(has_less);
        within(limit, changed).await.ok_or_else(|| behind("no change"))?.unwrap();
        self.replug_to(plugin, &board).await;
        Ok(())
    }

    // -- The plugin as a process

    /// The built binary on this node, to be run by [`PluginProcess::start`].
    pub(crate) fn command(&self) -> Command {
        let config = self.at("config.yaml");
        fs::write(&config, &self.node.config_text).unwrap();
        let mut command = binary();
        command.args(["--log-format", "json", "--root"]).arg(self.root());
        command.arg("--config").arg(config);
        command.arg("run").arg("--kubelet-dir").arg(self.kubelet_directory());
        command.env("IX_HTTP", ANY_PORT.to_string());
        command
    }

    pub(crate) fn start_process(&self) -> PluginProcess {
        PluginProcess::start(&mut self.command())
    }

    /// The built binary, which receives uevents and whose list of all boards the kubelet has.
    pub(crate) async fn process(&self) -> PluginProcess {
        let process = self.start_process();
        process.counts("source_up", "netlink", 1).await;
        self.until_healthy(self.boards.len()).await;
        process
    }

    // -- The kubelet

    /// Waits until the kubelet's view of the node is as `wanted`.
    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl FnMut(&NodeView) -> bool,
    ) -> NodeView {
        soon(what, self.kubelet.wait_for(wanted)).await.unwrap()
    }

    /// Waits until so many devices can be allocated.
    pub(crate) async fn until_healthy(&self, count: usize) {
        let what = format!("{count} healthy devices");
        self.until(&what, |view| healthy(view).count() == count).await;
    }

    /// Waits until the kubelet lists this device with this health; with none, does not list it.
    pub(crate) async fn until_health(&self, id: &str, health: Option<Health>) {
        let is_wanted = |view: &NodeView| health_of(view, id) == health;
        self.until(&format!("{id} to be {health:?}"), is_wanted).await;
    }

    /// Waits until this board can be allocated, or cannot.
    pub(crate) async fn until_board(&self, board: &Board, is_healthy: bool) {
        let id = board.address.to_string();
        let what = format!("{id} to be healthy: {is_healthy}");
        self.until(&what, |view| (health_of(view, &id) == Some(Health::Healthy)) == is_healthy)
            .await;
    }

    pub(crate) async fn admit(&self, pod: &str, resource: &str, count: usize) -> Admission {
        let pod = PodRequest::single(pod, resource, count);
        soon("an admission", self.kubelet.admit(pod)).await.unwrap()
    }

    /// Starts the container `main`: its nodes on the host, or the refusal in the kubelet's words.
    pub(crate) async fn start_pod(&self, pod: &str) -> Result<Vec<String>, String> {
        let started = soon("a start", self.kubelet.start_container(pod, "main")).await;
        let injection = started.map_err(|error| error.to_string())?;
        Ok(injection.devices.into_iter().map(|device| device.host_path).collect())
    }

    /// A client of the plugin's own, as a kubelet has one.
    pub(crate) async fn client(&self, socket: &str) -> DevicePluginClient<Channel> {
        connect(&self.file(socket)).await
    }

    // -- The machine

    pub(crate) fn board(&self, id: &str) -> Board {
        let snapshot = self.plugin().snapshots.borrow().clone().unwrap();
        let boards = &snapshot.inventory.boards;
        boards.iter().find(|board| board.address.to_string() == id).unwrap().clone()
    }

    /// Removes the board and waits until the plugin has seen that.
    pub(crate) async fn unplug(&self, board: &Board) {
        self.unplug_from(self.plugin(), board).await;
    }

    /// Puts the board back and waits until the plugin has seen it whole.
    pub(crate) async fn replug(&self, board: &Board) {
        self.replug_to(self.plugin(), board).await;
    }

    async fn unplug_from(&self, plugin: &Plugin, board: &Board) {
        self.machine.unplug(board).unwrap();
        plugin.rescan().await;
        let is_gone = |snapshot: &NodeSnapshot| {
            let there = snapshot.inventory.chips();
            !board.chips.iter().any(|chip| there.iter().any(|it| it.address == chip.address))
        };
        plugin.until_snapshot("the board to leave", is_gone).await;
    }

    async fn replug_to(&self, plugin: &Plugin, board: &Board) {
        self.machine.replug(board).unwrap();
        plugin.rescan().await;
        let is_back = |snapshot: &NodeSnapshot| {
            let there = snapshot.inventory.chips();
            board.chips.iter().all(|chip| there.contains(&chip))
        };
        plugin.until_snapshot("the board to come back", is_back).await;
    }

    /// Makes the machine another one and waits until the plugin, if one runs, has seen what is
    /// `wanted`.
    pub(crate) async fn change(&self, node: &str, wanted: impl FnMut(&NodeSnapshot) -> bool) {
        for part in ["sys", "dev"] {
            files::remove(&self.root().join(part)).unwrap();
        }
        files::unpack(&parse_node_file(node).unwrap(), &self.root()).unwrap();
        let Some(plugin) = &self.plugin else { return };
        plugin.triggers.send(RescanTrigger::Request).await.unwrap();
        plugin.until_snapshot("the change", wanted).await;
    }

    /// The uevents of a board that was there at first.
    pub(crate) fn chips(&self, board: &Board) -> &Chips {
        &self.node.chips[&board.address]
    }

    /// The chip's directory in sysfs.
    pub(crate) fn chip_directory(&self, chip: PciAddress) -> PathBuf {
        fs::canonicalize(self.root().join(format!("sys/bus/pci/devices/{chip}"))).unwrap()
    }

    // -- Paths

    /// The directory that stands for `/`.
    pub(crate) fn root(&self) -> PathBuf {
        self.machine.root().path().to_owned()
    }

    /// A file of the kubelet's host, which is not below the machine's root.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    pub(crate) fn kubelet_directory(&self) -> PathBuf {
        self.at(DEVICE_PLUGINS)
    }

    /// A file in the kubelet's device plugin directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.kubelet_directory().join(name)
    }

    /// The socket of the first resource.
    pub(crate) fn socket(&self) -> PathBuf {
        self.file(FIRST_SOCKET)
    }

    /// Where the kubelet serves pod resources.
    pub(crate) fn pod_resources_socket(&self) -> PathBuf {
        self.at(POD_RESOURCES)
    }

    /// Waits until the first resource's socket exists.
    pub(crate) async fn until_socket(&self) {
        let appears = async {
            let watch = DirectoryWatch::open(&self.kubelet_directory()).unwrap();
            while !self.socket().exists() {
                watch.changed().await.unwrap();
            }
        };
        soon("our socket", appears).await;
    }
}

const DEVICE_PLUGINS: &str = "device-plugins";
const POD_RESOURCES: &str = "pod-resources/kubelet.sock";

/// Whether the kubelet has devices of the resource, over an open stream.
pub(crate) fn is_streaming(view: &NodeView, resource: &str) -> bool {
    view.resources.get(resource).is_some_and(|it| it.registered && it.streams_open > 0)
        && view.capacity(resource) > 0
}

/// Ids of the default resource that can be allocated.
pub(crate) fn healthy(view: &NodeView) -> impl Iterator<Item = &str> {
    let devices = view.resources.get(GPU).into_iter().flat_map(|resource| &resource.devices);
    let healthy = devices.filter(|(_, device)| device.health == Health::Healthy);
    healthy.map(|(id, _)| &**id)
}

fn health_of(view: &NodeView, id: &str) -> Option<Health> {
    Some(view.resources.get(GPU)?.devices.get(id)?.health)
}

/// The ids of the only container.
pub(crate) fn ids(admission: &Admission, resource: &str) -> Vec<String> {
    admission.containers[0].devices[resource].clone()
}
