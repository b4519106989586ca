//! The command line as a user meets it: exit codes, help, what goes to which stream.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use ix_device_plugin::parse::node_file::parse_node_file;
use tempfile::TempDir;

use crate::support::binary::{Ran, binary, ran, run, stdout_of};

const X4: &str = "fixtures/nodes/mr-v100-x4.node";
const X8: &str = "fixtures/nodes/bi-v150-x8.node";

fn help(name: &str, arguments: &[&str]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots/help");
    settings.bind(|| insta::assert_snapshot!(name, stdout_of(arguments)));
}

const VERBS: [&str; 10] = [
    "run", "probe", "status", "discover", "topology", "snapshot", "fixture", "config", "doctor",
    "demo",
];

#[test]
fn every_verb_has_a_help_worth_reading() {
    help("plugin", &["--help"]);
    for verb in VERBS {
        help(verb, &[verb, "--help"]);
    }
    help("probe-ready", &["probe", "ready", "--help"]);
    help("fixture-unpack", &["fixture", "unpack", "--help"]);
    help("fixture-check", &["fixture", "check", "--help"]);
    help("config-check", &["config", "check", "--help"]);
}

#[test]
fn the_version_is_the_crates() {
    let version = format!("ix-device-plugin {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout_of(&["--version"]), version);
}

#[test]
fn an_unknown_verb_or_flag_is_a_usage_error() {
    for arguments in [&["discovr"][..], &["discover", "--rot", "/"], &["discover", "-o", "xml"]] {
        let Ran { code, stdout, stderr } = run(arguments);
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
}

#[track_caller]
fn check_error(arguments: &[&str], code: i32, message: &str) {
    let expected = Ran { code: Some(code), stdout: String::new(), stderr: message.to_owned() };
    assert_eq!(run(arguments), expected);
}

#[test]
fn a_root_that_is_not_there_is_a_failure_that_says_so() {
    let message = "error: cannot read the root no/such: No such file or directory (os error 2)\n";
    check_error(&["--root", "no/such", "discover"], 1, message);
    check_error(&["--root", "no/such", "topology"], 1, message);
    check_error(&["--root", "no/such", "snapshot"], 1, message);
}

#[test]
fn an_empty_root_is_a_failure_and_not_a_node_without_gpus() {
    let empty = TempDir::new().unwrap();
    let root = empty.path().to_str().unwrap();
    let message = format!(
        "error: cannot read {root}/sys/bus/pci/devices: No such file or directory (os error 2); \
         is /sys mounted here?\n"
    );
    check_error(&["--root", root, "discover"], 1, &message);
    check_error(&["--root", root, "discover", "-o", "json"], 1, &message);
}

#[test]
fn a_root_that_is_no_machine_is_a_failure_with_its_line() {
    let message = "error: fixtures/bad-nodes/bad-hex.node is not a machine: line 3: `3e1e0` is not \
                   pairs of hexadecimal digits\n";
    check_error(&["--root", "fixtures/bad-nodes/bad-hex.node", "discover"], 1, message);
}

#[test]
fn a_configuration_that_was_named_and_is_not_there_has_its_own_exit_code() {
    let message =
        "error: cannot read the configuration no/such: No such file or directory (os error 2)\n";
    check_error(&["--root", X4, "--config", "no/such", "discover"], 3, message);
    check_error(&["config", "check", "no/such"], 3, message);
}

#[test]
fn a_wrong_configuration_has_its_own_exit_code() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "bords: {}\n").unwrap();
    let arguments = ["--root", X4, "--config", file.to_str().unwrap(), "discover"];
    let Ran { code, stdout, stderr } = run(&arguments);
    assert_eq!((code, &*stdout), (Some(3), ""));
    assert!(stderr.contains("bords") && stderr.contains("boards"), "{stderr}");
}

#[test]
fn the_environment_stands_for_the_global_flags() {
    let from_environment = ran(&binary()
        .args(["discover", "-o", "json"])
        .env("IX_ROOT", "fixtures/nodes/half-board.node")
        .env("IX_CONFIG", "fixtures/nodes/half-board.yaml")
        .env("IX_LOG_FORMAT", "json")
        .output()
        .unwrap());
    let arguments = [
        "--root",
        "fixtures/nodes/half-board.node",
        "--config",
        "fixtures/nodes/half-board.yaml",
        "--log-format",
        "json",
        "discover",
        "-o",
        "json",
    ];
    assert_eq!(from_environment, run(&arguments));
    assert!(from_environment.stdout.contains("ChipMissing"));
}

#[test]
fn splitboard_offers_each_chip() {
    let split = stdout_of(&["--root", X8, "--splitboard", "discover"]);
    assert!(split.contains("iluvatar.com/gpu: 16 devices, 16 healthy"), "{split}");
    assert_eq!(stdout_of(&["--root", X8, "--splitboard=true", "discover"]), split);
    let whole = stdout_of(&["--root", X8, "discover"]);
    assert!(whole.contains("iluvatar.com/gpu: 8 devices, 8 healthy"), "{whole}");
}

#[test]
fn nothing_is_coloured_when_piped() {
    for format in ["table", "tree", "dot"] {
        let output = stdout_of(&["--root", X4, "discover", "-o", format]);
        assert!(!output.contains('\x1b'), "{format}");
    }
    assert!(!stdout_of(&["--root", X4, "topology"]).contains('\x1b'));
}

/// The reader closes its end before or while the output comes; `| head` does the same.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut command = binary();
    command.args(["--root", X8, "discover", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*stderr), (Some(0), ""));
}

/// A machine with no GPU says what was looked at; one with GPUs lists them. Either is fine.
#[test]
fn this_machine_is_looked_at_as_it_is() {
    let bus = Path::new("/sys/bus/pci/devices");
    let Ran { code, stdout, stderr } = run(&["discover"]);
    if !bus.is_dir() {
        assert_eq!(code, Some(1));
        assert!(stderr.starts_with("error: cannot read /sys/bus/pci/devices: "), "{stderr}");
        return;
    }
    assert_eq!((code, &*stderr), (Some(0), ""));
    let functions = std::fs::read_dir(bus).unwrap().count();
    let s = if functions == 1 { "" } else { "s" };
    let nothing = format!(
        "no Iluvatar chips found: {functions} PCI function{s} in /sys/bus/pci/devices, none a chip \
         of vendor 0x1e3e\n"
    );
    assert!(stdout.starts_with(&nothing) || stdout.starts_with("BOARD"), "{stdout}");
}

#[test]
fn a_snapshot_goes_to_a_file_or_to_standard_output() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("machine.node");
    let file = file.to_str().unwrap();
    let shown = stdout_of(&["--root", X4, "snapshot"]);
    assert_eq!(stdout_of(&["--root", X4, "snapshot", "-o", file]), "");
    assert_eq!(std::fs::read_to_string(file).unwrap(), shown);
    assert!(parse_node_file(&shown).is_ok());
}

#[test]
fn a_snapshot_that_cannot_be_written_is_a_failure() {
    let message = "error: cannot write no/such/file: No such file or directory (os error 2)\n";
    check_error(&["--root", X4, "snapshot", "-o", "no/such/file"], 1, message);
}

#[test]
fn a_snapshot_of_a_shipped_machine_shows_the_same() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("machine.node");
    let file = file.to_str().unwrap();
    for node in crate::support::binary::files("fixtures/nodes", "node") {
        let node = node.to_str().unwrap();
        stdout_of(&["--root", node, "snapshot", "-o", file]);
        for view in [&["discover", "-o", "json"][..], &["topology", "-o", "json"]] {
            let shown = |root| stdout_of(&[&["--root", root], view].concat());
            assert_eq!(shown(file), shown(node), "{node}");
        }
    }
}

#[test]
fn an_unpacked_machine_is_a_root() {
    let directory = TempDir::new().unwrap();
    let unpacked = directory.path().join("machine");
    let unpacked = unpacked.to_str().unwrap();
    assert_eq!(stdout_of(&["fixture", "unpack", X4, unpacked]), "");
    let shown = |root| stdout_of(&["--root", root, "discover", "-o", "json"]);
    assert_eq!(shown(unpacked), shown(X4));
}

#[test]
fn unpacking_replaces_nothing() {
    let directory = TempDir::new().unwrap();
    let unpacked = directory.path().to_str().unwrap();
    stdout_of(&["fixture", "unpack", X4, unpacked]);
    let Ran { code, stderr, .. } = run(&["fixture", "unpack", X4, unpacked]);
    assert_eq!(code, Some(1));
    let message = format!("error: cannot unpack {X4}: cannot make {unpacked}/dev/iluvatar0: ");
    assert!(stderr.starts_with(&message), "{stderr}");
    assert!(stderr.ends_with("File exists (os error 17)\n"), "{stderr}");
}

#[test]
fn a_checked_machine_says_what_was_found() {
    let expected = "fixtures/nodes/vfio-and-unbound.node: ok, 2 boards with 2 chips, 2 functions \
                    skipped, 0 warnings\n";
    assert_eq!(stdout_of(&["fixture", "check", "fixtures/nodes/vfio-and-unbound.node"]), expected);
}
