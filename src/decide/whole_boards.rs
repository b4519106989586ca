//! Boards that were seen whole, so that one that loses a chip is known as half a board.
//!
//! A scan alone cannot tell: without its company a chip looks like a board of its own, under an id
//! of its own. What was seen keeps the board's id, names what is missing, and yields to anything
//! that shows another board in its place.

use std::collections::{BTreeMap, BTreeSet};

use super::health;
use crate::model::board::{Board, Chip, Evidence};
use crate::model::config::BoardRules;
use crate::model::inventory::Inventory;
use crate::model::pci::{PciAddress, PciId};
use crate::model::topology::{DistanceTree, GroupKind};

/// Boards of several chips, by id, as they were when they were whole.
#[derive(Clone, Debug, Default)]
pub struct WholeBoards {
    /// What was seen under other rules is worth nothing.
    rules: BoardRules,
    boards: BTreeMap<PciAddress, Whole>,
}

#[derive(Clone, Debug)]
struct Whole {
    chips: BTreeMap<PciAddress, PciId>,
    model: String,
    evidence: Evidence,
}

impl WholeBoards {
    /// Corrects the boards of `inventory` that lost a chip since they were whole, and remembers
    /// those that are whole.
    pub fn correct(&mut self, inventory: &mut Inventory, rules: &BoardRules) {
        if self.rules != *rules {
            *self = Self { rules: rules.clone(), boards: BTreeMap::new() };
        }
        self.boards.retain(|_, whole| whole.is_still_believed(&inventory.boards));
        for (address, whole) in &self.boards {
            if whole.lost_a_chip(&inventory.boards) {
                whole.correct(*address, inventory);
            }
        }
        inventory.boards.sort_by_key(|board| board.address);
        self.remember(&inventory.boards);
    }

    /// Forgets the boards that left as a whole, unless one of their chips is in `awaited`. Until
    /// then they may come back chip by chip.
    pub fn forget_departed(&mut self, inventory: &Inventory, awaited: &BTreeSet<PciAddress>) {
        let there: BTreeSet<_> =
            inventory.boards.iter().flat_map(|board| chips(&board.chips)).collect();
        self.boards.retain(|_, whole| {
            let mut chips = whole.chips.keys();
            chips.any(|chip| there.contains(chip) || awaited.contains(chip))
        });
    }

    fn remember(&mut self, boards: &[Board]) {
        let whole = boards
            .iter()
            .filter(|board| board.expected_chips > 1 && board.chips.len() == board.expected_chips);
        self.boards.extend(whole.map(|board| {
            let chips = board.chips.iter().map(|chip| (chip.address, chip.id)).collect();
            let Board { model, evidence, .. } = board;
            (board.address, Whole { chips, model: model.clone(), evidence: *evidence })
        }));
    }
}

impl Whole {
    /// False once there is something else at one of its places, or its chips are with others.
    fn is_still_believed(&self, boards: &[Board]) -> bool {
        let touching = boards.iter().filter(|board| self.has_any_of(board));
        touching.clone().all(|board| {
            board.chips.iter().all(|chip| self.chips.get(&chip.address) == Some(&chip.id))
        }) && (touching.count() < 2 || self.lost_a_chip(boards))
    }

    fn has_any_of(&self, board: &Board) -> bool {
        board.chips.iter().any(|chip| self.chips.contains_key(&chip.address))
    }

    fn lost_a_chip(&self, boards: &[Board]) -> bool {
        let touching = boards.iter().filter(|board| self.has_any_of(board));
        let there: usize = touching.map(|board| board.chips.len()).sum();
        (1..self.chips.len()).contains(&there)
    }

    /// Puts the board as it is now in place of what the scan took its chips for.
    fn correct(&self, address: PciAddress, inventory: &mut Inventory) {
        let (of_this, others) =
            std::mem::take(&mut inventory.boards).into_iter().partition(|it| self.has_any_of(it));
        let taken = self.left_alone(inventory);
        let of_this: Vec<Board> = of_this;
        inventory.boards = others;
        for board in &of_this {
            rename_board(&mut inventory.tree, board.address, address);
        }
        let chips: Vec<Chip> = of_this.into_iter().flat_map(|board| board.chips).collect();
        inventory.boards.push(self.half(address, chips, &taken));
    }

    fn left_alone(&self, inventory: &Inventory) -> Vec<String> {
        let skipped = inventory.skipped.iter();
        let of_this = skipped.filter(|skipped| self.chips.contains_key(&skipped.address));
        of_this.map(|skipped| format!("{} is {}", skipped.address, skipped.reason)).collect()
    }

    fn half(&self, address: PciAddress, mut chips: Vec<Chip>, taken: &[String]) -> Board {
        chips.sort_by_key(|chip| chip.address);
        let missing = health::judge_board(self.chips.len(), chips.len(), taken);
        let of_chips = chips.iter().flat_map(|chip| chip.reasons.iter().cloned());
        let reasons: Vec<_> = missing.into_iter().chain(of_chips).collect();
        let numa_nodes: BTreeSet<_> = chips.iter().filter_map(|chip| chip.numa_node).collect();
        Board {
            address,
            model: self.model.clone(),
            evidence: self.evidence,
            expected_chips: self.chips.len(),
            health: health::verdict(&reasons),
            reasons,
            numa_nodes: numa_nodes.into_iter().collect(),
            chips,
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

fn chips(chips: &[Chip]) -> impl Iterator<Item = PciAddress> {
    chips.iter().map(|chip| chip.address)
}
