//! What `doctor` reads before it concludes anything.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::config::Config;
use crate::model::device::DeviceNode;
use crate::model::inventory::Inventory;
use crate::model::sysfs::SysfsScan;

/// A fact, or why it cannot be told from where the program runs.
pub type Observed<T> = Result<T, Unavailable>;

/// Why a fact cannot be told, for example `a container does not show the node's /etc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is concluded from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where the configuration comes from.
    pub configuration: ConfigurationFile,
    /// What is in force; the defaults where the file is wrong.
    pub config: Config,
    /// Chips, driver and nodes; the error where /sys cannot be read.
    pub hardware: Result<Hardware, String>,
    /// The nodes' links in /dev/char.
    pub device_links: Observed<Vec<DeviceLink>>,
    /// The kubelet's device plugin directory.
    pub kubelet: KubeletFacts,
    /// The CDI directories.
    pub cdi: CdiFacts,
    /// Configuration files of container runtimes that are there.
    pub runtimes: Observed<Vec<RuntimeFile>>,
    /// Whether uevents can be heard.
    pub uevents: Observed<UeventFacts>,
    /// Limits of inotify.
    pub inotify: Observed<InotifyFacts>,
}

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// Where it is, or would be.
    pub path: String,
    /// What it is like.
    pub state: ConfigurationState,
}

/// What the configuration file is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationState {
    /// Not there; the defaults hold.
    Absent,
    /// Read, and right.
    Right,
    /// Not to be read, or wrong: every problem.
    Wrong(String),
}

/// Chips, driver and nodes.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// What the kernel shows.
    pub survey: SysfsScan,
    /// What is concluded from one look, not yet judged: a chip's reasons are all that was seen.
    pub inventory: Inventory,
    /// Drivers of the configuration that are loaded.
    pub modules: Vec<String>,
    /// How many NUMA nodes the machine has; 0 where it shows none.
    pub numa_nodes: usize,
    /// Permission bits of the nodes that are real ones.
    pub node_modes: BTreeMap<String, u32>,
}

/// What `/dev/char` has for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLink {
    /// A chip's node or a control node, with its number.
    pub node: DeviceNode,
    /// True where `/dev/char/MAJOR:MINOR` is there.
    pub is_there: bool,
}

/// The kubelet, as far as it is seen.
#[derive(Clone, Debug)]
pub struct KubeletFacts {
    /// Its device plugin directory, as the operator would type it.
    pub directory: String,
    /// What is in it.
    pub content: Observed<DirectoryContent>,
    /// Kubelet processes.
    pub processes: Observed<Vec<KubeletProcess>>,
    /// What is in the root directories that kubelets are known to have.
    pub roots: KnownRoots,
}

/// Which of the root directories that kubelets are known to have hold a socket of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownRoots {
    /// Those with `device-plugins/kubelet.sock`.
    pub with_plugins: Vec<String>,
    /// Those with `pod-resources/kubelet.sock`.
    pub with_pod_resources: Vec<String>,
}

/// What is in the device plugin directory.
#[derive(Clone, Debug)]
pub enum DirectoryContent {
    /// There is no such directory.
    Absent,
    /// It is there.
    There {
        /// Every socket, by name.
        sockets: Observed<Vec<SocketFile>>,
        /// What the kubelet last knew of plugins: resources with the ids that were healthy; the
        /// error where the file makes no sense; none where there is no such file.
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
    /// Whether somebody is there.
    pub state: SocketState,
}

/// What a connection to a socket finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Somebody accepts.
    Accepts,
    /// Nobody is there any more.
    Refuses,
    /// It could not be tried.
    Unclear(String),
}

/// A kubelet, by its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletProcess {
    /// Process id, as it is seen from here.
    pub pid: u32,
    /// From `--root-dir`; absent where the default holds, or a configuration file tells.
    pub root_directory: Option<String>,
}

/// The CDI directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiFacts {
    /// Those that were looked at.
    pub directories: Vec<String>,
    /// Their files, those of the weaker directory first.
    pub files: Vec<CdiFile>,
    /// Why the other directory, or both, could not be looked at.
    pub hidden: Option<Unavailable>,
}

/// A file of a CDI directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiFile {
    /// Its directory, `/etc/cdi` or `/var/run/cdi`.
    pub directory: String,
    /// Its name.
    pub name: String,
    /// The error where it could not be read or makes no sense.
    pub spec: Result<CdiSpec, String>,
}

impl CdiFile {
    /// Directory and name.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.directory, self.name)
    }
}

/// A CDI specification, as far as names go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiSpec {
    /// For example `iluvatar.com/gpu`.
    pub kind: String,
    /// Names of its devices.
    pub devices: Vec<String>,
}

/// A configuration file of a container runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFile {
    /// Whose it is, for example `containerd` or `k3s`.
    pub owner: &'static str,
    /// In whose format it is.
    pub engine: Engine,
    /// Where it is.
    pub path: String,
    /// The error where it could not be read or makes no sense.
    pub settings: Result<RuntimeSettings, String>,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// containerd, whoever brings it.
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
    /// Runtimes by name, with their programs where the file names them.
    pub programs: BTreeMap<String, Option<String>>,
}

/// Whether the kernel's uevents can be heard.
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
    /// The error where a watch cannot be made now; none where that was not tried.
    pub opened: Option<Result<(), String>>,
}
