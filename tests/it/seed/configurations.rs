//! The replaced plugin's own configurations, as its README, its chart and its operator have them:
//! each means what it meant, or is refused with the reason.

use ix_device_plugin::model::config::{Config, Granularity, Sharing};
use ix_device_plugin::parse::config::parse_config;

use crate::support::binary::{run, run_with, stdout_of};

/// Granularity and replicas of the one resource.
fn meaning(text: &str) -> Result<(String, Granularity, u32), String> {
    let Config { mut resources, .. } = parse_config(text).map_err(|error| error.to_string())?;
    let resource = resources.remove(0);
    let replicas = resource.sharing.map_or(0, |Sharing { replicas, .. }| replicas);
    Ok((resource.name, resource.granularity, replicas))
}

#[track_caller]
fn check(text: &str, granularity: Granularity, replicas: u32) {
    assert_eq!(meaning(text), Ok(("iluvatar.com/gpu".to_owned(), granularity, replicas)), "{text}");
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    assert_eq!(meaning(text), Err(format!("1 problem\n  {expected}")), "{text}");
}

#[test]
fn each_version_of_the_file_means_what_it_meant() {
    use Granularity::{Board, Chip};
    check("version: \"4.2.0\"\nflags:\n    splitboard: false\n", Board, 0);
    check("version: \"4.2.0\"\nflags:\n    splitboard: true\n", Chip, 0);
    check(
        "version: \"4.2.0\"\nflags:\n    splitboard: false\nsharing:\n    timeSlicing:\n        \
         replicas: 4\n",
        Board,
        4,
    );
    // Of its operator.
    check("version: \"4.1.1\"\nflags:\n  splitboard: false\n", Board, 0);
    // 4.3 and 4.4, with everything off.
    check(
        "resourceName: iluvatar.com/gpu\nflags:\n  splitboard: false\n  usevolcano: false\n  \
         reset_gpu: false\nsharing:\n  timeSlicing:\n    replicas: 0\n  mps: {}\n",
        Board,
        0,
    );
}

#[test]
fn keys_are_taken_in_upper_and_lower_case() {
    let text = "Version: 1\nResourceName: iluvatar.com/gpu\nFLAGS: {splitBoard: true, useVolcano: \
                false, Reset_GPU: false}\nSharing: {timeslicing: {Replicas: 3}, MPS: {}}\n";
    check(text, Granularity::Chip, 3);
    check_refused(
        "flags: {splitboard: true, splitBoard: false}",
        "line 1: flags.splitBoard: the key is given twice; remove one of the two",
    );
    check_refused(
        "container: {visibledevices: void}",
        "line 1: container.visibledevices: unknown key; did you mean `visibleDevices`?",
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    check_refused(
        "flags:\n  usevolcano: true\n",
        "line 2: flags.usevolcano: Volcano mode is not supported; set it to false",
    );
    check_refused(
        "flags:\n  reset_gpu: true\n",
        "line 2: flags.reset_gpu: resetting a GPU before use is not supported; set it to false",
    );
    check_refused(
        "sharing:\n  mps:\n    replicas: 2\n",
        "line 3: sharing.mps: MPS is not supported; use `sharing.timeSlicing`",
    );
    check_refused(
        "sharing:\n  timeSlicing:\n    replicas: <num-replicas>\n",
        "line 3: sharing.timeSlicing.replicas: `<num-replicas>` is not a whole number",
    );
}

#[test]
fn the_variables_of_its_daemon_set_change_nothing() {
    let arguments = ["--root=fixtures/nodes/bi-v150-x8.node", "discover"];
    let variables = [("NODE_NAME", "gpu-node-1"), ("POD_NAMESPACE", "kube-system")];
    assert_eq!(run_with(&arguments, &variables), run(&arguments));
}

#[test]
fn its_flags_are_taken_with_one_dash() {
    let discover =
        |flag: &str| stdout_of(&["--root=fixtures/nodes/bi-v150-x8.node", flag, "discover"]);
    assert_eq!(discover("-splitboard"), discover("--splitboard"));
    assert_eq!(discover("-splitboard=true"), discover("--splitboard"));
    let refused = run(&["-usevolcano", "config", "check", "fixtures/configs/good/empty.yaml"]);
    let said = "error: --usevolcano=true: Volcano mode is not supported; unset it\n";
    assert_eq!((refused.code, &*refused.stderr), (Some(3), said));
}
