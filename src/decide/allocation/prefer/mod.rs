//! Which k of n devices to prefer for a container: the best set, exactly.
//!
//! # The objective
//!
//! Let `A` be the known ids among the available and must-include ones, `M` those that must be
//! included, and `d(a, b)` the cost of the lowest group of the distance tree that holds both
//! devices (INTE 1 to SYS 6): SYS where the tree does not know one of them, 0 for two replicas of
//! one device. Of all `X` with `M ⊆ X ⊆ A` and `|X| = k`, [`prefer`] answers the one for which
//!
//! ```text
//! ( crowding(X), load(X),
//!   Σ d(a,b) over {a,b} ⊆ X, Σ d(a,b) over {a,b} ⊆ A∖X,
//!   boards(X), switches(X), addresses(X) )
//! ```
//!
//! is least, compared from the left:
//!
//! - Only where devices are shared: with `x` of the `f` free replicas of a device taken while `u`
//!   were in use, *spread* has `crowding = Σ x(x−1)/2`, pairs of replicas that share a device,
//!   and `load = Σ x·u`; *pack* has `crowding` = devices with `x > 0`, and `load = Σ x·f`.
//!   So spread takes distinct devices, the least used first; pack takes as few devices as it can,
//!   the most used first. All sums are over devices.
//! - The distance among the chosen, then the distance among what remains. What remains has the
//!   same size for every `X`, so its sum measures how close it is.
//! - The whole boards, then the whole switches, that `X` breaks. One is whole when every id of
//!   every device below it is available: what is broken already is not worth keeping. A switch is
//!   a port at which devices from two sides meet; a port above a single board is that board.
//! - The ascending list of the addresses. Of equal devices the lowest go first, and of a device
//!   its must-include replicas, then its lowest ones.
//!
//! No request is an error. Ids that are not of the resource are dropped, duplicates count once, more
//! than there is means all of it, and must-include ids beyond the size mean the best of just them.
//!
//! # Why it is exact
//!
//! Join the children of every group two at a time. A pair of devices is then parted at exactly
//! one join, and pays that group's distance there. With `i` ids chosen on the left and `j` on the
//! right of a join, of `p` and `q` available, the join adds `d·i·j` to the distance and
//! `d·(p−i)(q−j)` to what remains, whichever ids they are; a group adds its board or switch if
//! the number chosen below it is not 0; a device adds its own crowding and load. Addresses are a
//! sum as well: number the ids from `n` down in address order and let each chosen id count
//! `2^number`; the greater sum has the lower addresses. So the cost is a sum of vectors, of terms
//! that depend on a part's ids only through their number. Integer vectors under lexicographic
//! order are an ordered abelian group (`x < y` implies `x + z < y + z`), hence in a best choice
//! the ids below a group are a best choice of that many ids below it, for if they were not, better
//! ones in their place would lower the whole. Bottom-up, the best set of each size for each part
//! is the best over all splits of its two sides, and no two sets are equal, so there is one answer
//! and no order of the input can change it.
//!
//! # What it costs
//!
//! A join tries each split of each size up to `k`, at most `O(n·k)` splits over the whole tree: a
//! split of sizes `i` and `j` stands for one pair of ids that meet there, and only for the first
//! `k` on either side. Each set has a row of a bit per id between its lowest and highest, so rows
//! cost `O(n·k·h/64)` for a tree of joins of height `h` whose groups hold adjacent addresses.

mod candidates;
mod score;

mod sharing;

mod tree;

mod knapsack;

mod effect;

mod explain;

#[cfg(test)]
mod tests;

use crate::model::config::{Sharing, SharingPolicy};
use crate::model::device::{Device, DeviceId};
use crate::model::topology::DistanceTree;

pub use effect::{DeviceUnit, Effect, WholeGroups};
pub use explain::{Explanation, RunnerUp, explain};
pub use score::{Criterion, Score};

use candidates::Candidates;

/// One resource of a node: its devices, in use or not, and their distances.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSupply<'a> {
    /// Distances of all chips of the node.
    pub tree: &'a DistanceTree,
    /// The resource's devices: boards by their lowest chip, or chips; in any order.
    pub devices: &'a [Device],
    /// How each device is shared; absent where it is not.
    pub sharing: Option<Sharing>,
}

impl DeviceSupply<'_> {
    fn policy(&self) -> Option<SharingPolicy> {
        self.sharing.map(|sharing| sharing.policy)
    }
}

/// A request of the kubelet, as received.
#[derive(Clone, Copy, Debug)]
pub struct PreferenceRequest<'a> {
    /// Ids that may be chosen.
    pub available: &'a [DeviceId],
    /// Ids that the answer must have; the kubelet sends only available ones.
    pub must_include: &'a [DeviceId],
    /// How many ids are wanted; the kubelet's size below zero is 0.
    pub size: usize,
}

/// The preferred ids and their cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Ascending.
    pub ids: Vec<DeviceId>,
    /// What makes it better than any other choice, up to the addresses.
    pub score: Score,
}

/// The best choice. Never fails, and depends on nothing but what is offered and asked for.
#[must_use]
pub fn prefer(supply: &DeviceSupply<'_>, request: &PreferenceRequest<'_>) -> Choice {
    best(supply, &Candidates::new(supply, request))
}

fn best(supply: &DeviceSupply<'_>, candidates: &Candidates) -> Choice {
    let parts = tree::parts(supply.tree, candidates);
    let solution = knapsack::solve(&parts, candidates, supply.policy());
    Choice { ids: candidates.pick(|device| solution.taken(device)), score: solution.score }
}
