//! How long a choice takes: `cargo bench --bench prefer`.
//!
//! The kubelet sends its ids in no order, so they are shuffled here.

mod nodes;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use ix_device_plugin::decide::allocation::prefer::{PreferenceRequest, prefer};
use ix_device_plugin::model::config::{Sharing, SharingPolicy};
use ix_device_plugin::model::device::DeviceId;

use nodes::{Node, Random};

const DEVICES: [usize; 6] = [8, 16, 64, 128, 256, 1024];

/// 1, 2 and 4 of n, an eighth and half of it, each once.
fn sizes(devices: usize) -> Vec<usize> {
    let mut sizes = vec![1, 2, 4, devices / 8, devices / 2];
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn measure(group: &mut BenchmarkGroup<WallTime>, name: &str, node: &Node, size: usize) {
    let replicas = node.sharing.map_or(1, |sharing| sharing.replicas);
    let ids = node.devices.iter().flat_map(|device| {
        (0..replicas).map(|index| DeviceId { replica: node.sharing.map(|_| index), ..device.id })
    });
    let mut available: Vec<_> = ids.collect();
    Random(1).shuffle(&mut available);
    let request = PreferenceRequest { available: &available, must_include: &[], size };
    let id = BenchmarkId::new(name, format!("{} choose {size}", node.devices.len()));
    group.bench_function(id, |bencher| {
        bencher.iter(|| prefer(black_box(&node.supply()), black_box(&request)));
    });
}

fn devices(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefer");
    for devices in DEVICES {
        let node = Node::of_boards(devices);
        for size in sizes(devices) {
            measure(&mut group, "devices", &node, size);
        }
    }
}

fn replicas(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefer");
    for devices in DEVICES {
        let mut node = Node::of_boards(devices);
        node.sharing = Some(Sharing {
            replicas: 8,
            fail_requests_greater_than_one: false,
            policy: SharingPolicy::Spread,
        });
        for size in sizes(devices) {
            measure(&mut group, "8 replicas", &node, size);
        }
    }
}

/// What other plugins are known to take seconds for.
fn peers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefer");
    for (devices, size) in [(16, 3), (32, 16), (64, 56)] {
        measure(&mut group, "as others", &Node::of_boards(devices), size);
    }
}

/// Trees that could be harder: no levels at all, and addresses that run across the boards.
fn shapes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefer");
    measure(&mut group, "flat", &Node::flat(256), 128);
    let crossed = Node::with_addresses(256, |index| index % 2 * 128 + index / 2);
    measure(&mut group, "crossed", &crossed, 128);
    let strewn = Node::with_addresses(1024, |index| index * 509 % 1024);
    measure(&mut group, "strewn", &strewn, 512);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = devices, replicas, peers, shapes
}
criterion_main!(benches);
