//! Boards that were seen whole, so that one that loses a chip is known as half a board.
//!
//! A scan alone cannot show that: without its sibling a chip appears as a board of its own, under an id
//! of its own. The history keeps the board's id, names what is missing, and yields to a scan that
//! shows another board in its place.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::board::Evidence;
use crate::model::config::BoardRules;
use crate::model::inventory::Skipped;
use crate::model::observed::{ObservedBoard, ObservedChip, ObservedNode};
use crate::model::pci::{PciAddress, PciId};
use crate::model::topology::{DistanceTree, GroupKind};

/// Boards of several chips, by id, as they were when they were whole.
#[derive(Clone, Debug, Default)]
pub struct BoardHistory {
    /// What was seen under other rules no longer counts.
    rules: BoardRules,
    boards: BTreeMap<PciAddress, WholeBoard>,
}

#[derive(Clone, Debug)]
struct WholeBoard {
    chips: BTreeMap<PciAddress, PciId>,
    model: String,
    evidence: Evidence,
}

impl BoardHistory {
    /// Corrects the boards of `node` that lost a chip since they were whole, and remembers those
    /// that are whole.
    pub fn correct(&mut self, node: &mut ObservedNode, rules: &BoardRules) {
        if self.rules != *rules {
            *self = Self { rules: rules.clone(), boards: BTreeMap::new() };
        }
        self.boards.retain(|_, whole| whole.still_counts(&node.boards));
        for (address, whole) in &self.boards {
            if whole.lost_a_chip(&node.boards) {
                whole.correct(*address, node);
            }
        }
        node.boards.sort_by_key(|board| board.address);
        self.remember(&node.boards);
    }

    /// Forgets the boards that left as a whole, unless one of their chips is in `awaited`. Until
    /// then they may come back chip by chip.
    pub fn forget_departed(&mut self, node: &ObservedNode, awaited: &BTreeSet<PciAddress>) {
        let present: BTreeSet<_> = node.chips().map(|chip| chip.address).collect();
        self.boards.retain(|_, whole| {
            let mut chips = whole.chips.keys();
            chips.any(|chip| present.contains(chip) || awaited.contains(chip))
        });
    }

    fn remember(&mut self, boards: &[ObservedBoard]) {
        let whole = boards
            .iter()
            .filter(|board| board.expected_chips > 1 && board.chips.len() == board.expected_chips);
        self.boards.extend(whole.map(|board| {
            let chips = board.chips.iter().map(|chip| (chip.address, chip.id)).collect();
            let ObservedBoard { model, evidence, .. } = board;
            (board.address, WholeBoard { chips, model: model.clone(), evidence: *evidence })
        }));
    }
}

impl WholeBoard {
    /// False once another chip is at one of its places, or its chips are with others.
    fn still_counts(&self, boards: &[ObservedBoard]) -> bool {
        let touching = boards.iter().filter(|board| self.has_any_of(board));
        touching.clone().all(|board| {
            board.chips.iter().all(|chip| self.chips.get(&chip.address) == Some(&chip.id))
        }) && (touching.count() < 2 || self.lost_a_chip(boards))
    }

    fn has_any_of(&self, board: &ObservedBoard) -> bool {
        board.chips.iter().any(|chip| self.chips.contains_key(&chip.address))
    }

    fn lost_a_chip(&self, boards: &[ObservedBoard]) -> bool {
        let touching = boards.iter().filter(|board| self.has_any_of(board));
        let present: usize = touching.map(|board| board.chips.len()).sum();
        (1..self.chips.len()).contains(&present)
    }

    /// Puts the board in place of what the scan took its chips for.
    fn correct(&self, address: PciAddress, node: &mut ObservedNode) {
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut node.boards).into_iter().partition(|board| self.has_any_of(board));
        node.boards = others;
        for board in &own {
            rename_board(&mut node.tree, board.address, address);
        }
        let chips = own.into_iter().flat_map(|board| board.chips).collect();
        node.boards.push(self.half(address, chips, self.skipped(&node.skipped)));
    }

    fn skipped(&self, skipped: &[Skipped]) -> Vec<Skipped> {
        let own = skipped.iter().filter(|skipped| self.chips.contains_key(&skipped.address));
        own.cloned().collect()
    }

    fn half(
        &self,
        address: PciAddress,
        mut chips: Vec<ObservedChip>,
        skipped: Vec<Skipped>,
    ) -> ObservedBoard {
        chips.sort_by_key(|chip| chip.address);
        ObservedBoard {
            address,
            model: self.model.clone(),
            evidence: self.evidence,
            expected_chips: self.chips.len(),
            chips,
            skipped,
        }
    }
}

fn rename_board(tree: &mut DistanceTree, from: PciAddress, to: PciAddress) {
    for group in &mut tree.groups {
        if group.kind == GroupKind::Board(from) {
            group.kind = GroupKind::Board(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::health::scan_signals::missing_chips;
    use crate::decide::machine::observe::observe;
    use crate::model::config::{Config, Pairing};
    use crate::model::machine::{Entry, Machine};
    use crate::parse::node_file::parse_node_file;
    use crate::parse::sysfs::{PCI_DEVICES, function_path, parse_sysfs_scan};

    const X8: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/nodes/bi-v150-x8.node"));

    /// The chips of one board.
    const LOWER: &str = "0000:64:00.0";
    const UPPER: &str = "0000:67:00.0";

    struct Node {
        machine: Machine,
        config: Config,
        seen: BoardHistory,
    }

    impl Node {
        /// Seen whole.
        fn x8() -> Self {
            let machine = parse_node_file(X8).unwrap();
            let mut node =
                Self { machine, config: Config::default(), seen: BoardHistory::default() };
            node.scan();
            node
        }

        fn scan(&mut self) -> ObservedNode {
            let scan = parse_sysfs_scan(&self.machine, &self.config.discovery);
            let mut node = observe(&scan, &self.config);
            self.seen.correct(&mut node, &self.config.boards);
            node
        }

        fn unplug(&mut self, chip: &str) {
            let directory = function_path(&self.machine, chip.parse().unwrap());
            self.machine.remove(&directory);
            self.machine.remove(&format!("{PCI_DEVICES}/{chip}"));
        }

        fn give_id(&mut self, chip: &str, device: &str) {
            let directory = function_path(&self.machine, chip.parse().unwrap());
            let device = Entry::File(format!("{device}\n").into_bytes());
            self.machine.insert(&format!("{directory}/device"), device);
        }
    }

    fn board(node: &ObservedNode, address: &str) -> Option<ObservedBoard> {
        let address = address.parse().unwrap();
        node.boards.iter().find(|board| board.address == address).cloned()
    }

    #[track_caller]
    fn check_half(node: &ObservedNode, chip: &str) {
        let board = board(node, LOWER).expect("the board keeps its id");
        assert_eq!(board.chips.iter().map(|it| it.address.to_string()).collect::<Vec<_>>(), [chip]);
        assert_eq!(missing_chips(&board).unwrap().detail, "1 of 2 chips present");
        assert_eq!(node.boards.len(), 8);
        assert!(node.boards.is_sorted_by_key(|board| board.address));
        let group = node.tree.chips[&chip.parse().unwrap()];
        assert_eq!(node.tree.groups[group].kind, GroupKind::Board(board.address));
    }

    #[test]
    fn half_a_board_keeps_the_boards_id_whichever_chip_left() {
        for (left, stays) in [(LOWER, UPPER), (UPPER, LOWER)] {
            let mut node = Node::x8();
            node.unplug(left);
            check_half(&node.scan(), stays);
            check_half(&node.scan(), stays);
        }
    }

    #[test]
    fn a_board_that_was_never_whole_is_what_the_scan_shows() {
        let mut node = Node::x8();
        node.seen = BoardHistory::default();
        node.unplug(LOWER);
        let inventory = node.scan();
        assert!(board(&inventory, LOWER).is_none());
        assert_eq!(board(&inventory, UPPER).unwrap().evidence, Evidence::Siblings);
    }

    #[test]
    fn a_board_that_is_whole_again_is_as_it_was() {
        let mut node = Node::x8();
        let before = node.scan();
        let whole = node.machine.clone();
        node.unplug(LOWER);
        node.scan();
        node.machine = whole;
        assert_eq!(node.scan(), before);
    }

    #[test]
    fn a_board_that_comes_back_chip_by_chip_is_half_a_board_in_between() {
        let mut node = Node::x8();
        let whole = node.machine.clone();
        node.unplug(LOWER);
        let half = node.machine.clone();
        node.unplug(UPPER);
        let gone = node.scan();
        assert_eq!(gone.boards.len(), 7);
        node.seen.forget_departed(&gone, &BTreeSet::from([UPPER.parse().unwrap()]));
        node.machine = half.clone();
        check_half(&node.scan(), UPPER);

        // It is forgotten: what comes now is treated as new.
        node.unplug(UPPER);
        let gone = node.scan();
        node.seen.forget_departed(&gone, &BTreeSet::new());
        node.machine = half;
        assert!(board(&node.scan(), UPPER).is_some());
        node.machine = whole;
        assert_eq!(node.scan().boards.len(), 8);
    }

    #[test]
    fn another_chip_in_its_place_ends_the_board() {
        let mut node = Node::x8();
        node.give_id(LOWER, "0x0009");
        let inventory = node.scan();
        for chip in [LOWER, UPPER] {
            assert_eq!(board(&inventory, chip).unwrap().chips.len(), 1, "{chip}");
        }
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let mut node = Node::x8();
        node.config.boards.pairing = Pairing::Off;
        node.unplug(LOWER);
        assert_eq!(missing_chips(&board(&node.scan(), UPPER).unwrap()), None);
    }
}
