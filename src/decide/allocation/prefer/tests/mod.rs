//! What the choice promises, sentence by sentence, and against an oracle.

mod node;
mod oracle;
mod random;

use node::{Node, bi_v150_x8, bus, id, replica};

use super::{Choice, Criterion, PreferenceRequest, Score, WholeGroups, explain, prefer};
use crate::model::config::SharingPolicy;
use crate::model::device::DeviceId;
use crate::model::topology::{Distance, GroupKind};

/// Checks the choice of `size` chips of the eight boards, the buses of `taken` being in use.
#[track_caller]
fn check(taken: &[u8], size: usize, expected: &[u8]) {
    let node = bi_v150_x8();
    let choice = node.prefer(&node.without(taken), size);
    let expected: Vec<_> = expected.iter().map(|bus| id(*bus)).collect();
    assert_eq!(choice.ids, expected, "{:?}", choice.score);
}

#[test]
fn two_chips_are_the_two_chips_of_one_board() {
    check(&[], 2, &[0x10, 0x11]);
    check(&[0x11], 2, &[0x20, 0x21]);
}

#[test]
fn four_chips_are_two_boards_below_one_switch() {
    check(&[], 4, &[0x10, 0x11, 0x20, 0x21]);
    check(&[0x20], 4, &[0x50, 0x51, 0x60, 0x61]);
}

#[test]
fn one_chip_is_the_sibling_of_a_chip_in_use() {
    check(&[0x51], 1, &[0x50]);
    check(&[0xd0], 1, &[0xd1]);
}

#[test]
fn one_chip_of_an_untouched_node_is_the_first() {
    check(&[], 1, &[0x10]);
}

#[test]
fn two_chips_come_from_a_switch_that_is_broken_already() {
    check(&[0x90, 0x91], 2, &[0xa0, 0xa1]);
}

#[test]
fn three_chips_take_the_half_board_that_is_there_and_break_no_other() {
    check(&[0x61], 3, &[0x50, 0x51, 0x60]);
}

#[test]
fn two_chips_break_no_board_while_a_whole_one_is_free() {
    // One chip of each board but the last is free: still none of these.
    let taken = [0x10, 0x20, 0x50, 0x60, 0x90, 0xa0, 0xd0];
    check(&taken, 2, &[0xe0, 0xe1]);
    // Half of every board is free: two below one switch are the next best.
    check(&[&taken[..], &[0xe1]].concat(), 2, &[0x11, 0x21]);
}

#[test]
fn the_numa_node_is_crossed_only_when_it_must_be() {
    check(&[], 8, &[0x10, 0x11, 0x20, 0x21, 0x50, 0x51, 0x60, 0x61]);
    // Seven are left on the first node, eight on the second.
    check(&[0x10], 8, &[0x90, 0x91, 0xa0, 0xa1, 0xd0, 0xd1, 0xe0, 0xe1]);
    let node = bi_v150_x8();
    let choice = node.prefer(&node.without(&[0x10, 0xe1]), 8);
    let first = choice.ids.iter().filter(|id| id.address.bus < 0x80).count();
    assert!(first == 7 || first == 1, "{:?}", choice.ids);
}

#[test]
fn a_device_that_the_tree_does_not_know_is_the_last_choice_for_a_pair() {
    let mut node = bi_v150_x8();
    node.device(bus(0x01), None);
    assert_eq!(node.prefer(&node.without(&[]), 2).ids, [id(0x10), id(0x11)]);
    let pair = node.prefer(&[id(0x01), id(0x10)], 2);
    assert_eq!(pair.score.distance, Distance::Sys.cost());
}

#[test]
fn boards_are_devices_like_chips() {
    let mut node = Node::new();
    for switch in [0x10, 0x20] {
        let port = node.group(GroupKind::Port(bus(switch)), Distance::Pxb, 0);
        for board in [switch + 1, switch + 5] {
            let group = node.group(GroupKind::Board(bus(board)), Distance::Inte, port);
            node.device(bus(board), Some(group));
            // The second chip of a board is in the tree but cannot be chosen.
            node.tree.chips.insert(bus(board + 3), group);
        }
    }
    let choice = node.prefer(&node.without(&[0x11]), 2);
    assert_eq!(choice.ids, [id(0x21), id(0x25)]);
    assert_eq!((choice.score.boards, choice.score.switches), (2, 1));
}

#[test]
fn the_score_counts_what_is_broken() {
    let node = bi_v150_x8();
    let choice = node.prefer(&node.without(&[0x21]), 3);
    assert_eq!(choice.ids, [id(0x10), id(0x11), id(0x20)]);
    // A pair on the board and two below the switch; the other board was broken before.
    assert_eq!(choice.score.distance, 1 + 3 + 3);
    assert_eq!((choice.score.boards, choice.score.switches), (1, 0));
}

/// Checks a request that no kubelet sends, on a node whose chip on bus 0x11 is in use.
#[track_caller]
fn check_odd(available: &[u8], must: &[u8], size: usize, expected: &[u8]) {
    let node = bi_v150_x8();
    let ids = |buses: &[u8]| buses.iter().map(|bus| id(*bus)).collect::<Vec<_>>();
    let request = PreferenceRequest { available: &ids(available), must_include: &ids(must), size };
    assert_eq!(prefer(&node.supply(), &request).ids, ids(expected));
}

#[test]
fn must_include_ids_are_in_the_answer_whatever_they_cost() {
    check_odd(&[0x10, 0x20, 0x21, 0xe0], &[0xe0], 2, &[0x10, 0xe0]);
    check_odd(&[0x10, 0x20, 0x21, 0xe0, 0xe1], &[0xe0], 2, &[0xe0, 0xe1]);
}

#[test]
fn unknown_ids_are_dropped() {
    check_odd(&[0x02, 0x10, 0x20], &[0x03], 2, &[0x10, 0x20]);
    check_odd(&[0x02], &[], 1, &[]);
}

#[test]
fn an_id_counts_once() {
    check_odd(&[0x10, 0x10, 0x20], &[0x10, 0x10], 2, &[0x10, 0x20]);
}

#[test]
fn a_must_include_id_counts_as_available() {
    check_odd(&[0x10, 0x20], &[0xe0], 2, &[0x10, 0xe0]);
}

#[test]
fn a_size_beyond_what_there_is_takes_all() {
    check_odd(&[0x10, 0xe0], &[], 100, &[0x10, 0xe0]);
    check_odd(&[], &[], usize::MAX, &[]);
}

#[test]
fn a_size_of_zero_takes_nothing() {
    check_odd(&[0x10, 0x20], &[], 0, &[]);
    check_odd(&[0x10, 0x20], &[0x10], 0, &[]);
}

#[test]
fn of_too_many_must_include_ids_the_best_are_taken() {
    check_odd(&[0x10, 0x11, 0x50, 0xe0, 0xe1], &[0x10, 0x50, 0xe0, 0xe1], 2, &[0xe0, 0xe1]);
}

#[test]
fn the_order_of_the_request_and_of_the_devices_does_not_matter() {
    let mut node = bi_v150_x8();
    let mut ids = node.without(&[0x11, 0x60]);
    let ascending = node.prefer(&ids, 5);
    ids.reverse();
    ids.swap(2, 9);
    node.devices.rotate_left(5);
    assert_eq!(node.prefer(&ids, 5), ascending);
}

#[test]
fn a_tree_that_contradicts_itself_is_no_reason_to_fail() {
    let mut node = bi_v150_x8();
    node.tree.groups[3].parent = Some(7);
    node.tree.chips.insert(bus(0x10), 1000);
    assert_eq!(node.prefer(&node.without(&[]), 16).ids.len(), 16);
    node.tree.groups.clear();
    assert_eq!(node.prefer(&node.without(&[]), 2).score.distance, 6);
}

/// Checks the replicas chosen on the first two boards, four replicas a chip; `available` counts
/// the available replicas of the chips on buses 0x10, 0x11, 0x20 and 0x21, the highest ones.
#[track_caller]
fn check_shared(
    policy: SharingPolicy,
    available: [u32; 4],
    must: &[(u8, u32)],
    size: usize,
    expected: &[(u8, u32)],
) {
    let node = bi_v150_x8().shared(4, policy);
    let chips = [0x10, 0x11, 0x20, 0x21].into_iter().zip(available);
    let replicas = |(bus, free)| (4 - free..4).map(move |index| replica(bus, index));
    let available: Vec<_> = chips.flat_map(replicas).collect();
    let ids = |ids: &[(u8, u32)]| -> Vec<DeviceId> {
        ids.iter().map(|(bus, index)| replica(*bus, *index)).collect()
    };
    let request = PreferenceRequest { available: &available, must_include: &ids(must), size };
    let choice = prefer(&node.supply(), &request);
    assert_eq!(choice.ids, ids(expected), "{:?}", choice.score);
}

#[test]
fn spread_takes_the_least_shared_device() {
    check_shared(SharingPolicy::Spread, [2, 3, 4, 3], &[], 1, &[(0x20, 0)]);
}

#[test]
fn spread_takes_distinct_devices_before_little_used_ones() {
    let spread = SharingPolicy::Spread;
    check_shared(spread, [1, 0, 4, 0], &[], 2, &[(0x10, 3), (0x20, 0)]);
    check_shared(spread, [0, 0, 4, 0], &[], 2, &[(0x20, 0), (0x20, 1)]);
}

#[test]
fn spread_takes_near_devices_of_equally_used_ones() {
    check_shared(SharingPolicy::Spread, [4, 3, 4, 4], &[], 2, &[(0x20, 0), (0x21, 0)]);
}

#[test]
fn spread_doubles_up_evenly_where_it_must() {
    let expected = [(0x10, 0), (0x10, 1), (0x11, 0), (0x20, 0), (0x21, 0)];
    check_shared(SharingPolicy::Spread, [4, 4, 4, 4], &[], 5, &expected);
}

#[test]
fn pack_takes_as_few_devices_as_it_can() {
    let pack = SharingPolicy::Pack;
    check_shared(pack, [1, 1, 4, 0], &[], 2, &[(0x20, 0), (0x20, 1)]);
    check_shared(pack, [1, 2, 4, 2], &[], 2, &[(0x11, 2), (0x11, 3)]);
}

#[test]
fn pack_fills_the_device_that_is_most_in_use() {
    check_shared(SharingPolicy::Pack, [4, 3, 1, 2], &[], 1, &[(0x20, 3)]);
}

#[test]
fn pack_stays_on_the_device_that_must_be_included() {
    let expected = [(0x21, 2), (0x21, 3)];
    check_shared(SharingPolicy::Pack, [1, 2, 4, 2], &[(0x21, 3)], 2, &expected);
}

#[test]
fn the_replicas_of_a_device_are_those_that_must_be_included_then_the_lowest() {
    let expected = [(0x20, 0), (0x20, 2)];
    check_shared(SharingPolicy::Pack, [0, 0, 4, 0], &[(0x20, 2)], 2, &expected);
}

#[test]
fn ids_of_the_other_kind_of_sharing_are_unknown() {
    let node = bi_v150_x8();
    assert_eq!(node.prefer(&[replica(0x10, 0)], 1).ids, []);
    let shared = bi_v150_x8().shared(2, SharingPolicy::Spread);
    let ids = [id(0x10), replica(0x10, 1), replica(0x10, 2)];
    assert_eq!(shared.prefer(&ids, 3).ids, [replica(0x10, 1)]);
}

#[test]
fn an_explanation_names_how_the_runner_up_differs() {
    let node = bi_v150_x8();
    let available = node.without(&[0x11]);
    let request = PreferenceRequest { available: &available, must_include: &[], size: 1 };
    let explanation = explain(&node.supply(), &request);
    let second = explanation.runner_up.clone().expect("there are other chips");
    assert_eq!(explanation.choice.ids, [id(0x10)]);
    assert_eq!((second.choice.ids.clone(), second.why), (vec![id(0x20)], Criterion::Scatter));
    let boards = [explanation.effect.boards, second.effect.boards];
    assert_eq!(boards, [(7, 0), (6, 1)].map(|(left, broken)| WholeGroups { left, broken }));
}

#[test]
fn an_explanation_names_what_is_missing_and_what_is_unknown() {
    let node = bi_v150_x8();
    let request =
        PreferenceRequest { available: &[id(0x10), id(0x02)], must_include: &[], size: 2 };
    let explanation = explain(&node.supply(), &request);
    assert_eq!(explanation.unknown, [id(0x02)]);
    assert_eq!(explanation.runner_up, None);
    assert_eq!((explanation.asked, explanation.choice.ids), (2, vec![id(0x10)]));
}

#[test]
fn the_effect_of_a_choice_counts_pairs_and_whole_groups() {
    let node = bi_v150_x8();
    let available = node.without(&[]);
    let must_include = [id(0x10), id(0x11), id(0x20)];
    let request = PreferenceRequest { available: &available, must_include: &must_include, size: 3 };
    let effect = explain(&node.supply(), &request).effect;
    assert_eq!(effect.devices, 3);
    assert_eq!(effect.pairs.values().sum::<usize>(), 3);
    assert_eq!(effect.pairs[&Distance::Inte], 1);
    assert_eq!(effect.boards, WholeGroups { left: 6, broken: 1 });
}

#[test]
fn nothing_to_choose_costs_nothing() {
    let choice = Node::new().prefer(&[], 4);
    let nothing = Choice { ids: Vec::new(), score: Score::default() };
    assert_eq!(choice, nothing);
}
