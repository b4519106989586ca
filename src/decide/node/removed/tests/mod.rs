pub(in crate::decide) mod node;
mod random;

use std::time::Duration;

use self::node::{Node, YOUNG, board, holding, holding_at, second};
use super::*;
use crate::decide::allocation::allocate::{AllocationContext, allocate};
use crate::model::config::{ContainerRules, Granularity, Selector, Sharing, SharingPolicy};

const GPU: &str = "iluvatar.com/gpu";

/// The lists for a kubelet at this time.
fn listed(removed: &mut RemovedDevices, now: Duration, source: PodResourcesState) -> Vec<Resource> {
    removed.expire(now);
    let mut resources = removed.present.as_ref().unwrap().resources.clone();
    removed.add_to(&mut resources, source);
    resources
}

/// Lines of the list: id, health, reasons.
fn lines(removed: &mut RemovedDevices, now: Duration, source: PodResourcesState) -> Vec<String> {
    let line = |(id, device): (DeviceId, &Device)| {
        let reasons = device.reasons.iter().map(|it| format!(" {}: {}", it.code, it.detail));
        format!("{id} {}{}", device.health, reasons.collect::<String>())
    };
    listed(removed, now, source)[0].listed().map(line).collect()
}

/// With a kubelet that answers.
#[track_caller]
fn check(removed: &mut RemovedDevices, now: Duration, expected: &[&str]) {
    assert_eq!(lines(removed, now, PodResourcesState::Answering), expected);
}

const ASKING: &str = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 left the PCI bus; asking the \
                      kubelet whether a pod holds it";
const LEFT: &str = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 left the PCI bus; stays listed \
                    for 300 s, since the kubelet does not report whether a pod holds it";
const HELD: &str = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 left the PCI bus; \
                    still held by container main of pod team/train";
const STAYS: &str = "0000:13:00.0 Healthy";
const IS_BACK: &str = "0000:64:00.0 Healthy";

/// Two boards, of which the one at bus 64 left in second 10.
fn one_left(node: &mut Node) -> RemovedDevices {
    let mut removed = RemovedDevices::new(Retention::default());
    node.boards = vec![board(0x13, 1), board(0x64, 1)];
    removed.observe(node.present(), second(0));
    node.boards.pop();
    removed.observe(node.present(), second(10));
    removed
}

#[test]
fn the_removed_reason_shows_that_the_kubelet_is_asked_or_else_how_long_the_device_stays() {
    let removed = &mut one_left(&mut Node::default());
    check(removed, second(10), &[STAYS, ASKING]);
    let unavailable = lines(removed, second(10), PodResourcesState::Unavailable);
    assert_eq!(unavailable, [STAYS, LEFT]);
    assert_eq!(removed.next_deadline(), Some(second(310)));
    check(removed, second(309), &[STAYS, ASKING]);
    check(removed, second(310), &[STAYS]);
    assert_eq!(removed.next_deadline(), None);
}

#[test]
fn a_held_device_stays_until_an_answer_shows_it_released_and_no_longer() {
    let removed = &mut one_left(&mut Node::default());
    removed.answered(&holding(second(11), &[(GPU, "0000:64:00.0")]));
    check(removed, second(100_000), &[STAYS, HELD]);
    assert_eq!(removed.next_deadline(), None);
    removed.answered(&holding(second(100_001), &[]));
    check(removed, second(100_001), &[STAYS]);
}

#[test]
fn a_kubelet_that_does_not_know_its_pods_yet_releases_nothing() {
    let removed = &mut one_left(&mut Node::default());
    removed.answered(&holding(second(11), &[(GPU, "0000:64:00.0")]));
    removed.answered(&holding_at(YOUNG, second(1_000), &[]));
    check(removed, second(1_000), &[STAYS, HELD]);
    // The same kubelet that showed the holder knows its pods, however young it is.
    removed.answered(&holding_at(YOUNG, second(1_001), &[(GPU, "0000:64:00.0")]));
    check(removed, second(1_001), &[STAYS, HELD]);
    removed.answered(&holding_at(YOUNG, second(1_002), &[]));
    check(removed, second(1_002), &[STAYS]);
}

#[test]
fn an_unheld_device_leaves_with_the_first_answer() {
    let removed = &mut one_left(&mut Node::default());
    removed.answered(&holding(second(11), &[(GPU, "0000:13:00.0"), ("a.b/other", "0000:64:00.0")]));
    check(removed, second(11), &[STAYS]);
}

#[test]
fn an_answer_from_before_it_left_proves_nothing() {
    let removed = &mut one_left(&mut Node::default());
    for asked in [9, 10] {
        removed.answered(&holding(second(asked), &[]));
    }
    check(removed, second(11), &[STAYS, ASKING]);
}

#[test]
fn what_comes_back_replaces_what_left_at_once() {
    let mut node = Node::default();
    let removed = &mut one_left(&mut node);
    removed.answered(&holding(second(11), &[(GPU, "0000:64:00.0")]));
    let mut other = board(0x64, 1);
    other.chips[0].id.device = 9;
    for returned in [board(0x64, 1), other] {
        node.boards = vec![board(0x13, 1), returned];
        removed.observe(node.present(), second(12));
        check(removed, second(12), &[STAYS, IS_BACK]);
    }
}

#[test]
fn a_removed_device_is_refused_with_its_reason_and_gives_no_node() {
    let node = &mut Node::default();
    let removed = &mut one_left(node);
    let resources = listed(removed, second(10), PodResourcesState::Unavailable);
    let ids = ["0000:64:00.0".to_owned()];
    let context = AllocationContext {
        resource: &resources[0],
        inventory: &node.inventory(),
        container: ContainerRules::default(),
        cdi: None,
    };
    let refused = allocate(&context, &ids).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "iluvatar.com/gpu: device 0000:64:00.0 is unhealthy: Removed (0000:64:00.0 left the PCI \
         bus; stays listed for 300 s, since the kubelet does not report whether a pod holds it)"
    );
    let device = &resources[0].devices[1];
    assert!(device.is_removed() && device.nodes.is_empty());
    assert_eq!(device.numa_nodes, [1]);
}

#[test]
fn what_the_configuration_no_longer_wants_has_not_left() {
    let mut node = Node { boards: vec![board(0x13, 1), board(0x64, 1)], ..Node::default() };
    let removed = &mut RemovedDevices::new(Retention::default());
    removed.observe(node.present(), second(0));
    let selector = Selector { addresses: vec![node.boards[0].address], ..Selector::default() };
    node.config.resources[0].selector = selector;
    removed.observe(node.present(), second(1));
    check(removed, second(1), &[STAYS]);
}

#[test]
fn a_device_whose_resource_is_gone_is_forgotten() {
    let mut node = Node::default();
    let removed = &mut one_left(&mut node);
    node.config.resources[0].name = "iluvatar.com/other".to_owned();
    removed.observe(node.present(), second(11));
    check(removed, second(11), &[STAYS]);
    assert_eq!(removed.next_deadline(), None);
}

#[test]
fn a_chip_bound_to_another_driver_has_left_with_that_reason() {
    let mut node = Node::default();
    let removed = &mut one_left(&mut node);
    node.skipped("0000:64:00.0", SkipReason::BoundTo("vfio-pci".to_owned()));
    removed.observe(node.present(), second(11));
    let line = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 is bound to vfio-pci, which is not in \
                discovery.drivers; asking the kubelet whether a pod holds it";
    check(removed, second(11), &[STAYS, line]);
}

#[test]
fn one_held_replica_keeps_the_device() {
    let mut node = Node::default();
    node.config.resources[0].sharing = Some(Sharing {
        replicas: 2,
        fail_requests_greater_than_one: false,
        policy: SharingPolicy::Spread,
    });
    let removed = &mut one_left(&mut node);
    removed.answered(&holding(second(11), &[(GPU, "0000:64:00.0::1")]));
    let held = |index| HELD.replacen("0000:64:00.0", &format!("0000:64:00.0::{index}"), 1);
    let expected = ["0000:13:00.0::0 Healthy", "0000:13:00.0::1 Healthy", &held(0), &held(1)];
    check(removed, second(11), &expected);
}

#[test]
fn of_a_split_board_the_chip_that_left_is_listed_by_itself() {
    let mut node = Node { boards: vec![board(0x64, 2)], ..Node::default() };
    node.config.resources[0].granularity = Granularity::Chip;
    let removed = &mut RemovedDevices::new(Retention::default());
    removed.observe(node.present(), second(0));
    node.boards[0].chips.remove(0);
    removed.observe(node.present(), second(1));
    check(removed, second(1), &[ASKING, "0000:67:00.0 Healthy"]);
}

#[test]
fn held_devices_that_left_before_we_came_are_listed() {
    let node = Node { boards: vec![board(0x13, 2)], ..Node::default() };
    let removed = &mut RemovedDevices::new(Retention::default());
    removed.observe(node.present(), second(0));
    // The upper chip's id was given while boards were split; texts of other forms are no devices.
    let held = ["0000:13:00.0", "0000:16:00.0", "0000:64:00.0", "0000:65:00.0::0", "GPU-7", ""];
    removed.answered(&holding(second(0), &held.map(|id| (GPU, id))));
    let line = "0000:64:00.0 Unhealthy Removed: 0000:64:00.0 is not on the PCI bus; still held by \
                container main of pod team/train";
    check(removed, second(1000), &[STAYS, line]);
    removed.answered(&holding(second(1001), &[]));
    check(removed, second(1001), &[STAYS]);
}

#[test]
fn the_sentence_does_not_change_while_time_passes() {
    let removed = &mut one_left(&mut Node::default());
    let source = PodResourcesState::Unavailable;
    assert_eq!(listed(removed, second(20), source), listed(removed, second(200), source));
}
