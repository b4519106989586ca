//! The root that is read, and what shows whether it is a whole node's.

use std::path::PathBuf;

use crate::host::files;
use crate::host::root::Root;
use crate::model::doctor::facts::{RootFacts, RootKind};
use crate::parse::doctor::process::parse_root_filesystem;

/// Longest /proc/self/mountinfo that is read; a node with many pods has a long one.
const MOUNTINFO_LIMIT: u64 = 1 << 20;
/// Files that container engines make in a container's root.
const CONTAINER_MARKS: [&str; 2] = ["run/.containerenv", ".dockerenv"];
/// Directories at the top that something is read from.
const DIRECTORIES: [&str; 5] = ["dev", "etc", "proc", "run", "var"];

pub(super) fn root(root: &Root) -> RootFacts {
    let exists = |path: &&str| files::exists(&below(root, path));
    RootFacts {
        kind: kind(root),
        has_container_mark: CONTAINER_MARKS.iter().any(exists),
        filesystem: filesystem(root),
        directories: DIRECTORIES.into_iter().filter(exists).map(str::to_owned).collect(),
    }
}

/// Where a path of the node is, given without its first `/`.
pub(super) fn below(root: &Root, path: &str) -> PathBuf {
    root.path().join(path)
}

fn kind(root: &Root) -> RootKind {
    if root.is_unpacked() {
        RootKind::NodeFile
    } else if root.is_this_machine() {
        RootKind::ThisMachine
    } else {
        RootKind::Directory
    }
}

fn filesystem(root: &Root) -> Option<String> {
    if !root.is_this_machine() {
        return None;
    }
    let mountinfo = files::read_start(&below(root, "proc/self/mountinfo"), MOUNTINFO_LIMIT).ok()?;
    parse_root_filesystem(&String::from_utf8_lossy(&mountinfo)).map(str::to_owned)
}
