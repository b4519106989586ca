pub(in crate::decide) mod node;
mod random;

use std::time::Duration;

use self::node::{Node, board, holding, second};
use super::*;
use crate::decide::allocation::allocate::{AllocationContext, allocate};
use crate::model::config::{Granularity, Selector, Sharing, SharingPolicy};

const GPU: &str = "iluvatar.com/gpu";

/// Lines of the list: id, health, reasons.
fn lines(removed_devices: &mut RemovedDevices, now: Duration) -> Vec<String> {
    let snapshot = removed_devices.snapshot(now).unwrap();
    let line = |(id, device): (DeviceId, &Device)| {
        let reasons = device.reasons.iter().map(|it| format!(" {}: {}", it.code, it.detail));
        format!("{id} {}{}", device.health, reasons.collect::<String>())
    };
    snapshot.resources[0].listed().map(line).collect()
}

#[track_caller]
fn check(removed_devices: &mut RemovedDevices, now: Duration, expected: &[&str]) {
    assert_eq!(lines(removed_devices, now), expected);
}

const LEFT: &str = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 left the PCI bus; \
                    stays listed for 300 s, as it is not known whether a pod holds it";
const HELD: &str = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 left the PCI bus; \
                    still held by container main of pod team/train";
const RELEASED: &str = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 left the PCI bus; \
                        stays listed for 30 s after container main of pod team/train let go of it";
const STAYS: &str = "0000:13:00.0 Healthy";
const IS_BACK: &str = "0000:64:00.0 Healthy";

/// Two boards, of which the one at bus 64 left in second 10.
fn one_left(node: &mut Node) -> RemovedDevices {
    let mut removed_devices = RemovedDevices::new(Retention::default());
    node.boards = vec![board(0x13, 1), board(0x64, 1)];
    removed_devices.observe(node.snapshot(), second(0));
    node.boards.pop();
    removed_devices.observe(node.snapshot(), second(10));
    removed_devices
}

#[test]
fn without_an_answer_a_device_that_left_stays_for_the_grace_period() {
    let removed_devices = &mut one_left(&mut Node::default());
    check(removed_devices, second(10), &[STAYS, LEFT]);
    assert_eq!(removed_devices.next_expiry(), Some(second(310)));
    check(removed_devices, second(309), &[STAYS, LEFT]);
    check(removed_devices, second(310), &[STAYS]);
    assert_eq!(removed_devices.next_expiry(), None);
}

#[test]
fn a_held_device_stays_until_an_answer_shows_it_released() {
    let removed_devices = &mut one_left(&mut Node::default());
    removed_devices.hear(&holding(second(11), &[(GPU, "0000:64:00.0")]));
    check(removed_devices, second(100_000), &[STAYS, HELD]);
    assert_eq!(removed_devices.next_expiry(), None);
    for asked in [100_001, 100_030] {
        removed_devices.hear(&holding(second(asked), &[]));
        check(removed_devices, second(asked), &[STAYS, RELEASED]);
    }
    removed_devices.hear(&holding(second(100_031), &[]));
    check(removed_devices, second(100_031), &[STAYS]);
}

#[test]
fn a_kubelet_that_does_not_know_its_pods_yet_releases_nothing() {
    let removed_devices = &mut one_left(&mut Node::default());
    for asked in [11, 1_000, 2_000] {
        removed_devices.hear(&holding(second(asked), &[(GPU, "0000:64:00.0")]));
        check(removed_devices, second(asked), &[STAYS, HELD]);
        removed_devices.hear(&holding(second(asked + 29), &[]));
        check(removed_devices, second(asked + 900), &[STAYS, RELEASED]);
    }
}

#[test]
fn an_unheld_device_leaves_with_the_first_answer() {
    let removed_devices = &mut one_left(&mut Node::default());
    removed_devices
        .hear(&holding(second(11), &[(GPU, "0000:13:00.0"), ("a.b/other", "0000:64:00.0")]));
    check(removed_devices, second(11), &[STAYS]);
}

#[test]
fn an_answer_from_before_it_left_proves_nothing() {
    let removed_devices = &mut one_left(&mut Node::default());
    for asked in [9, 10] {
        removed_devices.hear(&holding(second(asked), &[]));
    }
    check(removed_devices, second(11), &[STAYS, LEFT]);
}

#[test]
fn what_comes_back_replaces_what_left_at_once() {
    let mut node = Node::default();
    let removed_devices = &mut one_left(&mut node);
    removed_devices.hear(&holding(second(11), &[(GPU, "0000:64:00.0")]));
    let mut other = board(0x64, 1);
    other.chips[0].id.device = 9;
    for returned in [board(0x64, 1), other] {
        node.boards = vec![board(0x13, 1), returned];
        removed_devices.observe(node.snapshot(), second(12));
        check(removed_devices, second(12), &[STAYS, IS_BACK]);
    }
}

#[test]
fn a_removed_device_is_refused_with_its_reason_and_gives_no_node() {
    let node = &mut Node::default();
    let removed_devices = &mut one_left(node);
    let snapshot = removed_devices.snapshot(second(10)).unwrap();
    let ids = ["0000:64:00.0".to_owned()];
    let context = AllocationContext {
        resource: &snapshot.resources[0],
        inventory: &snapshot.inventory,
        container: snapshot.container,
        cdi: None,
    };
    let refused = allocate(&context, &ids).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "iluvatar.com/gpu: device 0000:64:00.0 is unhealthy: Removed (0000:64:00.0 left the PCI \
         bus; stays listed for 300 s, as it is not known whether a pod holds it)"
    );
    let (_, device) = removed(&snapshot).next().unwrap();
    assert!(device.nodes.is_empty());
    assert_eq!(device.numa_nodes, [1]);
}

#[test]
fn what_the_configuration_no_longer_wants_has_not_left() {
    let mut node = Node { boards: vec![board(0x13, 1), board(0x64, 1)], ..Node::default() };
    let removed_devices = &mut RemovedDevices::new(Retention::default());
    removed_devices.observe(node.snapshot(), second(0));
    let selector = Selector { addresses: vec![node.boards[0].address], ..Selector::default() };
    node.config.resources[0].selector = selector;
    removed_devices.observe(node.snapshot(), second(1));
    check(removed_devices, second(1), &[STAYS]);
}

#[test]
fn a_device_whose_resource_is_gone_is_forgotten() {
    let mut node = Node::default();
    let removed_devices = &mut one_left(&mut node);
    node.config.resources[0].name = "iluvatar.com/other".to_owned();
    removed_devices.observe(node.snapshot(), second(11));
    check(removed_devices, second(11), &[STAYS]);
    assert_eq!(removed_devices.next_expiry(), None);
}

#[test]
fn a_chip_given_to_another_driver_has_left_and_says_so() {
    let mut node = Node::default();
    let removed_devices = &mut one_left(&mut node);
    node.skipped("0000:64:00.0", "bound to vfio-pci, which is left alone");
    removed_devices.observe(node.snapshot(), second(11));
    let line = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 is bound to vfio-pci, which is left \
                alone; stays listed for 300 s, as it is not known whether a pod holds it";
    check(removed_devices, second(11), &[STAYS, line]);
}

#[test]
fn one_held_replica_keeps_the_device() {
    let mut node = Node::default();
    node.config.resources[0].sharing = Some(Sharing {
        replicas: 2,
        fail_requests_greater_than_one: false,
        policy: SharingPolicy::Spread,
    });
    let removed_devices = &mut one_left(&mut node);
    removed_devices.hear(&holding(second(11), &[(GPU, "0000:64:00.0::1")]));
    let held = |index| HELD.replacen("0000:64:00.0", &format!("0000:64:00.0::{index}"), 1);
    let expected = ["0000:13:00.0::0 Healthy", "0000:13:00.0::1 Healthy", &held(0), &held(1)];
    check(removed_devices, second(11), &expected);
}

#[test]
fn of_a_split_board_the_chip_that_left_is_listed_by_itself() {
    let mut node = Node { boards: vec![board(0x64, 2)], ..Node::default() };
    node.config.resources[0].granularity = Granularity::Chip;
    let removed_devices = &mut RemovedDevices::new(Retention::default());
    removed_devices.observe(node.snapshot(), second(0));
    node.boards[0].chips.remove(0);
    removed_devices.observe(node.snapshot(), second(1));
    check(removed_devices, second(1), &[LEFT, "0000:67:00.0 Healthy"]);
}

#[test]
fn held_devices_that_left_before_we_came_are_listed() {
    let node = Node { boards: vec![board(0x13, 2)], ..Node::default() };
    let removed_devices = &mut RemovedDevices::new(Retention::default());
    removed_devices.observe(node.snapshot(), second(0));
    // The upper chip's id was given while boards were split; texts of other forms are no devices.
    let held = ["0000:13:00.0", "0000:16:00.0", "0000:64:00.0", "0000:65:00.0::0", "GPU-7", ""];
    removed_devices.hear(&holding(second(0), &held.map(|id| (GPU, id))));
    let line = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 is not on the PCI bus; still held by \
                container main of pod team/train";
    check(removed_devices, second(1000), &[STAYS, line]);
    for asked in [1001, 1031] {
        removed_devices.hear(&holding(second(asked), &[]));
    }
    check(removed_devices, second(1031), &[STAYS]);
}

#[test]
fn the_sentence_does_not_change_while_time_passes() {
    let removed_devices = &mut one_left(&mut Node::default());
    assert_eq!(removed_devices.snapshot(second(20)), removed_devices.snapshot(second(200)));
}
