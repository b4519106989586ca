//! `explain allocation` through the built binary: the choice, its cost, the runner-up and why.

use crate::support::binary::{Ran, run, stdout_of};

const NODE: [&str; 4] = ["--root", "fixtures/nodes/bi-v150-x8.node", "explain", "allocation"];

#[track_caller]
fn check(name: &str, arguments: &[&str]) {
    hold(name, &stdout_of(&[&NODE[..], arguments].concat()));
}

fn hold(name: &str, output: &str) {
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
fn devices_that_must_be_included_and_unknown_ones_are_named() {
    let available = "0000:13:00.0,0000:1c:00.0,0000:99:00.0";
    check(
        "must-include",
        &["--available", available, "--must-include", "0000:1c:00.0", "--size", "2"],
    );
}

#[test]
fn a_request_for_more_than_there_is_gets_all_and_exits_with_1() {
    for (name, format) in [("too-many", "text"), ("too-many.json", "json")] {
        let Ran { code, stdout, stderr } =
            run(&[&NODE[..], &["--size", "99", "-o", format]].concat());
        assert_eq!((code, &*stderr), (Some(1), ""));
        hold(name, &stdout);
    }
}

#[test]
fn replicas_are_explained_with_what_is_in_use_beside_them() {
    let free = "0000:13:00.0::0,0000:13:00.0::1,0000:1c:00.0::1,0000:27:00.0::1";
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, "sharing: {timeSlicing: {replicas: 2}}\n").unwrap();
    let config = config.to_str().unwrap();
    check("shared", &["--config", config, "--size", "2", "--available", free]);
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
        "error: `nope` is not a resource of this configuration, which has iluvatar.com/gpu",
    );
}

/// `explain claim` on a machine of eight boards: what it prints, and how it ends.
fn claim(file: &str, arguments: &[&str]) -> Ran {
    let base = ["--root", "fixtures/nodes/bi-v150-x8.node", "explain", "claim"];
    let file = format!("fixtures/claims/{file}");
    run(&[&base[..], &[&file], arguments].concat())
}

#[test]
fn a_claim_for_two_chips_of_one_board_gets_the_first_board() {
    for (name, format) in [("two-chips", "text"), ("two-chips.json", "json")] {
        let file = "two-chips-of-one-board.yaml";
        let Ran { code, stdout, stderr } = claim(file, &["--splitboard=true", "-o", format]);
        assert_eq!((code, &*stderr), (Some(0), ""));
        hold(&format!("claim-{name}"), &stdout);
    }
}

#[test]
fn a_claim_that_this_machine_cannot_meet_says_why_of_each_device() {
    let Ran { code, stdout, stderr } = claim("two-chips-of-one-board.yaml", &[]);
    assert_eq!((code, &*stderr), (Some(1), ""));
    hold("claim-not-met", &stdout);
}

#[test]
fn a_template_with_alternatives_gets_the_first_that_fits() {
    let Ran { code, stdout, stderr } = claim("board-or-four-chips.yaml", &["--splitboard=true"]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    hold("claim-alternatives", &stdout);
}

#[test]
fn what_is_no_claim_or_cannot_be_judged_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("claim.yaml");
    let error = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let Ran { code, stderr, .. } = run(&[
            "--root",
            "fixtures/nodes/mr-v100-x4.node",
            "explain",
            "claim",
            path.to_str().unwrap(),
        ]);
        assert_eq!(code, Some(1), "{stderr}");
        stderr.replace(path.to_str().unwrap(), "FILE")
    };
    let kind = "error: FILE has the kind `Pod`; write a ResourceClaim or a ResourceClaimTemplate\n";
    assert_eq!(error("kind: Pod"), kind);
    let text = std::fs::read_to_string("fixtures/claims/two-chips-of-one-board.yaml").unwrap();
    let unknown = error(&text.replace("chip.gpu.iluvatar.com", "dra.net"));
    assert_eq!(unknown, "error: device class dra.net does not exist\n");
    let selector = "        selectors: [{cel: {expression: 'has(device.capacity)'}}]\n";
    let unjudged = error(&text.replace("        count: 2\n", selector));
    assert!(unjudged.starts_with("error: selector `has(device.capacity)`: "), "{unjudged}");
}
