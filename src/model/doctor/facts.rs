//! What `doctor` reads of a node. Nothing is concluded here: a file that is absent may be absent from
//! the node or only from the root that was read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::config::Config;
use crate::model::device::DeviceNode;
use crate::model::identity::IdentitiesReading;
use crate::model::pod_usage::HeldDevices;
use crate::model::sysfs::SysfsScan;

/// A fact, or why it is unavailable from where the program runs.
pub type Observed<T> = Result<T, Unavailable>;

/// Why a fact is unavailable, for example `a container does not show the node's /etc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that was read.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The root that all else was read from.
    pub root: RootFacts,
    /// The configuration file.
    pub configuration: ConfigurationFile,
    /// The active configuration; the defaults where the file is wrong.
    pub config: Config,
    /// Chips, driver and nodes; the error where /sys cannot be read.
    pub hardware: Result<HardwareFacts, String>,
    /// The nodes' links in /dev/char.
    pub device_links: DeviceLinks,
    /// The kubelet's directories, sockets and processes.
    pub kubelet: KubeletFacts,
    /// The CDI directories, the weaker first.
    pub cdi: Vec<CdiDirectoryFacts>,
    /// Configuration files of container runtimes that are there.
    pub runtimes: Vec<RuntimeFile>,
    /// Directories of container toolkits in /etc that are there.
    pub toolkit_directories: Vec<String>,
    /// Whether uevents can be received; only read on this machine itself.
    pub uevents: Option<UeventFacts>,
    /// Limits of inotify.
    pub inotify: InotifyFacts,
    /// The driver of a plugin that runs in DRA mode; none where it runs in device plugin mode.
    pub driver: Observed<Option<RunningDriver>>,
}

/// What a plugin that runs in DRA mode reports of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningDriver {
    /// What the API server drops of its slices.
    pub dropped: Vec<DroppedFeature>,
    /// Why it cannot read or write the API server.
    pub api_server_error: Option<String>,
    /// Why the kubelet does not accept it.
    pub registration_error: Option<String>,
}

/// A feature of slices that the API server drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedFeature {
    /// Its name, for example `taints`.
    pub name: String,
    /// The feature gate that switches it on.
    pub gate: String,
    /// What the driver does instead, as the end of a sentence.
    pub fallback: String,
}

/// The root that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFacts {
    /// What it is.
    pub kind: RootKind,
    /// True where a file marks a container: `/run/.containerenv` or `/.dockerenv`.
    pub has_container_mark: bool,
    /// The type of the file system at `/`, for example `overlay`; read on this machine only.
    pub filesystem: Option<String>,
    /// Directories at its top that exist, without `/`.
    pub directories: BTreeSet<String>,
}

/// What a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    /// `/`, which may be that of a container.
    ThisMachine,
    /// A directory with another machine's tree, or with the node's root mounted.
    Directory,
    /// A `.node` file, which holds neither sockets nor processes.
    NodeFile,
}

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// Where it is, or would be.
    pub path: String,
    /// Whether it is there and valid.
    pub state: ConfigurationState,
}

/// The state of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationState {
    /// Not there; the defaults are active.
    Absent,
    /// Read, and valid.
    Valid,
    /// Unreadable or invalid: every problem.
    Invalid(String),
}

/// Chips, driver and nodes.
#[derive(Clone, Debug)]
pub struct HardwareFacts {
    /// What the kernel shows.
    pub scan: SysfsScan,
    /// What the file of `discovery.identities` holds; none where the configuration names none.
    pub identities: Option<IdentitiesReading>,
    /// Drivers of the configuration that are loaded.
    pub modules: Vec<String>,
    /// How many NUMA nodes the machine has; 0 where it shows none.
    pub numa_nodes: usize,
    /// Permission bits of the device nodes that are real ones, by path.
    pub node_modes: BTreeMap<String, u32>,
}

/// `/dev/char`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLinks {
    /// True where the directory exists.
    pub has_directory: bool,
    /// One for each chip's node and control node that has a number.
    pub links: Vec<DeviceLink>,
}

/// What `/dev/char` has for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLink {
    /// A chip's node or a control node, with its number.
    pub node: DeviceNode,
    /// True where `/dev/char/MAJOR:MINOR` is there.
    pub is_there: bool,
}

/// The kubelet's directories, sockets and processes.
#[derive(Clone, Debug)]
pub struct KubeletFacts {
    /// Its device plugin directory.
    pub directory: PluginDirectory,
    /// Its directory of DRA drivers' registration sockets, beside the former.
    pub registry: PluginDirectory,
    /// How many processes /proc shows.
    pub processes: usize,
    /// Those of them that are kubelets.
    pub kubelets: Vec<KubeletProcess>,
    /// Usual root directories of kubelets that hold a kubelet's socket.
    pub roots: KnownRoots,
    /// Which pods hold which devices; the error where the kubelet does not say; none where there is no
    /// PodResources socket.
    pub held: Option<Result<HeldDevices, String>>,
}

/// The kubelet's device plugin directory.
#[derive(Clone, Debug)]
pub struct PluginDirectory {
    /// As the operator would type it.
    pub path: String,
    /// What claims to be this one.
    pub source: PathSource,
    /// What is in it.
    pub content: PluginDirectoryContent,
}

/// Who names a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// The operator: it is taken as it is.
    Operator,
    /// Nobody: the usual path, below the root.
    Default,
}

/// Usual root directories of kubelets that hold a kubelet's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownRoots {
    /// Those with `device-plugins/kubelet.sock`.
    pub with_plugins: Vec<String>,
    /// Those with `pod-resources/kubelet.sock`.
    pub with_pod_resources: Vec<String>,
}

/// What is in the device plugin directory.
#[derive(Clone, Debug)]
pub enum PluginDirectoryContent {
    /// There is no such directory.
    Absent,
    /// It could not be listed; the error.
    Unreadable(String),
    /// It was listed.
    Listed {
        /// Every socket.
        sockets: Vec<SocketFile>,
        /// What the kubelet last recorded of plugins: resources with the ids of their healthy
        /// devices; the error where the file is unreadable; none where there is no such file.
        checkpoint: Option<Result<Registered, String>>,
    },
}

/// Resources and the ids of their devices.
pub type Registered = BTreeMap<String, Vec<String>>;

/// A socket in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    /// Without the directory.
    pub name: String,
    /// What a connection to it finds.
    pub state: SocketState,
}

/// What a connection to a socket finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// A process accepts connections.
    Accepts,
    /// No process listens any more.
    Refuses,
    /// No connection could be tried; the error.
    Unclear(String),
}

/// A kubelet, by its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletProcess {
    /// Process id, in this process's PID namespace.
    pub pid: u32,
    /// From `--root-dir`; absent where the command line has none.
    pub root_directory: Option<String>,
}

/// A CDI directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiDirectoryFacts {
    /// `/etc/cdi` or `/var/run/cdi`.
    pub path: String,
    /// Its files, or the error where it cannot be listed; none where it does not exist.
    pub files: Option<Result<Vec<CdiFile>, String>>,
}

/// A file of a CDI directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiFile {
    /// Its directory, `/etc/cdi` or `/var/run/cdi`.
    pub directory: String,
    /// Its name.
    pub name: String,
    /// The error where it is unreadable or invalid.
    pub spec: Result<CdiFileContent, String>,
}

impl CdiFile {
    /// Directory and name.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.directory, self.name)
    }
}

/// The names in a CDI specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiFileContent {
    /// For example `iluvatar.com/gpu`.
    pub kind: String,
    /// Names of its devices.
    pub devices: Vec<String>,
}

/// A configuration file of a container runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFile {
    /// The program that reads it, for example `containerd` or `k3s`.
    pub owner: &'static str,
    /// Whose format it has.
    pub engine: Engine,
    /// Where it is.
    pub path: String,
    /// The error where it is unreadable or invalid.
    pub settings: Result<RuntimeSettings, String>,
}

/// A container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// containerd, also as a part of k3s and others.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker.
    Docker,
}

/// Which low-level runtimes a file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// What runs a container that asks for none.
    pub default: Option<String>,
    /// Whether devices can be given by CDI name; none where the file does not say.
    pub cdi: Option<bool>,
    /// Runtimes by name, with their programs where the file names them.
    pub programs: BTreeMap<String, Option<String>>,
}

/// Whether the kernel's uevents can be received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UeventFacts {
    /// The error where no netlink socket can be opened.
    pub opened: Result<(), String>,
    /// True in a user namespace, to which the kernel sends none.
    pub in_user_namespace: bool,
}

/// Limits of inotify for each user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InotifyFacts {
    /// `fs.inotify.max_user_instances`.
    pub instances: Option<u32>,
    /// `fs.inotify.max_user_watches`.
    pub watches: Option<u32>,
    /// The error where a watch cannot be made; none where that was not tried: only this machine
    /// itself can answer.
    pub opened: Option<Result<(), String>>,
}
