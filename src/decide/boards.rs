//! Which chips share a board.
//!
//! A common switch is not enough: four single-chip cards may sit behind one. Evidence, strongest
//! first: configuration; one physical slot; a device id known to be multi-chip, alone under one
//! switch; two chips of one unknown id alone under one switch, each behind a bridge of its own
//! besides the switch's port (as the published bus numbers of BI-V150, three apart, suggest).
//! A chip without evidence stays alone; what was nearly concluded is said in a note.

use std::collections::{BTreeMap, BTreeSet};

use super::models::chips_per_board;
use crate::model::board::Evidence;
use crate::model::config::{BoardRules, Pairing};
use crate::model::function::{ChipFunction, Function, FunctionKind};
use crate::model::pci::{PciAddress, PciId, SlotAddress};
use crate::model::survey::Survey;

/// Chips that are one board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The board's id: its lowest chip, or the lowest that configuration says it has.
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
pub struct Groups {
    /// The boards.
    pub groups: Vec<Group>,
    /// What an operator should know of chips that could not be grouped.
    pub notes: Vec<String>,
}

/// Groups the physical chips of a survey; virtual functions are left out.
#[must_use]
pub fn assemble(survey: &Survey, rules: &BoardRules) -> Groups {
    let chips = survey.chips.iter().filter(|chip| chip.virtual_of.is_none());
    let mut assembly = Assembly {
        survey,
        rules,
        ports: Ports::of(survey),
        ungrouped: chips.map(|chip| (chip.function.address, chip)).collect(),
        result: Groups::default(),
    };
    assembly.by_configuration();
    if rules.pairing == Pairing::Auto {
        assembly.by_slot();
        assembly.by_switch();
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
    survey: &'a Survey,
    rules: &'a BoardRules,
    ports: Ports<'a>,
    ungrouped: BTreeMap<PciAddress, &'a ChipFunction>,
    result: Groups,
}

impl Assembly<'_> {
    fn group(&mut self, chips: Vec<PciAddress>, evidence: Evidence, expected_chips: usize) {
        for chip in &chips {
            self.ungrouped.remove(chip);
        }
        self.result.groups.push(Group { address: chips[0], chips, evidence, expected_chips });
    }

    fn note(&mut self, note: String) {
        self.result.notes.push(note);
    }

    fn by_configuration(&mut self) {
        for pair in &self.rules.pairs {
            let mut named = pair.clone();
            named.sort_unstable();
            let there: Vec<_> =
                named.iter().copied().filter(|chip| self.ungrouped.contains_key(chip)).collect();
            if there.is_empty() {
                let named = list(&named);
                self.note(format!("boards.pairs names {named}, but none of these chips is there"));
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
            if let Some((slot, _)) = slot_of(&chip.function, &self.survey.slots) {
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
            let (count, chips) = (chips.len(), list(&chips));
            self.note(format!(
                "slot {slot} holds {count} chips of the unknown id {id} ({chips}); they count as \
                 boards of their own until boards.chipsPerBoard or boards.pairs says otherwise"
            ));
        }
    }

    fn by_switch(&mut self) {
        let chips: Vec<_> = self.ungrouped.values().copied().collect();
        for chip in chips {
            if self.ungrouped.contains_key(&chip.function.address) {
                self.under_one_switch(chip);
            }
        }
    }

    fn under_one_switch(&mut self, chip: &ChipFunction) {
        let known = chips_per_board(chip.id, self.rules);
        if known == Some(1) {
            return;
        }
        let expected = known.unwrap_or(2);
        if let Some(chips) = self.complete_board(chip, expected, known.is_some()) {
            let evidence = if known.is_some() { Evidence::DeviceId } else { Evidence::Bridges };
            self.group(chips, evidence, expected);
        } else if known.is_some() {
            self.incomplete_board(chip, expected);
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
            && (self.ports.is_switch(port) || id_is_known && are_one_device(&chips))
            && (id_is_known || endpoints.iter().all(|function| has_own_bridge(function, port)));
        fits.then_some(chips)
    }

    /// A chip known to have company that shows none: a half board where a switch is there whose
    /// other side is empty, undecided otherwise.
    fn incomplete_board(&mut self, chip: &ChipFunction, expected: usize) {
        let ports = chip.function.ports.iter().rev();
        let switch = ports.copied().find(|port| self.ports.is_switch(*port));
        let chips: Vec<_> = switch
            .map(|port| self.ports.endpoints_below(port))
            .unwrap_or_default()
            .iter()
            .map(|function| function.address)
            .collect();
        if !chips.is_empty() && chips.len() < expected && self.common_id(&chips).is_some() {
            self.group(chips, Evidence::DeviceId, expected);
        } else if self.slot_holds_a_switch(chip) {
            self.group(vec![chip.function.address], Evidence::DeviceId, expected);
        } else {
            let (id, address) = (chip.id, chip.function.address);
            self.note(format!(
                "a board of {id} has {expected} chips, but nothing shows which belong with \
                 {address}; it counts as a board of its own until boards.pairs names them"
            ));
        }
    }

    /// A slot named by a port above the chip holds a card with bridges of its own, so what that card
    /// lacks is missing. A slot that names the chip itself tells nothing of a sibling: in a guest
    /// every function that was passed through has such a slot.
    fn slot_holds_a_switch(&self, chip: &ChipFunction) -> bool {
        let own = chip.function.address.slot_address();
        slot_of(&chip.function, &self.survey.slots).is_some_and(|(slot, _)| slot != own)
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
            functions.iter().filter_map(|function| slot_of(function, &self.survey.slots)).collect();
        slots.len() > 1
    }
}

/// What lies below each port, looked up once for the whole machine.
struct Ports<'a> {
    endpoints: BTreeMap<PciAddress, Vec<&'a Function>>,
    bridges_right_below: BTreeMap<PciAddress, usize>,
}

impl<'a> Ports<'a> {
    fn of(survey: &'a Survey) -> Self {
        let virtual_chips = survey.chips.iter().filter(|chip| chip.virtual_of.is_some());
        let virtual_chips: BTreeSet<_> = virtual_chips.map(|chip| chip.function.address).collect();
        let mut ports = Self { endpoints: BTreeMap::new(), bridges_right_below: BTreeMap::new() };
        for function in &survey.functions {
            match function.kind {
                FunctionKind::Endpoint if !virtual_chips.contains(&function.address) => {
                    for port in &function.ports {
                        ports.endpoints.entry(*port).or_default().push(function);
                    }
                }
                FunctionKind::Bridge => {
                    if let Some(port) = function.ports.last() {
                        *ports.bridges_right_below.entry(*port).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        ports
    }

    /// Every physical endpoint anywhere below a port, ascending.
    fn endpoints_below(&self, port: PciAddress) -> &[&'a Function] {
        self.endpoints.get(&port).map_or(&[], Vec::as_slice)
    }

    /// A switch's upstream port is the bridge that has several bridges right below it.
    fn is_switch(&self, port: PciAddress) -> bool {
        self.bridges_right_below.get(&port).is_some_and(|bridges| *bridges > 1)
    }
}

/// Functions of one PCI device are soldered to one board.
fn are_one_device(chips: &[PciAddress]) -> bool {
    chips.windows(2).all(|pair| pair[0].slot_address() == pair[1].slot_address())
}

/// The switch's downstream port stands between any chip and the switch; a bridge of the chip's own
/// makes it two.
fn has_own_bridge(function: &Function, switch: PciAddress) -> bool {
    function.ports.iter().rev().take_while(|port| **port != switch).count() >= 2
}

fn list(chips: &[PciAddress]) -> String {
    chips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
