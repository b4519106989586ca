//! What container runtimes are told of us: names, and the device nodes that go with each. The
//! Container Device Interface calls it a spec; it is one file in a directory that others share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::pci::{PciAddress, PciAddressError};

/// Vendor and class of every name of ours, whatever the resources are called.
pub const KIND: &str = "iluvatar.com/gpu";

/// `VENDOR-CLASS.json`, as the specification asks.
pub const FILE_NAME: &str = "iluvatar.com-gpu.json";

/// Names of this node and the paths of their nodes. Without a name there is nothing to say, and no
/// file: the specification wants at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiSpec {
    /// Nodes that go with every name.
    pub common: Vec<String>,
    /// Nodes of each name, never empty.
    pub devices: BTreeMap<CdiName, Vec<String>>,
}

/// A name without its kind. It means the same under every configuration: the kubelet replays what
/// it was once told whenever a container restarts, and a board must not have become a chip by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CdiName {
    /// One chip: `0000:13:00.0`.
    Chip(PciAddress),
    /// All chips of a board that has several, by the lowest one: `board-0000:13:00.0`.
    Board(PciAddress),
}

const BOARD: &str = "board-";

impl CdiName {
    /// With the kind, as a kubelet passes it on: `iluvatar.com/gpu=0000:13:00.0`.
    #[must_use]
    pub fn qualified(self) -> String {
        format!("{KIND}={self}")
    }
}

impl fmt::Display for CdiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chip(address) => address.fmt(f),
            Self::Board(address) => write!(f, "{BOARD}{address}"),
        }
    }
}

impl FromStr for CdiName {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(BOARD) {
            Some(address) => address.parse().map(Self::Board),
            None => text.parse().map(Self::Chip),
        }
    }
}

/// What is in the directory of specs, as far as it concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiDirectory {
    /// At our own file's path.
    pub place: Place,
    /// Other files of our kind, by path.
    pub others: Vec<OtherSpec>,
}

/// What is at our own file's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Empty,
    /// A spec as this program writes it.
    Ours {
        /// What it says.
        spec: CdiSpec,
        /// True where this very instance wrote it: not one before us, nor one beside us during a
        /// rolling update.
        own: bool,
    },
    /// Something that this program did not write.
    Foreign,
}

/// Another file of our kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherSpec {
    /// Where it is.
    pub path: PathBuf,
    /// Its names, without the kind.
    pub names: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_it_was_written() {
        for text in ["0000:13:00.0", "board-10000:e1:00.0"] {
            assert_eq!(text.parse::<CdiName>().unwrap().to_string(), text);
        }
        for text in ["", "0", "board-", "board-board-0000:13:00.0", "chip-0000:13:00.0", "all"] {
            assert!(text.parse::<CdiName>().is_err(), "{text}");
        }
    }
}
