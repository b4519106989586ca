//! How far apart chips are: a tree of groups, each with the distance that joins its members.

use std::collections::BTreeMap;
use std::fmt;

use super::pci::{PciAddress, RootBus};

/// The distance of two chips, in the words of `ixsmi topo -m`; the number is its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Distance {
    /// The same board.
    Inte = 1,
    /// One PCIe switch.
    Pix = 2,
    /// Several PCIe switches, below one root port.
    Pxb = 3,
    /// The same host bridge.
    Phb = 4,
    /// The same NUMA node.
    Node = 5,
    /// Across NUMA nodes, or where the NUMA node is not known.
    Sys = 6,
}

impl Distance {
    /// What a pair at this distance costs: 1 for INTE up to 6 for SYS.
    #[must_use]
    pub fn cost(self) -> u64 {
        u64::from(self as u8)
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inte => "INTE",
            Self::Pix => "PIX",
            Self::Pxb => "PXB",
            Self::Phb => "PHB",
            Self::Node => "NODE",
            Self::Sys => "SYS",
        })
    }
}

/// The groups that chips belong to, from the machine down to boards.
///
/// Invariants: group 0 is the machine and the only one without a parent; a parent's index is
/// lower than its child's; a child's distance is never greater than its parent's. The distance of
/// two chips is that of the lowest group that holds both, so it depends on the tree alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistanceTree {
    /// Parents before children.
    pub groups: Vec<Group>,
    /// The lowest group of each chip: its board.
    pub chips: BTreeMap<PciAddress, usize>,
}

/// One node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it stands for.
    pub kind: GroupKind,
    /// How far apart two of its members are that no deeper group holds both of.
    pub distance: Distance,
    /// Index in `groups`; absent for the machine.
    pub parent: Option<usize>,
}

/// What a group stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// All of it.
    Machine,
    /// One NUMA node.
    NumaNode(u32),
    /// One root bus.
    HostBridge(RootBus),
    /// A root port, or a switch by its upstream port.
    Port(PciAddress),
    /// A board, by its lowest chip.
    Board(PciAddress),
}

impl DistanceTree {
    /// The distance of two chips; none for the same chip or one that is not in the tree.
    #[must_use]
    pub fn distance(&self, one: PciAddress, other: PciAddress) -> Option<Distance> {
        let (mut a, mut b) = (*self.chips.get(&one)?, *self.chips.get(&other)?);
        if one == other {
            return None;
        }
        while a != b {
            // A parent's index is lower, so the higher of the two is never above the other.
            if a > b {
                a = self.groups[a].parent?;
            } else {
                b = self.groups[b].parent?;
            }
        }
        Some(self.groups[a].distance)
    }
}
