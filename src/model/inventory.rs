//! The state of a node: its hardware with health, history and operator decisions applied.

use std::fmt;

use super::board::{Board, Chip};
use super::device::DeviceNode;
use super::function::Function;
use super::pci::PciAddress;
use super::topology::DistanceTree;
use super::warning::Warning;

/// The node's hardware with its health. Two equal inventories mean the same to a kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Ascending by address.
    pub boards: Vec<Board>,
    /// Functions that are not offered, ascending by address.
    pub skipped: Vec<Skipped>,
    /// Problems for an operator that make no device unhealthy.
    pub warnings: Vec<Warning>,
    /// Nodes that every container with a GPU gets: those of the configuration that exist.
    pub control_nodes: Vec<DeviceNode>,
    /// Distances of all chips.
    pub tree: DistanceTree,
    /// The place of every chip of `boards` among bridges and root buses, ascending by address.
    pub functions: Vec<Function>,
    /// Of `/sys/module/<driver>/version`.
    pub driver_version: Option<String>,
}

/// A function that is not offered, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Which one.
    pub address: PciAddress,
    /// Why.
    pub reason: SkipReason,
}

/// Why a function is not offered. `Display` completes "ADDRESS is ...".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// An SR-IOV virtual function of this one.
    VirtualFunctionOf(PciAddress),
    /// Bound to a driver that is not in `discovery.drivers`.
    BoundTo(String),
    /// An attribute that everything hangs on cannot be read; which, and why.
    Unreadable(String),
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VirtualFunctionOf(physical) => write!(f, "a virtual function of {physical}"),
            Self::BoundTo(driver) => {
                write!(f, "bound to {driver}, which is not in discovery.drivers")
            }
            Self::Unreadable(problem) => write!(f, "not readable: {problem}"),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.address, self.reason)
    }
}

impl Inventory {
    /// Every chip, board by board.
    pub fn chips_by_board(&self) -> impl Iterator<Item = &Chip> + Clone {
        self.boards.iter().flat_map(|board| &board.chips)
    }

    /// The chip at this address.
    #[must_use]
    pub fn chip(&self, address: PciAddress) -> Option<&Chip> {
        self.chips_by_board().find(|chip| chip.address == address)
    }

    /// Every chip of every board, ascending by address.
    #[must_use]
    pub fn chips(&self) -> Vec<&Chip> {
        let mut chips: Vec<_> = self.chips_by_board().collect();
        chips.sort_by_key(|chip| chip.address);
        chips
    }
}
