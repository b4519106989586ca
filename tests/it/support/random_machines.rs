//! Random plans of machines, and random damage to a machine.

use ix_device_plugin::model::machine::{Entry, Machine};
use proptest::prelude::*;
use proptest::sample::Index;

use super::machines::{Above, CardPlan, ChipPlan, NodesPlan, NumaPlan, Plan, RootBusPlan};

/// Attributes of a chip that may hold nonsense.
const ATTRIBUTES: [&str; 8] = [
    "vendor",
    "device",
    "class",
    "numa_node",
    "config",
    "current_link_speed",
    "max_link_width",
    "uevent",
];

/// Up to four root buses with up to two cards each.
pub(crate) fn plans() -> impl Strategy<Value = Plan> {
    let root_buses = proptest::collection::vec(root_bus(), 0..=4).prop_map(number_buses);
    let nodes =
        prop_oneof![Just(NodesPlan::Child), Just(NodesPlan::Class), Just(NodesPlan::Nowhere)];
    (root_buses, nodes, 1..3_u32, any::<bool>()).prop_map(
        |(root_buses, nodes, minor_step, control_node)| Plan {
            root_buses,
            nodes,
            minor_step,
            control_node,
        },
    )
}

/// No two root buses share bus numbers, and no two slots a name.
fn number_buses(mut root_buses: Vec<RootBusPlan>) -> Vec<RootBusPlan> {
    let first_buses = (0..=u8::MAX).step_by(0x30);
    for (number, (root_bus, first)) in root_buses.iter_mut().zip(first_buses).enumerate() {
        root_bus.first_bus = first;
        for (card, plan) in root_bus.cards.iter_mut().enumerate() {
            if let Some(slot) = &mut plan.slot {
                *slot = format!("{number}-{card}");
            }
        }
    }
    root_buses
}

fn root_bus() -> impl Strategy<Value = RootBusPlan> {
    let domain = prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(0x10000)];
    let numa = prop_oneof![
        (0..3_u32).prop_map(NumaPlan::Chips),
        (0..3_u32).prop_map(NumaPlan::Ports),
        Just(NumaPlan::Nothing),
    ];
    let above = prop_oneof![Just(Above::RootPorts), Just(Above::Switch), Just(Above::Nothing)];
    (domain, numa, above, proptest::collection::vec(card(), 1..=2)).prop_map(
        |(domain, numa, above, cards)| RootBusPlan { domain, first_bus: 0, numa, above, cards },
    )
}

fn card() -> impl Strategy<Value = CardPlan> {
    let chips = proptest::collection::vec(chip(), 1..=2);
    let device_id = prop_oneof![Just(2_u16), Just(3), Just(4)];
    (any::<bool>(), device_id, chips, any::<bool>(), proptest::bool::weighted(0.2)).prop_map(
        |(slot, device_id, chips, own_bridges, company)| CardPlan {
            slot: slot.then(String::new),
            device_id,
            chips,
            own_bridges,
            company,
        },
    )
}

fn chip() -> impl Strategy<Value = ChipPlan> {
    let driver = prop_oneof![
        8 => Just(Some("iluvatar")),
        1 => Just(Some("vfio-pci")),
        1 => Just(None),
    ];
    let odd = (proptest::sample::select(&ATTRIBUTES), odd_bytes());
    let odd = prop_oneof![6 => Just(None), 1 => odd.prop_map(Some)];
    (driver, prop_oneof![5 => Just(0), 1 => 1..3_u8], odd)
        .prop_map(|(driver, virtual_functions, odd)| ChipPlan { driver, virtual_functions, odd })
}

/// Empty, truncated, binary, or text of the wrong kind; what is too long to read is a case of its
/// own, for no file can say "unreadable".
fn odd_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"0x".to_vec()),
        Just(b"0x1e3".to_vec()),
        Just(vec![0xff; 64]),
        "[ -~]{0,12}\n?".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

/// One piece of damage to a machine.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Overwrite(Index, Vec<u8>),
    Remove(Index),
    Redirect(Index, Index),
    Directory(Index),
    Lengthen(Index),
}

pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<Index>;
    let damage = prop_oneof![
        (index(), odd_bytes()).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        index().prop_map(Damage::Remove),
        (index(), index()).prop_map(|(at, to)| Damage::Redirect(at, to)),
        index().prop_map(Damage::Directory),
        index().prop_map(Damage::Lengthen),
    ];
    proptest::collection::vec(damage, 1..8)
}

impl Damage {
    /// Does the damage; nothing, where the machine has nothing of that kind left.
    pub(crate) fn strike(&self, machine: &mut Machine) {
        match self {
            Self::Overwrite(at, bytes) => with_file(machine, *at, |machine, path| {
                machine.insert(path, Entry::File(bytes.clone()));
            }),
            Self::Lengthen(at) => with_file(machine, *at, |machine, path| {
                machine.insert(path, Entry::File(vec![b'7'; 9000]));
            }),
            Self::Directory(at) => with_file(machine, *at, |machine, path| {
                machine.remove(path);
                machine.insert(path, Entry::Directory);
            }),
            Self::Remove(at) => {
                let paths = paths(machine, |_| true);
                if !paths.is_empty() {
                    machine.remove(at.get::<String>(&paths));
                }
            }
            Self::Redirect(at, to) => redirect(machine, *at, *to),
        }
    }
}

fn with_file(machine: &mut Machine, at: Index, strike: impl Fn(&mut Machine, &str)) {
    let files = paths(machine, |entry| matches!(entry, Entry::File(_)));
    if !files.is_empty() {
        strike(machine, at.get::<String>(&files));
    }
}

/// Lets a link lead to any other path.
fn redirect(machine: &mut Machine, at: Index, to: Index) {
    let links = paths(machine, |entry| matches!(entry, Entry::Link(_)));
    let targets = paths(machine, |_| true);
    if !links.is_empty() {
        let link = at.get(&links);
        let up = "../".repeat(link.split('/').count() - 1);
        let target = format!("{up}{}", to.get(&targets));
        machine.insert(link, Entry::Link(target));
    }
}

fn paths(machine: &Machine, wanted: impl Fn(&Entry) -> bool) -> Vec<String> {
    let entries = machine.iter().filter(|(_, entry)| wanted(entry));
    entries.map(|(path, _)| path.to_owned()).collect()
}
