//! The distance tree as one request needs it: only devices with something to choose, and only
//! places where two parts meet.

use std::ops::Range;

use super::candidates::{Candidates, Share};
use crate::model::topology::{Distance, DistanceTree, GroupKind};

/// A set of candidates below one place of the tree.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// What it is made of.
    pub(super) content: Content,
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
pub(super) enum Content {
    /// One device, by its index in [`Candidates::devices`].
    Device(usize),
    /// Two parts, and what a pair across them costs.
    Join { left: usize, right: usize, cost: u64 },
}

/// Parts before the joins that use them; the last one holds all candidates. Empty without any.
pub(super) fn parts(tree: &DistanceTree, candidates: &Candidates) -> Vec<Part> {
    let mut builder = Builder::new(tree, candidates);
    // A parent's index is lower than its child's: from the last group up, all below is done.
    for place in (1..=tree.groups.len()).rev() {
        builder.close_group(place);
    }
    builder.join_all(EVERYTHING, Distance::Sys.cost());
    builder.parts
}

/// The place above the machine, which devices that are in no group belong to. Group `g` is at
/// place `g + 1`.
const EVERYTHING: usize = 0;

struct Builder<'a> {
    tree: &'a DistanceTree,
    parts: Vec<Part>,
    places: Vec<Place>,
    /// For each part the next one of the same place: a linked list, so that no place allocates.
    next: Vec<Option<usize>>,
    /// The parts that are being joined.
    row: Vec<usize>,
}

#[derive(Clone, Copy, Default)]
struct Place {
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
            places: vec![Place::default(); tree.groups.len() + 1],
            next: Vec::with_capacity(most),
            row: Vec::new(),
        };
        // From the last, since lists grow at the head: the joins then see ascending addresses.
        for (index, device) in candidates.devices.iter().enumerate().rev() {
            builder.add_device(index, device);
        }
        builder
    }

    fn add_device(&mut self, index: usize, device: &Share) {
        let place = device
            .group
            .filter(|group| *group < self.tree.groups.len())
            .map_or(EVERYTHING, |group| group + 1);
        self.places[place].broken |= device.ids.len() < device.total;
        if device.ids.is_empty() {
            return;
        }
        let part = self.push(Part {
            content: Content::Device(index),
            least: device.least,
            most: device.most,
            available: device.ids.len(),
            ids: device.ids.clone(),
            boards: 0,
            switches: 0,
        });
        self.hang(part, place);
    }

    /// Joins what is in a group, notes what it is worth whole, and hands it to the parent.
    fn close_group(&mut self, place: usize) {
        let group = self.tree.groups[place - 1];
        let parent = group
            .parent
            .map(|parent| parent + 1)
            .filter(|parent| *parent < place)
            .unwrap_or(EVERYTHING);
        let broken = self.places[place].broken;
        self.places[parent].broken |= broken;
        let Some(first) = self.places[place].first else {
            return;
        };
        let is_meeting_point = self.next[first].is_some();
        let part = self.join_all(place, group.distance.cost()).unwrap_or(first);
        match group.kind {
            GroupKind::Board(_) if !broken => self.parts[part].boards += 1,
            // A port above a single part is no switch: nothing meets there.
            GroupKind::Port(_) if !broken && is_meeting_point => self.parts[part].switches += 1,
            _ => {}
        }
        self.hang(part, parent);
    }

    /// Joins the parts of a place to one, by neighbours, so that the joins stay balanced.
    fn join_all(&mut self, place: usize, cost: u64) -> Option<usize> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        let mut next = self.places[place].first;
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
        let part = Part {
            content: Content::Join { left, right, cost },
            least: one.least + other.least,
            most: one.most + other.most,
            available: one.available + other.available,
            ids: one.ids.start.min(other.ids.start)..one.ids.end.max(other.ids.end),
            boards: 0,
            switches: 0,
        };
        self.push(part)
    }

    fn push(&mut self, part: Part) -> usize {
        self.parts.push(part);
        self.next.push(None);
        self.parts.len() - 1
    }

    fn hang(&mut self, part: usize, place: usize) {
        self.next[part] = self.places[place].first.replace(part);
    }
}
