//! What the kubelet is told: the boards of an inventory as devices of one or more resources.

use std::collections::{BTreeMap, BTreeSet};

use super::health;
use crate::model::board::{Board, Chip};
use crate::model::config::{Config, ContainerRules, Granularity, ResourceRule, Selector};
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::inventory::Inventory;
use crate::model::list_size::largest_replicas;
use crate::model::pci::PciAddress;

/// The resources of a configuration, in its order. A chip is offered once: by the first resource
/// that wants it, for the kubelet would hand it out under each name.
#[must_use]
pub fn advertise(inventory: &Inventory, rules: &[ResourceRule]) -> Vec<Resource> {
    let mut offered: BTreeSet<PciAddress> = BTreeSet::new();
    rules
        .iter()
        .map(|rule| {
            let mut devices: Vec<_> =
                inventory.boards.iter().flat_map(|board| devices_of(board, rule)).collect();
            devices.retain(|device| device.chips.iter().all(|chip| !offered.contains(chip)));
            offered.extend(devices.iter().flat_map(|device| &device.chips));
            devices.sort_by_key(|device| device.id);
            Resource { name: rule.name.clone(), sharing: rule.sharing, devices }
        })
        .collect()
}

/// Devices that a resource wants but an earlier one already offers.
fn overlaps(inventory: &Inventory, rules: &[ResourceRule]) -> Vec<String> {
    let mut offered: BTreeMap<PciAddress, &str> = BTreeMap::new();
    let mut overlaps = Vec::new();
    for rule in rules {
        for device in inventory.boards.iter().flat_map(|board| devices_of(board, rule)) {
            let taken = device.chips.iter().find_map(|chip| offered.get(chip));
            match taken {
                Some(first) => overlaps.push(format!(
                    "{}: {} also matches, but {first} offers it already; make the matches exclude \
                     each other",
                    device.id, rule.name
                )),
                None => offered.extend(device.chips.iter().map(|chip| (*chip, rule.name.as_str()))),
            }
        }
    }
    overlaps
}

/// What is wrong where a resource has so many replicas that its list would not reach a kubelet on
/// this node; with the number that would fit.
#[must_use]
pub fn oversized(inventory: &Inventory, config: &Config) -> Option<String> {
    let resources = advertise(inventory, &config.resources);
    resources.iter().find_map(|resource| {
        let replicas = resource.sharing?.replicas;
        let devices = resource.devices.len();
        let largest = largest_replicas(devices);
        (replicas > largest).then(|| {
            format!(
                "{}: {replicas} replicas of each of {devices} devices make a list above the \
                 kubelet's limit of 4 MiB; at most {largest} fit",
                resource.name
            )
        })
    })
}

fn devices_of(board: &Board, rule: &ResourceRule) -> Vec<Device> {
    let mut chips = board.chips.iter();
    match rule.granularity {
        Granularity::Board if chips.any(|chip| wants(&rule.selector, board, chip)) => {
            vec![board_device(board)]
        }
        Granularity::Board => Vec::new(),
        Granularity::Chip => {
            chips.filter(|chip| wants(&rule.selector, board, chip)).map(chip_device).collect()
        }
    }
}

fn wants(selector: &Selector, board: &Board, chip: &Chip) -> bool {
    let Selector { model, pci_id, addresses } = selector;
    model.as_ref().is_none_or(|model| *model == board.model)
        && pci_id.is_none_or(|id| id == chip.id)
        && (addresses.is_empty() || addresses.contains(&chip.address))
}

fn board_device(board: &Board) -> Device {
    Device {
        id: DeviceId::whole(board.address),
        chips: board.chips.iter().map(|chip| chip.address).collect(),
        nodes: board.chips.iter().filter_map(|chip| chip.node.clone()).collect(),
        health: board.health,
        reasons: board.reasons.clone(),
        numa_nodes: board.numa_nodes.clone(),
    }
}

fn chip_device(chip: &Chip) -> Device {
    Device {
        id: DeviceId::whole(chip.address),
        chips: vec![chip.address],
        nodes: chip.node.iter().cloned().collect(),
        health: health::verdict(&chip.reasons),
        reasons: chip.reasons.clone(),
        numa_nodes: chip.numa_node.into_iter().collect(),
    }
}

/// Everything that the daemon's loops share: one look at the node under one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the scan concluded.
    pub inventory: Inventory,
    /// What the kubelet is told.
    pub resources: Vec<Resource>,
    /// What containers are told.
    pub container: ContainerRules,
    /// Chips that more than one resource wants, one sentence each.
    pub overlaps: Vec<String>,
}

impl Offer {
    /// What `inventory` offers under `config`.
    #[must_use]
    pub fn new(inventory: Inventory, config: &Config) -> Self {
        let resources = advertise(&inventory, &config.resources);
        let overlaps = overlaps(&inventory, &config.resources);
        Self { inventory, resources, container: config.container, overlaps }
    }

    /// Everything that an operator should look at.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.inventory.warnings.iter().chain(&self.overlaps)
    }

    /// The resource of this name, if the configuration has it.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}
