//! The order of the devices. A scheduler takes the first that fit, without a score, so neighbours
//! stand side by side.

use crate::model::board::Board;
use crate::model::inventory::Inventory;
use crate::model::topology::{DistanceTree, GroupKind};

/// The boards, depth first over the tree of distances.
pub(super) fn by_distance(inventory: &Inventory) -> Vec<&Board> {
    let places = places(&inventory.tree);
    let place = |board: &&Board| {
        let found = places.iter().position(|kind| *kind == GroupKind::Board(board.address));
        (found.unwrap_or(usize::MAX), board.address)
    };
    let mut boards: Vec<_> = inventory.boards.iter().collect();
    boards.sort_by_cached_key(place);
    boards
}

/// Every group, depth first.
fn places(tree: &DistanceTree) -> Vec<GroupKind> {
    let mut children = vec![Vec::new(); tree.groups.len()];
    for (index, group) in tree.groups.iter().enumerate() {
        if let Some(parent) = group.parent {
            children[parent].push(index);
        }
    }
    let mut places = Vec::new();
    // Group 0 is the machine.
    let mut open = vec![0];
    while let Some(index) = open.pop() {
        places.extend(tree.groups.get(index).map(|group| group.kind));
        open.extend(children.get(index).into_iter().flatten().rev());
    }
    places
}
