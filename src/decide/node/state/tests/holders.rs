//! Pods hold chips while a configuration gives these chips other ids.

use super::*;
use crate::model::config::ServingMode;
use crate::model::dra::claim::{ClaimRef, ClaimUsage};

const BOARD: Granularity = Granularity::Board;
const CHIP: Granularity = Granularity::Chip;

type Resources<'a> = &'a [(&'a str, Granularity, Option<u32>)];

/// A node of two boards, whose pod got `ids` under `before`; then the configuration changes.
struct Story {
    state: NodeState,
    allocations: Allocations,
}

impl Story {
    fn new(before: Resources<'_>, resource: &str, ids: &[&str]) -> Self {
        let mut state = scanned(duals(&[0x14, 0x34]));
        state.configured(config_of(before), second(1));
        let snapshot = state.snapshot(second(1)).unwrap();
        let allocations = Allocations::default();
        let allocations = allocated(&allocations, &snapshot, resource, ids, second(2));
        Self { state, allocations }
    }

    fn changes_to(&mut self, after: Resources<'_>, now: u64) {
        self.state.recorded(&self.allocations);
        self.state.configured(config_of(after), second(now));
    }

    fn lines(&mut self, now: u64) -> Vec<String> {
        lines(&mut self.state, second(now))
    }
}

/// The list after a change, before the kubelet was asked, while the pod runs, and after it ended.
#[track_caller]
fn check(before: Resources<'_>, held: &[(&str, &str)], after: Resources<'_>, expected: &[&str]) {
    let (resource, ids) = (held[0].0, held.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    let mut story = Story::new(before, resource, &ids);
    story.changes_to(after, 3);
    assert_eq!(story.lines(3), expected, "before the kubelet was asked");
    story.state.pods(&usage(second(4), held), second(4));
    assert_eq!(story.lines(4), expected, "while the pod runs");
    story.state.pods(&usage(second(50), &[]), second(50));
    let free: Vec<_> = expected.iter().map(|line| line.replace(" HeldByPod", "")).collect();
    assert_eq!(story.lines(50), free, "after the pod ended");
}

#[test]
fn splitting_boards_keeps_both_chips_of_a_held_board_from_others() {
    check(
        &[(GPU, BOARD, None)],
        &[(GPU, "0000:14:00.0")],
        &[(GPU, CHIP, None)],
        &["0000:14:00.0 HeldByPod", "0000:17:00.0 HeldByPod", "0000:34:00.0", "0000:37:00.0"],
    );
}

#[test]
fn joining_boards_keeps_a_board_from_others_of_which_one_chip_is_held() {
    for chip in ["0000:14:00.0", "0000:17:00.0"] {
        check(
            &[(GPU, CHIP, None)],
            &[(GPU, chip)],
            &[(GPU, BOARD, None)],
            &["0000:14:00.0 HeldByPod", "0000:34:00.0"],
        );
    }
}

#[test]
fn an_exclusive_holder_keeps_replicas_from_others_and_a_holder_of_replicas_exclusive_ids() {
    check(
        &[(GPU, BOARD, None)],
        &[(GPU, "0000:14:00.0")],
        &[(GPU, BOARD, Some(4))],
        &["0000:14:00.0 HeldByPod", "0000:34:00.0"],
    );
    check(
        &[(GPU, BOARD, Some(4))],
        &[(GPU, "0000:14:00.0::2")],
        &[(GPU, BOARD, None)],
        &["0000:14:00.0 HeldByPod", "0000:34:00.0"],
    );
}

#[test]
fn a_renamed_resource_does_not_offer_what_is_held_under_the_old_name() {
    check(
        &[(GPU, BOARD, None)],
        &[(GPU, "0000:14:00.0")],
        &[("a.b/c", BOARD, None)],
        &["a.b/c0000:14:00.0 HeldByPod", "a.b/c0000:34:00.0"],
    );
}

#[test]
fn holders_of_replicas_share_with_more_replicas_of_the_same_size_and_with_no_other() {
    let held = [(GPU, "0000:14:00.0::2")];
    let free = ["0000:14:00.0", "0000:34:00.0"];
    check(&[(GPU, BOARD, Some(4))], &held, &[(GPU, BOARD, Some(8))], &free);
    check(
        &[(GPU, BOARD, Some(4))],
        &held,
        &[(GPU, CHIP, Some(4))],
        &["0000:14:00.0 HeldByPod", "0000:17:00.0 HeldByPod", "0000:34:00.0", "0000:37:00.0"],
    );
}

#[test]
fn the_reason_names_the_pod_and_what_it_holds() {
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.changes_to(&[(GPU, CHIP, None)], 3);
    let detail = |story: &mut Story, now| {
        let snapshot = story.state.snapshot(second(now)).unwrap();
        let device = &snapshot.resources[0].devices[1];
        (device.reasons[0].detail.clone(), device.awaits_kubelet)
    };
    let asking = "its chips were allocated as iluvatar.com/gpu 0000:14:00.0; asking the kubelet \
                  whether a pod still holds them";
    assert_eq!(detail(&mut story, 3), (asking.to_owned(), true));
    story.state.pods(&usage(second(4), &[(GPU, "0000:14:00.0")]), second(4));
    let held = "its chips are held as iluvatar.com/gpu 0000:14:00.0 by container main of pod \
                team/pod-0000:14:00.0";
    assert_eq!(detail(&mut story, 4), (held.to_owned(), false));
}

#[test]
fn without_pod_resources_the_change_is_applied_with_a_warning_that_names_the_chips() {
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.state.pods_unavailable(second(2));
    story.changes_to(&[(GPU, CHIP, None)], 3);
    let free = ["0000:14:00.0", "0000:17:00.0", "0000:34:00.0", "0000:37:00.0"];
    assert_eq!(story.lines(3), free);
    let snapshot = story.state.snapshot(second(3)).unwrap();
    let subjects: Vec<_> = snapshot.warnings.iter().map(|it| it.subject.to_string()).collect();
    assert_eq!(codes(&mut story.state, second(3)), ["HolderUnknown", "HolderUnknown"]);
    assert_eq!(subjects, ["0000:14:00.0", "0000:17:00.0"]);
}

#[test]
fn a_kubelet_that_answered_once_and_fails_now_releases_nothing() {
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.state.pods(&usage(second(2), &[]), second(2));
    story.state.pods_unavailable(second(3));
    story.changes_to(&[(GPU, CHIP, None)], 4);
    assert_eq!(story.lines(4)[0], "0000:14:00.0 HeldByPod");
}

#[test]
fn an_answer_from_before_the_pods_admission_was_over_releases_nothing() {
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.changes_to(&[(GPU, CHIP, None)], 3);
    story.state.pods(&usage(second(4), &[]), second(4));
    assert_eq!(story.lines(4)[0], "0000:14:00.0 HeldByPod");
    story.state.pods(&usage(second(12), &[]), second(12));
    assert_eq!(story.lines(12)[0], "0000:14:00.0");
}

#[test]
fn a_kubelet_that_has_just_started_releases_only_what_it_showed_itself() {
    let young = |usage: PodUsage| {
        let kubelet = KubeletInstance { id: (2, 2), knows_its_pods: false };
        PodUsage { kubelet, ..usage }
    };
    let held = [(GPU, "0000:14:00.0")];
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.changes_to(&[(GPU, CHIP, None)], 3);
    story.state.pods(&usage(second(4), &held), second(4));
    story.state.pods(&young(usage(second(60), &[])), second(60));
    assert_eq!(story.lines(60)[0], "0000:14:00.0 HeldByPod");
    story.state.pods(&young(usage(second(61), &held)), second(61));
    story.state.pods(&young(usage(second(62), &[])), second(62));
    assert_eq!(story.lines(62)[0], "0000:14:00.0");
}

#[test]
fn what_was_allocated_before_this_process_started_counts_as_held_until_the_kubelet_answers() {
    let story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    let records = Arc::clone(&story.allocations.records);
    let mut state = NodeState::new(config_of(&[(GPU, CHIP, None)]), Retention::default());
    state.recorded(&Allocations { records, ..Allocations::default() });
    let rules = DiscoveryRules::default();
    state.scanned(Arc::new(duals(&[0x14, 0x34])), &rules, second(1));
    assert_eq!(lines(&mut state, second(1))[0], "0000:14:00.0 HeldByPod");
    state.pods(&usage(second(2), &[]), second(2));
    assert_eq!(lines(&mut state, second(2))[0], "0000:14:00.0");
}

#[test]
fn without_a_record_the_id_of_a_board_stands_for_all_of_its_chips() {
    let mut state = scanned(duals(&[0x14, 0x34]));
    state.configured(config_of(&[("a.b/c", CHIP, None)]), second(1));
    state.pods(&usage(second(2), &[(GPU, "0000:14:00.0"), (GPU, "0000:37:00.0")]), second(2));
    let expected = [
        "a.b/c0000:14:00.0 HeldByPod",
        "a.b/c0000:17:00.0 HeldByPod",
        "a.b/c0000:34:00.0",
        "a.b/c0000:37:00.0 HeldByPod",
    ];
    assert_eq!(lines(&mut state, second(2)), expected);
}

#[test]
fn a_device_node_that_a_pod_holds_and_that_another_chip_has_now_is_a_warning() {
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.state.recorded(&story.allocations);
    story.state.pods(&usage(second(3), &[(GPU, "0000:14:00.0")]), second(3));
    let mut renumbered = duals(&[0x14, 0x34]);
    for device in &mut renumbered.class_devices {
        let other = [(0x14, 0x34), (0x34, 0x14)];
        for (from, to) in other {
            if device.name == format!("iluvatar{from}") {
                device.name = format!("iluvatar{to}");
                device.number.as_mut().unwrap().minor = to;
                break;
            }
        }
    }
    story.state.scanned(Arc::new(renumbered), &DiscoveryRules::default(), second(4));
    let snapshot = story.state.snapshot(second(4)).unwrap();
    let warnings: Vec<_> = snapshot.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "0000:14:00.0: container main of pod team/pod-0000:14:00.0 was given /dev/iluvatar20 for \
          this chip as iluvatar.com/gpu 0000:14:00.0, but /dev/iluvatar20 is 0000:34:00.0 now, and \
          the container can still open it; delete that pod"
        ]
    );
}

/// An answer in which a claim holds these devices of the DRA driver.
fn claimed(asked: u64, devices: &[&str], knows_its_pods: bool) -> PodUsage {
    let mut usage = usage(second(asked), &[]);
    usage.kubelet.knows_its_pods = knows_its_pods;
    usage.held.claimed = devices
        .iter()
        .map(|device| ClaimUsage {
            claim: ClaimRef { namespace: "team".to_owned(), name: "train".to_owned() },
            device: device.parse().unwrap(),
            is_shared: false,
        })
        .collect();
    usage
}

#[test]
fn what_claims_hold_after_a_change_from_dra_is_unhealthy_until_it_is_free() {
    let mut state = scanned(duals(&[0x14, 0x34]));
    state.pods(&claimed(1, &["chip-0000-17-00-0"], true), second(1));
    let held = ["0000:14:00.0 HeldByClaim", "0000:34:00.0"];
    assert_eq!(lines(&mut state, second(1)), held);
    let snapshot = state.snapshot(second(1)).unwrap();
    let reason = &snapshot.resources[0].devices[0].reasons[0];
    assert_eq!(reason.detail, "its chips are held as chip-0000-17-00-0 by claim team/train");
    // A kubelet that has just started does not know it yet.
    state.pods(&claimed(2, &[], false), second(2));
    assert_eq!(lines(&mut state, second(2)), held);
    state.pods(&claimed(40, &[], true), second(40));
    assert_eq!(lines(&mut state, second(40)), ["0000:14:00.0", "0000:34:00.0"]);
}

#[test]
fn in_dra_mode_the_snapshot_names_what_pods_of_the_device_plugin_hold() {
    let mut state = scanned(duals(&[0x14, 0x34]));
    let config = Config { mode: ServingMode::Dra, ..Config::default() };
    state.configured(Arc::new(config), second(1));
    state.pods(&usage(second(2), &[(GPU, "0000:14:00.0")]), second(2));
    let snapshot = state.snapshot(second(2)).unwrap();
    let held: Vec<_> = snapshot.held_by_pods.keys().map(ToString::to_string).collect();
    assert_eq!(held, ["0000:14:00.0", "0000:17:00.0"]);
    let shown = snapshot.held_by_pods.values().next().unwrap().to_string();
    let expected = "iluvatar.com/gpu 0000:14:00.0 by container main of pod team/pod-0000:14:00.0";
    assert_eq!(shown, expected);
    state.pods(&usage(second(40), &[]), second(40));
    assert!(state.snapshot(second(40)).unwrap().held_by_pods.is_empty());
}

/// What the snapshot has of pods: resource, device, chips, pod.
fn pod_devices(state: &mut NodeState, now: u64) -> Option<Vec<String>> {
    let held = state.snapshot(second(now)).unwrap().pod_devices.clone()?;
    let line = |held: &PodDevice| {
        let chips: Vec<_> = held.chips.iter().map(ToString::to_string).collect();
        format!("{} {} {} {}", held.resource, held.device, chips.join(","), held.holder.pod)
    };
    Some(held.iter().map(line).collect())
}

#[test]
fn the_pods_of_a_device_are_unknown_until_the_kubelet_names_them() {
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.state.recorded(&story.allocations);
    assert_eq!(pod_devices(&mut story.state, 3), None);
    story.state.pods(&usage(second(4), &[(GPU, "0000:14:00.0")]), second(4));
    let held = format!("{GPU} 0000:14:00.0 0000:14:00.0,0000:17:00.0 pod-0000:14:00.0");
    assert_eq!(pod_devices(&mut story.state, 4), Some(vec![held]));
    story.state.pods(&usage(second(50), &[]), second(50));
    assert_eq!(pod_devices(&mut story.state, 50), Some(Vec::new()));
}

#[test]
fn the_pod_of_a_chip_stays_known_under_another_configuration_and_after_the_board_left() {
    let mut story = Story::new(&[(GPU, BOARD, None)], GPU, &["0000:14:00.0"]);
    story.changes_to(&[(GPU, CHIP, None)], 3);
    story.state.pods(&usage(second(4), &[(GPU, "0000:14:00.0")]), second(4));
    let snapshot = story.state.snapshot(second(4)).unwrap();
    let holders = |index: usize| {
        let device = &snapshot.resources[0].devices[index];
        snapshot.holders(device).unwrap().into_iter().map(|it| &*it.pod).collect::<Vec<_>>()
    };
    assert_eq!([holders(0), holders(1)], [["pod-0000:14:00.0"], ["pod-0000:14:00.0"]]);
    assert!(holders(2).is_empty() && holders(3).is_empty());

    let discovery = Config::default().discovery;
    story.state.scanned(Arc::new(duals(&[0x34])), &discovery, second(5));
    let held = format!("{GPU} 0000:14:00.0 0000:14:00.0,0000:17:00.0 pod-0000:14:00.0");
    assert_eq!(pod_devices(&mut story.state, 5), Some(vec![held]));
}

#[test]
fn each_pod_of_a_shared_device_is_named_once_and_other_plugins_ids_are_not() {
    let ids = ["0000:14:00.0::0", "0000:14:00.0::1"];
    let mut story = Story::new(&[(GPU, BOARD, Some(4))], GPU, &ids);
    story.state.recorded(&story.allocations);
    let mut usage = usage(second(4), &[("other.com/nic", "0000:99:00.0"), (GPU, "GPU-1")]);
    for (index, pod) in [(0, "both"), (1, "both"), (2, "third")] {
        let [namespace, pod, container] = ["team", pod, "main"].map(str::to_owned);
        let id = format!("0000:14:00.0::{index}");
        usage.held.insert(GPU, id, Holder { namespace, pod, container });
    }
    story.state.pods(&usage, second(4));
    let held = |pod: &str| format!("{GPU} 0000:14:00.0 0000:14:00.0,0000:17:00.0 {pod}");
    assert_eq!(pod_devices(&mut story.state, 4), Some(vec![held("both"), held("third")]));
}
