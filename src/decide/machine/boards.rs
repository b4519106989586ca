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
use crate::model::sysfs::SysfsScan;

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
pub fn assemble(survey: &SysfsScan, rules: &BoardRules) -> Groups {
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
    survey: &'a SysfsScan,
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
    fn of(survey: &'a SysfsScan) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample::{SINGLE, Sample, UNKNOWN, at};

    fn dual() -> BoardRules {
        let id = PciId { vendor: 0x1e3e, device: UNKNOWN };
        BoardRules { chips_per_board: [(id, 2)].into(), ..BoardRules::default() }
    }

    fn pair(chips: &[&str]) -> BoardRules {
        let pair = chips.iter().map(|chip| at(chip)).collect();
        BoardRules { pairs: vec![pair], ..BoardRules::default() }
    }

    /// `0000:14:00.0 0000:17:00.0 by own bridges`; with the board's id in front where it is not its
    /// first chip's, and how many chips it should have where that is more.
    fn shown(group: &Group) -> String {
        let chips = group.chips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let mut text = format!("{chips} by {}", group.evidence);
        if group.address != group.chips[0] {
            text = format!("{}: {text}", group.address);
        }
        if group.expected_chips != group.chips.len() {
            text.push_str(&format!(", of {}", group.expected_chips));
        }
        text
    }

    #[track_caller]
    fn check(sample: Sample, rules: &BoardRules, boards: &[&str], notes: &[&str]) {
        let groups = assemble(&sample.survey(), rules);
        let shown: Vec<_> = groups.groups.iter().map(shown).collect();
        assert_eq!(
            (&*shown, &*groups.notes),
            (
                &*boards.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
                &*notes.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
            )
        );
    }

    #[track_caller]
    fn check_boards(sample: Sample, boards: &[&str]) {
        check(sample, &BoardRules::default(), boards, &[]);
    }

    const SINGLES: &[&str] = &["0000:14:00.0 by single-chip", "0000:17:00.0 by single-chip"];

    #[test]
    fn two_chips_behind_their_own_bridges_alone_under_a_switch_are_a_board() {
        let sample = Sample::default().dual_board("00:01.0", 0x10, UNKNOWN);
        check_boards(sample, &["0000:14:00.0 0000:17:00.0 by own bridges"]);
    }

    #[test]
    fn two_boards_under_one_external_switch_are_two() {
        let sample = Sample::default()
            .dual_board("00:01.0 01:00.0 02:00.0", 0x10, UNKNOWN)
            .dual_board("00:01.0 01:00.0 02:01.0", 0x20, UNKNOWN);
        check_boards(
            sample,
            &[
                "0000:14:00.0 0000:17:00.0 by own bridges",
                "0000:24:00.0 0000:27:00.0 by own bridges",
            ],
        );
    }

    #[test]
    fn cards_right_below_one_switch_stay_boards_of_their_own() {
        let sample = Sample::default()
            .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
            .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN);
        check_boards(sample, &["0000:03:00.0 by single-chip", "0000:04:00.0 by single-chip"]);
    }

    #[test]
    fn a_third_endpoint_under_the_switch_leaves_the_chips_alone() {
        let sample = Sample::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .other("00:01.0 10:00.0 11:02.0 18:00.0");
        check_boards(sample, SINGLES);
    }

    #[test]
    fn chips_of_two_ids_are_no_board() {
        let sample =
            Sample::default().dual_board("00:01.0", 0x10, UNKNOWN).with(|chip| chip.id.device = 9);
        check_boards(sample, SINGLES);
    }

    #[test]
    fn a_model_of_one_chip_is_never_paired() {
        let sample = Sample::default().dual_board("00:01.0", 0x10, SINGLE).slot("1", "10:00.0");
        check_boards(sample, SINGLES);
    }

    #[test]
    fn a_known_id_needs_no_bridges_of_its_own() {
        let sample = Sample::default()
            .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
            .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN);
        check(sample, &dual(), &["0000:03:00.0 0000:04:00.0 by device id"], &[]);
    }

    #[test]
    fn two_functions_of_one_device_and_a_known_id_are_a_board() {
        let sample =
            Sample::default().chip("00:01.0 03:00.0", UNKNOWN).chip("00:01.0 03:00.1", UNKNOWN);
        check(sample, &dual(), &["0000:03:00.0 0000:03:00.1 by device id"], &[]);
    }

    #[test]
    fn chips_in_one_slot_are_a_board() {
        let sample = Sample::default()
            .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
            .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN)
            .slot("7", "01:00.0");
        check_boards(sample, &["0000:03:00.0 0000:04:00.0 by same slot"]);
    }

    #[test]
    fn different_slots_prove_different_boards() {
        let sample = Sample::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .slot("1", "12:00.0")
            .slot("2", "15:00.0");
        check_boards(sample, SINGLES);
    }

    #[test]
    fn a_riser_with_four_chips_in_one_slot_is_no_board() {
        let below = |port: u8| format!("00:01.0 01:00.0 02:{port:02x}.0 {:02x}:00.0", port + 3);
        let sample =
            (0..4).fold(Sample::default(), |sample, port| sample.chip(&below(port), UNKNOWN));
        let boards = [
            "0000:03:00.0 by single-chip",
            "0000:04:00.0 by single-chip",
            "0000:05:00.0 by single-chip",
            "0000:06:00.0 by single-chip",
        ];
        let note = "slot 0000:01:00 holds 4 chips of the unknown id 1e3e:0003 (0000:03:00.0, \
                    0000:04:00.0, 0000:05:00.0, 0000:06:00.0); they count as boards of their own \
                    until boards.chipsPerBoard or boards.pairs says otherwise";
        check(sample.slot("7", "01:00.0"), &BoardRules::default(), &boards, &[note]);
    }

    #[test]
    fn configuration_is_stronger_than_slots() {
        let sample = Sample::default()
            .chip("00:01.0 03:00.0", UNKNOWN)
            .chip("00:02.0 04:00.0", UNKNOWN)
            .slot("1", "03:00.0")
            .slot("2", "04:00.0");
        let rules = pair(&["04:00.0", "03:00.0"]);
        check(sample, &rules, &["0000:03:00.0 0000:04:00.0 by configured"], &[]);
    }

    #[test]
    fn a_configured_board_keeps_its_id_while_its_lower_chip_is_absent() {
        let sample = Sample::default().chip("00:02.0 04:00.0", UNKNOWN);
        let rules = pair(&["04:00.0", "03:00.0"]);
        check(sample, &rules, &["0000:03:00.0: 0000:04:00.0 by configured, of 2"], &[]);
    }

    #[test]
    fn a_configured_board_without_any_chip_is_a_note() {
        let sample = Sample::default().chip("00:02.0 05:00.0", UNKNOWN);
        let note =
            "boards.pairs names 0000:03:00.0, 0000:04:00.0, but none of these chips is there";
        check(sample, &pair(&["03:00.0", "04:00.0"]), &["0000:05:00.0 by single-chip"], &[note]);
    }

    #[test]
    fn with_pairing_off_only_configuration_counts() {
        let sample = Sample::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .dual_board("00:02.0", 0x20, UNKNOWN)
            .slot("1", "10:00.0");
        let rules = BoardRules { pairing: Pairing::Off, ..pair(&["24:00.0", "27:00.0"]) };
        let boards = [
            "0000:14:00.0 by single-chip",
            "0000:17:00.0 by single-chip",
            "0000:24:00.0 0000:27:00.0 by configured",
        ];
        check(sample, &rules, &boards, &[]);
    }

    #[test]
    fn a_board_of_a_known_id_whose_other_side_is_empty_is_half_a_board() {
        let sample = Sample::default()
            .chip("00:01.0 10:00.0 11:00.0 12:00.0 13:00.0 14:00.0", UNKNOWN)
            .port("00:01.0 10:00.0 11:01.0");
        check(sample, &dual(), &["0000:14:00.0 by device id, of 2"], &[]);
    }

    #[test]
    fn a_lone_chip_of_a_known_id_in_a_slot_with_a_switch_is_half_a_board() {
        let sample =
            Sample::default().chip("00:01.0 10:00.0 11:00.0 12:00.0", UNKNOWN).slot("1", "10:00.0");
        check(sample, &dual(), &["0000:12:00.0 by device id, of 2"], &[]);
    }

    /// A guest sees no port above what was passed through, and each function has a slot.
    #[test]
    fn chips_right_on_a_root_bus_are_not_judged_half_boards() {
        let sample = Sample::default()
            .chip("00:06.0", UNKNOWN)
            .chip("00:07.0", UNKNOWN)
            .slot("6", "00:06.0")
            .slot("7", "00:07.0");
        let boards = ["0000:00:06.0 by single-chip", "0000:00:07.0 by single-chip"];
        let note = |chip| {
            format!(
                "a board of 1e3e:0003 has 2 chips, but nothing shows which belong with \
                 0000:00:{chip}; it counts as a board of its own until boards.pairs names them"
            )
        };
        check(sample, &dual(), &boards, &[&note("06.0"), &note("07.0")]);
    }

    #[test]
    fn virtual_functions_are_neither_chips_nor_company() {
        let sample = Sample::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .chip("00:01.0 10:00.0 11:01.0 15:00.0 16:00.0 17:00.1", UNKNOWN)
            .with(|chip| chip.virtual_of = Some(at("17:00.0")));
        check_boards(sample, &["0000:14:00.0 0000:17:00.0 by own bridges"]);
    }

    #[test]
    fn the_same_numbers_in_two_domains_are_two_boards() {
        let sample = Sample::default()
            .chip("10000:e0:01.0 10000:e1:00.0", SINGLE)
            .chip("20000:e0:01.0 20000:e1:00.0", SINGLE);
        check_boards(sample, &["10000:e1:00.0 by single-chip", "20000:e1:00.0 by single-chip"]);
    }
}
