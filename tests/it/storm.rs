//! Events faster than anyone needs them: few looks, one correct list, flat memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ix_device_plugin::model::board::Board;
use nix::sys::signal::Signal;

use crate::support::kernel::{Kernel, in_a_network_of_its_own};
use crate::support::plugged_node::{PluggedNode, QUIET};

const EVENTS: usize = 10_000;
/// What a leak would show in.
const HEAP: &str = "RssAnon";
/// A board leaves or comes each so many events.
const FLAP: usize = 100;
/// Together they send faster than the daemon reads.
const SENDERS: usize = 3;
/// More than the receive buffer holds, as large as the daemon can have it.
const TOO_MANY: usize = 40_000;

/// Sends the storm while the board leaves and comes; in the end it is gone.
fn storm(node: &PluggedNode, kernel: &Kernel, board: &Board) {
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
async fn settled(node: &PluggedNode, kernel: &Kernel) {
    let board = &node.boards[0];
    for comes in [false, true] {
        let changed = if comes { node.machine.replug(board) } else { node.machine.unplug(board) };
        changed.expect("the tree is ours");
        node.chips(board).class_devices(kernel, if comes { "add" } else { "remove" });
        node.sees_board(board, comes).await;
    }
}

#[test]
fn ten_thousand_events_cost_few_looks_and_no_memory_and_the_last_list_is_right() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack("bi-v150-x8", QUIET).await, Kernel::open());
        let daemon = node.daemon().await;
        let board = &node.boards[5];
        node.machine.unplug(board).unwrap();
        // The first storm fills what is filled once: buffers, the allocator's pools.
        let (looks, began) = (daemon.looks(), Instant::now());
        storm(&node, &kernel, board);
        settled(&node, &kernel).await;
        let heap = daemon.memory(HEAP);

        storm(&node, &kernel, board);
        settled(&node, &kernel).await;

        node.sees("all but one", |healthy| {
            healthy.len() == node.boards.len() - 1 && !healthy.contains(&board.address.to_string())
        })
        .await;
        let (looks, grown) = (daemon.looks() - looks, daemon.memory(HEAP).saturating_sub(heap));
        let took = began.elapsed();
        println!("{took:?}, {looks} looks, {grown} KiB more");
        // Some fifteen in each storm until the gap is half a second, then two a second, for as long
        // as this machine takes.
        let most = 2 * 15 + 2 * usize::try_from(took.as_secs() + 1).expect("a short time");
        assert!(looks <= most, "{looks} looks in {took:?}");
        assert!(grown < 1024, "{grown} KiB more than the {heap} KiB before");
    });
}

#[test]
fn events_that_were_lost_are_noticed_said_and_answered_by_a_look() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack("mr-v100-x4", QUIET).await, Kernel::open());
        let daemon = node.daemon().await;
        let board = &node.boards[2];
        daemon.signal(Signal::SIGSTOP);
        // No event tells of the board: only what was lost can lead to a look.
        node.machine.unplug(board).unwrap();
        for _ in 0..TOO_MANY {
            kernel.other_vendor();
        }
        daemon.signal(Signal::SIGCONT);
        daemon.said("uevents came faster than they were read", 1).await;
        node.sees_board(board, false).await;
    });
}

#[test]
fn a_storm_of_other_devices_does_not_keep_the_list_from_following() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack("mr-v100-x4", QUIET).await, Kernel::open());
        let daemon = node.daemon().await;
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
            node.sees_board(board, false).await;
        }
        enough.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }
        let warnings = daemon.count("uevents came faster than they were read");
        assert!(warnings <= 1, "{warnings} warnings");
    });
}
