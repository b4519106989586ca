//! What DRA mode takes: `cargo bench --bench dra`.
//!
//! An embedded kubelet and API server, over real sockets, on a machine with 16 chips. With the daemon in
//! this process: from a rescan that finds a fault to the taint in the API server; from a
//! deletion of the slice to its return; and the kubelet's preparation of a claim, which holds two
//! requests to the API server, beside one such request alone. With the built program as a process of its
//! own: how much memory it keeps.

#![expect(clippy::disallowed_methods, reason = "the doors of the house are for the plugin")]

#[path = "../tests/it/support/dra_cluster.rs"]
mod dra_cluster;
#[path = "../tests/it/support/proc_status.rs"]
mod proc_status;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dra_cluster::{DraCluster, NODE, devices, taints};
use ix_device_plugin::app::{self, Running};
use ix_device_plugin::demo::kubelet::dra::DraDeadlines;
use ix_device_plugin::demo::story::SHIPPED;
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::parse::node_file::parse_node_file;
use proc_status::memory as memory_of;

const ROUNDS: usize = 200;
/// Claims that are prepared and unprepared before memory is read again.
const CLAIMS: usize = 1_000;
/// Longer than a burst, so that each change is the first hint of its own.
const PAUSE: Duration = Duration::from_millis(80);
/// Only triggers lead to scans, and a fault is over as soon as it is not seen any more.
const CONFIG: &str = "discovery: {rescan: 1h}\nhealth: {interval: 1h, recovery: 0s}\n";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(measure());
}

async fn measure() {
    let cluster = start().await;
    let daemon = app::build(cluster.settings(None));
    ready(&cluster).await;
    println!("8 boards, {ROUNDS} rounds, milliseconds");
    println!("| what | p50 | p99 | slowest |\n|---|---|---|---|");
    faults(&cluster, &daemon).await;
    deletions(&cluster).await;
    claims(&cluster).await;
    drop((daemon, cluster));
    memory().await;
}

async fn start() -> DraCluster {
    let machine = parse_node_file(SHIPPED).expect("the shipped machine");
    DraCluster::start(machine, CONFIG, DraDeadlines::default()).await
}

/// The kubelet is connected, and every board is published.
async fn ready(cluster: &DraCluster) {
    cluster.kubelet.wait_for(|state| state.is_connected(DRIVER_NAME)).await;
    cluster.server.wait_for(|store| devices(store).len() == 8).await;
}

async fn faults(cluster: &DraCluster, daemon: &Running) {
    let DraCluster { machine, server, .. } = cluster;
    let snapshot = daemon.snapshots.borrow().clone().expect("the machine was scanned");
    let chip = snapshot.inventory.boards[0].chips[0].address;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        tokio::time::sleep(PAUSE).await;
        machine.stop_answering(chip).expect("a file is written");
        let began = Instant::now();
        daemon.triggers.send(RescanTrigger::Uevent).await.expect("the daemon runs");
        server.wait_for(|store| taints(store).len() == 1).await;
        took.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
        machine.answer_again(chip).expect("a file is written");
        daemon.triggers.send(RescanTrigger::Uevent).await.expect("the daemon runs");
        server.wait_for(|store| taints(store).is_empty()).await;
    }
    row("from a fault to its taint, the scan included", took);
}

async fn deletions(cluster: &DraCluster) {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        cluster.server.delete_slices_of(NODE).expect("the name is a name");
        cluster.server.wait_for(|store| devices(store).len() == 8).await;
        took.push(began.elapsed());
    }
    row("from the deletion of the slice to its return", took);
}

async fn claims(cluster: &DraCluster) {
    let (mut prepares, mut gets) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let pod = cluster.pod(&format!("pod-{round}"), 2).expect("devices are free");
        let began = Instant::now();
        cluster.kubelet.run_pod(&pod).await.expect("the claim is prepared");
        prepares.push(began.elapsed());
        let began = Instant::now();
        cluster.api.claim("default", &pod.name).await.expect("the claim is there");
        gets.push(began.elapsed());
        cluster.end(&pod.name).await.expect("the claim is unprepared");
    }
    row("the kubelet prepares a claim of two boards, two GETs included", prepares);
    row("one GET of a claim", gets);
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!("| {what} | {:.2} | {:.2} | {:.2} |", at(50), at(99), at(100));
}

/// The built program, as a process of its own.
async fn memory() {
    let cluster = start().await;
    let program = Program::start(&cluster);
    ready(&cluster).await;
    println!("\n| resident memory, MiB | now | peak |\n|---|---|---|");
    program.resident("after the start");
    // Half first, so that what is reached then can be told from what still grows.
    for half in 1..=2 {
        for round in 0..CLAIMS / 2 {
            let pod = cluster.pod(&format!("pod-{half}-{round}"), 2).expect("devices are free");
            cluster.kubelet.run_pod(&pod).await.expect("the claim is prepared");
            cluster.end(&pod.name).await.expect("the claim is unprepared");
        }
        program.resident(&format!("after {} claims", half * CLAIMS / 2));
    }
}

struct Program(Child);

impl Program {
    fn start(cluster: &DraCluster) -> Self {
        let config = cluster.path("config.yaml");
        let cdi = format!("cdi: {{specDir: {}}}\n{CONFIG}", cluster.path("cdi").display());
        std::fs::write(&config, cdi).expect("there is room");
        let child = Command::new(env!("CARGO_BIN_EXE_ix-device-plugin"))
            .env_clear()
            .args(["run", "--mode", "dra", "--node-name", NODE, "--http", "127.0.0.1:0"])
            .args(["--api-server", &cluster.server.url(), "--config"])
            .arg(config)
            .arg("--root")
            .arg(cluster.machine.root().path())
            .arg("--kubelet-dir")
            .arg(cluster.path("device-plugins"))
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the binary was built for this bench"))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "memory has fewer KiB than a mantissa has values"
    )]
    fn resident(&self, when: &str) {
        let mebibytes = |field| memory_of(self.0.id(), field) as f64 / 1024.0;
        println!("| {when} | {:.1} | {:.1} |", mebibytes("VmRSS"), mebibytes("VmHWM"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
