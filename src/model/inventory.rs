//! One look at a node: an immutable snapshot that every part of the program shares.

use super::board::{Board, Chip};
use super::device::DeviceNode;
use super::function::Function;
use super::pci::PciAddress;
use super::topology::DistanceTree;

/// What a scan concluded. Two equal inventories say the same thing to a kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Ascending by address.
    pub boards: Vec<Board>,
    /// Functions left alone, ascending by address.
    pub skipped: Vec<Skipped>,
    /// What an operator should look at, though nothing is broken by it.
    pub warnings: Vec<String>,
    /// Nodes every container with a GPU gets, those of the configuration that exist.
    pub control_nodes: Vec<DeviceNode>,
    /// Distances of all chips.
    pub tree: DistanceTree,
    /// The place of every chip of `boards` among bridges and root buses, ascending by address.
    pub functions: Vec<Function>,
    /// Of `/sys/module/iluvatar/version`.
    pub driver_version: Option<String>,
}

/// A function that is not offered, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Which one.
    pub address: PciAddress,
    /// A sentence, for example `virtual function of 0000:13:00.0`.
    pub reason: String,
}

impl Inventory {
    /// Every chip, board by board.
    pub fn chips_by_board(&self) -> impl Iterator<Item = &Chip> + Clone {
        self.boards.iter().flat_map(|board| &board.chips)
    }

    /// Every chip of every board, ascending by address.
    #[must_use]
    pub fn chips(&self) -> Vec<&Chip> {
        let mut chips: Vec<_> = self.chips_by_board().collect();
        chips.sort_by_key(|chip| chip.address);
        chips
    }
}
