//! The limits of the API, at their edges.

use super::random::check_valid;
use super::*;
use crate::decide::dra::slices::{contents, slice_name, slices};
use crate::model::config::BoardRules;
use crate::model::dra::slice::SliceContent;
use crate::model::pci::PciId;

/// So many boards with one chip each, on root buses of their own.
fn singles(count: usize) -> ScanBuilder {
    (0..count).fold(ScanBuilder::default(), |sample, index| {
        let (domain, bus) = (index / 100, index % 100);
        let path = format!("{domain:04x}:00:{:02x}.0 {domain:04x}:{:02x}:00.0", bus % 32, bus + 1);
        sample.chip(&path, SINGLE)
    })
}

/// So many boards with two chips each.
fn duals(count: usize) -> ScanBuilder {
    (0..count).fold(ScanBuilder::default(), |sample, index| {
        let chip = |bus: usize| format!("{index:04x}:00:01.0 {index:04x}:{bus:02x}:00.0");
        sample.chip(&chip(1), UNKNOWN).chip(&chip(2), UNKNOWN)
    })
}

/// Boards by their chips' addresses, as an operator may configure them.
fn paired(count: usize) -> Config {
    let at = |index: usize, bus: usize| format!("{index:04x}:{bus:02x}:00.0").parse().unwrap();
    let pairs = (0..count).map(|index| vec![at(index, 1), at(index, 2)]).collect();
    let id = PciId { vendor: 0x1e3e, device: UNKNOWN };
    let chips_per_board = [(id, 2)].into();
    Config {
        boards: BoardRules { chips_per_board, pairs, ..BoardRules::default() },
        ..config(DraOffer::Both)
    }
}

fn sizes(contents: &[SliceContent]) -> Vec<usize> {
    let size = |content: &SliceContent| match content {
        SliceContent::Counters(sets) => sets.len(),
        SliceContent::Devices(devices) => devices.len(),
    };
    contents.iter().map(size).collect()
}

#[track_caller]
fn check_sizes(snapshot: &NodeSnapshot, expected: &[usize]) {
    let contents = contents(&pool_of(snapshot), &ServerSupport::default());
    contents.iter().for_each(check_valid);
    assert_eq!(sizes(&contents), expected);
}

#[test]
fn a_slice_has_at_most_64_devices_so_that_a_fault_never_spreads_the_pool_anew() {
    let of = |count| snapshot(singles(count), &config(DraOffer::Board));
    check_sizes(&of(64), &[64]);
    check_sizes(&of(65), &[64, 1]);
    check_sizes(&of(128), &[64, 64]);
    check_sizes(&of(129), &[64, 64, 1]);
}

#[test]
fn a_set_has_at_most_32_counters_and_a_slice_at_most_8_sets() {
    let of = |count| snapshot(duals(count), &paired(count));
    // Sets, then three devices for each board.
    check_sizes(&of(21), &[1, 63]);
    check_sizes(&of(32), &[1, 64, 32]);
    check_sizes(&of(33), &[2, 64, 35]);
    let many = contents(&pool_of(&of(257)), &ServerSupport::default());
    many.iter().for_each(check_valid);
    assert_eq!(&sizes(&many)[..3], [8, 1, 64]);
}

#[test]
fn names_of_slices_are_valid_however_long_the_nodes_name_is() {
    let long = NodeIdentity { name: "n".repeat(253), uid: node().uid };
    let name = slice_name(&long, 99_999);
    assert!(name.len() <= 63, "{name}");
    let [slice] = &slices(&long, &contents(&DraPool::default(), &ServerSupport::default()), 1)[..]
    else {
        panic!("one slice")
    };
    assert_eq!((slice.slice_count, slice.generation), (1, 1));
}

#[test]
fn a_models_name_that_is_too_long_for_an_attribute_is_cut() {
    let mut config = config(DraOffer::Board);
    let id = PciId { vendor: 0x1e3e, device: SINGLE };
    config.boards.models.insert(id, "m".repeat(200));
    check_sizes(&snapshot(singles(1), &config), &[1]);
}
