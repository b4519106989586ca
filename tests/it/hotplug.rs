//! Boards that come and go: the real kernel's uevents, the real libudev, the built daemon. The list
//! at the kubelet follows.

use ix_device_plugin::model::board::Board;
use ix_device_plugin::wire::v1beta1::{AllocateRequest, ContainerAllocateRequest};
use nix::sys::signal::Signal;

use crate::support::fixtures::GPU;
use crate::support::kernel::{Kernel, in_a_network_of_its_own, on_a_runtime};
use crate::support::node_rig::NodeRig;
use crate::support::plugin_client::connect;
use crate::support::process::{PluginProcess, SCANS};
use crate::support::seccomp::{Forbidden, forbid};
use crate::support::test_node::{ONLY_EVENTS, TestNode};

/// Four boards of one chip, or eight of two, that are scanned after events only.
async fn node(fixture: &str) -> NodeRig {
    TestNode::fixture(fixture).config(ONLY_EVENTS).prepare().await
}

const X4: &str = "mr-v100-x4";
const X8: &str = "bi-v150-x8";

/// What the plugin itself answers, whatever the kubelet would do.
async fn allocate(node: &NodeRig, board: &Board) -> Result<(), tonic::Status> {
    let mut client = connect(&node.socket()).await;
    let container = ContainerAllocateRequest { devices_ids: vec![board.address.to_string()] };
    client.allocate(AllocateRequest { container_requests: vec![container] }).await.map(drop)
}

#[test]
fn a_removed_board_can_no_longer_be_allocated_as_soon_as_its_uevent_came() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node(X8).await, Kernel::open());
        let _daemon = node.process().await;
        let board = &node.boards[3];
        allocate(&node, board).await.expect("it is there");

        node.machine.unplug(board).unwrap();
        node.chips(board).left(&kernel);

        node.until_board(board, false).await;
        let refusal = allocate(&node, board).await.unwrap_err();
        let id = board.address;
        let gone = format!(
            "{GPU}: there is no device `{id}`; it may have been removed since the last list"
        );
        let unhealthy = format!("{GPU}: device {id} is unhealthy: ");
        let message = refusal.message();
        assert!(message == gone || message.starts_with(&unhealthy), "{message}");
        allocate(&node, &node.boards[2]).await.expect("the others stay");
    });
}

#[test]
fn an_added_board_is_listed_as_soon_as_its_uevent_came() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node(X8).await, Kernel::open());
        let board = &node.boards[7];
        node.machine.unplug(board).unwrap();
        let _daemon = node.start_process();
        node.until_healthy(node.boards.len() - 1).await;

        node.machine.replug(board).unwrap();
        node.chips(board).came(&kernel);

        node.until_board(board, true).await;
        allocate(&node, board).await.expect("it is there");
    });
}

#[test]
fn a_board_whose_node_comes_after_its_events_is_scanned_again_until_it_is_complete() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node(X4).await, Kernel::open());
        let daemon = node.process().await;
        let board = &node.boards[0];
        let path = board.chips[0].node.as_ref().expect("it has one").path.clone();
        let path = node.root().join(path.trim_start_matches('/'));
        let text = std::fs::read(&path).unwrap();

        std::fs::remove_file(&path).unwrap();
        node.chips(board).came(&kernel);
        node.until_board(board, false).await;
        let scans = daemon.scans().await;
        daemon.counts(SCANS, "", scans + 2).await;
        std::fs::write(&path, text).unwrap();

        node.until_board(board, true).await;
    });
}

#[test]
fn events_of_other_vendors_lead_to_no_scan() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node(X4).await, Kernel::open());
        let daemon = node.process().await;
        let caused = async || daemon.metric("rescans_total", "uevent").await;
        for _ in 0..20 {
            // Few enough to fit the socket's buffer: events that are lost do lead to a scan.
            let read = daemon.metric("uevents_total", "").await;
            for _ in 0..10 {
                kernel.other_vendor();
                kernel.send("add", "/devices/virtual/net/veth0", &[("SUBSYSTEM", "net")]);
            }
            // Those of other subsystems stay in the kernel.
            daemon.counts("uevents_total", "", read + 10).await;
        }
        assert_eq!(daemon.metric("uevent_overflows_total", "").await, 0);
        assert_eq!(caused().await, 0);
        // Events are read in order: the scan that this one leads to is the first.
        node.machine.unplug(&node.boards[0]).unwrap();
        node.chips(&node.boards[0]).class_devices(&kernel, "remove");
        node.until_board(&node.boards[0], false).await;
        assert_eq!(caused().await, 1);
    });
}

#[test]
fn an_event_of_the_drivers_own_class_counts() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node(X4).await, Kernel::open());
        let _daemon = node.process().await;
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        node.chips(board).class_devices(&kernel, "remove");
        node.until_board(board, false).await;
        node.machine.replug(board).unwrap();
        node.chips(board).class_devices(&kernel, "add");
        node.until_board(board, true).await;
    });
}

#[test]
fn a_malformed_event_does_not_end_the_listening() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node(X4).await, Kernel::open());
        let daemon = node.process().await;
        for bytes in [&b"\0"[..], b"add@/devices/x\0", b"add@/devices/x\0ACTION=add\0", &[0xff; 40]]
        {
            kernel.send_bytes(bytes);
        }
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        node.chips(board).left(&kernel);
        node.until_board(board, false).await;
        assert_eq!(daemon.metric("source_up", "netlink").await, 1);
    });
}

#[test]
fn a_chip_that_the_kernel_recovers_from_an_error_is_unhealthy_as_soon_as_its_uevent_came() {
    in_a_network_of_its_own(async || {
        let at_once = "discovery: {rescan: 1h}\nhealth: {interval: 1h, recovery: 0s}\n";
        let node = TestNode::fixture(X8).config(at_once).prepare().await;
        let kernel = Kernel::open();
        let daemon = node.process().await;
        let (board, scans) = (&node.boards[3], daemon.scans().await);
        let chips = node.chips(board);
        for begun in ["BEGIN_RECOVERY", "FAILED_RECOVERY"] {
            chips.error_event(&kernel, begun);
            node.until_board(board, false).await;
            chips.error_event(&kernel, "SUCCESSFUL_RECOVERY");
            node.until_board(board, true).await;
        }
        chips.error_event(&kernel, "FAILED_RECOVERY");
        node.until_board(board, false).await;
        assert_eq!(daemon.scans().await, scans, "nothing came, left or changed its driver");
        chips.came(&kernel);
        node.until_board(board, true).await;
    });
}

#[test]
fn an_event_of_a_chip_that_changes_nothing_on_the_bus_leads_to_a_health_sample() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node(X4).await, Kernel::open());
        let daemon = node.process().await;
        let (board, scans) = (&node.boards[1], daemon.scans().await);
        node.machine.stop_answering(board.address).unwrap();
        node.chips(board).changed(&kernel);
        node.until_board(board, false).await;
        assert_eq!(daemon.scans().await, scans);
        // What a sample shows to have changed on the bus leads to a scan.
        let other = &node.boards[2];
        node.machine.unplug(other).unwrap();
        node.chips(other).changed(&kernel);
        node.until_board(other, false).await;
        assert_eq!(daemon.metric("rescans_total", "health").await, 1);
    });
}

#[test]
fn where_no_inotify_instance_is_left_the_kubelets_directory_is_polled() {
    on_a_runtime(async {
        let node = node(X4).await;
        let mut command = node.command();
        forbid(&mut command, Forbidden::Inotify);
        let daemon = PluginProcess::start(&mut command);
        node.until_healthy(node.boards.len()).await;
        assert_eq!(daemon.metric("source_up", "inotify").await, 0);
        std::fs::remove_file(node.socket()).unwrap();
        node.until("another registration", |view| view.register_calls >= 2).await;
        node.until_healthy(node.boards.len()).await;
    });
}

#[test]
fn without_netlink_the_machine_is_scanned_at_intervals_and_one_warning_is_logged() {
    on_a_runtime(async {
        let node = node(X4).await;
        let mut command = node.command();
        forbid(&mut command, Forbidden::Netlink);
        let daemon = PluginProcess::start(&mut command);
        node.until_healthy(node.boards.len()).await;
        // Each poll tries netlink again; none but the first says that it failed.
        daemon.counts("rescans_total", "poll", 2).await;
        let warnings = daemon.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert_eq!(daemon.metric("source_up", "netlink").await, 0);
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        node.until_board(board, false).await;
    });
}

#[test]
fn sighup_leads_to_a_scan() {
    on_a_runtime(async {
        let node = node(X4).await;
        let daemon = node.process().await;
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        daemon.signal(Signal::SIGHUP);
        node.until_board(board, false).await;
    });
}
