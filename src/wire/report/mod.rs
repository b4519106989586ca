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

use crate::model::device::Resource;
use crate::model::inventory::Inventory;

/// What `discover` shows.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// What the scan concluded.
    pub inventory: &'a Inventory,
    /// What a kubelet would be told.
    pub resources: &'a [Resource],
    /// Where the scan looked, for the reader who finds nothing.
    pub looked_at: &'a LookedAt,
}

/// What a scan looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedAt {
    /// The directory of PCI functions, as the operator would type it.
    pub directory: String,
    /// How many functions it listed.
    pub functions: usize,
    /// Vendor ids that count.
    pub vendor_ids: Vec<u16>,
}

impl std::fmt::Display for LookedAt {
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
