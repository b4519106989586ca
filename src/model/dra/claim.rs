//! Claims: their allocations, as the API server has them, and what is known of who holds what.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::device::DraDeviceName;
use crate::model::pci::PciAddress;

/// A claim by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRef {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ClaimRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A claim as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraClaim {
    /// Its uid: a claim that was created anew has another.
    pub uid: String,
    /// Its names.
    pub claim: ClaimRef,
    /// What it was given; none before it is allocated.
    pub allocation: Option<DraAllocation>,
}

/// What a claim was given, by all drivers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraAllocation {
    /// One for each device.
    pub results: Vec<AllocatedDevice>,
    /// Parameters for drivers.
    pub configs: Vec<OpaqueConfig>,
}

/// One device that a claim was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatedDevice {
    /// `REQUEST`, or `REQUEST/SUBREQUEST` of a prioritised list.
    pub request: String,
    /// Whose device it is.
    pub driver: String,
    /// The pool; ours is the node's name.
    pub pool: String,
    /// The device in the pool.
    pub device: String,
    /// Whether it was given for monitoring: such a claim holds nothing.
    pub admin_access: bool,
    /// Which share it is, of a device that several claims share.
    pub share_id: Option<String>,
}

/// Parameters for a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaqueConfig {
    /// For whom.
    pub driver: String,
    /// For which requests; empty means all.
    pub requests: Vec<String>,
}

/// One device, ready for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedDevice {
    /// The request, without a subrequest.
    pub request: String,
    /// The pool.
    pub pool: String,
    /// The device.
    pub device: String,
    /// Fully qualified CDI names, one for each chip, ascending.
    pub cdi_ids: Vec<String>,
    /// The share, as the claim has it.
    pub share_id: Option<String>,
}

/// A claim that holds devices of this node, or held them when this was last known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimHolding {
    /// Its names.
    pub claim: ClaimRef,
    /// What it holds; for a claim with admin access nothing.
    pub devices: Vec<ClaimedDevice>,
}

/// Prepared claims, by uid: what the driver's file keeps.
pub type ClaimRecords = BTreeMap<String, ClaimHolding>;

/// One device that a claim holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClaimedDevice {
    /// Which one.
    pub device: DraDeviceName,
    /// Its chips when it was prepared, ascending.
    pub chips: Vec<PciAddress>,
    /// Whether other claims may share it.
    pub is_shared: bool,
}

/// What PodResources reports of one device of our driver that a container has through a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimUsage {
    /// The claim.
    pub claim: ClaimRef,
    /// The device.
    pub device: DraDeviceName,
    /// Whether it is one share of several.
    pub is_shared: bool,
}
