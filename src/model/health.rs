//! Whether a device can be given to a pod, and if not, why.

use std::fmt;

/// What the kubelet is told of a device; spelt as v1beta1 spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Can be allocated.
    Healthy,
    /// Stays in the node's capacity, leaves its allocatable.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "Healthy",
            Self::Unhealthy => "Unhealthy",
        })
    }
}

/// Why a device is unhealthy: a code for machines and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// The signal that failed.
    pub code: ReasonCode,
    /// What was seen, with names and values, for example
    /// `0000:13:00.0 is not bound to a driver; expected one of iluvatar, bi_driver`.
    pub detail: String,
}

/// The signals that make a device unhealthy. Their names are stable: they appear in `discover`,
/// logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// A board that is known to have more chips shows fewer.
    ChipMissing,
    /// No driver has the chip.
    DriverNotBound,
    /// Nothing says which node in /dev is the chip's.
    DeviceNodeUnknown,
    /// The driver named a node, but /dev does not have it.
    DeviceNodeMissing,
    /// The configuration space reads all ones: the chip no longer answers.
    ConfigSpaceUnreadable,
}

impl ReasonCode {
    /// True where the driver, once it is ready, makes the reason go away by itself.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::DriverNotBound | Self::DeviceNodeUnknown | Self::DeviceNodeMissing)
    }

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChipMissing => "ChipMissing",
            Self::DriverNotBound => "DriverNotBound",
            Self::DeviceNodeUnknown => "DeviceNodeUnknown",
            Self::DeviceNodeMissing => "DeviceNodeMissing",
            Self::ConfigSpaceUnreadable => "ConfigSpaceUnreadable",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
