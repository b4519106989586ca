//! What the pods of `make e2e` do, and how the run judges their reports.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ix_device_plugin::host::files;
use ix_device_plugin::host::root::Root;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::parse::node_file::parse_node_file;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::cluster::{Cluster, MACHINE, boards, script};
use super::failed;
use crate::deploy::tools::{text_of, top};
use crate::support::binary::{Ran, ran};
use crate::support::fixtures::{node_text, scan_of};
use crate::support::skip;

const PODS: &str = "pods of 1, 2 and 4 get their own nodes and variables; other nodes are refused";

#[test]
fn the_table_of_chips_is_what_discovery_finds() {
    let boards = boards();
    let rows = boards.iter().flat_map(|board| {
        let node = |path: &str| path.trim_start_matches("/dev/").to_owned();
        board.chips.iter().map(move |chip| {
            let node = node(&chip.node.as_ref().unwrap().path);
            format!("{} {} {node}\n", board.address, chip.address)
        })
    });
    let table = text_of(format!("tests/e2e/{MACHINE}.chips"));
    let (_, table) = table.split_once("# BOARD CHIP NODE\n").unwrap();
    assert_eq!(table, rows.collect::<String>());
}

/// What checks.sh finds in the report of a pod of four boards.
fn problems(report: &Path) -> Ran {
    let mut command = Command::new("sh");
    command.current_dir(top().join("tests/e2e")).env("chips", format!("{MACHINE}.chips"));
    command.args(["-uc", ". ./cluster.sh && . ./checks.sh && pod_got 4 board \"$0\""]).arg(report);
    ran(&command.output().unwrap())
}

/// A report, otherwise right, that has `to` for `from` is found wrong, with just this explanation.
#[track_caller]
fn wrong_report_is_found(from: &str, to: &str, explanation: &str) {
    let cluster = Cluster::new();
    let right = cluster.report_of("pod-4");
    assert!(right.contains(from), "{right}");
    assert_eq!(problems(&cluster.report_file("pod-4")).code, Some(0));
    cluster.write_report("pod-4", &right.replacen(from, to, 1));
    let Ran { code, stdout, .. } = problems(&cluster.report_file("pod-4"));
    assert_eq!(code, Some(1));
    assert!(stdout.lines().any(|line| line == explanation), "{stdout}");
}

#[test]
fn a_pod_with_other_nodes_than_its_own_is_found() {
    wrong_report_is_found("node iluvatar6\n", "", "/dev/iluvatar6 is missing");
    let foreign = "/dev/iluvatar0 belongs to no device of the pod";
    wrong_report_is_found("node itrctl\n", "node itrctl\nnode iluvatar0\n", foreign);
    let unknown = "/dev/iluvatar16 is unknown";
    wrong_report_is_found("node itrctl\n", "node itrctl\nnode iluvatar16\n", unknown);
    wrong_report_is_found("node itrctl\n", "", "/dev/itrctl is missing");
}

#[test]
fn a_pod_that_may_open_too_much_or_too_little_is_found() {
    let much = "opening iluvatar8: \"allowed\", not \"refused\"";
    wrong_report_is_found("open 8 refused", "open 8 allowed", much);
    let little = "opening iluvatar15: \"refused\", not \"allowed\"";
    wrong_report_is_found("open 15 allowed", "open 15 refused", little);
    let odd = "opening iluvatar8: \"unexpected: it was opened\", not \"refused\"";
    wrong_report_is_found("open 8 refused", "open 8 unexpected: it was opened", odd);
    wrong_report_is_found("open 8 refused\n", "", "opening iluvatar8: \"\", not \"refused\"");
}

#[test]
fn a_pod_with_wrong_variables_is_found() {
    let all = "IX_VISIBLE_DEVICES is \"all\", not \"";
    let cluster = Cluster::new();
    let right = cluster.report_of("pod-4");
    let visible = right.lines().next().unwrap().strip_prefix("visible ").unwrap();
    wrong_report_is_found(visible, "all", &format!("{all}{visible}\""));
    let board = boards()[3].address;
    let devices = format!("devices {board},");
    wrong_report_is_found(&devices, "devices ", "IX_REPLICA_DEVICES names 3 devices, not 4");
    wrong_report_is_found(&devices, "devices GPU-7,", "there is no board GPU-7");
}

#[test]
fn a_report_without_its_end_does_not_count() {
    wrong_report_is_found("end\n", "", "the report of the pod is cut short");
}

#[test]
fn the_run_fails_where_a_pod_got_too_much() {
    let cluster = Cluster::new();
    let report = cluster.report_of("pod-4").replace("open 8 refused", "open 8 allowed");
    cluster.write_report("pod-4", &report);
    cluster.write_report("after-kill", &cluster.report_of("keep"));
    cluster.write_report("replica", &cluster.report_of("after-update"));
    let report = cluster.report("", 1);
    let replica = "a pod of 1 gets one replica, with the nodes of its board";
    assert_eq!(failed(&report), [PODS, replica, "afterwards a pod gets another board"], "{report}");
    assert!(report.contains("opening iluvatar8: \"allowed\", not \"refused\""), "{report}");
    assert!(report.contains("0000:13:00.0 is not a replica"), "{report}");
    assert!(report.contains("allocated twice: 0000:27:00.0"), "{report}");
}

/// node.sh on a node whose directories are below `host`, with the machine in its /run.
fn node(host: &Path, arguments: &[&str]) -> Ran {
    let mut command = script("pods/node.sh");
    command.env("E2E_HOST", host).env("E2E_MACHINE", host.join("run/ix-e2e-1"));
    command.env("E2E_RUN", "ix-e2e-1").args(arguments);
    ran(&command.output().unwrap())
}

fn host() -> TempDir {
    let host = TempDir::new().unwrap();
    for directory in ["dev", "run", "device-plugins"] {
        fs::create_dir(host.path().join(directory)).unwrap();
    }
    let machine = parse_node_file(&node_text(MACHINE)).unwrap();
    files::unpack(&machine, &host.path().join("run/ix-e2e-1")).unwrap();
    host
}

#[track_caller]
fn succeeds(ran: Ran) -> String {
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
    ran.stdout
}

#[test]
fn a_board_that_the_helper_removes_is_gone_and_comes_back_as_it_was() {
    let host = host();
    let scan = || {
        let root = Root::open(&host.path().join("run/ix-e2e-1")).unwrap();
        scan_of(&root, &Config::default()).unwrap().boards
    };
    let before = scan();
    let chips = before[4].chips.iter().map(|chip| {
        let node = chip.node.as_ref().unwrap().path.trim_start_matches("/dev/");
        format!("{}={node}", chip.address)
    });
    let chips: Vec<_> = chips.collect();
    let arguments: Vec<_> =
        ["remove"].into_iter().chain(chips.iter().map(String::as_str)).collect();
    succeeds(node(host.path(), &arguments));
    let without: Vec<_> = before.iter().filter(|board| **board != before[4]).cloned().collect();
    assert_eq!(scan(), without);
    succeeds(node(host.path(), &["return"]));
    assert_eq!(scan(), before);
}

/// False where this user may not make device nodes.
fn may_make_nodes(directory: &Path) -> bool {
    let node = directory.join("node");
    let mut mknod = Command::new("mknod");
    let is_made = mknod.arg(&node).args(["c", "254", "0"]).status().is_ok_and(|it| it.success());
    if is_made {
        fs::remove_file(node).unwrap();
    } else {
        skip("making device nodes is forbidden here");
    }
    is_made
}

#[test]
fn the_helper_makes_the_nodes_and_removes_all_that_the_run_left() {
    let host = host();
    if !may_make_nodes(host.path()) {
        return;
    }
    let dev = host.path().join("dev");
    fs::write(dev.join("sda"), "").unwrap();
    let major = succeeds(node(host.path(), &["prepare"]));
    assert!((240..=254).contains(&major.trim().parse().unwrap()), "{major}");
    for name in ["iluvatar0", "iluvatar15", "itrctl"] {
        assert!(fs::metadata(dev.join(name)).unwrap().file_type().is_char_device(), "{name}");
    }
    fs::write(host.path().join("device-plugins/iluvatar-gpu.allocations"), "").unwrap();
    fs::write(host.path().join("device-plugins/other.sock"), "").unwrap();
    succeeds(node(host.path(), &["clean"]));
    let left = |directory: &str| -> Vec<_> {
        let entries = fs::read_dir(host.path().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!((left("dev"), left("run")), (vec!["sda".into()], vec![]));
    assert_eq!(left("device-plugins"), ["other.sock"]);
}

#[test]
fn a_node_with_gpus_or_another_plugin_is_refused_and_left_alone() {
    let host = host();
    fs::write(host.path().join("device-plugins/iluvatar-gpu.sock"), "").unwrap();
    let Ran { code, stderr, .. } = node(host.path(), &["prepare"]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("a plugin already serves on this node"), "{stderr}");
    fs::write(host.path().join("dev/iluvatar3"), "").unwrap();
    let Ran { code, stderr, .. } = node(host.path(), &["prepare"]);
    assert_eq!(code, Some(1));
    assert_eq!(stderr, "/dev/iluvatar3 exists on this node: use a node without GPUs\n");
    succeeds(node(host.path(), &["clean"]));
    assert!(host.path().join("dev/iluvatar3").exists());
}

/// A major number that no driver has here.
fn free_major() -> u32 {
    let taken = fs::read_to_string("/proc/devices").unwrap();
    let is_taken =
        |major: &u32| taken.lines().any(|line| line.trim().starts_with(&format!("{major} ")));
    (240..=254).find(|major| !is_taken(major)).unwrap()
}

#[test]
fn the_report_of_a_pod_has_its_variables_nodes_and_rights_and_the_pod_ends_when_stopped() {
    let major = free_major().to_string();
    let in_a_dev_of_its_own = "mount -t tmpfs none /dev && mknod /dev/iluvatar3 c $E2E_MAJOR 3 \
                               && mknod /dev/null c 1 3 && exec sh tests/e2e/pods/report.sh";
    if !may_make_nodes(TempDir::new().unwrap().path()) {
        return;
    }
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("E2E_MAJOR", &major);
    command.env("IX_VISIBLE_DEVICES", "0000:13:00.0").env("IX_REPLICA_DEVICES", "0000:13:00.0");
    command
        .args(["--mount", "sh", "-c", in_a_dev_of_its_own])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut pod = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(pod.stdout.take().unwrap()).lines().map(Result::unwrap);
    let report: Vec<_> = lines.take_while(|line| line != "end").collect();
    kill(Pid::from_raw(pod.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(pod.wait().unwrap().code(), Some(0));

    let (facts, opened) = report.split_at(3);
    let expected = ["visible 0000:13:00.0", "devices 0000:13:00.0", "node iluvatar3"];
    assert_eq!(facts, expected);
    // Without a device cgroup, all of them may be opened; in a container, none.
    let results: Vec<_> = opened.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(results.len(), 16, "{report:?}");
    assert!(["allowed", "refused"].contains(&results[0]), "{report:?}");
    assert!(results.iter().all(|result| *result == results[0]), "{report:?}");
}
