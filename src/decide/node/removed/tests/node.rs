//! A node as a test needs it: boards by bus number, and what the kubelet says of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decide::node::advertise::NodeSnapshot;
use crate::decide::node::removed::PodUsage;
use crate::model::board::{Board, Chip, Evidence};
use crate::model::config::Config;
use crate::model::device::{DeviceNode, NodeEvidence};
use crate::model::function::Link;
use crate::model::health::Health;
use crate::model::inventory::{Inventory, Skipped};
use crate::model::pci::{PciAddress, PciId};
use crate::model::pod_usage::{HeldDevices, Holder};
use crate::model::topology::DistanceTree;

#[derive(Default)]
pub(crate) struct Node {
    pub(crate) boards: Vec<Board>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) config: Config,
}

impl Node {
    pub(crate) fn inventory(&self) -> Inventory {
        Inventory {
            boards: self.boards.clone(),
            skipped: self.skipped.clone(),
            warnings: Vec::new(),
            control_nodes: Vec::new(),
            tree: DistanceTree { groups: Vec::new(), chips: BTreeMap::new() },
            functions: Vec::new(),
            driver_version: None,
        }
    }

    pub(crate) fn snapshot(&self) -> NodeSnapshot {
        NodeSnapshot::new(self.inventory(), &self.config)
    }

    pub(crate) fn skipped(&mut self, address: &str, reason: &str) {
        let address = address.parse().unwrap();
        self.skipped.push(Skipped { address, reason: reason.to_owned() });
    }
}

/// A healthy board: its chips are three buses apart, as on a BI-V150.
pub(crate) fn board(bus: u8, count: u8) -> Board {
    let chips: Vec<_> = (0..count).map(|number| chip(bus + 3 * number)).collect();
    Board {
        address: chips[0].address,
        model: "BI-V150".to_owned(),
        evidence: if count > 1 { Evidence::Bridges } else { Evidence::Single },
        expected_chips: chips.len(),
        chips,
        health: Health::Healthy,
        reasons: Vec::new(),
        numa_nodes: vec![1],
    }
}

fn chip(bus: u8) -> Chip {
    Chip {
        address: PciAddress { domain: 0, bus, device: 0, function: 0 },
        id: PciId { vendor: 0x1e3e, device: 3 },
        driver: Some("iluvatar".to_owned()),
        node: Some(DeviceNode { path: format!("/dev/iluvatar{bus}"), number: None }),
        node_evidence: NodeEvidence::Class,
        numa_node: Some(1),
        slot: None,
        link: Link::default(),
        reasons: Vec::new(),
    }
}

/// Resource and id of everything that the container `main` of the pod `train` holds.
pub(crate) fn holding(asked: Duration, held: &[(&str, &str)]) -> PodUsage {
    let mut holders = HeldDevices::default();
    for (resource, id) in held {
        let holder = Holder {
            namespace: "team".to_owned(),
            pod: "train".to_owned(),
            container: "main".to_owned(),
        };
        holders.insert(resource, (*id).to_owned(), holder);
    }
    PodUsage { asked, holders }
}

pub(crate) fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
