//! Problems for an operator that make no device unhealthy.

use std::fmt;

use super::health::ReasonCode;
use super::pci::PciAddress;

/// One warning: a code for machines, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Which kind it is.
    pub code: WarningCode,
    /// What it is about. The same code about the same subject is the same warning, whatever its
    /// sentence says.
    pub subject: Subject,
    /// Names, values and, where there is one, the remedy.
    pub detail: String,
}

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The node as a whole.
    Node,
    /// One chip.
    Chip(PciAddress),
    /// One board, by its lowest chip.
    Board(PciAddress),
    /// One extended resource.
    Resource(String),
}

/// Every kind of warning. Names are stable: they are label values of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningCode {
    /// An attribute in /sys holds a value that makes no sense.
    OddAttribute,
    /// A chip's device node is inferred from the order of chips and nodes.
    InferredDeviceNode,
    /// Chips may share a board, but nothing proves which.
    UnknownBoard,
    /// The file of `discovery.identities` cannot be read, or has bad lines.
    IdentitiesFile,
    /// `boards.pairs` names chips of which none is on this node.
    AbsentPair,
    /// A signal whose severity is `warn`.
    Signal(ReasonCode),
    /// A signal is ignored because it affects most boards at once.
    SuppressedSignal(ReasonCode),
    /// More than one resource matches the same chips.
    OverlappingResources,
    /// Chips that no resource offers.
    ChipsNotOffered,
    /// Devices left out of a list that would exceed the kubelet's limit.
    ListTooLarge,
    /// Chips that may be held under another id, while the kubelet does not report which pod.
    HolderUnknown,
    /// A pod holds a device node that belongs to another chip now.
    DeviceNodeReassigned,
    /// The file of cordons is damaged or cannot be read.
    CordonFileUnusable,
}

impl WarningCode {
    /// Every name, in the order of the documentation.
    pub const NAMES: &[&'static str] = &[
        "OddAttribute",
        "InferredDeviceNode",
        "UnknownBoard",
        "IdentitiesFile",
        "AbsentPair",
        "Signal",
        "SuppressedSignal",
        "OverlappingResources",
        "ChipsNotOffered",
        "ListTooLarge",
        "HolderUnknown",
        "DeviceNodeReassigned",
        "CordonFileUnusable",
    ];

    /// The stable name; signals share one, their reason code is in the sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OddAttribute => "OddAttribute",
            Self::InferredDeviceNode => "InferredDeviceNode",
            Self::UnknownBoard => "UnknownBoard",
            Self::IdentitiesFile => "IdentitiesFile",
            Self::AbsentPair => "AbsentPair",
            Self::Signal(_) => "Signal",
            Self::SuppressedSignal(_) => "SuppressedSignal",
            Self::OverlappingResources => "OverlappingResources",
            Self::ChipsNotOffered => "ChipsNotOffered",
            Self::ListTooLarge => "ListTooLarge",
            Self::HolderUnknown => "HolderUnknown",
            Self::DeviceNodeReassigned => "DeviceNodeReassigned",
            Self::CordonFileUnusable => "CordonFileUnusable",
        }
    }
}

impl Warning {
    /// Whether both have the same code and subject, whatever their text.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.code, &self.subject) == (other.code, &other.subject)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.pad("node"),
            Self::Chip(address) | Self::Board(address) => address.fmt(f),
            Self::Resource(name) => f.pad(name),
        }
    }
}

/// The sentence, after the subject unless that is the node or the sentence names it already.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, &self.subject) {
            (WarningCode::Signal(_), _) | (_, Subject::Node) => f.write_str(&self.detail),
            (_, subject) => write!(f, "{subject}: {}", self.detail),
        }
    }
}
