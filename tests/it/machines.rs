//! Laws of discovery over generated machines.

use std::collections::BTreeMap;

use ix_device_plugin::decide::node::state::snapshot_of;
use ix_device_plugin::host::files::unpack;
use ix_device_plugin::host::root::Root;
use ix_device_plugin::host::sysfs::{Detail, capture};
use ix_device_plugin::model::board::{Board, Evidence};
use ix_device_plugin::model::config::{BoardRules, Config, Pairing};
use ix_device_plugin::model::health::{Health, ReasonCode};
use ix_device_plugin::model::inventory::Inventory;
use ix_device_plugin::model::machine::Machine;
use ix_device_plugin::model::pci::{PciAddress, PciId};
use ix_device_plugin::parse::node_file::{parse_node_file, write_node_file};
use ix_device_plugin::parse::sysfs::parse_sysfs_scan;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::fixtures::scan_of;
use crate::support::machines::Plan;
use crate::support::random_machines::{damages, plans};

/// A machine on disk, for as long as this lives.
struct Unpacked {
    root: Root,
    _directory: TempDir,
}

impl Unpacked {
    fn new(machine: &Machine) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        unpack(machine, directory.path()).expect("the machine can be made");
        let root = Root::open(directory.path()).expect("it is there");
        Self { root, _directory: directory }
    }
}

fn inventory_of(machine: &Machine, config: &Config) -> Inventory {
    scan_of(&Unpacked::new(machine).root, config).expect("the bus is there")
}

/// How many chips a board of the generator's device id 4 has, and whether boards are looked for.
fn configs() -> impl Strategy<Value = Config> {
    (any::<bool>(), any::<bool>()).prop_map(|(dual, off)| {
        let id = PciId { vendor: 0x1e3e, device: 4 };
        let boards = BoardRules {
            pairing: if off { Pairing::Off } else { Pairing::Auto },
            chips_per_board: dual.then_some((id, 2)).into_iter().collect(),
            ..BoardRules::default()
        };
        Config { boards, ..Config::default() }
    })
}

/// How often each address is a chip of a board or skipped.
fn mentions(inventory: &Inventory) -> BTreeMap<PciAddress, usize> {
    let of_boards = inventory.boards.iter().flat_map(|board| &board.chips).map(|chip| chip.address);
    let mut mentions = BTreeMap::new();
    for address in of_boards.chain(inventory.skipped.iter().map(|skipped| skipped.address)) {
        *mentions.entry(address).or_default() += 1;
    }
    mentions
}

/// What holds for every inventory, however odd the machine.
fn check_shape(inventory: &Inventory) -> Result<(), TestCaseError> {
    for (address, count) in mentions(inventory) {
        prop_assert_eq!(count, 1, "{}", address);
    }
    prop_assert!(inventory.boards.is_sorted_by(|one, next| one.address < next.address));
    prop_assert!(inventory.skipped.is_sorted());
    for board in &inventory.boards {
        prop_assert!(!board.chips.is_empty());
        prop_assert!(board.chips.is_sorted_by(|one, next| one.address < next.address));
        prop_assert!(board.chips.len() <= board.expected_chips);
        prop_assert!(board.numa_nodes.is_sorted_by(|one, next| one < next));
    }
    let in_tree: Vec<_> = inventory.tree.chips.keys().copied().collect();
    let chips: Vec<_> = inventory.chips().iter().map(|chip| chip.address).collect();
    prop_assert_eq!(in_tree, chips);
    Ok(())
}

#[test]
fn each_two_chips_of_a_generated_machine_of_dual_boards_are_one() {
    let (machine, chips) = Plan::of_dual_boards(16).build();
    let inventory = inventory_of(&machine, &Config::default());
    let pairs: Vec<_> = inventory
        .boards
        .iter()
        .map(|board| board.chips.iter().map(|chip| chip.address).collect::<Vec<_>>())
        .collect();
    assert_eq!(pairs, chips.chunks(2).map(<[_]>::to_vec).collect::<Vec<_>>());
    assert!(inventory.boards.iter().all(|board| board.evidence == Evidence::Bridges));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_of_a_machine_is_scanned_as_the_machine_is(plan in plans(), config in configs()) {
        let (machine, _) = plan.build();
        let source = Unpacked::new(&machine);
        let scanned = scan_of(&source.root, &config).unwrap();
        let snapshot = capture(&source.root, &config.discovery, Detail::Snapshot).unwrap().machine;
        let copy = parse_node_file(&write_node_file(&snapshot)).unwrap();
        prop_assert_eq!(inventory_of(&copy, &config), scanned);
    }

    #[test]
    fn no_damage_panics_or_counts_a_chip_twice(
        plan in plans(),
        config in configs(),
        damages in damages(),
    ) {
        let (mut machine, _) = plan.build();
        for damage in &damages {
            damage.strike(&mut machine);
        }
        let damaged = Unpacked::new(&machine);
        if let Ok(inventory) = scan_of(&damaged.root, &config) {
            check_shape(&inventory)?;
        }
        if let Ok(snapshot) = capture(&damaged.root, &config.discovery, Detail::Snapshot) {
            let text = write_node_file(&snapshot.machine);
            prop_assert!(parse_node_file(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn damage_to_one_chip_hides_no_other(plan in plans(), damages in damages()) {
        let (machine, chips) = plan.build();
        let mut damaged = machine.clone();
        let victim = damages.len();
        prop_assume!(victim < chips.len());
        let at = format!("/{}/", chips[victim]);
        let files: Vec<_> = machine.iter().filter(|(path, _)| path.contains(&at)).collect();
        for (path, _) in files {
            damaged.remove(path);
        }
        let before = mentions(&inventory_of(&machine, &Config::default()));
        let after = mentions(&inventory_of(&damaged, &Config::default()));
        for chip in chips.iter().filter(|chip| **chip != chips[victim]) {
            prop_assert_eq!(after.get(chip), before.get(chip), "{}", chip);
        }
    }
}

/// How many chips a board of this id has, by configuration or by the boards that are whole.
fn chips_per_board(id: PciId, inventory: &Inventory, config: &Config) -> Option<usize> {
    let whole = |board: &&Board| board.chips.len() == board.expected_chips;
    let of_id = |board: &&Board| board.expected_chips > 1 && board.chips[0].id == id;
    let shown = inventory.boards.iter().filter(whole).find(of_id).map(|board| board.chips.len());
    config.boards.chips_per_board.get(&id).copied().or(shown)
}

proptest! {
    #[test]
    fn no_lone_chip_behind_ports_is_healthy_where_boards_of_its_id_have_more(
        plan in plans(),
        config in configs(),
    ) {
        prop_assume!(config.boards.pairing == Pairing::Auto);
        let (machine, _) = plan.build();
        let inventory = snapshot_of(parse_sysfs_scan(&machine, &config.discovery), &config).inventory.clone();
        let has_ports = |chip: PciAddress| {
            let mut functions = inventory.functions.iter();
            functions.any(|it| it.address == chip && !it.ports.is_empty())
        };
        for board in inventory.boards.iter().filter(|board| has_ports(board.chips[0].address)) {
            let expected = chips_per_board(board.chips[0].id, &inventory, &config);
            if expected.is_some_and(|expected| board.chips.len() < expected) {
                prop_assert_eq!(board.health, Health::Unhealthy, "{:?}", board);
                prop_assert_eq!(Some(board.expected_chips), expected);
                prop_assert!(board.reasons.iter().any(|it| it.code == ReasonCode::ChipMissing));
            }
        }
    }

    #[test]
    fn every_physical_chip_is_on_one_board_or_skipped(plan in plans(), config in configs()) {
        let (machine, chips) = plan.build();
        let inventory = snapshot_of(parse_sysfs_scan(&machine, &config.discovery), &config).inventory.clone();
        check_shape(&inventory)?;
        let mentions = mentions(&inventory);
        let odd_vendors = plan
            .root_buses
            .iter()
            .flat_map(|root_bus| &root_bus.cards)
            .flat_map(|card| &card.chips)
            .map(|chip| matches!(chip.odd, Some(("vendor" | "class", _))));
        for (chip, odd_vendor) in chips.iter().zip(odd_vendors) {
            // A vendor or a class that reads as another makes it no chip of ours.
            prop_assert!(odd_vendor || mentions.contains_key(chip), "{}", chip);
        }
    }
}
