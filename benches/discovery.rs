//! How long a scan takes: `cargo bench --bench discovery`.
//!
//! `scan` reads an unpacked machine and concludes; `build` concludes from what was read. 16 chips
//! are the shipped machine, 64 and 256 are generated in its likeness.

#![expect(clippy::disallowed_methods, reason = "a bench reads the shipped machine by itself")]

#[expect(dead_code, reason = "the tests make machines of more kinds")]
#[path = "../tests/it/support/machines.rs"]
mod machines;

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ix_device_plugin::decide::machine::observe::observe;
use ix_device_plugin::host::files::unpack;
use ix_device_plugin::host::root::Root;
use ix_device_plugin::host::scan::scan;
use ix_device_plugin::host::sysfs::{Detail, capture};
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::machine::Machine;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::parse::sysfs::parse_sysfs_scan;
use tempfile::TempDir;

use machines::Plan;

const GENERATED: [u32; 2] = [64, 256];

/// A machine on disk, for as long as this lives.
struct Unpacked {
    chips: u32,
    root: Root,
    _directory: TempDir,
}

impl Unpacked {
    fn new(chips: u32, machine: &Machine) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        unpack(machine, directory.path()).expect("the machine can be made");
        let root = Root::open(directory.path()).expect("it was made");
        Self { chips, root, _directory: directory }
    }
}

fn shipped() -> Machine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/nodes/bi-v150-x8.node");
    let text = std::fs::read_to_string(path).expect("the machine is shipped");
    parse_node_file(&text).expect("its test says that it is good")
}

fn nodes() -> Vec<Unpacked> {
    let generated =
        GENERATED.map(|chips| Unpacked::new(chips, &Plan::of_dual_boards(chips).build().0));
    [Unpacked::new(16, &shipped())].into_iter().chain(generated).collect()
}

fn discovery(criterion: &mut Criterion) {
    let config = Config::default();
    let nodes = nodes();
    let mut group = criterion.benchmark_group("scan");
    for node in &nodes {
        group.throughput(Throughput::Elements(node.chips.into()));
        group.bench_function(BenchmarkId::from_parameter(node.chips), |bencher| {
            bencher.iter(|| scan(black_box(&node.root), &config.discovery));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("scan");
    for node in &nodes {
        let captured = capture(&node.root, &config.discovery, Detail::Discovery).expect("readable");
        group.throughput(Throughput::Elements(node.chips.into()));
        group.bench_function(BenchmarkId::from_parameter(node.chips), |bencher| {
            bencher.iter(|| parse_sysfs_scan(black_box(&captured.machine), &config.discovery));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("observe");
    for node in &nodes {
        let captured = capture(&node.root, &config.discovery, Detail::Discovery).expect("readable");
        let scan = parse_sysfs_scan(&captured.machine, &config.discovery);
        group.throughput(Throughput::Elements(node.chips.into()));
        group.bench_function(BenchmarkId::from_parameter(node.chips), |bencher| {
            bencher.iter(|| observe(black_box(&scan), &config));
        });
    }
    group.finish();
}

criterion_group!(benches, discovery);
criterion_main!(benches);
