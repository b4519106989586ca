//! Whether a device can be given to a pod, and if not, why.

mod remedy;

use std::fmt;

/// The health of a device, as the kubelet receives it; spelt as v1beta1 spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Can be allocated.
    Healthy,
    /// Stays in the node's capacity, leaves its allocatable.
    Unhealthy,
}

impl Health {
    /// Healthy only without any reason against it.
    #[must_use]
    pub fn of(reasons: &[Reason]) -> Self {
        if reasons.is_empty() { Self::Healthy } else { Self::Unhealthy }
    }
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

/// Every signal. Names are stable: they appear in `discover`, logs, metrics and the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// A board has fewer chips than configuration, its own past or its sibling boards show.
    ChipMissing,
    /// No driver has the chip.
    DriverNotBound,
    /// Nothing shows which node in /dev belongs to the chip.
    DeviceNodeUnknown,
    /// The driver named a node, but /dev does not have it.
    DeviceNodeMissing,
    /// The configuration space is empty or reads all ones: the chip no longer answers.
    ConfigSpaceUnreadable,
    /// The counter of fatal PCIe errors rose (`aer_dev_fatal`).
    AerFatal,
    /// The counter of non-fatal PCIe errors rose (`aer_dev_nonfatal`).
    AerNonFatal,
    /// The kernel recovers the chip from a PCIe error, or could not (`ERROR_EVENT`).
    PcieErrorRecovery,
    /// The PCIe link runs below what both ends support.
    LinkBelowMaximum,
    /// libixml reports the chip as lost (`GPU_IS_LOST`).
    IxmlGpuLost,
    /// libixml reports that the chip must be reset (`RESET_REQUIRED`).
    IxmlResetRequired,
    /// A bit of `ixmlDeviceGetHealth`: the system hub.
    IxmlSyshub,
    /// A bit of `ixmlDeviceGetHealth`: the memory controller.
    IxmlMemoryController,
    /// A bit of `ixmlDeviceGetHealth`: too hot.
    IxmlOverTemperature,
    /// A bit of `ixmlDeviceGetHealth`: too high a voltage.
    IxmlOverVoltage,
    /// A bit of `ixmlDeviceGetHealth`: ECC.
    IxmlEcc,
    /// A bit of `ixmlDeviceGetHealth`: the memory.
    IxmlMemory,
    /// A bit of `ixmlDeviceGetHealth`: PCIe.
    IxmlPcie,
    /// A bit of `ixmlDeviceGetHealth` that its header does not name.
    IxmlUnknownBit,
    /// libixml's counter of errors that ECC could not correct rose.
    IxmlEccUncorrected,
    /// libixml's counter of errors that ECC corrected rose.
    IxmlEccCorrected,
    /// libixml could not query the chip, for a transient reason (`TIMEOUT`, `IN_USE`...).
    IxmlCallFailed,
    /// Containers are to get the chip's UUID, and the file of `discovery.identities` does not have it.
    /// Nothing to configure: a container cannot get a name that is not known.
    UuidUnknown,
    /// It left, and stays listed only because a pod holds it or may hold it. No signal of a chip
    /// that is there, so nothing to configure.
    Removed,
    /// A pod holds its chips under another id, resource, granularity or kind of sharing, as an
    /// earlier configuration offered them. Nothing to configure.
    HeldByPod,
    /// An operator keeps it from new pods. Nothing to configure.
    Cordoned,
    /// A claim holds its chips, by dynamic resource allocation: the node served it before. Nothing to
    /// configure.
    HeldByClaim,
}

/// What a signal leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Ignored.
    Ignore,
    /// A warning only.
    Warn,
    /// Makes the device unhealthy.
    Unhealthy,
}

/// How much a single observation proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// A fact of the moment: counts at once, and is over as soon as it is not seen any more.
    State,
    /// A fault that is certain: counts at once; healthy again only after a time without it.
    Hard,
    /// Reported by another program: counts at once, but is ignored while it affects more than half
    /// of the boards at once.
    Reported,
    /// A hint that may mislead: counts after several observations in a row, and not where it is
    /// seen on more than half of the chips at once; healthy again only after a time without it.
    Soft,
}

impl ReasonCode {
    /// All that can be configured, in the order of the documentation's table.
    pub const ALL: &[Self] = &[
        Self::ChipMissing,
        Self::DriverNotBound,
        Self::DeviceNodeUnknown,
        Self::DeviceNodeMissing,
        Self::ConfigSpaceUnreadable,
        Self::AerFatal,
        Self::AerNonFatal,
        Self::PcieErrorRecovery,
        Self::LinkBelowMaximum,
        Self::IxmlGpuLost,
        Self::IxmlResetRequired,
        Self::IxmlSyshub,
        Self::IxmlMemoryController,
        Self::IxmlOverTemperature,
        Self::IxmlOverVoltage,
        Self::IxmlEcc,
        Self::IxmlMemory,
        Self::IxmlPcie,
        Self::IxmlUnknownBit,
        Self::IxmlEccUncorrected,
        Self::IxmlEccCorrected,
        Self::IxmlCallFailed,
    ];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChipMissing => "ChipMissing",
            Self::DriverNotBound => "DriverNotBound",
            Self::DeviceNodeUnknown => "DeviceNodeUnknown",
            Self::DeviceNodeMissing => "DeviceNodeMissing",
            Self::ConfigSpaceUnreadable => "ConfigSpaceUnreadable",
            Self::AerFatal => "AerFatal",
            Self::AerNonFatal => "AerNonFatal",
            Self::PcieErrorRecovery => "PcieErrorRecovery",
            Self::LinkBelowMaximum => "LinkBelowMaximum",
            Self::IxmlGpuLost => "IxmlGpuLost",
            Self::IxmlResetRequired => "IxmlResetRequired",
            Self::IxmlSyshub => "IxmlSyshub",
            Self::IxmlMemoryController => "IxmlMemoryController",
            Self::IxmlOverTemperature => "IxmlOverTemperature",
            Self::IxmlOverVoltage => "IxmlOverVoltage",
            Self::IxmlEcc => "IxmlEcc",
            Self::IxmlMemory => "IxmlMemory",
            Self::IxmlPcie => "IxmlPcie",
            Self::IxmlUnknownBit => "IxmlUnknownBit",
            Self::IxmlEccUncorrected => "IxmlEccUncorrected",
            Self::IxmlEccCorrected => "IxmlEccCorrected",
            Self::IxmlCallFailed => "IxmlCallFailed",
            Self::UuidUnknown => "UuidUnknown",
            Self::Removed => "Removed",
            Self::HeldByPod => "HeldByPod",
            Self::Cordoned => "Cordoned",
            Self::HeldByClaim => "HeldByClaim",
        }
    }

    /// The severity of the signal unless the configuration sets another.
    #[must_use]
    pub fn default_severity(self) -> Severity {
        match self {
            Self::AerNonFatal
            | Self::LinkBelowMaximum
            | Self::IxmlUnknownBit
            | Self::IxmlEccCorrected => Severity::Warn,
            _ => Severity::Unhealthy,
        }
    }

    /// How much one observation proves.
    #[must_use]
    pub fn certainty(self) -> Certainty {
        match self {
            Self::ChipMissing
            | Self::DriverNotBound
            | Self::DeviceNodeUnknown
            | Self::DeviceNodeMissing
            | Self::LinkBelowMaximum
            | Self::UuidUnknown
            | Self::Removed
            | Self::HeldByPod
            | Self::HeldByClaim
            | Self::Cordoned => Certainty::State,
            Self::ConfigSpaceUnreadable | Self::AerFatal | Self::PcieErrorRecovery => {
                Certainty::Hard
            }
            Self::IxmlGpuLost
            | Self::IxmlResetRequired
            | Self::IxmlSyshub
            | Self::IxmlMemoryController
            | Self::IxmlOverTemperature
            | Self::IxmlOverVoltage
            | Self::IxmlEcc
            | Self::IxmlMemory
            | Self::IxmlPcie
            | Self::IxmlUnknownBit
            | Self::IxmlEccUncorrected => Certainty::Reported,
            Self::AerNonFatal | Self::IxmlEccCorrected | Self::IxmlCallFailed => Certainty::Soft,
        }
    }

    /// True where the driver, once it is ready, makes the reason go away by itself.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::DriverNotBound | Self::DeviceNodeUnknown | Self::DeviceNodeMissing)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
