//! Pools, slices and claims of small machines.

mod holders;
mod limits;
mod random;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claims::ClaimHolders;
use super::pool::pool;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::decide::node::state::snapshot_of;
use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN};
use crate::model::config::{Config, DraOffer, ServingMode};
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::claim::{AllocatedDevice, ClaimRef, DraAllocation, DraClaim};
use crate::model::dra::device::DraDevice;
use crate::model::dra::slice::{DraFeature, DraPool, NodeIdentity, ServerSupport};

pub(super) fn config(devices: DraOffer) -> Config {
    let mut config = Config { mode: ServingMode::Dra, ..Config::default() };
    config.dra.devices = devices;
    config
}

/// Two boards of two chips below one switch, with an MR-V100 beside them.
pub(super) fn machine() -> ScanBuilder {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0 08:00.0 09:00.0", 0x10, UNKNOWN)
        .dual_board("00:01.0 08:00.0 0a:00.0", 0x20, UNKNOWN)
        .chip("80:01.0 90:00.0", SINGLE)
        .with(|chip| chip.numa_node = Some(1));
    let chips = ["14:00.0", "17:00.0", "24:00.0", "27:00.0", "90:00.0"];
    with_nodes(sample, &chips)
}

pub(super) fn with_nodes(mut sample: ScanBuilder, chips: &[&str]) -> ScanBuilder {
    for (minor, chip) in (0..).zip(chips) {
        sample = sample
            .class_device(&format!("iluvatar{minor}"), minor, Some(chip))
            .node(&format!("/dev/iluvatar{minor}"), minor);
    }
    sample
}

pub(super) fn snapshot(sample: ScanBuilder, config: &Config) -> Arc<NodeSnapshot> {
    snapshot_of(sample.scan(), config)
}

pub(super) fn without(features: &[DraFeature]) -> ServerSupport {
    ServerSupport { dropped: features.iter().copied().collect::<BTreeSet<_>>() }
}

pub(super) fn pool_of(snapshot: &NodeSnapshot) -> DraPool {
    pool(snapshot, &ClaimHolders::default(), &ServerSupport::default())
}

pub(super) fn node() -> NodeIdentity {
    let uid = "5f0c9a52-4b7e-4a07-9f0b-0d6f2d3c1a11".to_owned();
    NodeIdentity { name: "gpu-node-1".to_owned(), uid }
}

/// A claim that was allocated these devices of this node.
pub(super) fn claim(name: &str, devices: &[&str]) -> DraClaim {
    let result = |device: &&str| AllocatedDevice {
        request: "gpu".to_owned(),
        driver: DRIVER_NAME.to_owned(),
        pool: node().name,
        device: (*device).to_owned(),
        admin_access: false,
        share_id: None,
    };
    let results = devices.iter().map(result).collect();
    DraClaim {
        uid: format!("uid-of-{name}"),
        claim: ClaimRef { namespace: "team".to_owned(), name: name.to_owned() },
        allocation: Some(DraAllocation { results, configs: Vec::new() }),
    }
}

/// `NAME chips=N TAINTS`, with the counter where there is one.
fn shown(device: &DraDevice) -> String {
    let counter = device.counter.as_ref();
    let counter = counter.map(|it| format!(" {}/{}={}", it.set, it.counter, it.chips));
    let taints: Vec<_> = device.taints.iter().map(|taint| format!(" {taint}")).collect();
    format!("{}{}{}", device.name, counter.unwrap_or_default(), taints.concat())
}

#[track_caller]
pub(super) fn check_pool(pool: &DraPool, expected: &[&str]) {
    assert_eq!(pool.devices.iter().map(shown).collect::<Vec<_>>(), expected);
}

#[test]
fn a_device_is_a_board_or_a_chip_and_a_single_chip_has_one_name() {
    let of = |devices| pool_of(&snapshot(machine(), &config(devices)));
    check_pool(
        &of(DraOffer::Board),
        &["board-0000-14-00-0", "board-0000-24-00-0", "chip-0000-90-00-0"],
    );
    check_pool(
        &of(DraOffer::Chip),
        &[
            "chip-0000-14-00-0",
            "chip-0000-17-00-0",
            "chip-0000-24-00-0",
            "chip-0000-27-00-0",
            "chip-0000-90-00-0",
        ],
    );
    assert_eq!(of(DraOffer::Board).counters, []);
}

#[test]
fn a_board_and_its_chips_take_from_one_counter_where_both_are_offered() {
    let pool = pool_of(&snapshot(machine(), &config(DraOffer::Both)));
    check_pool(
        &pool,
        &[
            "board-0000-14-00-0 boards-0/b-0000-14-00-0=2",
            "chip-0000-14-00-0 boards-0/b-0000-14-00-0=1",
            "chip-0000-17-00-0 boards-0/b-0000-14-00-0=1",
            "board-0000-24-00-0 boards-0/b-0000-24-00-0=2",
            "chip-0000-24-00-0 boards-0/b-0000-24-00-0=1",
            "chip-0000-27-00-0 boards-0/b-0000-24-00-0=1",
            "chip-0000-90-00-0",
        ],
    );
    let counters =
        BTreeMap::from([("b-0000-14-00-0".to_owned(), 2), ("b-0000-24-00-0".to_owned(), 2)]);
    assert_eq!(pool.counters[0].counters, counters);
}

#[test]
fn without_counters_boards_and_chips_are_never_offered_at_once() {
    let snapshot = snapshot(machine(), &config(DraOffer::Both));
    let support = without(&[DraFeature::Partitionable]);
    let pool = pool(&snapshot, &ClaimHolders::default(), &support);
    check_pool(&pool, &["board-0000-14-00-0", "board-0000-24-00-0", "chip-0000-90-00-0"]);
    assert_eq!(pool.counters, []);
}

#[track_caller]
fn check_attributes(pool: &DraPool, device: &str, expected: &[&str]) {
    let device = pool.devices.iter().find(|it| it.name.to_string() == device).unwrap();
    let shown = device.attributes.iter().map(|(name, value)| format!("{name}={value}"));
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[test]
fn attributes_say_what_a_device_is_and_where() {
    let pool = pool_of(&snapshot(machine(), &config(DraOffer::Both)));
    let shared = [
        "board=0000:14:00.0",
        "chips=1",
        "driver=iluvatar",
        "model=unknown",
        "pciId=1e3e:0003",
        "pcieRootPort=0000:00:01.0",
        "pcieSwitch=0000:08:00.0",
        "resource.kubernetes.io/pciBusID=0000:17:00.0",
        "resource.kubernetes.io/pcieRoot=pci0000:00",
        "wholeBoard=false",
    ];
    check_attributes(&pool, "chip-0000-17-00-0", &shared);
    let board = [&shared[..1], &["chips=2"], &shared[2..7], &shared[8..9], &["wholeBoard=true"]];
    check_attributes(&pool, "board-0000-14-00-0", &board.concat());
    // Nothing joins it with another board, so it has no `pcieSwitch`.
    check_attributes(
        &pool,
        "chip-0000-90-00-0",
        &[
            "board=0000:90:00.0",
            "chips=1",
            "driver=iluvatar",
            "model=MR-V100",
            "pciId=1e3e:0002",
            "pcieRootPort=0000:80:01.0",
            "resource.kubernetes.io/numaNode=1",
            "resource.kubernetes.io/pciBusID=0000:90:00.0",
            "resource.kubernetes.io/pcieRoot=pci0000:80",
            "wholeBoard=true",
        ],
    );
}

#[test]
fn a_pci_domain_wider_than_the_standard_attribute_allows_is_left_out() {
    let sample = ScanBuilder::default().chip("10000:00:01.0 10000:e1:00.0", SINGLE);
    let pool = pool_of(&snapshot(sample, &config(DraOffer::Chip)));
    assert_eq!(pool.devices[0].name.to_string(), "chip-10000-e1-00-0");
    assert!(!pool.devices[0].attributes.contains_key("resource.kubernetes.io/pciBusID"));
    assert!(pool.devices[0].attributes.contains_key("resource.kubernetes.io/pcieRoot"));
}

#[test]
fn devices_stand_beside_their_neighbours_whatever_their_addresses() {
    // By address the boards of the two switches alternate.
    let sample = ScanBuilder::default()
        .chip("00:01.0 08:00.0 09:00.0 10:00.0", SINGLE)
        .chip("00:02.0 0c:00.0 0d:00.0 11:00.0", SINGLE)
        .chip("00:01.0 08:00.0 0a:00.0 12:00.0", SINGLE)
        .chip("00:02.0 0c:00.0 0e:00.0 13:00.0", SINGLE);
    let pool = pool_of(&snapshot(sample, &config(DraOffer::Board)));
    let order: Vec<_> = pool.devices.iter().map(|device| device.name.to_string()).collect();
    assert_eq!(
        order,
        ["chip-0000-10-00-0", "chip-0000-12-00-0", "chip-0000-11-00-0", "chip-0000-13-00-0"]
    );
}
