//! `discover -o table`: one line for each chip, then what needs attention.

use std::collections::BTreeSet;

use super::DiscoveryReport;
use super::columns::columns;
use super::paint::Paint;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::board::{Board, Chip};
use crate::model::device::Resource;
use crate::model::health::Health;
use crate::model::inventory::Inventory;

const HEADING: &[&str] = &[
    "BOARD", "MODEL", "HEALTH", "EVIDENCE", "CHIP", "PCI ID", "NUMA", "SLOT", "DRIVER", "NODE",
    "FOUND BY", "LINK",
];
const HEALTH_COLUMN: usize = 2;

/// The report as text.
#[must_use]
pub fn table(report: &DiscoveryReport<'_>, paint: Paint) -> String {
    let mut text = boards(report, paint);
    text.push_str(&resources(&report.snapshot.resources, paint));
    text.push_str(&needs_attention(report.snapshot, paint));
    text
}

fn boards(report: &DiscoveryReport<'_>, paint: Paint) -> String {
    let boards = &report.snapshot.inventory.boards;
    if boards.is_empty() {
        return format!("no Iluvatar chips found: {}\n", report.scanned);
    }
    let has_uuids = boards.iter().flat_map(|board| &board.chips).any(|chip| chip.uuid.is_some());
    let heading: Vec<_> = HEADING.iter().copied().chain(has_uuids.then_some("UUID")).collect();
    let rows: Vec<_> = boards.iter().flat_map(|board| board_rows(board, has_uuids)).collect();
    let healths: Vec<_> =
        boards.iter().flat_map(|board| board.chips.iter().map(|_| board.health)).collect();
    columns(&heading, &rows, paint, |row, column, cell| match column {
        HEALTH_COLUMN => paint.health(healths[row], cell),
        _ => cell.to_owned(),
    })
}

/// The board's own columns stand in the row of its first chip.
fn board_rows(board: &Board, has_uuids: bool) -> impl Iterator<Item = Vec<String>> {
    board.chips.iter().enumerate().map(move |(number, chip)| {
        let of_board = match number {
            0 => [
                board.address.to_string(),
                board.model.clone(),
                board.health.to_string(),
                board.evidence.to_string(),
            ],
            _ => Default::default(),
        };
        let uuid = has_uuids.then(|| or_dash(chip.uuid.as_ref().map(ToString::to_string)));
        of_board.into_iter().chain(chip_cells(chip)).chain(uuid).collect()
    })
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn chip_cells(chip: &Chip) -> [String; 8] {
    [
        chip.address.to_string(),
        chip.id.to_string(),
        or_dash(chip.numa_node.map(|node| node.to_string())),
        or_dash(chip.slot.clone()),
        or_dash(chip.driver.clone()),
        or_dash(chip.node.as_ref().map(|node| node.path.clone())),
        or_dash(chip.node.as_ref().map(|_| chip.node_evidence.to_string())),
        link(chip),
    ]
}

/// `16.0 GT/s x16`, with the maximum where it is more.
pub(super) fn link(chip: &Chip) -> String {
    let shown = |speed: &Option<String>, width: &Option<u32>| {
        let speed = speed.as_deref().map(|speed| speed.trim_end_matches(" PCIe").to_owned());
        let width = width.map(|width| format!("x{width}"));
        let parts: Vec<_> = speed.into_iter().chain(width).collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join(" ") }
    };
    let link = &chip.link;
    let now = shown(&link.speed, &link.width);
    if link.is_below_maximum() {
        return format!("{now} (of {})", shown(&link.max_speed, &link.max_width));
    }
    now
}

fn resources(resources: &[Resource], paint: Paint) -> String {
    let mut text = format!("\n{}\n", paint.heading("Resources"));
    for resource in resources {
        let all = resource.listed().count();
        let healthy =
            resource.listed().filter(|(_, device)| device.health == Health::Healthy).count();
        let plural = if all == 1 { "" } else { "s" };
        text.push_str(&format!("  {}: {all} device{plural}, {healthy} healthy\n", resource.name));
    }
    text
}

fn needs_attention(snapshot: &NodeSnapshot, paint: Paint) -> String {
    let inventory = &snapshot.inventory;
    let unhealthy = inventory.boards.iter().flat_map(|board| {
        let address = board.address;
        board.reasons.iter().map(move |it| format!("{address}  {}: {}", it.code, it.detail))
    });
    let skipped =
        inventory.skipped.iter().map(|skipped| format!("{}  {}", skipped.address, skipped.reason));
    let warnings = snapshot.warnings.iter().map(ToString::to_string);
    let reasons = inventory.boards.iter().flat_map(|board| &board.reasons);
    let reasons = reasons.map(|reason| (reason.code.name(), reason.code.remedy()));
    let mut text = section("Unhealthy", unhealthy, paint);
    text.push_str(&section("Remedies", remedies(reasons), paint));
    text.push_str(&section("Skipped", skipped, paint));
    text.push_str(&section("Warnings", warnings, paint));
    text.push_str(&section("Driver", driver(inventory), paint));
    text
}

/// One line for each reason code, in the order in which the codes come first.
pub(super) fn remedies<'a>(
    reasons: impl Iterator<Item = (&'a str, &'a str)>,
) -> impl Iterator<Item = String> {
    let mut named = BTreeSet::new();
    let first = reasons.filter(move |(code, _)| named.insert(*code));
    first.map(|(code, remedy)| format!("{code}: {remedy}"))
}

fn driver(inventory: &Inventory) -> impl Iterator<Item = String> {
    let version = inventory.driver_version.iter().map(|version| format!("version {version}"));
    let nodes = inventory.control_nodes.iter().map(|node| format!("control node {}", node.path));
    version.chain(nodes)
}

pub(super) fn section(title: &str, lines: impl Iterator<Item = String>, paint: Paint) -> String {
    let mut text = String::new();
    for line in lines {
        if text.is_empty() {
            text.push_str(&format!("\n{}\n", paint.heading(title)));
        }
        text.push_str(&format!("  {line}\n"));
    }
    text
}
