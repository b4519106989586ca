//! How fast the list follows the hardware, and what following costs: `cargo bench --bench hotplug`.
//!
//! The built binary runs on an unpacked machine with 16 chips and gets the real kernel's uevents in
//! a network namespace of its own. Times are taken at a kubelet that reads the socket.

#![expect(clippy::disallowed_methods, reason = "the doors of the house are for the plugin")]

#[expect(dead_code, clippy::unwrap_used, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use ix_device_plugin::parse::node_file::write_node_file;
use nix::sys::signal::Signal;
use serde_json::Value;
use support::kernel::{Kernel, on_a_runtime, raise_loopback};
use support::machines::Plan;
use support::node_rig::NodeRig;
use support::process::PluginProcess;
use support::test_node::{ONLY_EVENTS, TestNode};

const NODE: &str = "bi-v150-x8";
const ROUNDS: usize = 200;
/// Longer than a burst, so that each change is the first hint of its own.
const PAUSE: Duration = Duration::from_millis(80);
/// How long the daemon is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// Health samples alone, and often.
const HEALTH_ONLY: &str = "discovery: {rescan: 1h}\nhealth: {interval: 500ms}\n";
/// Only events lead to scans and samples, and a fault is over as soon as it is not seen any more.
const RECOVERED_AT_ONCE: &str = "discovery: {rescan: 1h}\nhealth: {interval: 1h, recovery: 0s}\n";
const SCANS: usize = 100;

fn main() {
    const INSIDE: &str = "IX_BENCH_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        raise_loopback();
        return on_a_runtime(measure());
    }
    let this = std::env::current_exe().expect("it runs");
    let mut again = Command::new("unshare");
    again.args(["--map-root-user", "--net", "--"]).arg(this).env(INSIDE, "1");
    eprintln!("not measured: namespaces are forbidden here: {}", again.exec());
}

async fn measure() {
    println!(
        "16 chips on 8 boards unless a row says otherwise, log at debug level, {ROUNDS} rounds"
    );
    println!();
    println!("| from the event to the list at the kubelet | p50 | p99 | slowest | target |");
    println!("|---|---|---|---|---|");
    let node = prepare(ONLY_EVENTS).await;
    let (removals, additions) = latencies(&node).await;
    row("removal of a board", removals, 50);
    row("addition of a board", additions, 100);
    let (removals, additions) = latencies(&prepare_large().await).await;
    row("removal of a board, 256 chips", removals, 50);
    row("addition of a board, 256 chips", additions, 100);
    row("error recovery of a chip", recoveries(&prepare(RECOVERED_AT_ONCE).await).await, 20);
    println!();
    println!("| cost | value |");
    println!("|---|---|");
    rescan(&node).await;
    health(&prepare(HEALTH_ONLY).await).await;
    idle(&prepare("").await).await;
}

async fn prepare(config: &str) -> NodeRig {
    TestNode::fixture(NODE).config(config).prepare().await
}

/// A generated machine of 256 chips on 128 boards.
async fn prepare_large() -> NodeRig {
    let machine = Plan::of_dual_boards(256).build().0;
    TestNode::new(&write_node_file(&machine)).config(ONLY_EVENTS).prepare().await
}

/// The plugin, which logs each scan and each health sample.
async fn start(node: &NodeRig) -> PluginProcess {
    let process = PluginProcess::start(node.command().arg("-v"));
    process.counts("source_up", "netlink", 1).await;
    node.until_healthy(node.boards.len()).await;
    process
}

/// Whether an event is about a scan, or a health sample, that ended: this field counts what was seen.
fn has(field: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event[field].is_number() && event["took"].is_string()
}

const SCANNED: &str = "scan.functions_seen";
const SAMPLED: &str = "chips";

/// How many of these events the log has.
fn logged(process: &PluginProcess, field: &'static str) -> usize {
    process.log().iter().filter(|event| has(field)(event)).count()
}

async fn latencies(node: &NodeRig) -> (Vec<Duration>, Vec<Duration>) {
    let (kernel, _daemon) = (Kernel::open(), start(node).await);
    let (mut removals, mut additions) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let board = &node.boards[round % node.boards.len()];
        let chips = node.chips(board);
        tokio::time::sleep(PAUSE).await;
        node.machine.unplug(board).expect("it is there");
        let began = Instant::now();
        chips.left(&kernel);
        node.until_board(board, false).await;
        removals.push(began.elapsed());

        tokio::time::sleep(PAUSE).await;
        node.machine.replug(board).expect("its place is free");
        let began = Instant::now();
        chips.came(&kernel);
        node.until_board(board, true).await;
        additions.push(began.elapsed());
    }
    (removals, additions)
}

/// From `BEGIN_RECOVERY` of a chip to the list without its board.
async fn recoveries(node: &NodeRig) -> Vec<Duration> {
    let (kernel, _daemon) = (Kernel::open(), start(node).await);
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let board = &node.boards[round % node.boards.len()];
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        node.chips(board).error_event(&kernel, "BEGIN_RECOVERY");
        node.until_board(board, false).await;
        times.push(began.elapsed());
        node.chips(board).error_event(&kernel, "SUCCESSFUL_RECOVERY");
        node.until_board(board, true).await;
    }
    times
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
fn counted(daemon: &PluginProcess) -> (f64, u64) {
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
fn per_scan(before: (f64, u64), after: (f64, u64), scans: usize) -> String {
    let (seconds, reads) = (after.0 - before.0, after.1 - before.1);
    let (reads, ms) = (reads as f64 / scans as f64, 1000.0 * seconds / scans as f64);
    format!("{reads:.0} reads, {ms:.2} ms of CPU")
}

/// A scan, asked for with SIGHUP; the answer to the signal is in the count.
async fn rescan(node: &NodeRig) {
    let daemon = start(node).await;
    let before = counted(&daemon);
    for _ in 0..SCANS {
        tokio::time::sleep(PAUSE).await;
        let scans = logged(&daemon, SCANNED);
        daemon.signal(Signal::SIGHUP);
        daemon.events("a scan", scans + 1, has(SCANNED)).await;
    }
    println!("| a scan | {} |", per_scan(before, counted(&daemon), SCANS));
}

/// A health sample of all chips.
async fn health(node: &NodeRig) {
    let daemon = start(node).await;
    let (before, samples) = (counted(&daemon), logged(&daemon, SAMPLED));
    daemon.events("health samples", samples + SCANS / 5, has(SAMPLED)).await;
    let samples = logged(&daemon, SAMPLED) - samples;
    println!("| a health sample | {} |", per_scan(before, counted(&daemon), samples));
}

/// Default settings, nothing happens.
async fn idle(node: &NodeRig) {
    let daemon = start(node).await;
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
