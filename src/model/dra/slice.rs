//! `ResourceSlices`: the pool of one node, in objects that the API server accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::device::{AttributeValue, CounterUse, DraDevice, DraTaint, SharedCounters};

/// The node that a pool belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node's name, which is the pool's.
    pub name: String,
    /// The uid of the Node object, which owns the slices.
    pub uid: String,
}

/// Everything that a node offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraPool {
    /// In the order in which a scheduler should try them: neighbours side by side.
    pub devices: Vec<DraDevice>,
    /// Empty unless boards and their chips are both offered.
    pub counters: Vec<SharedCounters>,
}

/// One slice as it is wanted or as the API server has it, without what the server adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraSlice {
    /// The object's name.
    pub name: String,
    /// Grows whenever several slices change at once.
    pub generation: i64,
    /// How many slices the pool has at this generation.
    pub slice_count: i64,
    /// Devices or counters, never both.
    pub content: SliceContent,
}

/// What is in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceContent {
    /// Devices; none where the node has none.
    Devices(Vec<PublishedDevice>),
    /// Counters.
    Counters(Vec<SharedCounters>),
}

/// A device as a slice has it: what the API knows of a [`DraDevice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedDevice {
    /// A DNS label.
    pub name: String,
    /// By name.
    pub attributes: BTreeMap<String, AttributeValue>,
    /// How many claims may share it.
    pub slots: Option<u32>,
    /// What it takes of its board's counter.
    pub counter: Option<CounterUse>,
    /// Ascending by key.
    pub taints: Vec<DraTaint>,
}

/// A slice that the API server has, of our driver and this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSlice {
    /// Its name.
    pub name: String,
    /// The version to send with an update or a deletion.
    pub resource_version: String,
    /// The generation of its pool.
    pub generation: i64,
    /// How many slices its pool has.
    pub slice_count: i64,
    /// Its content; none where it is not ours: another pool, another owner, or fields that this
    /// version never sends.
    pub content: Option<SliceContent>,
}

/// What an API server may not support yet: it drops such fields without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DraFeature {
    /// Taints in slices (`DRADeviceTaints`, on since 1.36).
    Taints,
    /// Shared counters (`DRAPartitionableDevices`, on since 1.36).
    Partitionable,
    /// Devices that several claims share (`DRAConsumableCapacity`, on since 1.36).
    ConsumableCapacity,
}

impl DraFeature {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Taints, Self::Partitionable, Self::ConsumableCapacity];

    /// The stable name, as metrics and status have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Taints => "taints",
            Self::Partitionable => "partitionable",
            Self::ConsumableCapacity => "consumable-capacity",
        }
    }

    /// The feature gate that switches it on in the API server.
    #[must_use]
    pub fn gate(self) -> &'static str {
        match self {
            Self::Taints => "DRADeviceTaints",
            Self::Partitionable => "DRAPartitionableDevices",
            Self::ConsumableCapacity => "DRAConsumableCapacity",
        }
    }

    /// What this driver does instead, as the end of a sentence.
    #[must_use]
    pub fn fallback(self) -> &'static str {
        match self {
            Self::Taints => "unhealthy devices leave the slices unless a claim holds them",
            Self::Partitionable => "boards or chips are offered, depending on dra.fallback",
            Self::ConsumableCapacity => "each device is allocated to one claim at a time",
        }
    }
}

impl fmt::Display for DraFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the API server was seen to drop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSupport {
    /// Empty for a server that keeps everything.
    pub dropped: BTreeSet<DraFeature>,
}

impl ServerSupport {
    /// True until the server was seen to drop it.
    #[must_use]
    pub fn has(&self, feature: DraFeature) -> bool {
        !self.dropped.contains(&feature)
    }
}

/// One request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceWrite {
    /// Create a slice.
    Create(DraSlice),
    /// Replace a slice.
    Update {
        /// The new content.
        slice: DraSlice,
        /// The version that is replaced.
        resource_version: String,
    },
    /// Delete a slice.
    Delete {
        /// Its name.
        name: String,
        /// The version that is deleted.
        resource_version: String,
    },
}
