//! What a file's absence proves: nothing, unless the root shows the node's own directory.

use crate::model::doctor::facts::{RootFacts, RootKind, Unavailable};

/// Whether a file that is absent below this directory at the top is absent from the node.
///
/// # Errors
/// Why its absence proves nothing.
pub(super) fn shows(root: &RootFacts, top: &str) -> Result<(), Unavailable> {
    if is_container(root) {
        return Err(Unavailable(format!(
            "a container does not show the node's /{top}; run it on the node, or mount the node's \
             root and use --root"
        )));
    }
    if root.directories.contains(top) { Ok(()) } else { Err(lacks(root, top)) }
}

/// Why nothing below `path` is available: this root is not a whole node.
pub(super) fn lacks(root: &RootFacts, path: &str) -> Unavailable {
    let subject = match root.kind {
        RootKind::NodeFile => "the .node file",
        RootKind::ThisMachine | RootKind::Directory => "the root",
    };
    Unavailable(format!("{subject} has no /{path}"))
}

fn is_container(root: &RootFacts) -> bool {
    root.kind == RootKind::ThisMachine
        && (root.has_container_mark || root.filesystem.as_deref() == Some("overlay"))
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::root;
    use super::*;

    #[track_caller]
    fn check(root: &RootFacts, expected: Result<(), &str>) {
        let shown = shows(root, "etc").map_err(|why| why.0);
        assert_eq!(shown, expected.map_err(str::to_owned));
    }

    #[test]
    fn a_node_shows_what_it_has() {
        check(&root(RootKind::ThisMachine, &["etc"]), Ok(()));
        check(&root(RootKind::Directory, &["etc"]), Ok(()));
    }

    #[test]
    fn a_root_that_is_not_a_whole_node_proves_nothing() {
        check(&root(RootKind::Directory, &["dev"]), Err("the root has no /etc"));
        check(&root(RootKind::NodeFile, &["dev"]), Err("the .node file has no /etc"));
    }

    #[test]
    fn a_container_proves_nothing_of_the_node() {
        let expected = Err("a container does not show the node's /etc; run it on the node, or \
                            mount the node's root and use --root");
        let here = root(RootKind::ThisMachine, &["etc"]);
        check(&RootFacts { has_container_mark: true, ..here.clone() }, expected);
        check(&RootFacts { filesystem: Some("overlay".to_owned()), ..here.clone() }, expected);
        check(&RootFacts { filesystem: Some("ext4".to_owned()), ..here }, Ok(()));
    }

    #[test]
    fn a_mounted_root_of_a_node_with_an_overlay_is_no_container() {
        let mounted = root(RootKind::Directory, &["etc"]);
        check(&RootFacts { has_container_mark: true, ..mounted }, Ok(()));
    }
}
