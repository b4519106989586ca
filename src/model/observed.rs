//! What one scan shows of a node: hardware as it is, without a verdict on its health.

use super::board::Evidence;
use super::device::{DeviceNode, NodeEvidence};
use super::function::{Function, Link};
use super::inventory::Skipped;
use super::pci::{PciAddress, PciId};
use super::topology::DistanceTree;
use super::warning::Warning;

/// A node as one scan shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedNode {
    /// Ascending by address.
    pub boards: Vec<ObservedBoard>,
    /// Functions that are not offered, ascending by address.
    pub skipped: Vec<Skipped>,
    /// What is odd but harms no device.
    pub warnings: Vec<Warning>,
    /// Nodes that every container with a GPU gets: those of the configuration that exist.
    pub control_nodes: Vec<DeviceNode>,
    /// Distances of all chips.
    pub tree: DistanceTree,
    /// The place of every chip among bridges and root buses, ascending by address.
    pub functions: Vec<Function>,
    /// Of `/sys/module/<driver>/version`.
    pub driver_version: Option<String>,
    /// How many PCI functions the bus listed.
    pub functions_seen: usize,
}

/// Chips that are one board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedBoard {
    /// Address of its lowest chip: the board's id.
    pub address: PciAddress,
    /// `MR-V100`; `unknown` where neither configuration, table nor udev names it.
    pub model: String,
    /// Why these chips are one board.
    pub evidence: Evidence,
    /// How many chips it should have; never fewer than it has.
    pub expected_chips: usize,
    /// Those that can be offered, ascending by address; at least one.
    pub chips: Vec<ObservedChip>,
    /// Those that are on the bus and cannot be offered.
    pub skipped: Vec<Skipped>,
}

/// One chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedChip {
    /// Its identity.
    pub address: PciAddress,
    /// Vendor and device id.
    pub id: PciId,
    /// Absent while it is bound to no driver.
    pub driver: Option<String>,
    /// Its device node.
    pub node: Option<DeviceNode>,
    /// How the node was found.
    pub node_evidence: NodeEvidence,
    /// What is wrong with the node; absent where nothing is.
    pub node_problem: Option<NodeProblem>,
    /// False once the configuration space cannot be read or reads all ones.
    pub answers: bool,
    /// Absent where neither the chip nor a port above it names one.
    pub numa_node: Option<u32>,
    /// Name of the physical slot.
    pub slot: Option<String>,
    /// PCIe link to the port above.
    pub link: Link,
}

/// What is wrong with a chip's device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeProblem {
    /// No evidence; the sentence explains why the nodes cannot be inferred from their order.
    Unknown(String),
    /// The kernel names a node that is not in /dev.
    Missing(String),
    /// /dev has the node, but with another device number than the kernel names.
    Mismatch(String),
}

impl ObservedNode {
    /// Every chip, board by board.
    pub fn chips(&self) -> impl Iterator<Item = &ObservedChip> + Clone {
        self.boards.iter().flat_map(|board| &board.chips)
    }
}
