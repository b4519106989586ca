//! Each wrong `.node` file of `fixtures/bad-nodes` with its whole message beside it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::binary::{Ran, files, run};

#[test]
fn a_wrong_machine_is_refused_with_the_message_beside_it() {
    for node in files("fixtures/bad-nodes", "node") {
        let Ran { code, stdout, stderr } = run(&["fixture", "check", node.to_str().unwrap()]);
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(node.with_extension("expected"));
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!((code, &*stdout, stderr), (Some(1), "", expected), "{}", node.display());
    }
}

#[test]
fn no_expected_message_is_left_over() {
    let stems = |extension| -> BTreeSet<_> {
        let files = files("fixtures/bad-nodes", extension);
        files.iter().map(|path| path.with_extension("")).collect()
    };
    assert_eq!(stems("expected"), stems("node"));
}

#[test]
fn the_shipped_machines_are_good() {
    for node in files("fixtures/nodes", "node") {
        let Ran { code, stdout, stderr } = run(&["fixture", "check", node.to_str().unwrap()]);
        assert_eq!((code, &*stderr), (Some(0), ""), "{}", node.display());
        assert!(stdout.starts_with(&format!("{}: ok: ", node.display())), "{stdout}");
    }
}
