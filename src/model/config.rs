//! The configuration as it is meant: every default filled in, every rule already checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::health::{ReasonCode, Severity};
use super::ixml::IxmlChoice;
use super::pci::{PciAddress, PciId};

/// The whole configuration. `Config::default()` is what an empty file means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How GPUs are offered.
    pub mode: ServingMode,
    /// What is offered to the kubelet; at least one.
    pub resources: Vec<ResourceRule>,
    /// Which chips share a board.
    pub boards: BoardRules,
    /// Which functions are chips, and which nodes go with them.
    pub discovery: DiscoveryRules,
    /// What containers get.
    pub container: ContainerRules,
    /// What makes a device unhealthy, and for how long.
    pub health: HealthRules,
    /// Devices by name, through the Container Device Interface.
    pub cdi: CdiRules,
    /// Dynamic resource allocation; without effect in the other mode.
    pub dra: DraRules,
    /// When the kubelet is queried which pods hold devices.
    pub pod_resources: PodResourcesRules,
    /// Labels of the node.
    pub labels: LabelRules,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: ServingMode::default(),
            resources: vec![ResourceRule::default()],
            boards: BoardRules::default(),
            discovery: DiscoveryRules::default(),
            container: ContainerRules::default(),
            health: HealthRules::default(),
            cdi: CdiRules::default(),
            dra: DraRules::default(),
            pod_resources: PodResourcesRules::default(),
            labels: LabelRules::default(),
        }
    }
}

/// How GPUs are offered to Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServingMode {
    /// As extended resources, by the device plugin API.
    #[default]
    DevicePlugin,
    /// As devices of `ResourceSlices`, by dynamic resource allocation.
    Dra,
}

/// What dynamic resource allocation offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraRules {
    /// What a device is.
    pub devices: DraOffer,
    /// What a device is where the API server does not support boards and chips at once.
    pub fallback: Granularity,
    /// How many claims may share a device; at least 2, and never where boards and chips are both
    /// offered.
    pub slots: Option<u32>,
    /// Reasons for which pods are evicted.
    pub evict: BTreeSet<ReasonCode>,
    /// Whether changes of health become events of the Node.
    pub events: bool,
}

impl Default for DraRules {
    fn default() -> Self {
        Self {
            devices: DraOffer::Board,
            fallback: Granularity::Board,
            slots: None,
            evict: BTreeSet::new(),
            events: true,
        }
    }
}

/// What a device of a slice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraOffer {
    /// A board.
    Board,
    /// A chip.
    Chip,
    /// Boards and their chips; a claim that has one excludes the other.
    Both,
}

/// One extended resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRule {
    /// A name that a kubelet accepts, for example `iluvatar.com/gpu`; `.shared` already added
    /// where the configuration asks for it.
    pub name: String,
    /// Which boards or chips it offers.
    pub selector: Selector,
    /// What one device of it is.
    pub granularity: Granularity,
    /// Absent where devices are not shared.
    pub sharing: Option<Sharing>,
}

impl Default for ResourceRule {
    fn default() -> Self {
        Self {
            name: "iluvatar.com/gpu".to_owned(),
            selector: Selector::default(),
            granularity: Granularity::Board,
            sharing: None,
        }
    }
}

/// Which devices a resource offers: all that meet every condition that is set. A board meets one as
/// soon as one of its chips does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The model's name, for example `MR-V100`.
    pub model: Option<String>,
    /// Vendor and device id of its chips.
    pub pci_id: Option<PciId>,
    /// Chips; empty means no such condition.
    pub addresses: Vec<PciAddress>,
}

/// What one allocatable device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// A whole board.
    Board,
    /// A single chip (`splitboard: true`).
    Chip,
}

/// The most replicas of one device whose list a kubelet still receives; how many fit on a node
/// depends on its devices, which only a scan knows.
pub const MAX_REPLICAS: u32 = 75_096;

/// Time-slicing: each device is offered several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// At least 2.
    pub replicas: u32,
    /// Refuse a container that requests more than one replica.
    pub fail_requests_greater_than_one: bool,
    /// Which replicas are preferred.
    pub policy: SharingPolicy,
}

/// Which replicas a container gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharingPolicy {
    /// Of the least shared device, and of distinct devices.
    #[default]
    Spread,
    /// Of as few devices as possible.
    Pack,
}

/// Which chips share a board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardRules {
    /// Whether boards are searched for at all.
    pub pairing: Pairing,
    /// How many chips a board of this device id has.
    pub chips_per_board: BTreeMap<PciId, usize>,
    /// Boards named chip by chip; each chip at most once.
    pub pairs: Vec<Vec<PciAddress>>,
    /// What a device id is called.
    pub models: BTreeMap<PciId, String>,
}

/// Whether boards are searched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// By slot, device id and bridges.
    #[default]
    Auto,
    /// Only `pairs` count; every other chip is its own board.
    Off,
}

/// Which functions are chips, and which nodes go with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryRules {
    /// PCI vendor ids.
    pub vendor_ids: Vec<u16>,
    /// Kernel drivers that make a chip usable.
    pub drivers: Vec<String>,
    /// Nodes that every container with a GPU gets, where they exist.
    pub control_nodes: Vec<String>,
    /// Longest time between two scans of the machine: the safety net for lost uevents.
    pub rescan: Duration,
    /// The file with the vendor's UUIDs of the chips; absolute. Without it no UUID is known.
    pub identities: Option<PathBuf>,
}

impl Default for DiscoveryRules {
    fn default() -> Self {
        Self {
            vendor_ids: vec![0x1e3e],
            drivers: vec!["iluvatar".to_owned(), "bi_driver".to_owned()],
            control_nodes: vec!["/dev/itrctl".to_owned(), "/dev/itrlink".to_owned()],
            rescan: Duration::from_secs(60),
            identities: None,
        }
    }
}

/// What makes a device unhealthy, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthRules {
    /// Time between two health samples.
    pub interval: Duration,
    /// How long a device must show no fault before it is healthy again.
    pub recovery: Duration,
    /// Which libixml is a second source of health.
    pub ixml: IxmlChoice,
    /// Signals with another severity than their default.
    pub signals: BTreeMap<ReasonCode, Severity>,
}

impl Default for HealthRules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            recovery: Duration::from_secs(30),
            ixml: IxmlChoice::default(),
            signals: BTreeMap::new(),
        }
    }
}

impl HealthRules {
    /// The severity of a signal.
    #[must_use]
    pub fn severity(&self, code: ReasonCode) -> Severity {
        self.signals.get(&code).copied().unwrap_or_else(|| code.default_severity())
    }
}

/// What containers get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerRules {
    /// The value of `IX_VISIBLE_DEVICES`.
    pub visible_devices: VisibleDevices,
    /// Whether the variables of the replaced plugin up to 4.3 are set too.
    pub legacy_variables: bool,
    /// Whether the kubelet asks before each start of a container.
    pub start_verification: StartVerification,
}

/// Whether the kubelet calls PreStartContainer, which verifies that a container still gets the chips
/// that it was allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartVerification {
    /// It does; no container with a GPU starts while the plugin is down.
    #[default]
    On,
    /// It does not.
    Off,
}

/// The value of `IX_VISIBLE_DEVICES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VisibleDevices {
    /// The chips' PCI addresses, sorted, separated by commas.
    #[default]
    Addresses,
    /// The chips' UUIDs, in the order of their addresses. A chip whose UUID is not known is
    /// unhealthy.
    Uuids,
    /// `none`: the container runtime adds no GPU of its own.
    None,
    /// `void`: the container runtime adds nothing of its own.
    Void,
}

/// Devices by name, through the Container Device Interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiRules {
    /// Whether a spec is written and devices are allocated by its names.
    pub enabled: bool,
    /// Directory of the spec; absolute.
    pub spec_dir: PathBuf,
    /// Whether containers get plain device nodes as well.
    pub device_specs: bool,
}

impl Default for CdiRules {
    fn default() -> Self {
        Self { enabled: false, spec_dir: PathBuf::from("/var/run/cdi"), device_specs: false }
    }
}

/// When the kubelet is queried which pods hold devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodResourcesRules {
    /// The longest time between two queries; none: only after a change of the node.
    pub interval: Option<Duration>,
}

impl Default for PodResourcesRules {
    fn default() -> Self {
        Self { interval: Some(Duration::from_secs(15)) }
    }
}

/// Labels of the node, by a feature file of Node Feature Discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRules {
    /// Whether the file is written.
    pub enabled: bool,
    /// Where NFD reads feature files; absolute.
    pub directory: PathBuf,
}

impl Default for LabelRules {
    fn default() -> Self {
        let directory = PathBuf::from("/etc/kubernetes/node-feature-discovery/features.d");
        Self { enabled: false, directory }
    }
}
