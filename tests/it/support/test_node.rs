//! What a node is made of: machine, configuration, kubelet, and what the plugin is given.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::app::{self, DaemonSettings};
use ix_device_plugin::daemon::ixml_source::IxmlSettings;
use ix_device_plugin::decide::node::removed::Retention;
use ix_device_plugin::demo::kubelet::KubeletSettings;
use ix_device_plugin::demo::machine::DemoMachine;
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::node_file::parse_node_file;

use super::fixtures::{node_text, scan_of};
use super::kernel::Chips;
use super::node_rig::NodeRig;
use super::plugin::Plugin;

/// The kernel chooses the port.
pub(super) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A removed device leaves the list at once, held or not.
const NO_RETENTION: Retention =
    Retention { unknown: Duration::ZERO, kubelet_start: Duration::ZERO };

/// For plugins that ask for pod resources: the embedded kubelet is never behind with its pods.
pub(crate) const UNTIL_RELEASED: Retention =
    Retention { unknown: Duration::from_secs(300), kubelet_start: Duration::ZERO };

/// A configuration under which only events, signals and retries lead to scans.
pub(crate) const ONLY_EVENTS: &str = "discovery: {rescan: 1h}\nhealth: {interval: 1h}\n";

/// What the plugin asks who holds which devices.
#[derive(Clone)]
enum PodResources {
    Unused,
    OfTheKubelet,
    At(PathBuf),
}

/// A node to be.
#[derive(Clone)]
pub(crate) struct TestNode {
    pub(super) machine: Arc<DemoMachine>,
    pub(super) boards: Vec<Board>,
    pub(super) chips: Arc<BTreeMap<PciAddress, Chips>>,
    pub(super) config: Config,
    pub(super) config_text: String,
    config_source: Option<ConfigSource>,
    inotify: bool,
    pod_resources: PodResources,
    retention: Retention,
    ixml: Option<IxmlSettings>,
    http: Option<SocketAddr>,
    pub(super) kubelet: KubeletSettings,
}

impl TestNode {
    /// A shipped machine; the plugin without configuration.
    pub(crate) fn fixture(name: &str) -> Self {
        Self::new(&node_text(name))
    }

    /// The machine that this `.node` text describes. Clones share it.
    pub(crate) fn new(node: &str) -> Self {
        let machine = Arc::new(DemoMachine::unpack(parse_node_file(node).unwrap()).unwrap());
        let boards = scan_of(&machine.root(), &Config::default()).unwrap().boards;
        let chips = |board: &Board| (board.address, Chips::of(board, machine.root().path()));
        Self {
            chips: Arc::new(boards.iter().map(chips).collect()),
            machine,
            boards,
            config: Config::default(),
            config_text: String::new(),
            config_source: None,
            inotify: true,
            pod_resources: PodResources::Unused,
            retention: NO_RETENTION,
            ixml: None,
            http: None,
            kubelet: KubeletSettings::default(),
        }
    }

    /// A configuration that does not change.
    pub(crate) fn config(mut self, yaml: &str) -> Self {
        yaml.clone_into(&mut self.config_text);
        self.configured(parse_config(yaml).unwrap())
    }

    /// The same as a value, for the plugin in this process only.
    pub(crate) fn configured(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// A configuration file that is followed.
    pub(crate) fn config_file(self, source: &ConfigSource) -> Self {
        Self { config: source.load().unwrap(), config_source: Some(source.clone()), ..self }
    }

    /// Directories are polled.
    pub(crate) fn without_inotify(self) -> Self {
        Self { inotify: false, ..self }
    }

    /// The kubelet tells the plugin which pod holds what; removed devices stay listed until released.
    pub(crate) fn with_pod_resources(self) -> Self {
        let pod_resources = PodResources::OfTheKubelet;
        Self { pod_resources, retention: UNTIL_RELEASED, ..self }
    }

    /// The plugin queries PodResources at a socket that is not the kubelet's.
    pub(crate) fn pod_resources_at(self, socket: &Path) -> Self {
        Self { pod_resources: PodResources::At(socket.to_owned()), ..self }
    }

    pub(crate) fn retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// The plugin asks libixml in this way, if its configuration wants that.
    pub(crate) fn ixml(self, settings: IxmlSettings) -> Self {
        Self { ixml: Some(settings), ..self }
    }

    /// The plugin answers over HTTP.
    pub(crate) fn with_http(self) -> Self {
        self.http_at(ANY_PORT)
    }

    pub(crate) fn http_at(self, address: SocketAddr) -> Self {
        Self { http: Some(address), ..self }
    }

    pub(crate) fn kubelet(self, settings: KubeletSettings) -> Self {
        Self { kubelet: settings, ..self }
    }

    /// The machine and the kubelet, and no plugin yet.
    pub(crate) async fn prepare(self) -> NodeRig {
        NodeRig::new(self).await
    }

    /// Machine, kubelet and a plugin in this process, whose list the kubelet has.
    pub(crate) async fn start(self) -> NodeRig {
        let mut rig = self.prepare().await;
        rig.start_plugin();
        rig.until_current().await;
        rig
    }

    /// Starts a plugin at this kubelet: the only place that does so in this process.
    pub(super) fn start_plugin(&self, directory: PathBuf, pod_resources: PathBuf) -> Plugin {
        let Self { config, config_source, inotify, retention, ixml, http, .. } = self.clone();
        let resource = config.resources[0].name.clone();
        let running = app::build(DaemonSettings {
            root: self.machine.root(),
            config,
            config_source,
            kubelet_directory: directory,
            pod_resources_socket: match &self.pod_resources {
                PodResources::Unused => None,
                PodResources::OfTheKubelet => Some(pod_resources),
                PodResources::At(socket) => Some(socket.clone()),
            },
            retention,
            ixml,
            http,
            inotify,
            uevents: false,
            dra: None,
        });
        Plugin::new(running, resource)
    }
}
