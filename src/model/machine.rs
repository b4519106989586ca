//! One machine as a set of paths: what a `.node` file says, and what a scan of `/sys` and `/dev` read.

use std::collections::BTreeMap;

/// Every path that was looked at, relative to the root (`sys/bus/pci/devices`), with what is there.
///
/// Directories that hold an entry need no entry of their own; `Entry::Directory` is for those that
/// are listed for themselves, empty ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// By path, so that everything below a directory is one range.
    pub entries: BTreeMap<String, Entry>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A regular file or attribute and its bytes.
    File(Vec<u8>),
    /// A symbolic link and where it points, verbatim; it may dangle.
    Link(String),
    /// A character device node.
    CharDevice(DeviceNumber),
    /// Something is there but could not be read, for example `Permission denied (os error 13)`.
    Unreadable(String),
}

/// Major and minor number of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// Driver; dynamic for Iluvatar's.
    pub major: u32,
    /// Instance.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Machine {
    /// The entry at `path`, if it was looked at and is there.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Names and entries directly in the directory `path`; a directory that only lies on the way
    /// to a deeper entry is not among them.
    pub fn children<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let prefix = format!("{path}/");
        let skip = prefix.len();
        self.below(prefix)
            .filter(move |(path, _)| !path[skip..].contains('/'))
            .map(move |(path, entry)| (&path[skip..], entry))
    }

    /// Paths and entries anywhere below the directory `path`, in order.
    pub fn descendants<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        self.below(format!("{path}/"))
    }

    fn below(&self, prefix: String) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, entry)| (path.as_str(), entry))
    }
}
