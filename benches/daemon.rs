//! The built daemon as a child process, against an embedded kubelet: how soon it is registered, how
//! fast it answers, how much memory it keeps. `cargo bench --bench daemon` prints one table; `PLUGIN=PATH`
//! names another binary, such as the one that `make build` made.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock and /proc, and prints"
)]

#[expect(dead_code, reason = "the tests make machines of more kinds")]
#[path = "../tests/it/support/machines.rs"]
mod machines;
#[path = "../tests/it/support/proc_status.rs"]
mod proc_status;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ix_device_plugin::demo::kubelet::{EmbeddedKubelet, KubeletSettings, NodeView};
use ix_device_plugin::demo::machine::DemoMachine;
use ix_device_plugin::demo::story::SHIPPED;
use ix_device_plugin::host::kubelet::channel_over;
use ix_device_plugin::model::machine::Machine;
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use ix_device_plugin::wire::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest,
    PreferredAllocationRequest,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::Channel;

use machines::Plan;
use proc_status::memory as memory_of;

const GPU: &str = "iluvatar.com/gpu";
const STARTS: usize = 50;
const REQUESTS: usize = 10_000;
const LIST_CHANGES: usize = 1_000;
/// Between two changes: those that come faster count as a device that flaps, and are answered later
/// and later.
const PACE: Duration = Duration::from_millis(60);

/// Every chip is a device of its own.
const SPLIT: &str = "flags: {splitboard: true}";
/// Faults are over as soon as they are mended, so that the list changes as often as the chip does.
const SHARED: &str = "{flags: {splitboard: true}, sharing: {timeSlicing: {replicas: 8}}, health: \
                      {recovery: 0s}}";

/// A chip of the shipped machine that is broken and mended.
const CHIP: PciAddress = PciAddress { domain: 0, bus: 0x13, device: 0, function: 0 };

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{}", machine());
    println!("{:<44} {:>10} {:>10}   target", "", "median", "p99");
    starts().await;
    answers().await;
    memory().await;
}

/// For example `2 x Intel(R) Xeon(R) Processor`.
fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1))
        .collect();
    format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown processor"))
}

/// The binary that `PLUGIN` names, or the one that cargo built for this bench.
fn plugin() -> PathBuf {
    let named = env::var_os("PLUGIN");
    named.map_or_else(|| env!("CARGO_BIN_EXE_ix-device-plugin").into(), PathBuf::from)
}

/// A row of times; the target is one for the 99th percentile, in microseconds.
fn row(name: &str, mut times: Vec<Duration>, target: Option<u64>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let verdict = target.map(Duration::from_micros).map_or(String::new(), |target| {
        format!("< {target:?} {}", if at(99) < target { "met" } else { "MISSED" })
    });
    println!("{name:<44} {:>10.1?} {:>10.1?}   {verdict}", at(50), at(99));
}

/// A node with a kubelet; daemons come and go on it.
struct Node {
    machine: DemoMachine,
    kubelet: EmbeddedKubelet,
    directory: TempDir,
}

impl Node {
    /// The shipped machine, with 16 chips.
    async fn set() -> Self {
        Self::with(parse_node_file(SHIPPED).expect("the shipped machine is good")).await
    }

    async fn with(machine: Machine) -> Self {
        let directory = TempDir::new().expect("there is room");
        let kubelet = EmbeddedKubelet::start(directory.path(), KubeletSettings::default());
        Self {
            machine: DemoMachine::unpack(machine).expect("there is room"),
            kubelet: kubelet.await.expect("the directory is ours"),
            directory,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn start(&self, config: &str) -> Daemon {
        let file = self.path().join("config.yaml");
        if fs::read_to_string(&file).ok().as_deref() != Some(config) {
            fs::write(&file, config).expect("there is room");
        }
        let child = Command::new(plugin())
            .env_clear()
            // As in the image.
            .env("MALLOC_ARENA_MAX", "1")
            .arg("--root")
            .arg(self.machine.root().path())
            .arg("--config")
            .arg(file)
            .arg("--kubelet-dir")
            .arg(self.path())
            .stderr(Stdio::null())
            .spawn();
        Daemon(child.expect("the binary was built for this bench"))
    }

    async fn until(&self, wanted: impl FnMut(&NodeView) -> bool) -> NodeView {
        let seen = tokio::time::timeout(Duration::from_secs(30), self.kubelet.wait_for(wanted));
        seen.await.expect("not within 30 seconds").expect("the kubelet runs")
    }

    async fn client(&self) -> DevicePluginClient<Channel> {
        let socket = self.path().join("iluvatar-gpu.sock");
        let stream = UnixStream::connect(socket).await.expect("the daemon listens");
        DevicePluginClient::new(channel_over(stream).await.expect("it speaks HTTP/2"))
    }
}

/// The child process; ends with its owner.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the child lives");
    }

    /// What all of its threads have used so far, in user and kernel mode.
    fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        let stat = stat.expect("the child lives");
        // The name, in parentheses, may hold blanks; `utime` and `stime` are the 12th and 13th
        // field after it, in hundredths of a second (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')').expect("it has a name");
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|time| Duration::from_millis(10 * time.parse::<u64>().expect("a number"))).sum()
    }

    /// In KiB, now and at most.
    fn resident(&self) -> (u64, u64) {
        (memory_of(self.0.id(), "VmRSS"), memory_of(self.0.id(), "VmHWM"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.0.wait().expect("it is our child");
    }
}

fn registrations(view: &NodeView) -> u64 {
    view.resources.get(GPU).map_or(0, |it| it.registrations)
}

async fn starts() {
    let node = Node::set().await;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let before = registrations(&node.kubelet.view().borrow());
        let started = Instant::now();
        let _daemon = node.start(SPLIT);
        node.until(|view| registrations(view) > before).await;
        times.push(started.elapsed());
        node.until(|view| view.allocatable(GPU) == 16).await;
    }
    row("start to accepted registration, 16 chips", times, Some(30_000));
}

async fn answers() {
    let node = Node::set().await;
    let daemon = node.start(SPLIT);
    let ids = listed(&node, 16).await;
    let before = daemon.cpu_time();
    row("Allocate", allocations(&node, &ids, REQUESTS).await, Some(200));
    let used = daemon.cpu_time().saturating_sub(before);
    let each = used / u32::try_from(REQUESTS).expect("not so many");
    println!("{:<44} {each:>10.1?}", "CPU of the daemon for each Allocate");
    let times = preferences(&node, &ids, 4).await;
    row("GetPreferredAllocation, 4 of 16", times, Some(500));
    drop(daemon);
    let node = Node::with(Plan::of_dual_boards(64).build().0).await;
    let _daemon = node.start(SPLIT);
    let ids = listed(&node, 64).await;
    let times = preferences(&node, &ids, 8).await;
    row("GetPreferredAllocation, 8 of 64", times, None);
}

/// The ids of the kubelet's list once it has so many.
async fn listed(node: &Node, count: usize) -> Vec<String> {
    let view = node.until(|view| view.allocatable(GPU) == count).await;
    let listed = view.resources[GPU].devices.iter();
    let ids: Vec<_> = listed.map(|(id, _)| id.clone()).collect();
    assert_eq!(ids.len(), count, "what the daemon before this one listed is gone");
    ids
}

async fn allocations(node: &Node, ids: &[String], count: usize) -> Vec<Duration> {
    let mut client = node.client().await;
    let mut times = Vec::new();
    for index in 0..count {
        let devices_ids = vec![ids[index % ids.len()].clone()];
        let request =
            AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
        let started = Instant::now();
        client.allocate(request).await.expect("a healthy device");
        times.push(started.elapsed());
    }
    times
}

async fn preferences(node: &Node, ids: &[String], size: i32) -> Vec<Duration> {
    let mut client = node.client().await;
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_i_ds: ids.to_vec(),
                must_include_device_i_ds: Vec::new(),
                allocation_size: size,
            }],
        };
        let started = Instant::now();
        client.get_preferred_allocation(request).await.expect("an answer");
        times.push(started.elapsed());
    }
    times
}

async fn memory() {
    let node = Node::set().await;
    let daemon = node.start(SHARED);
    let ids = listed(&node, 128).await;
    resident("resident, 16 chips x 8 replicas, at first", &daemon);
    // Half of each first, so that what is reached then can be told from what still grows.
    for part in ["half of", "all"] {
        allocations(&node, &ids, REQUESTS / 2).await;
        list_changes(&node, &daemon, LIST_CHANGES / 2).await;
        let name = format!("after {part} {REQUESTS} requests, {LIST_CHANGES} lists");
        resident(&name, &daemon);
    }
}

fn resident(name: &str, daemon: &Daemon) {
    let (now, peak) = daemon.resident();
    let verdict = if peak < 12 * 1024 { "met" } else { "MISSED" };
    println!("{name:<44} {now:>6} KiB {peak:>6} peak < 12 MiB {verdict}");
}

/// Breaks and mends one chip; each is a list of its own.
async fn list_changes(node: &Node, daemon: &Daemon, count: usize) {
    for index in 0..count {
        let healthy = if index % 2 == 0 {
            node.machine.stop_answering(CHIP).expect("the file is ours");
            120
        } else {
            node.machine.answer_again(CHIP).expect("the file is ours");
            128
        };
        tokio::time::sleep(PACE).await;
        daemon.signal(Signal::SIGHUP);
        node.until(|view| view.allocatable(GPU) == healthy).await;
    }
}
