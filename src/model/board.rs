//! Boards and their chips, with the evidence for every conclusion.

use std::fmt;

use super::device::{DeviceNode, NodeEvidence};
use super::function::Link;
use super::health::{Health, Reason};
use super::identity::ChipUuid;
use super::pci::{PciAddress, PciId};

/// The model of a board whose device id is not known.
pub const UNKNOWN_MODEL: &str = "unknown";

/// What a person plugs in: one chip, or two (BI-V150) behind an on-board bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// Address of its lowest chip: the board's id.
    pub address: PciAddress,
    /// For example `MR-V100`; [`UNKNOWN_MODEL`] where nothing names the device id.
    pub model: String,
    /// Why these chips are one board.
    pub evidence: Evidence,
    /// How many chips it should have.
    pub expected_chips: usize,
    /// Those that can be allocated, ascending by address.
    pub chips: Vec<Chip>,
    /// Unhealthy as soon as one chip is, or one is missing.
    pub health: Health,
    /// Every reason of the board and of its chips.
    pub reasons: Vec<Reason>,
    /// Of its chips, ascending, each once.
    pub numa_nodes: Vec<u32>,
}

impl Board {
    /// The model, or `unknown model 1e3e:0003`: for places that do not show the id beside it.
    #[must_use]
    pub fn model_or_id(&self) -> String {
        match self.chips.first() {
            Some(chip) if self.model == UNKNOWN_MODEL => format!("unknown model {}", chip.id),
            _ => self.model.clone(),
        }
    }
}

/// One PCI function that computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Its identity.
    pub address: PciAddress,
    /// Vendor and device id.
    pub id: PciId,
    /// The vendor's name of it; absent where no file has it.
    pub uuid: Option<ChipUuid>,
    /// Absent while no driver has it.
    pub driver: Option<String>,
    /// The node in /dev that is this chip.
    pub node: Option<DeviceNode>,
    /// How the node was found.
    pub node_evidence: NodeEvidence,
    /// Absent where neither firmware nor a port names one.
    pub numa_node: Option<u32>,
    /// Name of the physical slot, as `/sys/bus/pci/slots` has it.
    pub slot: Option<String>,
    /// Current and maximum PCIe link.
    pub link: Link,
    /// Reasons of this chip alone; empty means healthy.
    pub reasons: Vec<Reason>,
}

/// Why chips count as one board; the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// Configured in `boards.pairs`.
    Config,
    /// They share a physical slot.
    Slot,
    /// A device id known to be multi-chip, alone under one switch.
    DeviceId,
    /// Two chips alone under one switch, each behind a bridge of its own.
    Bridges,
    /// A lone chip whose device id is on other boards of this node, which all have more chips: half
    /// a board.
    Siblings,
    /// Nothing shows that it shares a board: a board of its own.
    Single,
}

impl Evidence {
    /// The stable name for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "configured",
            Self::Slot => "same-slot",
            Self::DeviceId => "device-id",
            Self::Bridges => "own-bridges",
            Self::Siblings => "sibling-boards",
            Self::Single => "single-chip",
        }
    }
}

/// In words for people.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Config => "configured",
            Self::Slot => "same slot",
            Self::DeviceId => "device id",
            Self::Bridges => "own bridges",
            Self::Siblings => "sibling boards",
            Self::Single => "single-chip",
        })
    }
}
