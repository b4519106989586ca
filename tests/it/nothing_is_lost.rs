//! What must survive: a kill at any point, a scan that fails, and nodes that get other numbers.

use std::collections::BTreeSet;
use std::process::Command;

use ix_device_plugin::demo::kubelet::{Admission, NodeView};
use ix_device_plugin::demo::machine::DemoMachine;
use ix_device_plugin::model::board::{Board, Chip};
use ix_device_plugin::parse::node_file::parse_node_file;
use nix::sys::signal::Signal;

use crate::support::fixtures::{GPU, node_text};
use crate::support::kernel::{Kernel, in_a_network_of_its_own, on_a_runtime};
use crate::support::node_rig::{NodeRig, healthy};
use crate::support::process::{PluginProcess, SCANS};
use crate::support::test_node::{ONLY_EVENTS, TestNode};

async fn node(fixture: &str) -> NodeRig {
    TestNode::fixture(fixture).config(ONLY_EVENTS).prepare().await
}

/// Where the daemon is when it is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    Started,
    Scanned,
    Registered,
    BoardLeft,
    BoardCame,
    InAStorm,
    Allocated,
}

const POINTS: [Point; 7] = [
    Point::Started,
    Point::Scanned,
    Point::Registered,
    Point::BoardLeft,
    Point::BoardCame,
    Point::InAStorm,
    Point::Allocated,
];

/// Starts a daemon and brings it to `point`.
async fn bring_to(point: Point, node: &NodeRig, kernel: &Kernel) -> PluginProcess {
    let daemon = node.start_process();
    let board = &node.boards[4];
    match point {
        Point::Started => {}
        Point::Scanned => daemon.counts(SCANS, "", 1).await,
        Point::Registered => all(node).await,
        Point::BoardLeft => {
            all(node).await;
            node.machine.unplug(board).expect("the tree is ours");
            node.chips(board).left(kernel);
        }
        Point::BoardCame => {
            daemon.counts(SCANS, "", 1).await;
            node.machine.replug(board).expect("the tree is ours");
            node.chips(board).came(kernel);
        }
        Point::InAStorm => {
            all(node).await;
            for _ in 0..500 {
                node.chips(board).came(kernel);
            }
        }
        Point::Allocated => {
            all(node).await;
            node.admit("pod", GPU, 2).await;
        }
    }
    daemon
}

async fn all(node: &NodeRig) {
    node.until_healthy(node.boards.len()).await;
}

#[test]
fn a_kill_at_any_point_and_a_restart_give_the_same_list() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node("bi-v150-x8").await, Kernel::open());
        let every: BTreeSet<_> =
            node.boards.iter().map(|board| board.address.to_string()).collect();
        for point in POINTS {
            drop(bring_to(point, &node, &kernel).await);
            node.until_healthy(0).await;

            node.machine.unplug(&node.boards[4]).unwrap();
            node.machine.replug(&node.boards[4]).unwrap();
            let restarted = node.start_process();
            let has_all = |view: &NodeView| healthy(view).eq(every.iter().map(String::as_str));
            node.until(&format!("all after a kill at {point:?}"), has_all).await;
            drop(restarted);
            node.until_healthy(0).await;
            // The next one begins without the board that comes and goes.
            if let Point::BoardLeft = point {
                node.machine.unplug(&node.boards[4]).unwrap();
            }
        }
    });
}

/// A scan fails while a file is in the place of a directory.
async fn check_failed_scan(directory: &str) {
    let node = node("mr-v100-x4").await;
    let daemon = node.start_process();
    all(&node).await;
    let lists = || node.kubelet.view().borrow().resources[GPU].lists_received;
    let (before, real) = (lists(), node.root().join(directory));
    let away = real.with_extension("away");
    std::fs::rename(&real, &away).expect("the tree is ours");
    std::fs::write(&real, "").expect("the tree is ours");

    daemon.signal(Signal::SIGHUP);
    daemon.counts("rescans_total", "retry", 3).await;
    assert_eq!(daemon.warnings().len(), 1, "{:#?}", daemon.warnings());
    all(&node).await;

    std::fs::remove_file(&real).expect("the tree is ours");
    std::fs::rename(&away, &real).expect("the tree is ours");
    daemon.until_status("a scan", |status| status["machine"]["error"].is_null()).await;
    all(&node).await;
    assert_eq!(lists(), before, "no other list was sent meanwhile");
}

#[test]
fn a_scan_that_fails_at_its_start_shortens_no_list() {
    on_a_runtime(check_failed_scan("sys/bus/pci/devices"));
}

#[test]
fn a_scan_that_fails_midway_shortens_no_list() {
    on_a_runtime(check_failed_scan("dev"));
}

/// Puts the board back with other nodes than it had, as a driver that counts on.
fn replug_renumbered(node: &NodeRig, board: &Board) {
    let mut text = node_text("bi-v150-x8");
    let minors: Vec<_> = board.chips.iter().map(minor).collect();
    for minor in &minors {
        for name in ["iluvatar", "508:", "MINOR="] {
            for end in [" ", "\n", "]", "\\n", "\""] {
                let (was, is) = (format!("{name}{minor}{end}"), format!("{name}1{minor}{end}"));
                text = text.replace(&was, &is);
            }
        }
    }
    let renumbered = DemoMachine::unpack(parse_node_file(&text).expect("the tree is ours"))
        .expect("the tree is ours");
    let from = renumbered.root();
    for (chip, minor) in board.chips.iter().zip(minors) {
        let listed = format!("sys/bus/pci/devices/{}", chip.address);
        let directory = std::fs::canonicalize(from.path().join(&listed)).expect("the tree is ours");
        let directory = directory
            .strip_prefix(from.path())
            .expect("the tree is ours")
            .to_str()
            .expect("the tree is ours")
            .to_owned();
        let name = format!("iluvatar1{minor}");
        let (node_file, class) = (format!("dev/{name}"), format!("sys/class/iluvatar-sys/{name}"));
        for path in [directory, listed, node_file, class] {
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(from.path().join(&path)).arg(node.root().join(&path));
            assert!(copy.status().expect("the tree is ours").success(), "{path}");
        }
    }
}

fn minor(chip: &Chip) -> String {
    let path = &chip.node.as_ref().expect("it has one").path;
    path.trim_start_matches("/dev/iluvatar").to_owned()
}

/// Nodes on the host that a container was given.
fn nodes_of(admission: &Admission) -> BTreeSet<String> {
    let devices = &admission.containers[0].injection.devices;
    devices.iter().map(|device| device.host_path.clone()).collect()
}

#[test]
fn a_chip_that_came_back_with_another_node_starts_no_old_container_and_is_given_anew() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node("bi-v150-x8").await, Kernel::open());
        let daemon = node.process().await;
        let count = node.boards.len();
        let old = node.admit("old", GPU, count).await;
        node.start_pod("old").await.expect("nothing changed yet");
        let board = &node.boards[6];
        node.machine.unplug(board).unwrap();
        node.chips(board).left(&kernel);
        node.until_board(board, false).await;
        replug_renumbered(&node, board);
        node.chips(board).came(&kernel);
        node.until_board(board, true).await;

        let refused = node.start_pod("old").await.unwrap_err();
        let id = board.address;
        let what =
            format!("{id}: chip {id} was allocated as /dev/iluvatar12 but is now /dev/iluvatar112");
        assert!(refused.contains(&what), "{refused}");

        // Also by a daemon that knows of it from its file alone.
        drop(daemon);
        node.until_healthy(0).await;
        let _daemon = node.process().await;
        let refused = node.start_pod("old").await.unwrap_err();
        assert!(refused.contains(&what), "{refused}");

        node.kubelet.remove("old").await.unwrap();
        let new = node.admit("new", GPU, count).await;
        let renumbered = |path: &String| match path.as_str() {
            "/dev/iluvatar12" => "/dev/iluvatar112".to_owned(),
            "/dev/iluvatar13" => "/dev/iluvatar113".to_owned(),
            _ => path.clone(),
        };
        let expected: BTreeSet<_> = nodes_of(&old).iter().map(renumbered).collect();
        assert_eq!(nodes_of(&new), expected);
        node.start_pod("new").await.expect("it was given what is there");
    });
}
