//! Nodes to choose devices from, and numbers that are random in the same way every time.

use std::collections::BTreeMap;

use ix_device_plugin::decide::allocation::prefer::DeviceSupply;
use ix_device_plugin::model::config::Sharing;
use ix_device_plugin::model::device::{Device, DeviceId};
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::pci::{PciAddress, RootBus};
use ix_device_plugin::model::topology::{Distance, DistanceTree, Group, GroupKind};

/// Split boards: each chip is a device.
pub(crate) struct Node {
    pub(crate) tree: DistanceTree,
    pub(crate) devices: Vec<Device>,
    pub(crate) sharing: Option<Sharing>,
}

impl Node {
    /// Boards of two chips, two boards below a switch, two switches below a host bridge, each
    /// in a NUMA node of its own. With 16 chips: the node of eight BI-V150.
    pub(crate) fn of_boards(chips: usize) -> Self {
        Self::with_addresses(chips, |index| index)
    }

    /// The same node, the address of each chip (of its index) being another one's.
    pub(crate) fn with_addresses(chips: usize, place: impl Fn(usize) -> usize) -> Self {
        let mut node = Self::flat(0);
        let (mut bridge, mut switch, mut board) = (0, 0, 0);
        for index in 0..chips {
            let own = address(place(index));
            if index % 8 == 0 {
                let number = u32::try_from(index / 8).expect("few NUMA nodes");
                let numa = node.group(GroupKind::NumaNode(number), Distance::Node, 0);
                let root = RootBus { domain: number, bus: 0 };
                bridge = node.group(GroupKind::HostBridge(root), Distance::Phb, numa);
            }
            if index % 4 == 0 {
                switch = node.group(GroupKind::Port(own), Distance::Pxb, bridge);
            }
            if index % 2 == 0 {
                board = node.group(GroupKind::Board(own), Distance::Inte, switch);
            }
            node.device(own, board);
        }
        node
    }

    /// All chips side by side in the machine.
    pub(crate) fn flat(chips: usize) -> Self {
        let machine = Group { kind: GroupKind::Machine, distance: Distance::Sys, parent: None };
        let mut node = Self {
            tree: DistanceTree { groups: vec![machine], chips: BTreeMap::new() },
            devices: Vec::new(),
            sharing: None,
        };
        for index in 0..chips {
            node.device(address(index), 0);
        }
        node
    }

    pub(crate) fn supply(&self) -> DeviceSupply<'_> {
        DeviceSupply { tree: &self.tree, devices: &self.devices, sharing: self.sharing }
    }

    fn group(&mut self, kind: GroupKind, distance: Distance, parent: usize) -> usize {
        self.tree.groups.push(Group { kind, distance, parent: Some(parent) });
        self.tree.groups.len() - 1
    }

    fn device(&mut self, address: PciAddress, group: usize) {
        self.tree.chips.insert(address, group);
        self.devices.push(Device {
            id: DeviceId::whole(address),
            chips: vec![address],
            nodes: Vec::new(),
            health: Health::Healthy,
            reasons: Vec::new(),
            awaits_kubelet: false,
            numa_nodes: Vec::new(),
        });
    }
}

fn address(index: usize) -> PciAddress {
    PciAddress {
        domain: u32::try_from(index / 256).expect("few chips"),
        bus: u8::try_from(index % 256).expect("below 256"),
        device: 0,
        function: 0,
    }
}

/// Random numbers, the same in every run (Steele, Lea, Flood: `SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number from 0 to below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % end as u64).expect("below a usize")
    }

    /// Puts items into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
