//! `topology -o table`: the distances of all chips, laid out and named as `ixsmi topo -m` does.

use super::columns::columns;
use super::paint::Paint;
use super::{TopologyReport, distance};
use crate::model::board::Chip;
use crate::model::inventory::Inventory;

/// A chip's distance to itself.
const SELF: &str = "X";

/// The matrix as text. Columns are numbered as the rows are.
#[must_use]
pub fn matrix(report: &TopologyReport<'_>, paint: Paint) -> String {
    let inventory = &report.discovery.snapshot.inventory;
    let chips = inventory.chips();
    if chips.is_empty() {
        return format!("no Iluvatar chips found: {}\n", report.discovery.scanned);
    }
    let numbers: Vec<_> = (0..chips.len()).map(|number| number.to_string()).collect();
    let mut heading = vec!["", "CHIP", "DEVICE NODE"];
    heading.extend(numbers.iter().map(String::as_str));
    heading.extend(["CPU AFFINITY", "NUMA AFFINITY"]);
    let rows: Vec<_> = chips
        .iter()
        .zip(&numbers)
        .map(|(chip, number)| {
            let cpus = report.cpu_affinity.get(&chip.address).cloned();
            let distances = chips.iter().map(|other| distance_cell(chip, other, inventory));
            let mut cells = vec![number.clone(), chip.address.to_string(), node(chip)];
            cells.extend(distances);
            cells.extend([or_dash(cpus), or_dash(chip.numa_node)]);
            cells
        })
        .collect();
    let legend = format!("{}{SELF}     the chip itself\n", distance::legend());
    columns(&heading, &rows, paint, |_, _, cell| cell.to_owned()) + &legend
}

fn node(chip: &Chip) -> String {
    or_dash(chip.node.as_ref().map(|node| &node.path))
}

fn distance_cell(one: &Chip, other: &Chip, inventory: &Inventory) -> String {
    let distance = inventory.tree.distance(one.address, other.address);
    distance.map_or(SELF.to_owned(), |distance| distance.to_string())
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
