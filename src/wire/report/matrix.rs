//! `topology -o table`: the distances of all chips, in the words of `ixsmi topo -m`.

use super::DiscoveryReport;
use super::columns::columns;
use super::paint::Paint;
use crate::model::board::Chip;
use crate::model::inventory::Inventory;

const LEGEND: &str = "
INTE  the same board
PIX   one PCIe switch
PXB   several PCIe switches
PHB   the same host bridge
NODE  the same NUMA node
SYS   across NUMA nodes, or the NUMA node is not known
";

/// The matrix as text. Columns are numbered as the rows are.
#[must_use]
pub fn matrix(report: &DiscoveryReport<'_>, paint: Paint) -> String {
    let chips = report.snapshot.inventory.chips();
    if chips.is_empty() {
        return format!("no Iluvatar chips found: {}\n", report.scanned);
    }
    let numbers: Vec<_> = (0..chips.len()).map(|number| number.to_string()).collect();
    let heading: Vec<&str> =
        ["", "CHIP", "NUMA"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let rows: Vec<Vec<String>> = chips
        .iter()
        .zip(&numbers)
        .map(|(chip, number)| row(number, chip, &chips, &report.snapshot.inventory))
        .collect();
    columns(&heading, &rows, paint, |_, _, cell| cell.to_owned()) + LEGEND
}

fn row(number: &str, chip: &Chip, chips: &[&Chip], inventory: &Inventory) -> Vec<String> {
    let numa = chip.numa_node.map_or("-".to_owned(), |node| node.to_string());
    let distances = chips.iter().map(|other| {
        let distance = inventory.tree.distance(chip.address, other.address);
        distance.map_or("X".to_owned(), |distance| distance.to_string())
    });
    let cells = [number.to_owned(), chip.address.to_string(), numa];
    cells.into_iter().chain(distances).collect()
}
