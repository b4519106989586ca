//! Boards that lack chips: how many chips a board should have, and which of them are left.

use std::collections::{BTreeMap, BTreeSet};

use super::{Assembly, list, slot_of};
use crate::decide::machine::models::chips_per_board;
use crate::model::board::Evidence;
use crate::model::function::ChipFunction;
use crate::model::pci::{PciAddress, PciId};
use crate::model::warning::WarningCode;

/// The numbers of chips that whole boards have, by device id.
type ChipCounts = BTreeMap<PciId, BTreeSet<usize>>;

impl Assembly<'_> {
    /// Chips of boards that lack others. Called when every whole board is found, for those show how
    /// many chips a board of their id has.
    pub(super) fn half_boards(&mut self) {
        let siblings = self.chips_of_whole_boards();
        let mut unplaced: BTreeMap<(PciId, usize), Vec<PciAddress>> = BTreeMap::new();
        for chip in self.ungrouped_chips() {
            let address = chip.function.address;
            let known = self.expected_chips(chip.id, &siblings);
            let Some((expected, evidence)) = known.filter(|(expected, _)| *expected > 1) else {
                continue;
            };
            if !self.ungrouped.contains_key(&address) {
                continue;
            }
            if chip.function.ports.is_empty() {
                self.note_chip_without_port(chip, expected);
                continue;
            }
            let place = self.chips_in_place(chip, expected);
            if place.is_none() {
                unplaced.entry((chip.id, expected)).or_default().push(address);
            }
            self.group(place.unwrap_or_else(|| vec![address]), evidence, expected);
        }
        self.note_unplaced(&unplaced);
    }

    /// How many chips a board of this id has, and what shows it.
    fn expected_chips(&self, id: PciId, siblings: &ChipCounts) -> Option<(usize, Evidence)> {
        if let Some(chips) = chips_per_board(id, self.rules) {
            return Some((chips, Evidence::DeviceId));
        }
        let mut counts = siblings.get(&id)?.iter();
        // Boards of one id that differ show nothing.
        counts.next().filter(|_| counts.next().is_none()).map(|only| (*only, Evidence::Siblings))
    }

    /// The numbers of chips that whole boards of each id have. A lone chip is no whole board of one:
    /// else two half boards would each prove the other whole.
    fn chips_of_whole_boards(&self) -> ChipCounts {
        let ids: BTreeMap<_, _> =
            self.scan.chips.iter().map(|chip| (chip.function.address, chip.id)).collect();
        let mut counts: ChipCounts = BTreeMap::new();
        let groups = self.result.groups.iter();
        for group in groups.filter(|group| group.chips.len() == group.expected_chips) {
            for id in group.chips.iter().filter_map(|chip| ids.get(chip)) {
                counts.entry(*id).or_default().insert(group.expected_chips);
            }
        }
        counts
    }

    /// The chips that are left of the board around `chip`, where a switch or a slot shows which these
    /// are.
    fn chips_in_place(&self, chip: &ChipFunction, expected: usize) -> Option<Vec<PciAddress>> {
        let ports = chip.function.ports.iter().rev();
        let switch = ports.copied().find(|port| self.ports.is_switch(*port));
        let endpoints = switch.map_or(&[][..], |port| self.ports.endpoints_below(port));
        let chips: Vec<_> = endpoints.iter().map(|function| function.address).collect();
        let are_the_rest = (1..expected).contains(&chips.len())
            && self.common_id(&chips) == Some(chip.id)
            && !self.in_different_slots(endpoints);
        let alone = || self.is_alone_on_its_card(chip).then(|| vec![chip.function.address]);
        are_the_rest.then_some(chips).or_else(alone)
    }

    /// A slot named by a port above the chip holds a card with bridges of its own, so what that card
    /// lacks is missing. A slot that names the chip itself shows nothing of a sibling: in a guest
    /// every function that was passed through has such a slot.
    fn is_alone_on_its_card(&self, chip: &ChipFunction) -> bool {
        let slot_of_chip =
            |chip: &ChipFunction| slot_of(&chip.function, &self.scan.slots).map(|(slot, _)| slot);
        let Some(slot) = slot_of_chip(chip) else { return false };
        let in_slot = self.scan.chips.iter().filter(|it| slot_of_chip(it) == Some(slot));
        slot != chip.function.address.slot_address()
            && in_slot.filter(|it| it.virtual_of.is_none()).count() == 1
    }

    fn note_chip_without_port(&mut self, chip: &ChipFunction, expected: usize) {
        let (id, address) = (chip.id, chip.function.address);
        let detail = format!(
            "boards of {id} have {expected} chips, but no port is above {address}, as in a guest; \
             it counts as a board of its own"
        );
        self.note(WarningCode::UnknownBoard, address, detail);
    }

    fn note_unplaced(&mut self, unplaced: &BTreeMap<(PciId, usize), Vec<PciAddress>>) {
        for ((id, expected), chips) in unplaced.iter().filter(|(_, chips)| chips.len() > 1) {
            let (first, chips) = (chips[0], list(chips));
            let detail = format!(
                "boards of {id} have {expected} chips, and nothing shows which of {chips} are on \
                 one board; each counts as half a board until boards.pairs names them"
            );
            self.note(WarningCode::UnknownBoard, first, detail);
        }
    }
}
