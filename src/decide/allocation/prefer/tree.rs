//! The distance tree reduced to one request: only devices with something to choose, and only joins
//! of two subtrees.

use std::ops::Range;

use super::candidates::{CandidateDevice, Candidates};
use crate::model::topology::{Distance, DistanceTree, GroupKind};

/// The candidates below one point of the tree.
#[derive(Clone, Debug)]
pub(super) struct Subtree {
    /// What it is made of.
    pub(super) content: SubtreeContent,
    /// How few of its ids may be chosen.
    pub(super) least: usize,
    /// How many of its ids may be chosen.
    pub(super) most: usize,
    /// How many of its ids are available.
    pub(super) available: usize,
    /// From its lowest id to its highest, as indices in [`Candidates::ids`]; ids between them may
    /// belong elsewhere.
    pub(super) ids: Range<usize>,
    /// Whole boards that go with the first id that is chosen here, not counting those further down.
    pub(super) boards: u64,
    /// Whole switches that go with the first id that is chosen here, likewise.
    pub(super) switches: u64,
}

/// What a part is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum SubtreeContent {
    /// One device, by its index in [`Candidates::devices`].
    Device(usize),
    /// Two parts, and what a pair across them costs.
    Join { left: usize, right: usize, cost: u64 },
}

/// Parts before the joins that use them; the last one holds all candidates. Empty without any.
pub(super) fn parts(tree: &DistanceTree, candidates: &Candidates) -> Vec<Subtree> {
    let mut builder = Builder::new(tree, candidates);
    // A parent's index is lower than its child's: from the last group up, all below is done.
    for index in (1..=tree.groups.len()).rev() {
        builder.close_group(index);
    }
    builder.join_all(WHOLE_NODE, Distance::Sys.cost());
    builder.parts
}

/// The index above all groups, for devices that are in none. Group `g` of the tree has index `g + 1`.
const WHOLE_NODE: usize = 0;

struct Builder<'a> {
    tree: &'a DistanceTree,
    parts: Vec<Subtree>,
    groups: Vec<GroupParts>,
    /// For each subtree the next one of the same group: a linked list, so that no group allocates.
    next: Vec<Option<usize>>,
    /// The subtrees that are being joined.
    row: Vec<usize>,
}

/// What is known of one group while the tree is built.
#[derive(Clone, Copy, Default)]
struct GroupParts {
    first: Option<usize>,
    /// Something below is in use already, so there is nothing whole to keep.
    broken: bool,
}

impl<'a> Builder<'a> {
    fn new(tree: &'a DistanceTree, candidates: &Candidates) -> Self {
        let most = candidates.devices.len() * 2;
        let mut builder = Self {
            tree,
            parts: Vec::with_capacity(most),
            groups: vec![GroupParts::default(); tree.groups.len() + 1],
            next: Vec::with_capacity(most),
            row: Vec::new(),
        };
        // From the last, since lists grow at the head: the joins then see ascending addresses.
        for (index, device) in candidates.devices.iter().enumerate().rev() {
            builder.add_device(index, device);
        }
        builder
    }

    fn add_device(&mut self, number: usize, device: &CandidateDevice) {
        let index = device
            .group
            .filter(|group| *group < self.tree.groups.len())
            .map_or(WHOLE_NODE, |group| group + 1);
        self.groups[index].broken |= device.ids.len() < device.total;
        if device.ids.is_empty() {
            return;
        }
        let part = self.push(Subtree {
            content: SubtreeContent::Device(number),
            least: device.least,
            most: device.most,
            available: device.ids.len(),
            ids: device.ids.clone(),
            boards: 0,
            switches: 0,
        });
        self.attach(part, index);
    }

    /// Joins what is in a group, counts the group if it is whole, and adds it to the parent.
    fn close_group(&mut self, index: usize) {
        let group = self.tree.groups[index - 1];
        let parent = group
            .parent
            .map(|parent| parent + 1)
            .filter(|parent| *parent < index)
            .unwrap_or(WHOLE_NODE);
        let broken = self.groups[index].broken;
        self.groups[parent].broken |= broken;
        let Some(first) = self.groups[index].first else {
            return;
        };
        let is_meeting_point = self.next[first].is_some();
        let part = self.join_all(index, group.distance.cost()).unwrap_or(first);
        match group.kind {
            GroupKind::Board(_) if !broken => self.parts[part].boards += 1,
            // A port above a single part is no switch: nothing meets there.
            GroupKind::Port(_) if !broken && is_meeting_point => self.parts[part].switches += 1,
            _ => {}
        }
        self.attach(part, parent);
    }

    /// Joins the subtrees of a group to one, by neighbours, so that the joins stay balanced.
    fn join_all(&mut self, index: usize, cost: u64) -> Option<usize> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        let mut next = self.groups[index].first;
        while let Some(part) = next {
            row.push(part);
            next = self.next[part];
        }
        while row.len() > 1 {
            for pair in 0..row.len() / 2 {
                row[pair] = self.join(row[2 * pair], row[2 * pair + 1], cost);
            }
            if row.len() % 2 == 1 {
                let last = row.len() - 1;
                row[last / 2] = row[last];
            }
            row.truncate(row.len().div_ceil(2));
        }
        self.row = row;
        self.row.first().copied()
    }

    fn join(&mut self, left: usize, right: usize, cost: u64) -> usize {
        let (one, other) = (&self.parts[left], &self.parts[right]);
        let part = Subtree {
            content: SubtreeContent::Join { left, right, cost },
            least: one.least + other.least,
            most: one.most + other.most,
            available: one.available + other.available,
            ids: one.ids.start.min(other.ids.start)..one.ids.end.max(other.ids.end),
            boards: 0,
            switches: 0,
        };
        self.push(part)
    }

    fn push(&mut self, part: Subtree) -> usize {
        self.parts.push(part);
        self.next.push(None);
        self.parts.len() - 1
    }

    fn attach(&mut self, part: usize, index: usize) {
        self.next[part] = self.groups[index].first.replace(part);
    }
}
