//! Cordons: boards and chips that operators keep from new pods.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::pci::PciAddress;
use super::pod_usage::Holder;
use super::serde_text::serde_as_text;

/// One cordon. It names chips, so that it means the same after the configuration made other devices
/// of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cordon {
    /// The chips that no new pod gets.
    pub chips: BTreeSet<PciAddress>,
    /// Why, in the operator's words.
    pub reason: Option<CordonReason>,
}

/// By the id that was cordoned: the address of a board or of a chip.
pub type Cordons = BTreeMap<PciAddress, Cordon>;

/// A line of text without control characters, of at most [`CordonReason::LONGEST`] characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CordonReason(String);

impl CordonReason {
    /// The most characters: it is part of log lines and tables.
    pub const LONGEST: usize = 200;
}

/// Why a text is no reason of a cordon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CordonReasonError {
    /// Nothing, or white space alone.
    Empty,
    /// More than one line, or another control character.
    Control,
    /// Too many characters.
    Long,
}

impl fmt::Display for CordonReasonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the text is empty; leave --reason out"),
            Self::Control => f.write_str("the text must be one line without control characters"),
            Self::Long => {
                write!(f, "the text has more than {} characters; shorten it", CordonReason::LONGEST)
            }
        }
    }
}

impl std::error::Error for CordonReasonError {}

impl FromStr for CordonReason {
    type Err = CordonReasonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match () {
            () if text.is_empty() => Err(CordonReasonError::Empty),
            () if text.chars().any(char::is_control) => Err(CordonReasonError::Control),
            () if text.chars().count() > Self::LONGEST => Err(CordonReasonError::Long),
            () => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for CordonReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

serde_as_text!(CordonReason);

/// What is known of the file of cordons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CordonList {
    /// The active cordons.
    pub cordons: Cordons,
    /// Why there may have been more, for an operator; none where all is well.
    pub problem: Option<String>,
}

/// A cordon, and who still holds its chips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CordonState {
    /// The id that was cordoned.
    pub id: PciAddress,
    /// What was cordoned, and why.
    pub cordon: Cordon,
    /// Who still holds it.
    pub usage: CordonUsage,
}

/// Who still holds cordoned chips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CordonUsage {
    /// No pod.
    Drained,
    /// These containers.
    Held(BTreeSet<Holder>),
    /// The kubelet has not reported which pods hold devices.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_a_bounded_length() {
        let reason: CordonReason = "  RMA-1234: fan \u{fc}berholt ".parse().unwrap();
        assert_eq!(reason.to_string(), "RMA-1234: fan \u{fc}berholt");
        let refused = |text: &str| text.parse::<CordonReason>().unwrap_err();
        assert_eq!(refused(" "), CordonReasonError::Empty);
        assert_eq!(refused("a\nb"), CordonReasonError::Control);
        assert_eq!(refused("a\x1b[31mb"), CordonReasonError::Control);
        assert_eq!(refused(&"x".repeat(201)), CordonReasonError::Long);
        assert!("x".repeat(200).parse::<CordonReason>().is_ok());
    }
}
