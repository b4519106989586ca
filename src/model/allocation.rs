//! Allocations: which chips each device id stood for when a container was given it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::device::DeviceId;
use super::pci::{PciAddress, PciId};

/// The chips behind one id as they were when it was allocated, ascending by address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AllocationRecord {
    /// One for each chip of the device.
    pub chips: Vec<AllocatedChip>,
}

/// One chip as it was allocated. The major number is left out: it changes whenever the driver is
/// loaded, while the path, which is what a container's runtime opens, stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocatedChip {
    /// The chip's address.
    pub address: PciAddress,
    /// Its vendor and device id.
    #[serde(rename = "pciId")]
    pub id: PciId,
    /// The path of its node on the host. None where the container was given the chip's CDI name
    /// alone, which its runtime resolves anew at each start.
    pub node: Option<String>,
}

/// By resource, then by id as the kubelet has it. An id is held by one container at a time, so the
/// last allocation counts.
pub type AllocationRecords = BTreeMap<String, BTreeMap<DeviceId, AllocationRecord>>;

/// When ids were last allocated, since the start of this process; by resource, then by id.
pub type AllocationTimes = BTreeMap<String, BTreeMap<DeviceId, Duration>>;

/// All known allocations. A clone is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Of this process, of those before it, and of another instance during a rolling update.
    pub records: Arc<AllocationRecords>,
    /// Only of allocations that this process made.
    pub allocated_at: Arc<AllocationTimes>,
}
