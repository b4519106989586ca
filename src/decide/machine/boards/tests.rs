//! Boards of small scans.

use super::*;
use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN, at};

fn dual() -> BoardRules {
    let id = PciId { vendor: 0x1e3e, device: UNKNOWN };
    BoardRules { chips_per_board: [(id, 2)].into(), ..BoardRules::default() }
}

fn pair(chips: &[&str]) -> BoardRules {
    let pair = chips.iter().map(|chip| at(chip)).collect();
    BoardRules { pairs: vec![pair], ..BoardRules::default() }
}

/// `0000:14:00.0 0000:17:00.0 by own bridges`; with the board's id in front where it is not its
/// first chip's, and how many chips it should have where that is more.
fn shown(group: &ChipGroup) -> String {
    let chips = group.chips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!("{chips} by {}", group.evidence);
    if group.address != group.chips[0] {
        text = format!("{}: {text}", group.address);
    }
    if group.expected_chips != group.chips.len() {
        text.push_str(&format!(", of {}", group.expected_chips));
    }
    text
}

#[track_caller]
fn check(sample: ScanBuilder, rules: &BoardRules, boards: &[&str], notes: &[&str]) {
    let groups = assemble(&sample.scan(), rules);
    let shown: Vec<_> = groups.groups.iter().map(shown).collect();
    let details: Vec<_> = groups.notes.iter().map(|note| note.detail.clone()).collect();
    assert_eq!(
        (&*shown, &*details),
        (
            &*boards.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
            &*notes.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
        )
    );
}

#[track_caller]
fn check_boards(sample: ScanBuilder, boards: &[&str]) {
    check(sample, &BoardRules::default(), boards, &[]);
}

const SINGLES: &[&str] = &["0000:14:00.0 by single-chip", "0000:17:00.0 by single-chip"];

#[test]
fn two_chips_behind_their_own_bridges_alone_under_a_switch_are_a_board() {
    let sample = ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN);
    check_boards(sample, &["0000:14:00.0 0000:17:00.0 by own bridges"]);
}

#[test]
fn two_boards_under_one_external_switch_are_two() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0 01:00.0 02:00.0", 0x10, UNKNOWN)
        .dual_board("00:01.0 01:00.0 02:01.0", 0x20, UNKNOWN);
    check_boards(
        sample,
        &["0000:14:00.0 0000:17:00.0 by own bridges", "0000:24:00.0 0000:27:00.0 by own bridges"],
    );
}

#[test]
fn cards_right_below_one_switch_stay_boards_of_their_own() {
    let sample = ScanBuilder::default()
        .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
        .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN);
    check_boards(sample, &["0000:03:00.0 by single-chip", "0000:04:00.0 by single-chip"]);
}

#[test]
fn a_third_endpoint_under_the_switch_leaves_the_chips_alone() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .other("00:01.0 10:00.0 11:02.0 18:00.0");
    check_boards(sample, SINGLES);
}

#[test]
fn chips_of_two_ids_are_no_board() {
    let sample =
        ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN).with(|chip| chip.id.device = 9);
    check_boards(sample, SINGLES);
}

#[test]
fn a_model_of_one_chip_is_never_paired() {
    let sample = ScanBuilder::default().dual_board("00:01.0", 0x10, SINGLE).slot("1", "10:00.0");
    check_boards(sample, SINGLES);
}

#[test]
fn a_known_id_needs_no_bridges_of_its_own() {
    let sample = ScanBuilder::default()
        .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
        .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN);
    check(sample, &dual(), &["0000:03:00.0 0000:04:00.0 by device id"], &[]);
}

#[test]
fn two_functions_of_one_device_and_a_known_id_are_a_board() {
    let sample =
        ScanBuilder::default().chip("00:01.0 03:00.0", UNKNOWN).chip("00:01.0 03:00.1", UNKNOWN);
    check(sample, &dual(), &["0000:03:00.0 0000:03:00.1 by device id"], &[]);
}

#[test]
fn chips_in_one_slot_are_a_board() {
    let sample = ScanBuilder::default()
        .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
        .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN)
        .slot("7", "01:00.0");
    check_boards(sample, &["0000:03:00.0 0000:04:00.0 by same slot"]);
}

#[test]
fn different_slots_prove_different_boards() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .slot("1", "12:00.0")
        .slot("2", "15:00.0");
    check_boards(sample, SINGLES);
}

#[test]
fn a_riser_with_four_chips_in_one_slot_is_no_board() {
    let below = |port: u8| format!("00:01.0 01:00.0 02:{port:02x}.0 {:02x}:00.0", port + 3);
    let sample =
        (0..4).fold(ScanBuilder::default(), |sample, port| sample.chip(&below(port), UNKNOWN));
    let boards = [
        "0000:03:00.0 by single-chip",
        "0000:04:00.0 by single-chip",
        "0000:05:00.0 by single-chip",
        "0000:06:00.0 by single-chip",
    ];
    let note = "slot 0000:01:00 holds 4 chips of the unknown id 1e3e:0003 (0000:03:00.0, \
                0000:04:00.0, 0000:05:00.0, 0000:06:00.0); each counts by itself \
                until boards.chipsPerBoard or boards.pairs is set";
    check(sample.slot("7", "01:00.0"), &BoardRules::default(), &boards, &[note]);
}

#[test]
fn four_chips_of_a_dual_id_in_one_slot_are_half_boards_until_pairs_are_named() {
    let below = |port: u8| format!("00:01.0 01:00.0 02:{port:02x}.0 {:02x}:00.0", port + 3);
    let sample =
        (0..4).fold(ScanBuilder::default(), |sample, port| sample.chip(&below(port), UNKNOWN));
    let boards = ["03", "04", "05", "06"].map(|bus| format!("0000:{bus}:00.0 by device id, of 2"));
    let note = "boards of 1e3e:0003 have 2 chips, and nothing shows which of 0000:03:00.0, \
                0000:04:00.0, 0000:05:00.0, 0000:06:00.0 are on one board; each counts as half \
                a board until boards.pairs names them";
    let boards = boards.each_ref().map(String::as_str);
    check(sample.slot("7", "01:00.0"), &dual(), &boards, &[note]);
}

#[test]
fn configuration_is_stronger_than_slots() {
    let sample = ScanBuilder::default()
        .chip("00:01.0 03:00.0", UNKNOWN)
        .chip("00:02.0 04:00.0", UNKNOWN)
        .slot("1", "03:00.0")
        .slot("2", "04:00.0");
    let rules = pair(&["04:00.0", "03:00.0"]);
    check(sample, &rules, &["0000:03:00.0 0000:04:00.0 by configured"], &[]);
}

#[test]
fn a_configured_board_keeps_its_id_while_its_lower_chip_is_absent() {
    let sample = ScanBuilder::default().chip("00:02.0 04:00.0", UNKNOWN);
    let rules = pair(&["04:00.0", "03:00.0"]);
    check(sample, &rules, &["0000:03:00.0: 0000:04:00.0 by configured, of 2"], &[]);
}

#[test]
fn a_configured_board_without_any_chip_is_a_note() {
    let sample = ScanBuilder::default().chip("00:02.0 05:00.0", UNKNOWN);
    let note = "boards.pairs names 0000:03:00.0, 0000:04:00.0, but none of these chips is present";
    check(sample, &pair(&["03:00.0", "04:00.0"]), &["0000:05:00.0 by single-chip"], &[note]);
}

#[test]
fn with_pairing_off_only_configuration_counts() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .dual_board("00:02.0", 0x20, UNKNOWN)
        .slot("1", "10:00.0");
    let rules = BoardRules { pairing: Pairing::Off, ..pair(&["24:00.0", "27:00.0"]) };
    let boards = [
        "0000:14:00.0 by single-chip",
        "0000:17:00.0 by single-chip",
        "0000:24:00.0 0000:27:00.0 by configured",
    ];
    check(sample, &rules, &boards, &[]);
}

#[test]
fn a_board_of_a_known_id_whose_other_side_is_empty_is_half_a_board() {
    let sample = ScanBuilder::default()
        .chip("00:01.0 10:00.0 11:00.0 12:00.0 13:00.0 14:00.0", UNKNOWN)
        .port("00:01.0 10:00.0 11:01.0");
    check(sample, &dual(), &["0000:14:00.0 by device id, of 2"], &[]);
}

#[test]
fn a_lone_chip_of_a_known_id_in_a_slot_with_a_switch_is_half_a_board() {
    let sample = ScanBuilder::default()
        .chip("00:01.0 10:00.0 11:00.0 12:00.0", UNKNOWN)
        .slot("1", "10:00.0");
    check(sample, &dual(), &["0000:12:00.0 by device id, of 2"], &[]);
}

#[test]
fn a_lone_chip_of_a_known_id_is_half_a_board_though_its_switch_has_gone() {
    let sample = ScanBuilder::default().chip("00:01.0 10:00.0 11:00.0 12:00.0", UNKNOWN);
    check(sample, &dual(), &["0000:12:00.0 by device id, of 2"], &[]);
}

#[test]
fn a_lone_chip_whose_sibling_boards_are_whole_is_half_a_board() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .chip("00:02.0 20:00.0 21:00.0 22:00.0 23:00.0 24:00.0", UNKNOWN);
    let boards =
        ["0000:14:00.0 0000:17:00.0 by own bridges", "0000:24:00.0 by sibling boards, of 2"];
    check_boards(sample, &boards);
}

/// Two boards in one external switch, of which each lost the chip on its second side.
fn two_half_boards_under_one_switch() -> ScanBuilder {
    ScanBuilder::default()
        .chip("00:01.0 01:00.0 02:00.0 10:00.0 11:00.0 12:00.0 13:00.0 14:00.0", UNKNOWN)
        .port("00:01.0 01:00.0 02:00.0 10:00.0 11:01.0")
        .chip("00:01.0 01:00.0 02:01.0 20:00.0 21:00.0 22:00.0 23:00.0 24:00.0", UNKNOWN)
        .port("00:01.0 01:00.0 02:01.0 20:00.0 21:01.0")
}

#[test]
fn two_half_boards_under_one_external_switch_are_not_one_board() {
    let boards = ["0000:14:00.0 by device id, of 2", "0000:24:00.0 by device id, of 2"];
    check(two_half_boards_under_one_switch(), &dual(), &boards, &[]);
    let boards = ["0000:14:00.0 by single-chip", "0000:24:00.0 by single-chip"];
    check_boards(two_half_boards_under_one_switch(), &boards);
    let boards = [
        "0000:14:00.0 by sibling boards, of 2",
        "0000:24:00.0 by sibling boards, of 2",
        "0000:34:00.0 0000:37:00.0 by own bridges",
    ];
    let beside_a_whole = two_half_boards_under_one_switch().dual_board("00:02.0", 0x30, UNKNOWN);
    check_boards(beside_a_whole, &boards);
}

/// Otherwise two half boards would vouch for each other.
#[test]
fn several_lone_chips_beside_whole_boards_are_half_boards_each() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .chip("00:02.0 20:00.0 21:00.0 24:00.0", UNKNOWN)
        .slot("2", "20:00.0")
        .chip("00:03.0 30:00.0 31:00.0 34:00.0", UNKNOWN)
        .slot("3", "30:00.0");
    let boards = [
        "0000:14:00.0 0000:17:00.0 by own bridges",
        "0000:24:00.0 by sibling boards, of 2",
        "0000:34:00.0 by sibling boards, of 2",
    ];
    check_boards(sample, &boards);
}

#[test]
fn lone_chips_that_may_be_one_board_are_half_boards_and_a_note() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .chip("00:02.0 24:00.0", UNKNOWN)
        .chip("00:03.0 34:00.0", UNKNOWN);
    let boards = [
        "0000:14:00.0 0000:17:00.0 by own bridges",
        "0000:24:00.0 by sibling boards, of 2",
        "0000:34:00.0 by sibling boards, of 2",
    ];
    let note = "boards of 1e3e:0003 have 2 chips, and nothing shows which of 0000:24:00.0, \
                0000:34:00.0 are on one board; each counts as half a board until boards.pairs \
                names them";
    check(sample, &BoardRules::default(), &boards, &[note]);
}

#[test]
fn chips_of_another_id_have_no_sibling_boards() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .chip("00:02.0 20:00.0", 9)
        .chip("00:03.0 30:00.0", SINGLE);
    let boards = [
        "0000:14:00.0 0000:17:00.0 by own bridges",
        "0000:20:00.0 by single-chip",
        "0000:30:00.0 by single-chip",
    ];
    check_boards(sample, &boards);
}

#[test]
fn sibling_boards_that_differ_show_nothing() {
    let three = ["01:00.0", "02:00.0", "03:00.0"];
    let sample = three.iter().fold(ScanBuilder::default(), |sample, chip| {
        sample.chip(&format!("00:01.0 {chip}"), UNKNOWN)
    });
    let sample = sample.dual_board("00:02.0", 0x10, UNKNOWN).chip("00:03.0 30:00.0", UNKNOWN);
    let boards = [
        "0000:01:00.0 0000:02:00.0 0000:03:00.0 by configured",
        "0000:14:00.0 0000:17:00.0 by own bridges",
        "0000:30:00.0 by single-chip",
    ];
    check(sample, &pair(&three), &boards, &[]);
}

#[test]
fn a_configured_pair_shows_how_many_chips_its_sibling_boards_have() {
    let sample = ScanBuilder::default()
        .chip("00:01.0 03:00.0", UNKNOWN)
        .chip("00:02.0 04:00.0", UNKNOWN)
        .chip("00:03.0 05:00.0", UNKNOWN);
    let boards =
        ["0000:03:00.0 0000:04:00.0 by configured", "0000:05:00.0 by sibling boards, of 2"];
    check(sample, &pair(&["03:00.0", "04:00.0"]), &boards, &[]);
}

#[test]
fn a_board_that_another_driver_has_shows_how_many_chips_its_siblings_have() {
    let taken = |chip: &mut ChipFunction| chip.driver = Some("vfio-pci".to_owned());
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .with(taken)
        .chip("00:02.0 20:00.0", UNKNOWN);
    let boards =
        ["0000:14:00.0 0000:17:00.0 by own bridges", "0000:20:00.0 by sibling boards, of 2"];
    check_boards(sample, &boards);
}

#[test]
fn half_a_configured_board_shows_nothing_of_others() {
    let sample =
        ScanBuilder::default().chip("00:01.0 03:00.0", UNKNOWN).chip("00:02.0 05:00.0", UNKNOWN);
    let boards = ["0000:03:00.0 by configured, of 2", "0000:05:00.0 by single-chip"];
    check(sample, &pair(&["03:00.0", "04:00.0"]), &boards, &[]);
}

#[test]
fn one_chip_per_board_by_configuration_ends_every_doubt() {
    let id = PciId { vendor: 0x1e3e, device: UNKNOWN };
    let rules = BoardRules { chips_per_board: [(id, 1)].into(), ..pair(&["14:00.0", "17:00.0"]) };
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .chip("00:02.0 20:00.0", UNKNOWN);
    let boards = ["0000:14:00.0 0000:17:00.0 by configured", "0000:20:00.0 by single-chip"];
    check(sample, &rules, &boards, &[]);
}

#[test]
fn a_guests_chip_is_taken_as_it_is_whatever_its_siblings() {
    let sample =
        ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN).chip("00:06.0", UNKNOWN);
    let boards = ["0000:00:06.0 by single-chip", "0000:14:00.0 0000:17:00.0 by own bridges"];
    let note = "boards of 1e3e:0003 have 2 chips, but no port is above 0000:00:06.0, as in a \
                guest; it counts as a board of its own";
    check(sample, &BoardRules::default(), &boards, &[note]);
}

/// A guest sees no port above what was passed through, and each function has a slot.
#[test]
fn chips_right_on_a_root_bus_are_not_half_boards() {
    let sample = ScanBuilder::default()
        .chip("00:06.0", UNKNOWN)
        .chip("00:07.0", UNKNOWN)
        .slot("6", "00:06.0")
        .slot("7", "00:07.0");
    let boards = ["0000:00:06.0 by single-chip", "0000:00:07.0 by single-chip"];
    let note = |chip| {
        format!(
            "boards of 1e3e:0003 have 2 chips, but no port is above 0000:00:{chip}, as in a \
             guest; it counts as a board of its own"
        )
    };
    check(sample, &dual(), &boards, &[&note("06.0"), &note("07.0")]);
}

#[test]
fn virtual_functions_are_neither_chips_nor_company() {
    let sample = ScanBuilder::default()
        .dual_board("00:01.0", 0x10, UNKNOWN)
        .chip("00:01.0 10:00.0 11:01.0 15:00.0 16:00.0 17:00.1", UNKNOWN)
        .with(|chip| chip.virtual_of = Some(at("17:00.0")));
    check_boards(sample, &["0000:14:00.0 0000:17:00.0 by own bridges"]);
}

#[test]
fn the_same_numbers_in_two_domains_are_two_boards() {
    let sample = ScanBuilder::default()
        .chip("10000:e0:01.0 10000:e1:00.0", SINGLE)
        .chip("20000:e0:01.0 20000:e1:00.0", SINGLE);
    check_boards(sample, &["10000:e1:00.0 by single-chip", "20000:e1:00.0 by single-chip"]);
}
