//! What must survive: a kill at any point, a look that fails, and nodes that get other numbers.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use ix_device_plugin::demo::kubelet::{Admission, PodRequest};
use ix_device_plugin::demo::machine::PlayMachine;
use ix_device_plugin::model::board::{Board, Chip};
use ix_device_plugin::parse::node_file::parse_node_file;
use nix::sys::signal::Signal;

use crate::support::kernel::{Kernel, in_a_network_of_its_own, on_a_runtime};
use crate::support::plugged_node::{Daemon, GPU, LOOKED, PluggedNode, QUIET};

/// Where the daemon is when it is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    Started,
    Looked,
    Registered,
    BoardLeft,
    BoardCame,
    InAStorm,
    Allocated,
}

const POINTS: [Point; 7] = [
    Point::Started,
    Point::Looked,
    Point::Registered,
    Point::BoardLeft,
    Point::BoardCame,
    Point::InAStorm,
    Point::Allocated,
];

/// Starts a daemon and brings it to `point`.
async fn bring_to(point: Point, node: &PluggedNode, kernel: &Kernel) -> Daemon {
    let daemon = Daemon::start(&mut node.command());
    let board = &node.boards[4];
    match point {
        Point::Started => {}
        Point::Looked => daemon.said(LOOKED, 1).await,
        Point::Registered => all(node).await,
        Point::BoardLeft => {
            all(node).await;
            node.machine.unplug(board).expect("the tree is ours");
            node.chips(board).left(kernel);
        }
        Point::BoardCame => {
            daemon.said(LOOKED, 1).await;
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
            node.kubelet.admit(PodRequest::single("pod", GPU, 2)).await.expect("there is room");
        }
    }
    daemon
}

async fn all(node: &PluggedNode) {
    node.sees("every board", |healthy| healthy.len() == node.boards.len()).await;
}

#[test]
fn a_kill_at_any_point_and_a_restart_give_the_same_list() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack("bi-v150-x8", QUIET).await, Kernel::open());
        let every: BTreeSet<_> =
            node.boards.iter().map(|board| board.address.to_string()).collect();
        for point in POINTS {
            drop(bring_to(point, &node, &kernel).await);
            node.sees(&format!("nothing after a kill at {point:?}"), BTreeSet::is_empty).await;

            node.machine.unplug(&node.boards[4]).unwrap();
            node.machine.replug(&node.boards[4]).unwrap();
            let restarted = Daemon::start(&mut node.command());
            node.sees(&format!("all after a kill at {point:?}"), |healthy| *healthy == every).await;
            drop(restarted);
            node.sees("nothing", BTreeSet::is_empty).await;
            // The next one begins without the board that comes and goes.
            if let Point::BoardLeft = point {
                node.machine.unplug(&node.boards[4]).unwrap();
            }
        }
    });
}

/// The machine cannot be looked at while a file is in the place of a directory.
async fn check_failed_look(directory: &str) {
    let node = PluggedNode::unpack("mr-v100-x4", QUIET).await;
    let daemon = node.daemon().await;
    let (lists, real) = (node.lists(), node.root().join(directory));
    let away = real.with_extension("away");
    std::fs::rename(&real, &away).expect("the tree is ours");
    std::fs::write(&real, "").expect("the tree is ours");

    daemon.signal(Signal::SIGHUP);
    daemon.said("still cannot look at the machine", 3).await;
    daemon.said("the last list stays", 1).await;
    all(&node).await;

    std::fs::remove_file(&real).expect("the tree is ours");
    std::fs::rename(&away, &real).expect("the tree is ours");
    daemon.said(LOOKED, daemon.looks() + 1).await;
    all(&node).await;
    assert_eq!(node.lists(), lists, "no other list was sent meanwhile");
}

#[test]
fn a_look_that_fails_at_its_start_shortens_no_list() {
    on_a_runtime(check_failed_look("sys/bus/pci/devices"));
}

#[test]
fn a_look_that_fails_midway_shortens_no_list() {
    on_a_runtime(check_failed_look("dev"));
}

/// Puts the board back with other nodes than it had, as a driver that counts on.
fn replug_renumbered(node: &PluggedNode, board: &Board) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/nodes/bi-v150-x8.node");
    let mut text = std::fs::read_to_string(file).expect("the tree is ours");
    let minors: Vec<_> = board.chips.iter().map(minor).collect();
    for minor in &minors {
        for name in ["iluvatar", "508:", "MINOR="] {
            for end in [" ", "\n", "]", "\\n", "\""] {
                let (was, is) = (format!("{name}{minor}{end}"), format!("{name}1{minor}{end}"));
                text = text.replace(&was, &is);
            }
        }
    }
    let renumbered = PlayMachine::unpack(parse_node_file(&text).expect("the tree is ours"))
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
        let (node, kernel) = (PluggedNode::unpack("bi-v150-x8", QUIET).await, Kernel::open());
        let daemon = node.daemon().await;
        let count = node.boards.len();
        let old = node.kubelet.admit(PodRequest::single("old", GPU, count)).await.unwrap();
        node.kubelet.start_container("old", "main").await.expect("nothing changed yet");
        let board = &node.boards[6];
        node.machine.unplug(board).unwrap();
        node.chips(board).left(&kernel);
        node.sees_board(board, false).await;
        replug_renumbered(&node, board);
        node.chips(board).came(&kernel);
        node.sees_board(board, true).await;

        let refused = node.kubelet.start_container("old", "main").await.unwrap_err().to_string();
        let id = board.address;
        let what =
            format!("{id}: chip {id} was allocated as /dev/iluvatar12 but is now /dev/iluvatar112");
        assert!(refused.contains(&what), "{refused}");

        // Also by a daemon that knows of it from its file alone.
        drop(daemon);
        node.sees("nothing", BTreeSet::is_empty).await;
        let _daemon = node.daemon().await;
        let refused = node.kubelet.start_container("old", "main").await.unwrap_err().to_string();
        assert!(refused.contains(&what), "{refused}");

        node.kubelet.remove("old").await.unwrap();
        let new = node.kubelet.admit(PodRequest::single("new", GPU, count)).await.unwrap();
        let renumbered = |path: &String| match path.as_str() {
            "/dev/iluvatar12" => "/dev/iluvatar112".to_owned(),
            "/dev/iluvatar13" => "/dev/iluvatar113".to_owned(),
            _ => path.clone(),
        };
        let expected: BTreeSet<_> = nodes_of(&old).iter().map(renumbered).collect();
        assert_eq!(nodes_of(&new), expected);
        node.kubelet.start_container("new", "main").await.expect("it was given what is there");
    });
}
