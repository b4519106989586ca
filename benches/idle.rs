//! What the built binary costs while nothing happens: `cargo bench --bench idle`.
//!
//! It runs on an unpacked machine with 16 chips at the default intervals, once as usual and once
//! where the kernel refuses inotify. A minute holds one scan and twelve health samples.

#![expect(clippy::disallowed_methods, reason = "the doors of the house are for the plugin")]

#[expect(dead_code, clippy::unwrap_used, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::time::Duration;

use support::kernel::on_a_runtime;
use support::node_rig::NodeRig;
use support::process::PluginProcess;
use support::seccomp::{Forbidden, forbid};
use support::test_node::TestNode;

const NODE: &str = "bi-v150-x8";
/// Until the threads that the start needed have ended.
const SETTLING: Duration = Duration::from_secs(15);
/// How long the daemon is watched.
const WATCHED: Duration = Duration::from_secs(60);

fn main() {
    on_a_runtime(measure());
}

async fn measure() {
    let nodes = [None, Some(Forbidden::Inotify)].map(|forbidden| async move {
        let node = TestNode::fixture(NODE).prepare().await;
        let daemon = start(&node, forbidden);
        node.until_healthy(node.boards.len()).await;
        (node, daemon)
    });
    let [usual, limited] = nodes;
    let (usual, limited) = tokio::join!(usual, limited);
    tokio::time::sleep(SETTLING).await;
    let before = [&usual, &limited].map(|(_, daemon)| counted(daemon));
    tokio::time::sleep(WATCHED).await;
    let after = [&usual, &limited].map(|(_, daemon)| counted(daemon));

    println!("16 chips, default intervals, {} s without events", WATCHED.as_secs());
    println!();
    println!("| | CPU time a second | wakeups a second | target |");
    println!("|---|---|---|---|");
    let names = ["with inotify", "without inotify"];
    let targets = ["< 0.15 ms, < 2", ""];
    for index in 0..names.len() {
        let (cpu, wakeups) = per_second(before[index], after[index]);
        println!("| {} | {cpu:.3} ms | {wakeups:.1} | {} |", names[index], targets[index]);
    }
}

fn start(node: &NodeRig, forbidden: Option<Forbidden>) -> PluginProcess {
    let mut command = node.command();
    command.arg("--pod-resources-socket").arg(node.pod_resources_socket());
    if let Some(forbidden) = forbidden {
        forbid(&mut command, forbidden);
    }
    PluginProcess::start(&mut command)
}

/// What the kernel counts of a process, over all of its threads.
#[derive(Clone, Copy)]
struct Counted {
    cpu: Duration,
    /// Of the kinds that a thread asked for: it slept and was woken.
    switches: u64,
}

fn counted(daemon: &PluginProcess) -> Counted {
    let threads = format!("/proc/{}/task/*", daemon.pid());
    let threads = glob::glob(&threads).expect("a good pattern").filter_map(Result::ok);
    let of_thread = threads.filter_map(|path| {
        let schedstat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let nanoseconds = schedstat.split_whitespace().next()?.parse().ok()?;
        let switches =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Some((Duration::from_nanos(nanoseconds), switches?.trim().parse::<u64>().ok()?))
    });
    let nothing = Counted { cpu: Duration::ZERO, switches: 0 };
    of_thread.fold(nothing, |sum, (cpu, switches)| Counted {
        cpu: sum.cpu + cpu,
        switches: sum.switches + switches,
    })
}

/// Milliseconds of CPU, and wakeups.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn per_second(before: Counted, after: Counted) -> (f64, f64) {
    let seconds = WATCHED.as_secs_f64();
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1000.0;
    let wakeups = after.switches.saturating_sub(before.switches) as f64;
    (cpu / seconds, wakeups / seconds)
}
