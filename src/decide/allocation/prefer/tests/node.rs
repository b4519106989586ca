//! Small nodes to choose from.

use crate::decide::allocation::prefer::{Choice, DeviceSupply, PreferenceRequest, prefer};
use crate::model::config::{Sharing, SharingPolicy};
use crate::model::device::{Device, DeviceId};
use crate::model::health::Health;
use crate::model::pci::{PciAddress, RootBus};
use crate::model::topology::{Distance, DistanceTree, Group, GroupKind};

/// A distance tree, the devices in it, and how they are shared.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) tree: DistanceTree,
    pub(super) devices: Vec<Device>,
    pub(super) sharing: Option<Sharing>,
}

impl Node {
    /// A machine without devices.
    pub(super) fn new() -> Self {
        let machine = Group { kind: GroupKind::Machine, distance: Distance::Sys, parent: None };
        Self {
            tree: DistanceTree { groups: vec![machine], chips: std::collections::BTreeMap::new() },
            devices: Vec::new(),
            sharing: None,
        }
    }

    pub(super) fn shared(mut self, replicas: u32, policy: SharingPolicy) -> Self {
        self.sharing = Some(Sharing { replicas, fail_requests_greater_than_one: false, policy });
        self
    }

    pub(super) fn group(&mut self, kind: GroupKind, distance: Distance, parent: usize) -> usize {
        self.tree.groups.push(Group { kind, distance, parent: Some(parent) });
        self.tree.groups.len() - 1
    }

    pub(super) fn device(&mut self, address: PciAddress, group: Option<usize>) {
        if let Some(group) = group {
            self.tree.chips.insert(address, group);
        }
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

    pub(super) fn supply(&self) -> DeviceSupply<'_> {
        DeviceSupply { tree: &self.tree, devices: &self.devices, sharing: self.sharing }
    }

    /// Ids of all devices but those on the buses of `taken`.
    pub(super) fn without(&self, taken: &[u8]) -> Vec<DeviceId> {
        let ids = self.devices.iter().map(|device| device.id);
        ids.filter(|id| !taken.contains(&id.address.bus)).collect()
    }

    pub(super) fn prefer(&self, available: &[DeviceId], size: usize) -> Choice {
        let request = PreferenceRequest { available, must_include: &[], size };
        prefer(&self.supply(), &request)
    }
}

/// Eight boards of two chips: two boards below a switch, two switches below a NUMA node's host
/// bridge. Chip `c` of board `b` is on bus `0x10·b + c`.
pub(super) fn bi_v150_x8() -> Node {
    let mut node = Node::new();
    for numa in 0..2 {
        let numa_node = node.group(GroupKind::NumaNode(numa), Distance::Node, 0);
        let root = RootBus { domain: 0, bus: 0x80 * u8::try_from(numa).unwrap() };
        let bridge = node.group(GroupKind::HostBridge(root), Distance::Phb, numa_node);
        for switch in 0..2 {
            let first = root.bus + 0x40 * switch;
            let port = GroupKind::Port(bus(first + 0x0f));
            let port = node.group(port, Distance::Pxb, bridge);
            for board in [first + 0x10, first + 0x20] {
                let group = node.group(GroupKind::Board(bus(board)), Distance::Inte, port);
                node.device(bus(board), Some(group));
                node.device(bus(board + 1), Some(group));
            }
        }
    }
    node
}

/// The chip on a bus of domain 0.
pub(super) fn bus(bus: u8) -> PciAddress {
    PciAddress { domain: 0, bus, device: 0, function: 0 }
}

pub(super) fn id(number: u8) -> DeviceId {
    DeviceId::whole(bus(number))
}

pub(super) fn replica(number: u8, index: u32) -> DeviceId {
    DeviceId { address: bus(number), replica: Some(index) }
}
