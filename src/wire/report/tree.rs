//! `discover -o tree`: the machine as a tree, down to chips.

use super::DiscoveryReport;
use super::paint::Paint;
use super::table::link;
use crate::model::board::{Board, Chip};
use crate::model::inventory::Inventory;
use crate::model::topology::GroupKind;

/// The report as text.
#[must_use]
pub fn tree(report: &DiscoveryReport<'_>, paint: Paint) -> String {
    let inventory = &report.snapshot.inventory;
    if inventory.boards.is_empty() {
        return format!("no Iluvatar chips found: {}\n", report.scanned);
    }
    let mut text = "machine\n".to_owned();
    Branches { inventory, paint }.below(0, "", &mut text);
    text
}

/// What a group is called in reports; boards are called by their own data.
pub(super) fn group_name(kind: GroupKind) -> String {
    match kind {
        GroupKind::Machine => "machine".to_owned(),
        GroupKind::NumaNode(node) => format!("NUMA node {node}"),
        GroupKind::HostBridge(root_bus) => format!("host bridge {root_bus}"),
        GroupKind::Port(address) => format!("switch {address}"),
        GroupKind::Board(address) => format!("board {address}"),
    }
}

struct Branches<'a> {
    inventory: &'a Inventory,
    paint: Paint,
}

impl Branches<'_> {
    fn below(&self, group: usize, indent: &str, text: &mut String) {
        let groups = &self.inventory.tree.groups;
        let children: Vec<_> =
            (0..groups.len()).filter(|child| groups[*child].parent == Some(group)).collect();
        for (number, child) in children.iter().enumerate() {
            let (branch, space) = branch(number + 1 == children.len());
            let kind = groups[*child].kind;
            let name = match self.board(kind) {
                Some(board) => self.board_line(board),
                None => format!("{} ({})", group_name(kind), groups[*child].distance),
            };
            text.push_str(&format!("{indent}{branch}{name}\n"));
            let indent = format!("{indent}{space}");
            match self.board(kind) {
                Some(board) => chips(board, &indent, text),
                None => self.below(*child, &indent, text),
            }
        }
    }

    fn board(&self, kind: GroupKind) -> Option<&Board> {
        let GroupKind::Board(address) = kind else { return None };
        self.inventory.boards.iter().find(|board| board.address == address)
    }

    fn board_line(&self, board: &Board) -> String {
        let Board { address, evidence, health, reasons, .. } = board;
        let model = board.model_or_id();
        let health = self.paint.health(*health, &health.to_string());
        let mut line = format!("board {address} {model} ({evidence}), {health}");
        for reason in reasons {
            line.push_str(&format!(", {}: {}", reason.code, reason.detail));
        }
        line
    }
}

fn chips(board: &Board, indent: &str, text: &mut String) {
    for (number, chip) in board.chips.iter().enumerate() {
        let (branch, _) = branch(number + 1 == board.chips.len());
        text.push_str(&format!("{indent}{branch}{}\n", chip_line(chip)));
    }
}

fn chip_line(chip: &Chip) -> String {
    let node = chip.node.as_ref().map_or("no node", |node| &node.path);
    format!("chip {} {node} {}", chip.address, link(chip))
}

fn branch(is_last: bool) -> (&'static str, &'static str) {
    if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}
