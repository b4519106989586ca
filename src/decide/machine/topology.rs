//! How far apart chips are, as one tree that the matrix and the allocator share.
//!
//! Machine (SYS) > NUMA node (NODE) > host bridge (PHB) > switches that join boards (PXB, PIX) >
//! board (INTE). The distance of two chips is that of the lowest group that holds both. A port is
//! PIX where every chip below it has at most one bridge in between (the switch's own downstream
//! port), PXB where some chip has more; so a port's distance depends on the tree alone and never
//! shrinks upwards. A board is placed where the paths of its chips part, so a board that
//! configuration spread over two switches pulls its chips up to what they have in common.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::function::Function;
use crate::model::pci::{PciAddress, RootBus};
use crate::model::topology::{Distance, DistanceTree, Group, GroupKind};

/// A chip as the tree needs it.
#[derive(Clone, Copy, Debug)]
pub struct ChipPosition<'a> {
    /// Address, ports above, root bus.
    pub function: &'a Function,
    /// Absent where it is not known.
    pub numa_node: Option<u32>,
}

/// The tree of boards, each given as its address and its chips.
#[must_use]
pub fn distance_tree(boards: &[(PciAddress, Vec<ChipPosition<'_>>)]) -> DistanceTree {
    let mut builder = Builder::new(host_bridge_nodes(boards));
    let mut below: BTreeMap<Option<RootBus>, Vec<Anchor<'_>>> = BTreeMap::new();
    for (address, chips) in boards {
        let anchor = Anchor::of(*address, chips);
        below.entry(anchor.root_bus).or_default().push(anchor);
    }
    for (root_bus, anchors) in below {
        match root_bus {
            Some(root_bus) => {
                let bridge = builder.host_bridge(root_bus);
                builder.add_ports(bridge, 0, &anchors.iter().collect::<Vec<_>>());
            }
            None => builder.add_loose(&anchors),
        }
    }
    builder.tree
}

/// The NUMA node of each host bridge: what its chips agree on; none where they do not.
fn host_bridge_nodes(boards: &[(PciAddress, Vec<ChipPosition<'_>>)]) -> BTreeMap<RootBus, u32> {
    let mut seen: BTreeMap<RootBus, BTreeSet<u32>> = BTreeMap::new();
    for position in boards.iter().flat_map(|(_, chips)| chips) {
        if let (Some(root_bus), Some(node)) = (position.function.root_bus, position.numa_node) {
            seen.entry(root_bus).or_default().insert(node);
        }
    }
    let agreed = seen.into_iter().filter(|(_, nodes)| nodes.len() == 1);
    agreed.filter_map(|(root_bus, nodes)| Some((root_bus, nodes.into_iter().next()?))).collect()
}

/// A board and the ports that all of its chips have above them.
struct Anchor<'a> {
    address: PciAddress,
    root_bus: Option<RootBus>,
    ports: Vec<PciAddress>,
    chips: &'a [ChipPosition<'a>],
}

impl<'a> Anchor<'a> {
    fn of(address: PciAddress, chips: &'a [ChipPosition<'a>]) -> Self {
        let first = chips.first().map(|position| position.function);
        let root_bus = first.and_then(|function| function.root_bus).filter(|root_bus| {
            chips.iter().all(|position| position.function.root_bus == Some(*root_bus))
        });
        let paths: Vec<&[_]> = chips.iter().map(|position| &*position.function.ports).collect();
        let ports = common_prefix(&paths).to_vec();
        Self { address, root_bus, ports, chips }
    }
}

struct Builder {
    tree: DistanceTree,
    numa_nodes: BTreeMap<u32, usize>,
    bridge_nodes: BTreeMap<RootBus, u32>,
}

impl Builder {
    fn new(bridge_nodes: BTreeMap<RootBus, u32>) -> Self {
        let machine = Group { kind: GroupKind::Machine, distance: Distance::Sys, parent: None };
        let tree = DistanceTree { groups: vec![machine], chips: BTreeMap::new() };
        Self { tree, numa_nodes: BTreeMap::new(), bridge_nodes }
    }

    fn add(&mut self, parent: usize, kind: GroupKind, distance: Distance) -> usize {
        self.tree.groups.push(Group { kind, distance, parent: Some(parent) });
        self.tree.groups.len() - 1
    }

    fn numa_node(&mut self, node: u32) -> usize {
        if let Some(group) = self.numa_nodes.get(&node) {
            return *group;
        }
        let group = self.add(0, GroupKind::NumaNode(node), Distance::Node);
        self.numa_nodes.insert(node, group);
        group
    }

    fn host_bridge(&mut self, root_bus: RootBus) -> usize {
        let parent = match self.bridge_nodes.get(&root_bus).copied() {
            Some(node) => self.numa_node(node),
            None => 0,
        };
        self.add(parent, GroupKind::HostBridge(root_bus), Distance::Phb)
    }

    /// Boards whose chips share no root bus: below their NUMA node if they agree on one.
    fn add_loose(&mut self, anchors: &[Anchor<'_>]) {
        for anchor in anchors {
            let nodes: BTreeSet<_> =
                anchor.chips.iter().map(|position| position.numa_node).collect();
            let parent = match nodes.first().copied().flatten() {
                Some(node) if nodes.len() == 1 => self.numa_node(node),
                _ => 0,
            };
            self.add_board(parent, anchor);
        }
    }

    /// Adds boards, which have their first `depth` ports in common, below `parent`; a port becomes
    /// a group only where boards part.
    fn add_ports(&mut self, parent: usize, depth: usize, boards: &[&Anchor<'_>]) {
        let mut by_port: BTreeMap<Option<PciAddress>, Vec<&Anchor<'_>>> = BTreeMap::new();
        for board in boards {
            by_port.entry(board.ports.get(depth).copied()).or_default().push(board);
        }
        for (port, boards) in by_port {
            if port.is_none() || boards.len() == 1 {
                for board in boards {
                    self.add_board(parent, board);
                }
            } else {
                self.add_switch(parent, &boards);
            }
        }
    }

    /// Adds the deepest port that all of these boards have above them, and them below it.
    fn add_switch(&mut self, parent: usize, boards: &[&Anchor<'_>]) {
        let paths: Vec<&[_]> = boards.iter().map(|board| &*board.ports).collect();
        let path = common_prefix(&paths);
        let Some(port) = path.last() else { return };
        let distance = port_distance(path.len(), boards);
        let group = self.add(parent, GroupKind::Port(*port), distance);
        self.add_ports(group, path.len(), boards);
    }

    fn add_board(&mut self, parent: usize, anchor: &Anchor<'_>) {
        let group = self.add(parent, GroupKind::Board(anchor.address), Distance::Inte);
        let chips = anchor.chips.iter().map(|position| (position.function.address, group));
        self.tree.chips.extend(chips);
    }
}

/// The ports that all of these paths begin with.
fn common_prefix<'a>(paths: &[&'a [PciAddress]]) -> &'a [PciAddress] {
    let Some((first, others)) = paths.split_first() else { return &[] };
    let shared = |path: &&[PciAddress]| {
        first.iter().zip(*path).take_while(|(one, other)| one == other).count()
    };
    &first[..others.iter().map(shared).min().unwrap_or(first.len())]
}

/// PIX where at most one bridge is between any chip and the port at `depth`.
fn port_distance(depth: usize, boards: &[&Anchor<'_>]) -> Distance {
    let mut chips = boards.iter().flat_map(|board| board.chips);
    let several = chips.any(|position| position.function.ports.len() > depth + 1);
    if several { Distance::Pxb } else { Distance::Pix }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::scan_builder::{ScanBuilder, UNKNOWN, at};

    /// The tree where every chip is a board of its own; `numa` is each chip's node by bus order.
    fn tree_of(sample: ScanBuilder, numa: &[Option<u32>]) -> DistanceTree {
        let scan = sample.scan();
        let boards: Vec<_> = scan
            .chips
            .iter()
            .zip(numa)
            .map(|(chip, numa_node)| {
                let position = ChipPosition { function: &chip.function, numa_node: *numa_node };
                (chip.function.address, vec![position])
            })
            .collect();
        distance_tree(&boards)
    }

    #[track_caller]
    fn check(tree: &DistanceTree, one: &str, other: &str, expected: Distance) {
        assert_eq!(tree.distance(at(one), at(other)), Some(expected), "{one} {other}");
    }

    #[test]
    fn distances_have_the_usual_names() {
        let sample = ScanBuilder::default()
            .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
            .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN)
            .chip("00:01.0 01:00.0 02:02.0 05:00.0 06:00.0 07:00.0", UNKNOWN)
            .chip("00:02.0 10:00.0", UNKNOWN)
            .chip("20:01.0 21:00.0", UNKNOWN)
            .chip("80:01.0 81:00.0", UNKNOWN);
        let tree = tree_of(sample, &[Some(0), Some(0), Some(0), Some(0), Some(0), Some(1)]);
        check(&tree, "03:00.0", "07:00.0", Distance::Pxb);
        check(&tree, "03:00.0", "10:00.0", Distance::Phb);
        check(&tree, "03:00.0", "21:00.0", Distance::Node);
        check(&tree, "03:00.0", "81:00.0", Distance::Sys);
        assert_eq!(tree.distance(at("03:00.0"), at("03:00.0")), None);
        assert_eq!(tree.distance(at("03:00.0"), at("99:00.0")), None);
    }

    #[test]
    fn chips_right_below_one_switch_are_one_bridge_apart() {
        let sample = ScanBuilder::default()
            .chip("00:01.0 01:00.0 02:00.0 03:00.0", UNKNOWN)
            .chip("00:01.0 01:00.0 02:01.0 04:00.0", UNKNOWN);
        check(&tree_of(sample, &[None, None]), "03:00.0", "04:00.0", Distance::Pix);
    }

    #[test]
    fn without_a_numa_node_host_bridges_meet_at_the_machine() {
        let two = || {
            ScanBuilder::default().chip("00:01.0 01:00.0", UNKNOWN).chip("20:01.0 21:00.0", UNKNOWN)
        };
        check(&tree_of(two(), &[None, None]), "01:00.0", "21:00.0", Distance::Sys);
        check(&tree_of(two(), &[Some(0), None]), "01:00.0", "21:00.0", Distance::Sys);
        check(&tree_of(two(), &[Some(0), Some(0)]), "01:00.0", "21:00.0", Distance::Node);
    }

    #[test]
    fn the_same_bus_in_two_domains_is_two_host_bridges() {
        let sample = ScanBuilder::default()
            .chip("10000:e0:01.0 10000:e1:00.0", UNKNOWN)
            .chip("20000:e0:01.0 20000:e1:00.0", UNKNOWN);
        check(&tree_of(sample, &[None, None]), "10000:e1:00.0", "20000:e1:00.0", Distance::Sys);
    }

    #[test]
    fn the_chips_of_a_configured_board_are_together_wherever_they_sit() {
        let scan = ScanBuilder::default()
            .chip("00:01.0 01:00.0", UNKNOWN)
            .chip("80:01.0 81:00.0", UNKNOWN)
            .scan();
        let functions = scan.chips.iter().map(|chip| &chip.function);
        let chips = functions.map(|function| ChipPosition { function, numa_node: None }).collect();
        let tree = distance_tree(&[(at("01:00.0"), chips)]);
        check(&tree, "01:00.0", "81:00.0", Distance::Inte);
    }

    /// A chip: its root bus, the turns taken down to it, its NUMA node, and which board has it.
    type Spot = (u8, Vec<u8>, Option<u32>, usize);

    fn spots() -> impl Strategy<Value = Vec<Spot>> {
        let turns = proptest::collection::vec(0..3_u8, 0..5);
        let numa_node = prop_oneof![Just(None), (0..3_u32).prop_map(Some)];
        proptest::collection::vec((0..3_u8, turns, numa_node, 0..12_usize), 1..16)
    }

    /// Chips whose ports are named by the turns that lead to them, so that equal prefixes are equal
    /// ports; a chip's own number makes its address unique.
    fn function((number, (root, turns, ..)): (usize, &Spot)) -> Function {
        let port = |depth: usize| {
            let code = turns[..depth].iter().fold(1_u32, |code, turn| code * 4 + u32::from(*turn));
            PciAddress { domain: code, bus: *root, device: 0, function: 0 }
        };
        let own = u32::try_from(number).unwrap();
        Function {
            address: PciAddress { domain: 0x10_0000 + own, bus: *root, device: 1, function: 0 },
            ports: (1..=turns.len()).map(port).collect(),
            root_bus: (*root < 2).then_some(RootBus { domain: 0, bus: *root }),
            kind: crate::model::function::FunctionKind::Endpoint,
        }
    }

    proptest! {
        #[test]
        fn the_tree_keeps_its_invariants(spots in spots()) {
            let functions: Vec<_> = spots.iter().enumerate().map(function).collect();
            let mut by_board: BTreeMap<usize, Vec<ChipPosition<'_>>> = BTreeMap::new();
            for (function, (_, _, numa_node, board)) in functions.iter().zip(&spots) {
                by_board.entry(*board).or_default().push(ChipPosition { function, numa_node: *numa_node });
            }
            let boards: Vec<_> =
                by_board.into_values().map(|chips| (chips[0].function.address, chips)).collect();
            let tree = distance_tree(&boards);

            prop_assert_eq!(tree.groups[0].parent, None);
            for (index, group) in tree.groups.iter().enumerate().skip(1) {
                let parent = group.parent.expect("only the machine has none");
                prop_assert!(parent < index);
                prop_assert!(group.distance <= tree.groups[parent].distance);
            }
            let chips: Vec<_> = functions.iter().map(|function| function.address).collect();
            prop_assert_eq!(tree.chips.len(), chips.len());
            let distance = |one: PciAddress, other: PciAddress| tree.distance(one, other);
            for a in &chips {
                for b in &chips {
                    prop_assert_eq!(distance(*a, *b), distance(*b, *a));
                    prop_assert_eq!(distance(*a, *b).is_none(), a == b);
                    for c in &chips {
                        prop_assert!(distance(*a, *c) <= distance(*a, *b).max(distance(*b, *c)));
                    }
                }
            }
            for (_, positions) in &boards {
                for pair in positions.windows(2) {
                    let (one, other) = (pair[0].function.address, pair[1].function.address);
                    prop_assert_eq!(distance(one, other), Some(Distance::Inte));
                }
            }
        }
    }
}
