//! A node as a test needs it: boards by bus number, and what the kubelet reports of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decide::node::advertise::advertise;
use crate::decide::node::removed::Present;
use crate::model::board::{Board, Chip, Evidence};
use crate::model::config::Config;
use crate::model::device::{DeviceNode, NodeEvidence};
use crate::model::function::Link;
use crate::model::health::Health;
use crate::model::inventory::{Inventory, SkipReason, Skipped};
use crate::model::pci::{PciAddress, PciId};
use crate::model::pod_usage::{HeldDevices, Holder, KubeletInstance, PodUsage};
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

    pub(crate) fn present(&self) -> Present {
        let inventory = self.inventory();
        Present::new(&inventory, &advertise(&inventory, &self.config.resources).resources)
    }

    pub(crate) fn skipped(&mut self, address: &str, reason: SkipReason) {
        let address = address.parse().unwrap();
        self.skipped.push(Skipped { address, reason });
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
        uuid: None,
        driver: Some("iluvatar".to_owned()),
        node: Some(DeviceNode { path: format!("/dev/iluvatar{bus}"), number: None }),
        node_evidence: NodeEvidence::Class,
        numa_node: Some(1),
        slot: None,
        link: Link::default(),
        reasons: Vec::new(),
    }
}

/// A kubelet that runs for long.
pub(crate) const KUBELET: KubeletInstance = KubeletInstance { id: (1, 1), knows_its_pods: true };

/// A kubelet that has just started.
pub(crate) const YOUNG: KubeletInstance = KubeletInstance { id: (2, 2), knows_its_pods: false };

/// Resource and id of everything that the container `main` of the pod `train` holds.
pub(crate) fn holding(asked: Duration, held: &[(&str, &str)]) -> PodUsage {
    holding_at(KUBELET, asked, held)
}

/// The same, of this kubelet.
pub(crate) fn holding_at(
    kubelet: KubeletInstance,
    asked: Duration,
    held: &[(&str, &str)],
) -> PodUsage {
    let mut holders = HeldDevices::default();
    for (resource, id) in held {
        let holder = Holder {
            namespace: "team".to_owned(),
            pod: "train".to_owned(),
            container: "main".to_owned(),
        };
        holders.insert(resource, (*id).to_owned(), holder);
    }
    PodUsage { queried_at: asked, kubelet, held: holders }
}

pub(crate) fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
