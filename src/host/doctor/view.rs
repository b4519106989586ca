//! How much of a node is to be seen at a root: all of it, or what a container or a `.node` file shows.

use std::path::PathBuf;

use crate::host::files;
use crate::host::root::Root;
use crate::model::doctor::facts::Unavailable;
use crate::parse::doctor::process::parse_root_filesystem;

/// Longest /proc/self/mountinfo that is read; a node with many pods has a long one.
const LONGEST_MOUNTINFO: u64 = 1 << 20;

/// A root, and whether its directories are the node's.
pub(super) struct View<'a> {
    pub(super) root: &'a Root,
    is_container: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(root: &'a Root) -> Self {
        Self { root, is_container: root.is_this_machine() && is_container(root) }
    }

    /// Where a path of the node is, given without its first `/`.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        files::exists(&self.path(path))
    }

    /// Whether the absence of a file below this directory at the top means that the node has none.
    ///
    /// # Errors
    /// Why it means nothing.
    pub(super) fn shows(&self, top: &str) -> Result<(), Unavailable> {
        if self.is_container {
            return Err(Unavailable(format!(
                "a container does not show the node's /{top}; run it on the node, or with the \
                 node's root mounted and --root"
            )));
        }
        if self.exists(top) {
            return Ok(());
        }
        Err(self.lacks(top))
    }

    /// Why nothing below `path` can be told: this root is not a whole node.
    pub(super) fn lacks(&self, path: &str) -> Unavailable {
        let whose = if self.root.is_unpacked() { "the .node file holds" } else { "the root has" };
        Unavailable(format!("{whose} no /{path}"))
    }
}

fn is_container(root: &Root) -> bool {
    let root = root.path();
    let marks = ["run/.containerenv", ".dockerenv"];
    if marks.iter().any(|mark| files::exists(&root.join(mark))) {
        return true;
    }
    let mountinfo = files::read_start(&root.join("proc/self/mountinfo"), LONGEST_MOUNTINFO);
    let mountinfo = mountinfo.unwrap_or_default();
    parse_root_filesystem(&String::from_utf8_lossy(&mountinfo)) == Some("overlay")
}
