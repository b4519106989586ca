//! Operators cordon chips, whatever else happens.

use super::*;
use crate::model::cordon::{Cordon, CordonList, CordonUsage, Cordons};

const BOARD: Granularity = Granularity::Board;
const CHIP: Granularity = Granularity::Chip;

fn cordons(cordons: &[(&str, &[&str])]) -> CordonList {
    let address = |text: &str| text.parse().unwrap();
    let cordons = cordons.iter().map(|(id, chips)| {
        let chips = chips.iter().map(|chip| address(chip)).collect();
        (address(id), Cordon { chips, reason: None })
    });
    CordonList { cordons: cordons.collect::<Cordons>(), problem: None }
}

/// A node of two boards of two chips.
fn node(cordoned: &[(&str, &[&str])]) -> NodeState {
    let mut state = scanned(duals(&[0x14, 0x34]));
    state.cordoned(cordons(cordoned), second(1));
    state
}

#[test]
fn a_cordoned_board_stays_cordoned_chip_by_chip_when_boards_are_split() {
    let board = ("0000:14:00.0", &["0000:14:00.0", "0000:17:00.0"][..]);
    let mut state = node(&[board]);
    assert_eq!(lines(&mut state, second(1)), ["0000:14:00.0 Cordoned", "0000:34:00.0"]);
    state.configured(config_of(&[(GPU, CHIP, None)]), second(2));
    let split = ["0000:14:00.0 Cordoned", "0000:17:00.0 Cordoned", "0000:34:00.0", "0000:37:00.0"];
    assert_eq!(lines(&mut state, second(2)), split);
    state.cordoned(CordonList::default(), second(3));
    assert_eq!(lines(&mut state, second(3)).join(" "), split.join(" ").replace(" Cordoned", ""));
}

#[test]
fn two_cordons_of_a_chip_count_until_both_are_gone() {
    let (board, chip) = (
        ("0000:14:00.0", &["0000:14:00.0", "0000:17:00.0"][..]),
        ("0000:17:00.0", &["0000:17:00.0"][..]),
    );
    let mut state = node(&[board, chip]);
    for left in [&[board][..], &[chip]] {
        state.cordoned(cordons(left), second(2));
        assert_eq!(lines(&mut state, second(2))[0], "0000:14:00.0 Cordoned", "{left:?}");
    }
    state.cordoned(cordons(&[]), second(3));
    assert_eq!(lines(&mut state, second(3))[0], "0000:14:00.0");
}

#[test]
fn a_cordon_of_what_is_not_there_waits_for_it() {
    let mut state = node(&[("0000:34:00.0", &["0000:34:00.0", "0000:37:00.0"])]);
    let rules = DiscoveryRules::default();
    state.scanned(Arc::new(duals(&[0x14])), &rules, second(2));
    assert_eq!(state.snapshot(second(2)).unwrap().cordons.len(), 1);
    state.scanned(Arc::new(duals(&[0x14, 0x34])), &rules, second(3));
    assert_eq!(lines(&mut state, second(3)), ["0000:14:00.0", "0000:34:00.0 Cordoned"]);
}

#[test]
fn it_is_drained_once_no_pod_holds_its_chips_under_any_id() {
    let mut state = scanned(duals(&[0x14, 0x34]));
    state.configured(config_of(&[(GPU, BOARD, Some(2))]), second(1));
    let snapshot = state.snapshot(second(1)).unwrap();
    let replicas = ["0000:14:00.0::0", "0000:14:00.0::1"];
    let allocations = allocated(&Allocations::default(), &snapshot, GPU, &replicas, second(2));
    state.recorded(&allocations);
    state.cordoned(cordons(&[("0000:17:00.0", &["0000:17:00.0"])]), second(3));
    let usage_at =
        |state: &mut NodeState, now| state.snapshot(second(now)).unwrap().cordons[0].usage.clone();
    assert_eq!(usage_at(&mut state, 3), CordonUsage::Unknown, "the kubelet was not asked");
    state.pods(&usage(second(4), &[(GPU, replicas[0])]), second(4));
    assert_eq!(usage_at(&mut state, 4), CordonUsage::Unknown, "one pod is being admitted");
    state.pods(&usage(second(40), &[(GPU, replicas[0])]), second(40));
    let CordonUsage::Held(holders) = usage_at(&mut state, 40) else { panic!("a pod holds it") };
    assert_eq!(holders.len(), 1);
    state.pods(&usage(second(50), &[]), second(50));
    assert_eq!(usage_at(&mut state, 50), CordonUsage::Drained);
    assert_eq!(lines(&mut state, second(50))[0], "0000:14:00.0 Cordoned");
}
