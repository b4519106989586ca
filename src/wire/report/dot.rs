//! `discover -o dot`: the machine for Graphviz, one cluster for each group.

use super::DiscoveryReport;
use super::tree::group_name;
use crate::model::board::Board;
use crate::model::health::Health;
use crate::model::inventory::Inventory;
use crate::model::topology::GroupKind;

/// The report as a `digraph`.
#[must_use]
pub fn dot(report: &DiscoveryReport<'_>) -> String {
    let inventory = &report.snapshot.inventory;
    let mut text = "digraph machine {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (index, group) in inventory.tree.groups.iter().enumerate() {
        let label = label(inventory, group.kind);
        text.push_str(&format!(
            "  g{index} [label=\"{label}\"{}];\n",
            colour(inventory, group.kind)
        ));
        if let Some(parent) = group.parent {
            let distance = inventory.tree.groups[parent].distance;
            text.push_str(&format!("  g{parent} -> g{index} [label=\"{distance}\"];\n"));
        }
    }
    for (index, chip) in inventory.chips().iter().enumerate() {
        let node = chip.node.as_ref().map_or("no node", |node| &node.path);
        text.push_str(&format!("  c{index} [label=\"chip {}\\n{node}\"];\n", chip.address));
        if let Some(group) = inventory.tree.chips.get(&chip.address) {
            text.push_str(&format!("  g{group} -> c{index} [label=\"INTE\"];\n"));
        }
    }
    text.push_str("}\n");
    text
}

fn board(inventory: &Inventory, kind: GroupKind) -> Option<&Board> {
    let GroupKind::Board(address) = kind else { return None };
    inventory.boards.iter().find(|board| board.address == address)
}

fn label(inventory: &Inventory, kind: GroupKind) -> String {
    match board(inventory, kind) {
        Some(board) => {
            let model = board.model_or_id().replace('\\', "\\\\").replace('"', "\\\"");
            format!("{}\\n{model}\\n{}", group_name(kind), board.health)
        }
        None => group_name(kind),
    }
}

fn colour(inventory: &Inventory, kind: GroupKind) -> &'static str {
    match board(inventory, kind).map(|board| board.health) {
        Some(Health::Healthy) => ", color=darkgreen",
        Some(Health::Unhealthy) => ", color=red",
        None => "",
    }
}
