//! Which /dev node belongs to which chip. Minor numbers may have holes and need not follow the
//! order of the bus, so a pairing by order is the last resort and says so.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::config::DiscoveryRules;
use crate::model::device::{DeviceNode, NodeEvidence};
use crate::model::function::ChipFunction;
use crate::model::machine::DeviceNumber;
use crate::model::pci::PciAddress;
use crate::model::survey::Survey;

/// A chip's node and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundNode {
    /// Absent where nothing tells.
    pub node: Option<DeviceNode>,
    /// How it was found.
    pub evidence: NodeEvidence,
    /// Why there is no node, or none that can be trusted; absent where all is well.
    pub problem: Option<NodeProblem>,
}

/// What is wrong with a chip's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeProblem {
    /// No evidence; the sentence says why order did not help either.
    Unknown(String),
    /// The kernel announces a node that /dev does not have as announced.
    Missing(String),
}

/// A node for each of `chips`, which are those that can be handed out.
#[must_use]
pub fn find_nodes(
    chips: &[&ChipFunction],
    survey: &Survey,
    rules: &DiscoveryRules,
) -> BTreeMap<PciAddress, FoundNode> {
    let announced = announced_nodes(chips, survey);
    if announced.is_empty() {
        return infer_nodes(chips, survey, rules).unwrap_or_else(|why| {
            chips.iter().map(|chip| (chip.function.address, unknown(&why))).collect()
        });
    }
    let there: BTreeMap<_, _> =
        survey.device_nodes.iter().map(|node| (&*node.path, node.number)).collect();
    let found = |chip: &&ChipFunction| match announced.get(&chip.function.address) {
        Some((node, evidence)) => FoundNode {
            node: Some(node.clone()),
            evidence: *evidence,
            problem: announced_problem(node, &there).map(NodeProblem::Missing),
        },
        None => unknown("other chips' nodes are announced in /sys, but not this one's"),
    };
    chips.iter().map(|chip| (chip.function.address, found(chip))).collect()
}

fn unknown(why: &str) -> FoundNode {
    let problem = Some(NodeProblem::Unknown(why.to_owned()));
    FoundNode { node: None, evidence: NodeEvidence::None, problem }
}

/// The nodes that directories below the chips, or class devices that lead to them, announce.
fn announced_nodes(
    chips: &[&ChipFunction],
    survey: &Survey,
) -> BTreeMap<PciAddress, (DeviceNode, NodeEvidence)> {
    let of_class = survey.class_devices.iter().filter_map(|device| {
        let node = DeviceNode { path: format!("/dev/{}", device.name), number: device.number };
        Some((device.chip?, (node, NodeEvidence::Class)))
    });
    let of_children = chips.iter().filter_map(|chip| {
        // A chip may have other children with a node, for example of DRM or of a clock.
        let node = chip.child_nodes.iter().find(|node| chip_node(node).is_some())?.clone();
        Some((chip.function.address, (node, NodeEvidence::Child)))
    });
    let wanted: BTreeSet<_> = chips.iter().map(|chip| chip.function.address).collect();
    // Later ones replace earlier ones: a child is the stronger evidence.
    let mut announced: BTreeMap<_, _> = of_class.chain(of_children).collect();
    announced.retain(|chip, _| wanted.contains(chip));
    announced
}

/// /dev must have the node, and as the device that the kernel means.
fn announced_problem(
    node: &DeviceNode,
    there: &BTreeMap<&str, Option<DeviceNumber>>,
) -> Option<String> {
    let path = &node.path;
    match (there.get(&**path), node.number) {
        (None, _) => Some(format!("{path} is announced in /sys but is not in /dev")),
        (Some(Some(there)), Some(announced)) if *there != announced => {
            Some(format!("{path} is device {there}, but /sys announces {announced}"))
        }
        _ => None,
    }
}

/// Sorted chips paired with sorted nodes, only if that cannot be off by one.
fn infer_nodes(
    chips: &[&ChipFunction],
    survey: &Survey,
    rules: &DiscoveryRules,
) -> Result<BTreeMap<PciAddress, FoundNode>, String> {
    if let Some(unbound) = chips.iter().find(|chip| !is_bound(chip, rules)) {
        let unbound = unbound.function.address;
        return Err(format!("/sys announces no nodes, and {unbound} has no driver"));
    }
    let mut nodes: Vec<_> = survey.device_nodes.iter().filter_map(chip_node).collect();
    nodes.sort_by_key(|(minor, _)| *minor);
    if nodes.len() != chips.len() {
        let (nodes, chips) = (nodes.len(), chips.len());
        return Err(format!(
            "/sys announces no nodes, and {nodes} in /dev do not pair with {chips} chips"
        ));
    }
    if let Some((minor, node)) = nodes.iter().find(|(minor, node)| !has_minor(node, *minor)) {
        let path = &node.path;
        return Err(format!("/sys announces no nodes, and {path} is not minor {minor}"));
    }
    let found = nodes.into_iter().map(|(_, node)| FoundNode {
        node: Some(node.clone()),
        evidence: NodeEvidence::Inferred,
        problem: None,
    });
    Ok(chips.iter().map(|chip| chip.function.address).zip(found).collect())
}

/// True where one of the wanted drivers has the chip.
#[must_use]
pub fn is_bound(chip: &ChipFunction, rules: &DiscoveryRules) -> bool {
    chip.driver.as_ref().is_some_and(|driver| rules.drivers.contains(driver))
}

/// The N of /dev/iluvatarN; control nodes have none.
fn chip_node(node: &DeviceNode) -> Option<(u32, &DeviceNode)> {
    let minor = node.path.strip_prefix("/dev/iluvatar")?.parse().ok()?;
    Some((minor, node))
}

/// On every published host the minor number is the N of the name.
fn has_minor(node: &DeviceNode, minor: u32) -> bool {
    node.number.is_none_or(|DeviceNumber { minor: actual, .. }| actual == minor)
}
