//! The search: for every subtree and every number of ids from it, the cheapest choice.

use std::cmp::Ordering;
use std::ops::Range;

use super::candidates::{CandidateDevice, Candidates};
use super::score::Score;
use super::sharing;
use super::tree::{Subtree, SubtreeContent};
use crate::model::config::SharingPolicy;

/// The cheapest choice: its cost, and how many ids of each device it takes.
pub(super) struct Solution {
    pub(super) score: Score,
    bits: Vec<u64>,
}

impl Solution {
    pub(super) fn taken(&self, device: &CandidateDevice) -> usize {
        let chosen = |id: &usize| self.bits[id / BITS] & bit(*id) != 0;
        device.ids.clone().filter(chosen).count()
    }
}

/// Needs as many ids as are asked for: the parts' `least` ≤ size ≤ the parts' `most`.
pub(super) fn solve(
    parts: &[Subtree],
    candidates: &Candidates,
    policy: Option<SharingPolicy>,
) -> Solution {
    let Some(whole) = parts.last() else {
        return Solution { score: Score::default(), bits: Vec::new() };
    };
    let mut search = Search::new(parts, whole, candidates.size);
    for (index, part) in parts.iter().enumerate() {
        search.fill(index, part, candidates, policy);
    }
    search.finish(candidates.ids.len().div_ceil(BITS))
}

const BITS: usize = u64::BITS as usize;

/// The lowest id of a word is its highest bit: of two sets of one size, the one with the greater
/// words has the lower addresses.
fn bit(id: usize) -> u64 {
    1 << (BITS - 1 - id % BITS)
}

struct Search {
    /// One for each part.
    tables: Vec<Table>,
    /// The cells of all tables, as far as they are filled.
    scores: Vec<Score>,
    /// The sets of all cells, likewise.
    bits: Vec<u64>,
}

/// The best sets of one part, a cell for each size that can become part of an answer.
///
/// A set is a row of bits, one for each id between the part's lowest and highest. Taking `c` ids
/// of a device sets its first `c` bits, so the order of rows is the order of address lists, with
/// replicas too.
#[derive(Clone)]
struct Table {
    sizes: Range<usize>,
    available: usize,
    /// Index of the first cell in `scores`.
    cells: usize,
    /// The words that a row has, of all the words of a set.
    words: Range<usize>,
    /// Index of the first row in `bits`.
    rows: usize,
}

impl Table {
    fn cell(&self, size: usize) -> usize {
        self.cells + size - self.sizes.start
    }

    fn row(&self, size: usize) -> usize {
        self.rows + (size - self.sizes.start) * self.words.len()
    }
}

impl Search {
    /// Lays out the tables, so that their space is allocated once.
    fn new(parts: &[Subtree], whole: &Subtree, size: usize) -> Self {
        // How far the size is below the most, and above the least, of all subtrees together.
        let (slack, extra) = (whole.most - size, size - whole.least);
        let (mut cells, mut rows) = (0, 0);
        let layout = |part: &Subtree| {
            // A size is of use only if the other parts can make up the rest of the answer.
            let least = part.least.max(part.most.saturating_sub(slack));
            let most = part.most.min(part.least + extra);
            let table = Table {
                sizes: least..most + 1,
                available: part.available,
                cells,
                words: part.ids.start / BITS..(part.ids.end - 1) / BITS + 1,
                rows,
            };
            cells += table.sizes.len();
            rows += table.sizes.len() * table.words.len();
            table
        };
        Self {
            tables: parts.iter().map(layout).collect(),
            scores: Vec::with_capacity(cells),
            bits: Vec::with_capacity(rows),
        }
    }

    fn fill(
        &mut self,
        index: usize,
        part: &Subtree,
        candidates: &Candidates,
        policy: Option<SharingPolicy>,
    ) {
        let table = self.tables[index].clone();
        match part.content {
            SubtreeContent::Device(index) => {
                self.fill_device(&table, &candidates.devices[index], policy);
            }
            SubtreeContent::Join { left, right, cost } => self.fill_join(&table, left, right, cost),
        }
        let broken = Score { boards: part.boards, switches: part.switches, ..Score::default() };
        // All cells but that of size 0.
        for cell in table.cell(table.sizes.start.max(1))..self.scores.len() {
            self.scores[cell] = self.scores[cell] + broken;
        }
    }

    fn fill_device(
        &mut self,
        table: &Table,
        device: &CandidateDevice,
        policy: Option<SharingPolicy>,
    ) {
        let free = device.ids.len();
        let in_use = device.total.saturating_sub(free);
        for taken in table.sizes.clone() {
            let cost = sharing::cost(policy, taken as u64, free as u64, in_use as u64);
            self.scores.push(cost);
            let row = self.bits.len();
            self.bits.resize(row + table.words.len(), 0);
            for id in device.ids.clone().take(taken) {
                self.bits[row + id / BITS - table.words.start] |= bit(id);
            }
        }
    }

    fn fill_join(&mut self, table: &Table, left: usize, right: usize, cost: u64) {
        let join =
            Join { left: self.tables[left].clone(), right: self.tables[right].clone(), cost };
        for size in table.sizes.clone() {
            let (split, score) = self.best_split(&join, size);
            self.scores.push(score);
            for word in table.words.clone() {
                self.bits.push(self.joined_word(&join, split, word));
            }
        }
    }

    fn best_split(&self, join: &Join, size: usize) -> (Split, Score) {
        let mut splits = join.splits(size);
        let first = splits.next().expect("sizes of a join are sums of its parts' sizes");
        splits.fold((first, self.joined_score(join, first)), |best, split| {
            let score = self.joined_score(join, split);
            match score.cmp(&best.1) {
                Ordering::Less => (split, score),
                Ordering::Equal if self.is_lower(join, split, best.0) => (split, score),
                _ => best,
            }
        })
    }

    fn joined_score(&self, join: &Join, split: Split) -> Score {
        let (left, right) = (split.left as u64, split.right as u64);
        let left_rest = join.left.available as u64 - left;
        let right_rest = join.right.available as u64 - right;
        let across = Score {
            distance: join.cost * left * right,
            scatter: join.cost * left_rest * right_rest,
            ..Score::default()
        };
        self.scores[join.left.cell(split.left)] + self.scores[join.right.cell(split.right)] + across
    }

    /// Whether one split's set has lower addresses than the other's.
    fn is_lower(&self, join: &Join, split: Split, other: Split) -> bool {
        let (left, right) = (&join.left.words, &join.right.words);
        let words = left.start.min(right.start)..left.end.max(right.end);
        words
            .map(|word| (self.joined_word(join, split, word), self.joined_word(join, other, word)))
            .find(|(one, other)| one != other)
            .is_some_and(|(one, other)| one > other)
    }

    fn joined_word(&self, join: &Join, split: Split, word: usize) -> u64 {
        self.word(&join.left, split.left, word) | self.word(&join.right, split.right, word)
    }

    fn word(&self, table: &Table, size: usize, word: usize) -> u64 {
        if !table.words.contains(&word) {
            return 0;
        }
        self.bits[table.row(size) + word - table.words.start]
    }

    /// The last subtree has a single cell: the requested size.
    fn finish(mut self, words: usize) -> Solution {
        let last = self.tables.pop().expect("there is a part");
        let mut bits = vec![0; words];
        bits[last.words].copy_from_slice(&self.bits[last.rows..]);
        Solution { score: self.scores[last.cells], bits }
    }
}

struct Join {
    left: Table,
    right: Table,
    cost: u64,
}

/// How many ids come from either side.
#[derive(Clone, Copy)]
struct Split {
    left: usize,
    right: usize,
}

impl Join {
    fn splits(&self, size: usize) -> impl Iterator<Item = Split> + use<> {
        let lowest = self.left.sizes.start.max((size + 1).saturating_sub(self.right.sizes.end));
        let end = self.left.sizes.end.min(size + 1 - self.right.sizes.start);
        (lowest..end).map(move |left| Split { left, right: size - left })
    }
}
