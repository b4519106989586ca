//! The published state of the node, which every loop of the daemon reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::advertise::{Advertised, advertise, unoffered_warning};
use crate::decide::allocation::cdi::spec;
use crate::model::cdi::{CdiKind, CdiSpec};
use crate::model::config::{CdiRules, Config, ContainerRules, DraRules, ServingMode};
use crate::model::cordon::{CordonState, CordonUsage};
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::dra::claim::ClaimUsage;
use crate::model::health::Health;
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;
use crate::model::pod_usage::HeldDevice;
use crate::model::pod_usage::{Holder, PodDevice};
use crate::model::warning::Warning;

/// One state of the node under one configuration. It never changes: the next one replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSnapshot {
    /// The hardware and its health.
    pub inventory: Arc<Inventory>,
    /// The kubelet's lists, in the configuration's order.
    pub resources: Vec<Resource>,
    /// What containers get besides their devices.
    pub container: ContainerRules,
    /// Whether and where container runtimes find the devices by name.
    pub cdi: CdiRules,
    /// The CDI spec of the inventory; none where CDI is off.
    pub cdi_spec: Option<CdiSpec>,
    /// Every warning for an operator.
    pub warnings: Vec<Warning>,
    /// Chips that no resource offers, ascending.
    pub unoffered: Vec<PciAddress>,
    /// What operators keep from new pods, ascending by id.
    pub cordons: Vec<CordonState>,
    /// How GPUs are offered.
    pub mode: ServingMode,
    /// What dynamic resource allocation offers.
    pub dra: DraRules,
    /// In DRA mode, chips that pods hold through the device plugin, or may.
    pub held_by_pods: BTreeMap<PciAddress, HeldDevice>,
    /// In DRA mode, what PodResources lists of claims.
    pub claimed: BTreeSet<ClaimUsage>,
    /// The devices that containers hold; none until PodResources answered.
    pub pod_devices: Option<Vec<PodDevice>>,
    /// Since when each device has its health; see [`Self::since`].
    pub(super) since: BTreeMap<(String, DeviceId), (Health, Duration)>,
}

impl NodeSnapshot {
    /// What `inventory` offers under `config`, as if no pod held any of it.
    #[must_use]
    pub fn new(inventory: Inventory, config: &Config) -> Self {
        let Advertised { resources, overlaps, unoffered } =
            advertise(&inventory, &config.resources);
        let not_offered = unoffered_warning(&unoffered);
        let warnings = inventory.warnings.iter().cloned().chain(not_offered).chain(overlaps);
        Self {
            warnings: warnings.collect(),
            cdi_spec: cdi_kind(config).map(|kind| spec(&inventory, kind)),
            inventory: Arc::new(inventory),
            resources,
            container: config.container,
            cdi: config.cdi.clone(),
            unoffered,
            cordons: Vec::new(),
            mode: config.mode,
            dra: config.dra.clone(),
            held_by_pods: BTreeMap::new(),
            claimed: BTreeSet::new(),
            pod_devices: None,
            since: BTreeMap::new(),
        }
    }

    /// Since when this device has the health that it has, on the daemon's clock.
    #[must_use]
    pub fn since(&self, resource: &str, device: DeviceId) -> Option<Duration> {
        self.since.get(&(resource.to_owned(), device)).map(|(_, since)| *since)
    }

    /// The containers that hold chips of this device, under whatever id; none until PodResources
    /// answered.
    #[must_use]
    pub fn holders(&self, device: &Device) -> Option<BTreeSet<&Holder>> {
        let pod_devices = self.pod_devices.as_ref()?.iter();
        let has_chips =
            |held: &&PodDevice| held.chips.iter().any(|chip| device.chips.contains(chip));
        Some(pod_devices.filter(has_chips).map(|held| &held.holder).collect())
    }

    /// Every device with its resource, in the resources' order.
    pub fn devices(&self) -> impl Iterator<Item = (&Resource, &Device)> {
        self.resources
            .iter()
            .flat_map(|resource| resource.devices.iter().map(move |device| (resource, device)))
    }

    /// The resource of this name, if the configuration has it.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }

    /// Devices that are withheld because a pod holds their chips in another way.
    pub fn withheld(&self) -> impl Iterator<Item = (&Resource, &Device)> {
        self.devices().filter(|(_, device)| device.is_withheld())
    }

    /// Cordoned devices that a pod holds, or may hold.
    pub fn draining(&self) -> impl Iterator<Item = (&Resource, &Device)> {
        let cordons = self.cordons.iter().filter(|state| state.usage != CordonUsage::Drained);
        let chips: BTreeSet<_> = cordons.flat_map(|state| &state.cordon.chips).collect();
        self.devices().filter(move |(_, it)| it.chips.iter().any(|chip| chips.contains(chip)))
    }

    /// Devices whose hardware left and that are listed because a pod holds them, or may.
    pub fn removed(&self) -> impl Iterator<Item = (&Resource, &Device)> {
        self.devices().filter(|(_, device)| device.is_removed())
    }
}

/// The spec that is written; DRA mode has no other way to give a container its devices.
fn cdi_kind(config: &Config) -> Option<CdiKind> {
    match config.mode {
        ServingMode::Dra => Some(CdiKind::Dra),
        ServingMode::DevicePlugin => config.cdi.enabled.then_some(CdiKind::DevicePlugin),
    }
}
