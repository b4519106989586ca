//! What the verbs print, for people and scripts: tables, trees, JSON, YAML, Graphviz, udev rules.

pub mod columns;
pub mod paint;

mod distance;

pub mod allocation;
pub mod allocation_text;
pub mod cordon_status;
pub mod doctor;
pub mod document;
pub mod dot;
pub mod dra_status;
pub mod matrix;
pub mod status;
pub mod status_table;
pub mod table;
pub mod tree;
pub mod udev;
pub mod yaml;

use std::collections::BTreeMap;

use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::pci::PciAddress;

/// What `discover` shows.
#[derive(Clone, Copy, Debug)]
pub struct DiscoveryReport<'a> {
    /// The node as one scan shows it.
    pub snapshot: &'a NodeSnapshot,
    /// What was scanned; shown where no chip is found.
    pub scanned: &'a ScannedBus,
}

/// What `topology` shows.
#[derive(Clone, Copy, Debug)]
pub struct TopologyReport<'a> {
    /// The node and what was scanned.
    pub discovery: DiscoveryReport<'a>,
    /// The CPUs next to each chip, as the kernel lists them: `0-15,64-79`. A chip whose CPUs are
    /// not known is absent.
    pub cpu_affinity: &'a BTreeMap<PciAddress, String>,
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
