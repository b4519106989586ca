//! One machine as a set of paths: what a `.node` file holds, and what a scan of `/sys` and `/dev` read.

use std::collections::BTreeMap;

/// Every path that was read, relative to the root (`sys/bus/pci/devices`), with what is there.
///
/// Invariant: every directory above an entry has an entry of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// By path, so that everything below a directory is one range.
    entries: BTreeMap<String, Entry>,
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
    /// Puts `entry` at `path`, and directories above it; what was at `path` is replaced, but a
    /// directory never replaces anything.
    pub fn insert(&mut self, path: &str, entry: Entry) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.entries.contains_key(parent)
        {
            self.insert(parent, Entry::Directory);
        }
        if entry == Entry::Directory {
            self.entries.entry(path.to_owned()).or_insert(entry);
        } else {
            self.entries.insert(path.to_owned(), entry);
        }
    }

    /// Forgets `path` and everything below it.
    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.entries.retain(|entry, _| entry != path && !entry.starts_with(&below));
    }

    /// The entry at `path`, if it was read and is there.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Every path and entry, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Names and entries directly in the directory `path`, in order.
    pub fn children<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        self.descendants(path).filter(|(below, _)| !below.contains('/'))
    }

    /// Paths, relative to the directory `path`, and entries anywhere below it, in order.
    pub fn descendants<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let prefix = format!("{path}/");
        let skip = prefix.len();
        self.entries
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(move |(path, entry)| (&path[skip..], entry))
    }

    /// Where the link at `path` leads, as a path relative to the root; an absolute target is taken
    /// to start at the root. None where there is no link, or it leads to the root itself or out of it.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<String> {
        match self.get(path)? {
            Entry::Link(target) => resolve_link(path, target),
            _ => None,
        }
    }
}

/// Where a link at `path` with the text `target` leads; see [`Machine::resolve`].
#[must_use]
pub fn resolve_link(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => path.rsplit_once('/').map_or(Vec::new(), |(parent, _)| parent.split('/').collect()),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_inside_the_root_only() {
        let from = "sys/bus/pci/devices/0000:15:00.0";
        let check = |target: &str, expected: Option<&str>| {
            assert_eq!(resolve_link(from, target).as_deref(), expected, "{target}");
        };
        check("../../../devices/pci0000:14/x", Some("sys/devices/pci0000:14/x"));
        check("/sys/devices/x", Some("sys/devices/x"));
        check("./x", Some("sys/bus/pci/devices/x"));
        check("../../../../../etc/passwd", None);
        check("../../../..", None);
        check("/", None);
    }

    #[test]
    fn children_are_one_level_and_descendants_are_all() {
        let mut machine = Machine::default();
        machine.insert("a/b", Entry::File(vec![]));
        machine.insert("a/c/d/e", Entry::File(vec![]));
        machine.insert("ab/x", Entry::File(vec![]));
        let children: Vec<_> = machine.children("a").map(|(name, _)| name).collect();
        assert_eq!(children, ["b", "c"]);
        let below: Vec<_> = machine.descendants("a").map(|(path, _)| path).collect();
        assert_eq!(below, ["b", "c", "c/d", "c/d/e"]);
    }
}
