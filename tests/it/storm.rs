//! Events faster than anyone needs them: few scans, one correct list, flat memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ix_device_plugin::demo::kubelet::NodeView;
use ix_device_plugin::model::board::Board;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::kernel::{Kernel, in_a_network_of_its_own};
use crate::support::node_rig::{NodeRig, healthy};
use crate::support::test_node::{ONLY_EVENTS, TestNode};

const EVENTS: usize = 10_000;
/// Between two scans that events lead to.
const SHORTEST_GAP: Duration = Duration::from_millis(20);
/// Where a leak would show.
const HEAP: &str = "RssAnon";
/// A board leaves or comes each so many events.
const FLAP: usize = 100;
/// Together they send faster than the daemon reads.
const SENDERS: usize = 3;
/// More than the receive buffer holds, as large as the daemon can have it.
const TOO_MANY: usize = 40_000;

async fn node(fixture: &str) -> NodeRig {
    TestNode::fixture(fixture).config(ONLY_EVENTS).prepare().await
}

/// Sends the storm while the board leaves and comes; in the end it is gone.
fn storm(node: &NodeRig, kernel: &Kernel, board: &Board) {
    let chips = node.chips(board);
    // Of a board with two chips, each unplugging and replugging is six events.
    for turn in 0..EVENTS / FLAP {
        let comes = turn % 2 == 0;
        let changed = if comes { node.machine.replug(board) } else { node.machine.unplug(board) };
        changed.expect("the tree is ours");
        for _ in 0..FLAP.div_ceil(6) {
            if comes { chips.came(kernel) } else { chips.left(kernel) }
        }
    }
}

/// Waits until the daemon has answered all that came before.
async fn settled(node: &NodeRig, kernel: &Kernel) {
    let board = &node.boards[0];
    for comes in [false, true] {
        let changed = if comes { node.machine.replug(board) } else { node.machine.unplug(board) };
        changed.expect("the tree is ours");
        node.chips(board).class_devices(kernel, if comes { "add" } else { "remove" });
        node.until_board(board, comes).await;
    }
}

#[test]
fn ten_thousand_events_cost_few_scans_and_no_memory_and_the_last_list_is_right() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node("bi-v150-x8").await, Kernel::open());
        let daemon = node.process().await;
        let board = &node.boards[5];
        node.machine.unplug(board).unwrap();
        // The first storm fills what is filled once: buffers, the allocator's pools.
        let began = Instant::now();
        storm(&node, &kernel, board);
        settled(&node, &kernel).await;
        let heap = daemon.memory(HEAP);

        storm(&node, &kernel, board);
        settled(&node, &kernel).await;

        let id = board.address.to_string();
        let is_right = |view: &NodeView| {
            healthy(view).count() == node.boards.len() - 1 && !healthy(view).any(|it| it == id)
        };
        node.until("all but one", is_right).await;
        let grown = daemon.memory(HEAP).saturating_sub(heap);
        let (scans, took) = (daemon.metric("rescans_total", "uevent").await, began.elapsed());
        println!("{took:?}, {scans} scans, {grown} KiB more");
        // On a machine so busy that the storm has pauses, a scan follows each of them: no two come
        // within the shortest gap. How the gap grows is held by the schedule's own tests.
        let most = took.as_millis() / SHORTEST_GAP.as_millis() + 2;
        assert!(u128::from(scans) <= most, "{scans} scans in {took:?}");
        assert!(grown < 1024, "{grown} KiB more than the {heap} KiB before");
    });
}

#[test]
fn events_that_were_lost_are_counted_logged_and_answered_by_a_scan() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node("mr-v100-x4").await, Kernel::open());
        let daemon = node.process().await;
        let board = &node.boards[2];
        daemon.signal(Signal::SIGSTOP);
        // No event is about the board: only the loss can lead to a scan.
        node.machine.unplug(board).unwrap();
        for _ in 0..TOO_MANY {
            kernel.other_vendor();
        }
        daemon.signal(Signal::SIGCONT);
        // Before the scan that finds the board gone, which is the second warning.
        daemon.warning().await;
        node.until_board(board, false).await;
        assert!(daemon.metric("uevent_overflows_total", "").await >= 1);
    });
}

#[test]
fn a_storm_of_other_devices_does_not_keep_the_list_from_following() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (node("mr-v100-x4").await, Kernel::open());
        let (daemon, began) = (node.process().await, Instant::now());
        let enough = Arc::new(AtomicBool::new(false));
        let senders = [(); SENDERS].map(|()| {
            let (storm, ended) = (Kernel::open(), Arc::clone(&enough));
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    storm.other_vendor();
                }
            })
        });
        for board in &node.boards {
            node.machine.unplug(board).unwrap();
            node.chips(board).left(&kernel);
            node.until_board(board, false).await;
        }
        enough.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }
        // All but those of boards and devices are about events that were lost: one a minute.
        let of_losses = |event: &Value| event["board"].is_null() && event["device"].is_null();
        let warnings = daemon.warnings().into_iter().filter(of_losses).count();
        assert!(warnings as u64 <= 1 + began.elapsed().as_secs() / 60, "{warnings} warnings");
    });
}
