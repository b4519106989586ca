//! Which chips share a board.
//!
//! A common switch is not enough: four single-chip cards may sit behind one. Evidence, strongest
//! first: configuration; one physical slot; a device id known to be multi-chip, alone under one
//! switch; two chips of one unknown id alone under one switch, each behind a bridge of its own
//! besides the switch's port (as the published bus numbers of BI-V150, three apart, suggest).
//!
//! Two half boards below one external switch look the same if neither slots nor a switch of their own
//! with an empty side distinguishes them.
//!
//! How many chips a board has is known from configuration, or from its siblings: where every board
//! of that id with such evidence is whole with as many, a lone chip of the id behind ports is half a
//! board. A chip with no port above it, as in a guest, is a board of its own. All other chips
//! without evidence are boards of their own too. Chips that could not be placed are in the notes.

mod half_boards;
mod ports;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::ports::Ports;
use super::models::chips_per_board;
use crate::model::board::Evidence;
use crate::model::config::{BoardRules, Pairing};
use crate::model::function::{ChipFunction, Function};
use crate::model::pci::{PciAddress, PciId, SlotAddress};
use crate::model::sysfs::SysfsScan;
use crate::model::warning::{Subject, Warning, WarningCode};

/// Chips that are one board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipGroup {
    /// The board's id: its lowest chip, or the lowest that the configuration names.
    pub address: PciAddress,
    /// Those that are there, ascending; at least one.
    pub chips: Vec<PciAddress>,
    /// Why they are one board.
    pub evidence: Evidence,
    /// How many there should be; never fewer than there are.
    pub expected_chips: usize,
}

/// Every physical chip in exactly one group, ascending by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChipGroups {
    /// The boards.
    pub groups: Vec<ChipGroup>,
    /// Warnings about chips that could not be grouped.
    pub notes: Vec<Warning>,
}

/// Groups the physical chips of a scan; virtual functions are left out.
#[must_use]
pub fn assemble(scan: &SysfsScan, rules: &BoardRules) -> ChipGroups {
    let chips = scan.chips.iter().filter(|chip| chip.virtual_of.is_none());
    let mut assembly = Assembly {
        scan,
        rules,
        ports: Ports::of(scan),
        ungrouped: chips.map(|chip| (chip.function.address, chip)).collect(),
        result: ChipGroups::default(),
    };
    assembly.by_configuration();
    if rules.pairing == Pairing::Auto {
        assembly.by_slot();
        assembly.by_switch();
        assembly.half_boards();
    }
    assembly.the_rest();
    assembly.result.groups.sort_by_key(|group| group.address);
    assembly.result
}

/// The slot that a function sits in: the one that names it or the nearest port above it.
#[must_use]
pub fn slot_of(
    function: &Function,
    slots: &BTreeMap<SlotAddress, String>,
) -> Option<(SlotAddress, String)> {
    let upwards = std::iter::once(&function.address).chain(function.ports.iter().rev());
    upwards
        .map(|address| address.slot_address())
        .find_map(|address| Some((address, slots.get(&address)?.clone())))
}

struct Assembly<'a> {
    scan: &'a SysfsScan,
    rules: &'a BoardRules,
    ports: Ports<'a>,
    ungrouped: BTreeMap<PciAddress, &'a ChipFunction>,
    result: ChipGroups,
}

impl<'a> Assembly<'a> {
    fn ungrouped_chips(&self) -> Vec<&'a ChipFunction> {
        self.ungrouped.values().copied().collect()
    }

    fn group(&mut self, chips: Vec<PciAddress>, evidence: Evidence, expected_chips: usize) {
        for chip in &chips {
            self.ungrouped.remove(chip);
        }
        self.result.groups.push(ChipGroup { address: chips[0], chips, evidence, expected_chips });
    }

    fn note(&mut self, code: WarningCode, first: PciAddress, detail: String) {
        let subject = Subject::Board(first);
        self.result.notes.push(Warning { code, subject, detail });
    }

    fn by_configuration(&mut self) {
        for pair in &self.rules.pairs {
            let mut named = pair.clone();
            named.sort_unstable();
            let there: Vec<_> =
                named.iter().copied().filter(|chip| self.ungrouped.contains_key(chip)).collect();
            if there.is_empty() {
                let (first, named) = (named[0], list(&named));
                let detail =
                    format!("boards.pairs names {named}, but none of these chips is present");
                self.note(WarningCode::AbsentPair, first, detail);
                continue;
            }
            self.group(there, Evidence::Config, named.len());
            if let Some(group) = self.result.groups.last_mut() {
                group.address = named[0];
            }
        }
    }

    fn by_slot(&mut self) {
        let mut in_slot: BTreeMap<SlotAddress, Vec<PciAddress>> = BTreeMap::new();
        for chip in self.ungrouped.values() {
            if let Some((slot, _)) = slot_of(&chip.function, &self.scan.slots) {
                in_slot.entry(slot).or_default().push(chip.function.address);
            }
        }
        for (slot, chips) in in_slot {
            if chips.len() > 1 {
                self.chips_in_one_slot(slot, chips);
            }
        }
    }

    /// A slot may also hold a riser with a switch and several cards, so the count must fit: as many
    /// as the id is known to have, or two where the id is unknown.
    fn chips_in_one_slot(&mut self, slot: SlotAddress, chips: Vec<PciAddress>) {
        let Some(id) = self.common_id(&chips) else { return };
        let known = chips_per_board(id, self.rules);
        let expected = known.unwrap_or(2);
        if expected > 1 && chips.len() <= expected {
            self.group(chips, Evidence::Slot, expected);
        } else if known.is_none() {
            let (first, count, chips) = (chips[0], chips.len(), list(&chips));
            let detail = format!(
                "slot {slot} holds {count} chips of the unknown id {id} ({chips}); each counts by \
                 itself until boards.chipsPerBoard or boards.pairs is set"
            );
            self.note(WarningCode::UnknownBoard, first, detail);
        }
    }

    fn by_switch(&mut self) {
        for chip in self.ungrouped_chips() {
            if self.ungrouped.contains_key(&chip.function.address) {
                self.whole_board_under_one_switch(chip);
            }
        }
    }

    fn whole_board_under_one_switch(&mut self, chip: &ChipFunction) {
        let known = chips_per_board(chip.id, self.rules);
        let expected = known.unwrap_or(2);
        if expected == 1 {
            return;
        }
        if let Some(chips) = self.complete_board(chip, expected, known.is_some()) {
            let evidence = if known.is_some() { Evidence::DeviceId } else { Evidence::Bridges };
            self.group(chips, evidence, expected);
        }
    }

    /// The chips of a complete board around `chip`, if the nearest port that joins endpoints joins
    /// just as many of this id and nothing else.
    fn complete_board(
        &self,
        chip: &ChipFunction,
        expected: usize,
        id_is_known: bool,
    ) -> Option<Vec<PciAddress>> {
        let ports = chip.function.ports.iter().rev();
        let (port, endpoints) = ports
            .map(|port| (*port, self.ports.endpoints_below(*port)))
            .find(|(_, endpoints)| endpoints.len() > 1)?;
        let chips: Vec<_> = endpoints.iter().map(|function| function.address).collect();
        let fits = chips.len() == expected
            && self.common_id(&chips) == Some(chip.id)
            && !self.in_different_slots(endpoints)
            && !self.is_external(port, endpoints)
            && (self.ports.is_switch(port) || id_is_known && are_one_device(&chips))
            && (id_is_known || endpoints.iter().all(|function| has_own_bridge(function, port)));
        fits.then_some(chips)
    }

    /// Whether a switch is between this port and a chip: the chip's board has that one, and the port
    /// joins boards. The published bus numbers of BI-V150 leave no room for another port beside the
    /// one above each chip, so a chip's own bridge is never taken for such a switch.
    fn is_external(&self, port: PciAddress, endpoints: &[&Function]) -> bool {
        let between = endpoints.iter().flat_map(|function| {
            function.ports.iter().rev().take_while(move |between| **between != port)
        });
        between.into_iter().any(|between| self.ports.is_switch(*between))
    }

    fn the_rest(&mut self) {
        for address in std::mem::take(&mut self.ungrouped).into_keys() {
            self.group(vec![address], Evidence::Single, 1);
        }
    }

    /// The id that all of these share; none if one of them is no ungrouped chip.
    fn common_id(&self, chips: &[PciAddress]) -> Option<PciId> {
        let id = self.ungrouped.get(chips.first()?)?.id;
        let same = |chip| self.ungrouped.get(chip).is_some_and(|chip| chip.id == id);
        chips.iter().all(same).then_some(id)
    }

    fn in_different_slots(&self, functions: &[&Function]) -> bool {
        let slots: BTreeSet<_> =
            functions.iter().filter_map(|function| slot_of(function, &self.scan.slots)).collect();
        slots.len() > 1
    }
}

/// Functions of one PCI device are soldered to one board.
fn are_one_device(chips: &[PciAddress]) -> bool {
    chips.windows(2).all(|pair| pair[0].slot_address() == pair[1].slot_address())
}

/// The switch's downstream port is between any chip and the switch; a bridge of the chip's own
/// makes it two.
fn has_own_bridge(function: &Function, switch: PciAddress) -> bool {
    function.ports.iter().rev().take_while(|port| **port != switch).count() >= 2
}

fn list(chips: &[PciAddress]) -> String {
    chips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
