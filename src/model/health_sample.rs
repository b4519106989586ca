//! A health sample: a few files of each chip, read between two scans.

use std::collections::BTreeMap;

use super::pci::PciAddress;

/// One sample of every chip.
pub type HealthSample = BTreeMap<PciAddress, ChipHealthSample>;

/// A few files of one chip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChipHealthSample {
    /// False where the function is not on the bus any more.
    pub is_there: bool,
    /// Basename of the `driver` link.
    pub driver: Option<String>,
    /// Whether its node is in /dev; none where it has none.
    pub has_node: Option<bool>,
    /// False once the configuration space is empty or reads all ones; none where it could not be read.
    pub answers: Option<bool>,
    /// Fatal PCIe errors since the function came; none where the kernel does not count them.
    pub fatal_errors: Option<u64>,
    /// Non-fatal PCIe errors since the function came.
    pub non_fatal_errors: Option<u64>,
}
