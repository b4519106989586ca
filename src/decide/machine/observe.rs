//! A scan to an observation: the one position where boards, device nodes and distances come together.

use std::collections::BTreeMap;

use super::boards::{self, ChipGroup};
use super::device_nodes::{self, FoundNode};
use super::models;
use super::topology::{self, ChipPosition};
use crate::model::config::Config;
use crate::model::device::{DeviceNode, NodeEvidence};
use crate::model::function::ChipFunction;
use crate::model::inventory::{SkipReason, Skipped};
use crate::model::observed::{ObservedBoard, ObservedChip, ObservedNode};
use crate::model::pci::PciAddress;
use crate::model::sysfs::SysfsScan;
use crate::model::topology::DistanceTree;
use crate::model::warning::{Subject, Warning, WarningCode};

/// What one scan shows under this configuration.
#[must_use]
pub fn observe(scan: &SysfsScan, config: &Config) -> ObservedNode {
    let (usable, skipped) = split_usable(scan, config);
    let found = device_nodes::find_nodes(&usable, scan, &config.discovery);
    let groups = boards::assemble(scan, &config.boards);
    let usable = usable.into_iter().map(|chip| (chip.function.address, chip)).collect();
    let machine = MachineScan { scan, config, usable, found: &found, skipped: &skipped };
    let boards: Vec<_> = groups.groups.iter().filter_map(|group| machine.board(group)).collect();
    ObservedNode {
        tree: machine.tree(&boards),
        warnings: groups.notes.into_iter().chain(machine.warnings()).collect(),
        control_nodes: machine.control_nodes(),
        functions: machine.usable.values().map(|chip| chip.function.clone()).collect(),
        driver_version: scan.driver_version.clone(),
        functions_seen: scan.functions.len(),
        boards,
        skipped,
    }
}

/// Chips that can be offered, and the functions that cannot, each with its reason.
fn split_usable<'a>(scan: &'a SysfsScan, config: &Config) -> (Vec<&'a ChipFunction>, Vec<Skipped>) {
    let mut usable = Vec::new();
    let mut skipped = scan.unreadable.clone();
    for chip in &scan.chips {
        match reason_to_skip(chip, config) {
            Some(reason) => skipped.push(Skipped { address: chip.function.address, reason }),
            None => usable.push(chip),
        }
    }
    skipped.sort();
    (usable, skipped)
}

fn reason_to_skip(chip: &ChipFunction, config: &Config) -> Option<SkipReason> {
    if let Some(physical) = chip.virtual_of {
        return Some(SkipReason::VirtualFunctionOf(physical));
    }
    let driver = chip.driver.as_ref()?;
    let is_ours = config.discovery.drivers.contains(driver);
    (!is_ours).then(|| SkipReason::BoundTo(driver.clone()))
}

struct MachineScan<'a> {
    scan: &'a SysfsScan,
    config: &'a Config,
    usable: BTreeMap<PciAddress, &'a ChipFunction>,
    found: &'a BTreeMap<PciAddress, FoundNode>,
    skipped: &'a [Skipped],
}

impl MachineScan<'_> {
    /// None where every chip of the group is skipped.
    fn board(&self, group: &ChipGroup) -> Option<ObservedBoard> {
        let chips: Vec<_> = group.chips.iter().filter_map(|chip| self.chip(*chip)).collect();
        let first = chips.first()?;
        Some(ObservedBoard {
            address: group.address,
            model: models::model_name(self.usable.get(&first.address)?, &self.config.boards),
            evidence: group.evidence,
            expected_chips: group.expected_chips,
            chips,
            skipped: self.skipped_of(group),
        })
    }

    fn skipped_of(&self, group: &ChipGroup) -> Vec<Skipped> {
        let skipped = self.skipped.iter().filter(|skipped| group.chips.contains(&skipped.address));
        skipped.cloned().collect()
    }

    fn chip(&self, address: PciAddress) -> Option<ObservedChip> {
        let function = self.usable.get(&address)?;
        let found = self.found.get(&address)?;
        Some(ObservedChip {
            address,
            id: function.id,
            driver: function.driver.clone(),
            node: found.node.clone(),
            node_evidence: found.evidence,
            node_problem: found.problem.clone(),
            answers: function.answers,
            numa_node: function.numa_node,
            slot: boards::slot_of(&function.function, &self.scan.slots).map(|(_, name)| name),
            link: function.link.clone(),
        })
    }

    fn tree(&self, boards: &[ObservedBoard]) -> DistanceTree {
        let positions: Vec<_> = boards
            .iter()
            .map(|board| {
                let chips = board.chips.iter().filter_map(|chip| self.position(chip.address));
                (board.address, chips.collect())
            })
            .collect();
        topology::distance_tree(&positions)
    }

    fn position(&self, address: PciAddress) -> Option<ChipPosition<'_>> {
        let chip = self.usable.get(&address)?;
        Some(ChipPosition { function: &chip.function, numa_node: chip.numa_node })
    }

    fn warnings(&self) -> impl Iterator<Item = Warning> {
        self.usable.values().flat_map(|chip| {
            let address = chip.function.address;
            let warn =
                move |code, detail| Warning { code, subject: Subject::Chip(address), detail };
            let odd = chip.oddities.iter().cloned();
            let odd = odd.map(move |oddity| warn(WarningCode::OddAttribute, oddity));
            let inferred = self.inferred_node(address);
            odd.chain(inferred.map(move |detail| warn(WarningCode::InferredDeviceNode, detail)))
        })
    }

    fn inferred_node(&self, address: PciAddress) -> Option<String> {
        let found = self.found.get(&address)?;
        let node = found.node.as_ref().filter(|_| found.evidence == NodeEvidence::Inferred)?;
        Some(format!("{} is inferred from the order of chips and nodes", node.path))
    }

    /// Those of the configuration that exist, in its order.
    fn control_nodes(&self) -> Vec<DeviceNode> {
        let wanted = self.config.discovery.control_nodes.iter();
        let nodes = &self.scan.device_nodes;
        wanted.filter_map(|path| nodes.iter().find(|node| node.path == *path).cloned()).collect()
    }
}
