//! How fast the list follows the hardware, and what following costs: `cargo bench --bench hotplug`.
//!
//! The built binary runs on an unpacked machine with 16 chips and gets the real kernel's uevents in
//! a network namespace of its own. Times are taken at a kubelet that reads the socket.

#![expect(clippy::disallowed_methods, reason = "the doors of the house are for the plugin")]

#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/kernel.rs"]
mod kernel;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/plugged_node.rs"]
mod plugged_node;

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::{Kernel, on_a_runtime};
use nix::sys::signal::Signal;
use plugged_node::{Daemon, LOOKED, PluggedNode, QUIET};

const NODE: &str = "bi-v150-x8";
const ROUNDS: usize = 200;
/// Longer than a burst, so that each change is the first hint of its own.
const PAUSE: Duration = Duration::from_millis(80);
/// How long the daemon is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// Short looks at the chips alone, and often.
const HEALTH_ONLY: &str = "discovery: {rescan: 1h}\nhealth: {interval: 500ms}\n";
const LOOKS: usize = 100;

fn main() {
    const INSIDE: &str = "IX_BENCH_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return on_a_runtime(measure());
    }
    let this = std::env::current_exe().expect("it runs");
    let mut again = Command::new("unshare");
    again.args(["--map-root-user", "--net", "--"]).arg(this).env(INSIDE, "1");
    eprintln!("not measured: namespaces are forbidden here: {}", again.exec());
}

async fn measure() {
    println!("16 chips on 8 boards, log at debug level, {ROUNDS} rounds");
    println!();
    println!("| from the event to the list at the kubelet | p50 | p99 | slowest | target |");
    println!("|---|---|---|---|---|");
    let node = PluggedNode::unpack(NODE, QUIET).await;
    let (removals, additions) = latencies(&node).await;
    row("removal of a board", removals, 50);
    row("addition of a board", additions, 100);
    println!();
    println!("| cost | value |");
    println!("|---|---|");
    rescan(&node).await;
    health(&PluggedNode::unpack(NODE, HEALTH_ONLY).await).await;
    idle(&PluggedNode::unpack(NODE, "").await).await;
}

async fn latencies(node: &PluggedNode) -> (Vec<Duration>, Vec<Duration>) {
    let (kernel, _daemon) = (Kernel::open(), node.daemon().await);
    let (mut removals, mut additions) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let board = &node.boards[round % node.boards.len()];
        let chips = node.chips(board);
        tokio::time::sleep(PAUSE).await;
        node.machine.unplug(board).expect("it is there");
        let began = Instant::now();
        chips.left(&kernel);
        node.sees_board(board, false).await;
        removals.push(began.elapsed());

        tokio::time::sleep(PAUSE).await;
        node.machine.replug(board).expect("its place is free");
        let began = Instant::now();
        chips.came(&kernel);
        node.sees_board(board, true).await;
        additions.push(began.elapsed());
    }
    (removals, additions)
}

fn row(what: &str, mut times: Vec<Duration>, target: u64) {
    times.sort_unstable();
    let ms = |share: usize| {
        let index = (times.len() * share).div_ceil(100).saturating_sub(1);
        times[index].as_secs_f64() * 1000.0
    };
    let (p50, p99, slowest) = (ms(50), ms(99), ms(100));
    println!("| {what} | {p50:.1} ms | {p99:.1} ms | {slowest:.1} ms | < {target} ms |");
}

/// What the kernel counts of a process: seconds of CPU, and calls of `read`.
fn counted(daemon: &Daemon) -> (f64, u64) {
    // `schedstat` counts nanoseconds, `stat` only ticks; but each thread has its own.
    let threads = format!("/proc/{}/task/*/schedstat", daemon.pid());
    let threads = glob::glob(&threads).expect("a good pattern").filter_map(Result::ok);
    let nanoseconds = threads.filter_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    let on_cpu = Duration::from_nanos(nanoseconds.sum());
    let io = daemon.proc("io");
    let reads = io.lines().find_map(|line| line.strip_prefix("syscr: "));
    let reads = reads.and_then(|reads| reads.parse().ok()).expect("the kernel counts it");
    (on_cpu.as_secs_f64(), reads)
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn per_look(before: (f64, u64), after: (f64, u64), looks: usize) -> String {
    let (seconds, reads) = (after.0 - before.0, after.1 - before.1);
    let (reads, ms) = (reads as f64 / looks as f64, 1000.0 * seconds / looks as f64);
    format!("{reads:.0} reads, {ms:.2} ms of CPU")
}

/// A look at everything, asked for with SIGHUP; the answer to the signal is in the count.
async fn rescan(node: &PluggedNode) {
    let daemon = node.daemon().await;
    let before = counted(&daemon);
    for _ in 0..LOOKS {
        tokio::time::sleep(PAUSE).await;
        let looks = daemon.looks();
        daemon.signal(Signal::SIGHUP);
        daemon.said(LOOKED, looks + 1).await;
    }
    println!("| a look at everything | {} |", per_look(before, counted(&daemon), LOOKS));
}

/// A short look at the chips.
async fn health(node: &PluggedNode) {
    const LOOKED_SHORTLY: &str = "looked at the chips' health";
    let daemon = node.daemon().await;
    let (before, looks) = (counted(&daemon), daemon.count(LOOKED_SHORTLY));
    daemon.said(LOOKED_SHORTLY, looks + LOOKS / 5).await;
    let looks = daemon.count(LOOKED_SHORTLY) - looks;
    println!("| a short look for health | {} |", per_look(before, counted(&daemon), looks));
}

/// Default settings, nothing happens.
async fn idle(node: &PluggedNode) {
    let daemon = node.daemon().await;
    let before = counted(&daemon);
    tokio::time::sleep(IDLE).await;
    let (seconds, reads) = (counted(&daemon).0 - before.0, counted(&daemon).1 - before.1);
    let share = 100.0 * seconds / IDLE.as_secs_f64();
    let (secs, rss) = (IDLE.as_secs(), daemon.memory("VmRSS"));
    println!(
        "| {secs} s without events | {share:.3} % of a core, {reads} reads (target < 0.1 %) |"
    );
    println!("| memory | {rss} KiB resident |");
}
