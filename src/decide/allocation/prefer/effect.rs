//! What a choice means for the node, in numbers that a person can check.

use std::collections::BTreeMap;

use super::DeviceSupply;
use super::candidates::Candidates;
use crate::model::device::{Device, DeviceId};
use crate::model::topology::{Distance, DistanceTree, GroupKind};

/// What a device of a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceUnit {
    /// All chips of a board.
    Board,
    /// One of the chips of a board.
    Chip,
}

/// What a choice does to the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Devices of which an id is chosen.
    pub devices: usize,
    /// Ids of these devices that were in use before the choice.
    pub in_use: usize,
    /// Pairs of these devices at each distance; a distance without a pair is absent.
    pub pairs: BTreeMap<Distance, usize>,
    /// Boards that were whole before the choice.
    pub boards: WholeGroups,
    /// Switches that were whole before the choice.
    pub switches: WholeGroups,
}

/// Groups of which every id was available before the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WholeGroups {
    /// The choice takes nothing of these.
    pub left: usize,
    /// The choice takes a part of these.
    pub broken: usize,
}

impl WholeGroups {
    fn add(&mut self, group: GroupCounts) {
        match group.chosen {
            _ if group.available < group.total || group.available == 0 => {}
            0 => self.left += 1,
            chosen if chosen < group.available => self.broken += 1,
            _ => {}
        }
    }
}

/// Ids below one group of the distance tree.
#[derive(Clone, Copy, Default)]
struct GroupCounts {
    total: usize,
    available: usize,
    chosen: usize,
    /// Devices and groups directly below that have an available id.
    members: usize,
}

impl GroupCounts {
    fn add(&mut self, below: Self) {
        self.total += below.total;
        self.available += below.available;
        self.chosen += below.chosen;
        self.members += usize::from(below.available > 0);
    }
}

/// A device is a board where no other device of the resource is on its board.
pub(super) fn unit(supply: &DeviceSupply<'_>) -> DeviceUnit {
    let group = |device: &Device| supply.tree.chips.get(&device.id.address);
    let is_part = |device: &Device| {
        let own = group(device);
        let chips = supply.tree.chips.values().filter(|group| Some(*group) == own).count();
        chips > device.chips.len()
    };
    if supply.devices.iter().any(is_part) { DeviceUnit::Chip } else { DeviceUnit::Board }
}

pub(super) fn effect(tree: &DistanceTree, candidates: &Candidates, chosen: &[DeviceId]) -> Effect {
    let mut effect = Effect::default();
    for (kind, counts) in count_groups(tree, candidates, chosen) {
        match kind {
            GroupKind::Board(_) => effect.boards.add(counts),
            // A port above a single member is not a switch: nothing meets there.
            GroupKind::Port(_) if counts.members > 1 => effect.switches.add(counts),
            _ => {}
        }
    }
    let mut addresses = Vec::new();
    for device in &candidates.devices {
        if candidates.count_of(device, chosen) > 0 {
            addresses.push(candidates.ids[device.ids.start].id.address);
            effect.in_use += device.total.saturating_sub(device.ids.len());
        }
    }
    effect.devices = addresses.len();
    for (number, one) in addresses.iter().enumerate() {
        for other in &addresses[number + 1..] {
            let distance = tree.distance(*one, *other).unwrap_or(Distance::Sys);
            *effect.pairs.entry(distance).or_default() += 1;
        }
    }
    effect
}

/// Every group of the tree with the ids below it.
fn count_groups(
    tree: &DistanceTree,
    candidates: &Candidates,
    chosen: &[DeviceId],
) -> Vec<(GroupKind, GroupCounts)> {
    let mut counts = vec![GroupCounts::default(); tree.groups.len()];
    for device in &candidates.devices {
        let Some(group) = device.group.and_then(|group| counts.get_mut(group)) else { continue };
        let chosen = candidates.count_of(device, chosen);
        let available = device.ids.len();
        group.add(GroupCounts { total: device.total, available, chosen, members: 0 });
    }
    // A parent's index is lower than its child's: from the last group up, all below is counted.
    for index in (0..counts.len()).rev() {
        let below = counts[index];
        if let Some(parent) = tree.groups[index].parent.filter(|parent| *parent < index) {
            counts[parent].add(below);
        }
    }
    tree.groups.iter().map(|group| group.kind).zip(counts).collect()
}
