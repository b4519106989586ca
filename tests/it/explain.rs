//! `explain allocation` through the built binary: the choice, its score, the runner-up and why.

use crate::support::binary::{Ran, run, stdout_of};

const NODE: [&str; 4] = ["--root", "fixtures/nodes/bi-v150-x8.node", "explain", "allocation"];

#[track_caller]
fn check(name: &str, arguments: &[&str]) {
    let output = stdout_of(&[&NODE[..], arguments].concat());
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots/explain");
    settings.bind(|| insta::assert_snapshot!(name, output));
}

#[track_caller]
fn check_refused(arguments: &[&str], code: i32, first_line: &str) {
    let Ran { code: ended, stderr, .. } = run(&[&NODE[..], arguments].concat());
    assert_eq!((ended, stderr.lines().next()), (Some(code), Some(first_line)));
}

#[test]
fn two_of_split_chips_are_explained_as_one_board() {
    check("split-2", &["--splitboard=true", "--size", "2"]);
}

#[test]
fn four_of_split_chips_are_explained_as_two_boards_below_one_switch() {
    check("split-4", &["--splitboard=true", "--size", "4", "--available", "all"]);
}

#[test]
fn what_must_be_included_and_what_is_unknown_is_said() {
    let available = "0000:13:00.0,0000:1c:00.0,0000:99:00.0";
    check(
        "must-include",
        &["--available", available, "--must-include", "0000:1c:00.0", "--size", "2"],
    );
}

#[test]
fn a_request_for_more_than_there_is_gets_all_and_hears_so() {
    check("too-many", &["--size", "99"]);
}

#[test]
fn scripts_get_the_same_as_json() {
    check("split-2.json", &["--splitboard=true", "--size", "2", "-o", "json"]);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_rule() {
    check_refused(
        &["--size", "1", "--available", "nonsense"],
        2,
        "error: invalid value 'nonsense' for '--available <IDS>': `nonsense` is not a PCI address \
         such as `0000:13:00.0`",
    );
    check_refused(
        &["--size", "1", "--resource", "nope"],
        1,
        "error: `nope` is no resource of this configuration; it has iluvatar.com/gpu",
    );
}
