//! How far apart chips are, as one tree that the matrix and the allocator share.
//!
//! Machine (SYS) > NUMA node (NODE) > host bridge (PHB) > switches that join boards (PXB, PIX) >
//! board (INTE). The distance of two chips is that of the lowest group that holds both. A port is
//! PIX where every chip below it has at most one bridge in between (the switch's own downstream
//! port), PXB where some chip has more; so a port's distance depends on the tree alone and never
//! shrinks upwards. A board stands where the paths of its chips part, so a board that
//! configuration spread over two switches pulls its chips up to what they have in common.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::function::Function;
use crate::model::pci::{PciAddress, RootBus};
use crate::model::topology::{Distance, DistanceTree, Group, GroupKind};

/// A chip as the tree needs it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Address, ports above, root bus.
    pub function: &'a Function,
    /// Absent where it is not known.
    pub numa_node: Option<u32>,
}

/// The tree of boards, each given as its address and its chips.
#[must_use]
pub fn distance_tree(boards: &[(PciAddress, Vec<Place<'_>>)]) -> DistanceTree {
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
fn host_bridge_nodes(boards: &[(PciAddress, Vec<Place<'_>>)]) -> BTreeMap<RootBus, u32> {
    let mut seen: BTreeMap<RootBus, BTreeSet<u32>> = BTreeMap::new();
    for place in boards.iter().flat_map(|(_, chips)| chips) {
        if let (Some(root_bus), Some(node)) = (place.function.root_bus, place.numa_node) {
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
    chips: &'a [Place<'a>],
}

impl<'a> Anchor<'a> {
    fn of(address: PciAddress, chips: &'a [Place<'a>]) -> Self {
        let first = chips.first().map(|place| place.function);
        let root_bus = first.and_then(|function| function.root_bus).filter(|root_bus| {
            chips.iter().all(|place| place.function.root_bus == Some(*root_bus))
        });
        let paths: Vec<&[_]> = chips.iter().map(|place| &*place.function.ports).collect();
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
            let nodes: BTreeSet<_> = anchor.chips.iter().map(|place| place.numa_node).collect();
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
        let chips = anchor.chips.iter().map(|place| (place.function.address, group));
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

/// PIX where at most one bridge lies between any chip and the port at `depth`.
fn port_distance(depth: usize, boards: &[&Anchor<'_>]) -> Distance {
    let mut chips = boards.iter().flat_map(|board| board.chips);
    let several = chips.any(|place| place.function.ports.len() > depth + 1);
    if several { Distance::Pxb } else { Distance::Pix }
}
