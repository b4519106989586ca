//! An inventory for people and scripts: table, tree, matrix, JSON, YAML, Graphviz and udev rules.

pub mod columns;
pub mod paint;

pub mod allocation;
pub mod doctor;
pub mod document;
pub mod dot;
pub mod matrix;
pub mod status;
pub mod status_table;
pub mod table;
pub mod tree;
pub mod udev;
pub mod yaml;

use crate::decide::node::snapshot::NodeSnapshot;

/// What `discover` shows.
#[derive(Clone, Copy, Debug)]
pub struct DiscoveryReport<'a> {
    /// The node as one scan shows it.
    pub snapshot: &'a NodeSnapshot,
    /// What was scanned, for the reader whose machine has no chip.
    pub scanned: &'a ScannedBus,
}

/// What a scan read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedBus {
    /// The directory of PCI functions, as the operator would type it.
    pub directory: String,
    /// How many functions it listed.
    pub functions: usize,
    /// Vendor ids that count.
    pub vendor_ids: Vec<u16>,
}

impl std::fmt::Display for ScannedBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directory, functions, vendor_ids } = self;
        let plural = if *functions == 1 { "" } else { "s" };
        let vendors: Vec<_> = vendor_ids.iter().map(|id| format!("{id:#06x}")).collect();
        let vendors = vendors.join(" or ");
        write!(
            f,
            "{functions} PCI function{plural} in {directory}, none a chip of vendor {vendors}"
        )
    }
}
