//! The distance words of `ixsmi topo -m`, and what each means.

use crate::model::topology::Distance;

/// Each distance and what it means, closest first.
pub(super) const MEANINGS: [(Distance, &str); 6] = [
    (Distance::Inte, "the same board"),
    (Distance::Pix, "one PCIe switch"),
    (Distance::Pxb, "several PCIe switches"),
    (Distance::Phb, "the same host bridge"),
    (Distance::Node, "the same NUMA node"),
    (Distance::Sys, "across NUMA nodes, or the NUMA node is not known"),
];

/// One line for each distance, after an empty one.
pub(super) fn legend() -> String {
    let lines = MEANINGS.map(|(distance, meaning)| format!("{distance:<4}  {meaning}\n"));
    format!("\n{}", lines.concat())
}
