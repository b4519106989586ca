//! The stable shape for scripts: `discover -o json` and `-o yaml`, `topology -o json`.

use k8s_openapi::api::resource::v1::{CounterSet, Device as PublishedObject};
use serde::Serialize;

use super::{DiscoveryReport, TopologyReport};
use crate::decide::dra::claims::ClaimHolders;
use crate::decide::dra::pool::pool;
use crate::decide::dra::slices::contents;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::board::{Board, Chip};
use crate::model::config::ServingMode;
use crate::model::device::{Device, Resource};
use crate::model::dra::slice::{ServerSupport, SliceContent};
use crate::model::function::Link;
use crate::model::health::Reason;
use crate::model::inventory::{Inventory, Skipped};
use crate::wire::dra_objects::content_objects;

/// `discover -o json`. Names stay; more may come.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Discovery {
    boards: Vec<BoardDocument>,
    resources: Vec<ResourceDocument>,
    /// In DRA mode, instead of resources: the content of each slice as it is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    slices: Option<Vec<SliceDocument>>,
    skipped: Vec<SkippedDocument>,
    warnings: Vec<String>,
    control_nodes: Vec<String>,
    driver_version: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BoardDocument {
    id: String,
    model: String,
    evidence: &'static str,
    expected_chips: usize,
    numa_nodes: Vec<u32>,
    health: String,
    reasons: Vec<&'static str>,
    details: Vec<String>,
    chips: Vec<ChipDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChipDocument {
    address: String,
    pci_id: String,
    uuid: Option<String>,
    driver: Option<String>,
    device_node: Option<String>,
    major: Option<u32>,
    minor: Option<u32>,
    node_evidence: String,
    numa_node: Option<u32>,
    slot: Option<String>,
    link: LinkDocument,
    reasons: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkDocument {
    speed: Option<String>,
    width: Option<u32>,
    max_speed: Option<String>,
    max_width: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDocument {
    name: String,
    devices: Vec<DeviceDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceDocument {
    id: String,
    health: String,
    numa_nodes: Vec<u32>,
}

/// As the API has them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SliceDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_counters: Option<Vec<CounterSet>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<PublishedObject>>,
}

#[derive(Debug, Serialize)]
struct SkippedDocument {
    address: String,
    reason: String,
}

/// What `discover` found, for scripts.
#[must_use]
pub fn discovery(report: &DiscoveryReport<'_>) -> Discovery {
    let Inventory { boards, skipped, control_nodes, driver_version, .. } =
        &*report.snapshot.inventory;
    let is_dra = report.snapshot.mode == ServingMode::Dra;
    let resources = report.snapshot.resources.iter().filter(|_| !is_dra);
    Discovery {
        boards: boards.iter().map(board_document).collect(),
        resources: resources.map(resource_document).collect(),
        slices: is_dra.then(|| slice_documents(report.snapshot)),
        skipped: skipped.iter().map(skipped_document).collect(),
        warnings: report.snapshot.warnings.iter().map(ToString::to_string).collect(),
        control_nodes: control_nodes.iter().map(|node| node.path.clone()).collect(),
        driver_version: driver_version.clone(),
    }
}

/// For an API server that supports everything, while no claim holds anything.
fn slice_documents(snapshot: &NodeSnapshot) -> Vec<SliceDocument> {
    let support = ServerSupport::default();
    let pool = pool(snapshot, &ClaimHolders::default(), &support);
    let contents = contents(&pool, &support);
    contents.iter().map(slice_document).collect()
}

fn slice_document(content: &SliceContent) -> SliceDocument {
    let (devices, shared_counters) = content_objects(content, None);
    SliceDocument { shared_counters, devices }
}

fn board_document(board: &Board) -> BoardDocument {
    BoardDocument {
        id: board.address.to_string(),
        model: board.model.clone(),
        evidence: board.evidence.name(),
        expected_chips: board.expected_chips,
        numa_nodes: board.numa_nodes.clone(),
        health: board.health.to_string(),
        reasons: codes(&board.reasons),
        details: board.reasons.iter().map(|reason| reason.detail.clone()).collect(),
        chips: board.chips.iter().map(chip_document).collect(),
    }
}

fn chip_document(chip: &Chip) -> ChipDocument {
    let number = chip.node.as_ref().and_then(|node| node.number);
    ChipDocument {
        address: chip.address.to_string(),
        pci_id: chip.id.to_string(),
        uuid: chip.uuid.as_ref().map(ToString::to_string),
        driver: chip.driver.clone(),
        device_node: chip.node.as_ref().map(|node| node.path.clone()),
        major: number.map(|number| number.major),
        minor: number.map(|number| number.minor),
        node_evidence: chip.node_evidence.to_string(),
        numa_node: chip.numa_node,
        slot: chip.slot.clone(),
        link: link_document(&chip.link),
        reasons: codes(&chip.reasons),
    }
}

fn link_document(link: &Link) -> LinkDocument {
    LinkDocument {
        speed: link.speed.clone(),
        width: link.width,
        max_speed: link.max_speed.clone(),
        max_width: link.max_width,
    }
}

/// Each code once, in the order of the reasons.
fn codes(reasons: &[Reason]) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for code in reasons.iter().map(|reason| reason.code.name()) {
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    codes
}

fn resource_document(resource: &Resource) -> ResourceDocument {
    let devices = resource.listed().map(|(id, device)| {
        let Device { health, numa_nodes, .. } = device;
        let health = health.to_string();
        DeviceDocument { id: id.to_string(), health, numa_nodes: numa_nodes.clone() }
    });
    ResourceDocument { name: resource.name.clone(), devices: devices.collect() }
}

fn skipped_document(skipped: &Skipped) -> SkippedDocument {
    SkippedDocument { address: skipped.address.to_string(), reason: skipped.reason.to_string() }
}

/// `topology -o json`: every list is in the order of `devices`, which are chips; a chip's distance
/// to itself is `X`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    devices: Vec<String>,
    device_nodes: Vec<Option<String>>,
    cpu_affinity: Vec<Option<String>>,
    numa_affinity: Vec<Option<u32>>,
    distance: Vec<Vec<String>>,
}

/// The distances of all chips, for scripts.
#[must_use]
pub fn topology(report: &TopologyReport<'_>) -> Topology {
    let inventory = &report.discovery.snapshot.inventory;
    let chips = inventory.chips();
    let row = |one: &&Chip| {
        let distances =
            chips.iter().map(|other| inventory.tree.distance(one.address, other.address));
        distances.map(|distance| distance.map_or("X".to_owned(), |it| it.to_string())).collect()
    };
    let node = |chip: &&Chip| chip.node.as_ref().map(|node| node.path.clone());
    let cpus = |chip: &&Chip| report.cpu_affinity.get(&chip.address).cloned();
    Topology {
        devices: chips.iter().map(|chip| chip.address.to_string()).collect(),
        device_nodes: chips.iter().map(node).collect(),
        cpu_affinity: chips.iter().map(cpus).collect(),
        numa_affinity: chips.iter().map(|chip| chip.numa_node).collect(),
        distance: chips.iter().map(row).collect(),
    }
}
