//! What was handed out with a device id, so that a restarted container can be told whether it
//! still means the same hardware.

use std::collections::BTreeMap;

use super::device::DeviceId;
use super::pci::{PciAddress, PciId};

/// The chips behind one id as they were when it was allocated, ascending by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationRecord {
    /// One for each chip of the device.
    pub chips: Vec<AllocatedChip>,
}

/// One chip as it was handed out. The major number is left out: it changes whenever the driver is
/// loaded, while the path, which is what a container's runtime opens, stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatedChip {
    /// Which chip.
    pub address: PciAddress,
    /// What it was.
    pub id: PciId,
    /// The path of its node on the host. None where the container was given the chip's CDI name
    /// alone, which its runtime resolves anew at each start.
    pub node: Option<String>,
}

/// By resource, then by id as the kubelet has it. An id is held by one container at a time, so the
/// last allocation is the one that counts.
pub type AllocationRecords = BTreeMap<String, BTreeMap<DeviceId, AllocationRecord>>;
