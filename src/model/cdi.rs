//! The CDI spec (Container Device Interface): names that container runtimes resolve to device nodes.
//! It is one file in a directory that other programs share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::pci::{PciAddress, PciAddressError};

/// Vendor and class of our names. Each mode has its own, whatever resources are called, so that
/// neither changes what the other's containers have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CdiKind {
    /// Of the device plugin.
    #[default]
    DevicePlugin,
    /// Of dynamic resource allocation.
    Dra,
}

impl CdiKind {
    /// As specs and names have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DevicePlugin => "iluvatar.com/gpu",
            Self::Dra => "gpu.iluvatar.com/device",
        }
    }

    /// `VENDOR-CLASS.json`, as the specification asks.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::DevicePlugin => "iluvatar.com-gpu.json",
            Self::Dra => "gpu.iluvatar.com-device.json",
        }
    }

    /// What every container gets besides nodes. The device plugin sets variables itself; a claim has
    /// only its names, and without the variable the vendor's runtime would add all GPUs.
    #[must_use]
    pub fn env(self) -> &'static [&'static str] {
        match self {
            Self::DevicePlugin => &[],
            Self::Dra => &["IX_VISIBLE_DEVICES=void"],
        }
    }
}

impl fmt::Display for CdiKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The names of this node and the paths of their device nodes. Without a name there is no file: the
/// specification requires at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiSpec {
    /// Which mode's names these are.
    pub kind: CdiKind,
    /// Nodes that every container gets, whichever name it is given.
    pub common: Vec<String>,
    /// The nodes of each name; never empty.
    pub devices: BTreeMap<CdiName, Vec<String>>,
}

/// A name without its kind. It means the same under every configuration: the kubelet repeats a cached
/// answer whenever a container restarts, and a name must not mean a board first and a chip later.
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
    pub fn qualified(self, kind: CdiKind) -> String {
        format!("{kind}={self}")
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

/// The part of the spec directory that concerns this plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiDirectory {
    /// The file at our path.
    pub spec_file: SpecFile,
    /// Other files of our kind, by path.
    pub others: Vec<OtherSpec>,
}

/// The file at our path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecFile {
    /// There is none.
    Absent,
    /// A spec exactly as this program writes it.
    Ours {
        /// Its content.
        spec: CdiSpec,
        /// Which instance wrote it.
        writer: SpecWriter,
    },
    /// Anything else.
    Foreign,
}

/// Which instance of this program wrote a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecWriter {
    /// This process.
    ThisInstance,
    /// One before it, or one beside it during a rolling update.
    AnotherInstance,
}

/// Another file of our kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherSpec {
    /// Its path.
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
