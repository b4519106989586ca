//! Which /dev node belongs to which chip. Minor numbers may have holes and need not follow the
//! order of the bus, so a pairing by order is the last resort, and named as such.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::config::DiscoveryRules;
use crate::model::device::{DeviceNode, NodeEvidence};
use crate::model::function::ChipFunction;
use crate::model::machine::DeviceNumber;
use crate::model::observed::NodeProblem;
use crate::model::pci::PciAddress;
use crate::model::sysfs::SysfsScan;

/// A chip's node and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundNode {
    /// Absent without any evidence.
    pub node: Option<DeviceNode>,
    /// How it was found.
    pub evidence: NodeEvidence,
    /// Why there is no node, or none that can be trusted; absent where all is well.
    pub problem: Option<NodeProblem>,
}

/// A node for each of `chips`, which are those that can be allocated.
#[must_use]
pub fn find_nodes(
    chips: &[&ChipFunction],
    scan: &SysfsScan,
    rules: &DiscoveryRules,
) -> BTreeMap<PciAddress, FoundNode> {
    let announced = announced_nodes(chips, scan);
    if announced.is_empty() {
        return infer_nodes(chips, scan, rules).unwrap_or_else(|why| {
            chips.iter().map(|chip| (chip.function.address, unknown(&why))).collect()
        });
    }
    let there: BTreeMap<_, _> =
        scan.device_nodes.iter().map(|node| (&*node.path, node.number)).collect();
    let found = |chip: &&ChipFunction| match announced.get(&chip.function.address) {
        Some((node, evidence)) => FoundNode {
            node: Some(node.clone()),
            evidence: *evidence,
            problem: announced_problem(node, &there),
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
    scan: &SysfsScan,
) -> BTreeMap<PciAddress, (DeviceNode, NodeEvidence)> {
    let of_class = scan.class_devices.iter().filter_map(|device| {
        let node = DeviceNode { path: format!("/dev/{}", device.name), number: device.number };
        Some((device.chip?, (node, NodeEvidence::Class)))
    });
    let of_children = chips.iter().filter_map(|chip| {
        // A chip may have other children with a node, for example of DRM or of a clock.
        let node = chip.child_nodes.iter().find(|node| chip_node(node).is_some())?.clone();
        Some((chip.function.address, (node, NodeEvidence::Sysfs)))
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
) -> Option<NodeProblem> {
    let path = &node.path;
    match (there.get(&**path), node.number) {
        (None, _) => {
            let detail = format!("{path} is announced in /sys but is not in /dev");
            Some(NodeProblem::Missing(detail))
        }
        (Some(Some(there)), Some(announced)) if *there != announced => {
            let detail = format!("{path} is device {there}, but /sys announces {announced}");
            Some(NodeProblem::Mismatch(detail))
        }
        _ => None,
    }
}

/// Sorted chips paired with sorted nodes, only if that cannot be off by one.
fn infer_nodes(
    chips: &[&ChipFunction],
    scan: &SysfsScan,
    rules: &DiscoveryRules,
) -> Result<BTreeMap<PciAddress, FoundNode>, String> {
    if let Some(unbound) = chips.iter().find(|chip| !is_bound(chip, rules)) {
        let unbound = unbound.function.address;
        return Err(format!("/sys announces no nodes, and {unbound} has no driver"));
    }
    let mut nodes: Vec<_> = scan.device_nodes.iter().filter_map(chip_node).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, node};

    /// `/dev/iluvatar0 by sysfs`, or the problem.
    fn shown(found: &FoundNode) -> String {
        let node = found.node.as_ref().map_or("none", |node| &node.path);
        let problem = match &found.problem {
            None => String::new(),
            Some(NodeProblem::Unknown(why)) => format!(", unknown: {why}"),
            Some(NodeProblem::Missing(what) | NodeProblem::Mismatch(what)) => {
                format!(", missing: {what}")
            }
        };
        format!("{node} by {}{problem}", found.evidence)
    }

    #[track_caller]
    fn check(sample: ScanBuilder, expected: &[&str]) {
        let scan = sample.scan();
        let chips: Vec<_> = scan.chips.iter().collect();
        let found = find_nodes(&chips, &scan, &DiscoveryRules::default());
        assert_eq!(found.values().map(shown).collect::<Vec<_>>(), expected);
    }

    fn two_chips() -> ScanBuilder {
        ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE).chip("00:02.0 04:00.0", SINGLE)
    }

    fn child(path: &'static str, minor: u32) -> impl FnOnce(&mut ChipFunction) {
        move |chip| chip.child_nodes.push(node(path, minor))
    }

    #[test]
    fn a_child_of_the_chip_is_its_node_whatever_the_order() {
        let sample = ScanBuilder::default()
            .chip("00:01.0 03:00.0", SINGLE)
            .with(child("/dev/iluvatar7", 7))
            .chip("00:02.0 04:00.0", SINGLE)
            .with(child("/dev/iluvatar2", 2))
            .node("/dev/iluvatar2", 2)
            .node("/dev/iluvatar7", 7);
        check(sample, &["/dev/iluvatar7 by sysfs", "/dev/iluvatar2 by sysfs"]);
    }

    #[test]
    fn a_child_is_stronger_than_a_class_device() {
        let sample = ScanBuilder::default()
            .chip("00:01.0 03:00.0", SINGLE)
            .with(child("/dev/iluvatar0", 0))
            .class_device("iluvatar1", 1, Some("03:00.0"))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1);
        check(sample, &["/dev/iluvatar0 by sysfs"]);
    }

    #[test]
    fn a_child_of_another_kind_is_not_the_chips_node() {
        let sample = ScanBuilder::default()
            .chip("00:01.0 03:00.0", SINGLE)
            .with(child("/dev/dri/card0", 0))
            .class_device("iluvatar1", 1, Some("03:00.0"))
            .node("/dev/iluvatar1", 1);
        check(sample, &["/dev/iluvatar1 by class"]);
    }

    #[test]
    fn a_chip_whose_neighbours_are_announced_is_not_inferred() {
        let sample = two_chips()
            .class_device("iluvatar0", 0, Some("03:00.0"))
            .class_device("iluvatar1", 1, None)
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1);
        let unknown =
            "none by none, unknown: other chips' nodes are announced in /sys, but not this one's";
        check(sample, &["/dev/iluvatar0 by class", unknown]);
    }

    #[test]
    fn an_announced_node_must_be_in_dev_as_announced() {
        let sample = two_chips()
            .class_device("iluvatar0", 0, Some("03:00.0"))
            .class_device("iluvatar1", 1, Some("04:00.0"))
            .node("/dev/iluvatar1", 9);
        check(
            sample,
            &[
                "/dev/iluvatar0 by class, missing: /dev/iluvatar0 is announced in /sys but is not in \
             /dev",
                "/dev/iluvatar1 by class, missing: /dev/iluvatar1 is device 508:9, but /sys announces \
             508:1",
            ],
        );
    }

    #[test]
    fn without_any_announcement_chips_and_nodes_pair_in_numeric_order() {
        let sample = two_chips().node("/dev/iluvatar10", 10).node("/dev/iluvatar9", 9);
        check(sample, &["/dev/iluvatar9 by inferred", "/dev/iluvatar10 by inferred"]);
    }

    #[test]
    fn control_nodes_pair_with_no_chip() {
        let sample =
            two_chips().node("/dev/iluvatar0", 0).node("/dev/iluvatar1", 1).node("/dev/itrctl", 0);
        check(sample, &["/dev/iluvatar0 by inferred", "/dev/iluvatar1 by inferred"]);
    }

    #[track_caller]
    fn check_unknown(sample: ScanBuilder, why: &str) {
        let unknown = format!("none by none, unknown: {why}");
        check(sample, &[&unknown, &unknown]);
    }

    #[test]
    fn nothing_is_inferred_where_it_could_be_off_by_one() {
        check_unknown(
            two_chips().node("/dev/iluvatar0", 0),
            "/sys announces no nodes, and 1 in /dev do not pair with 2 chips",
        );
        let nodes =
            |sample: ScanBuilder| sample.node("/dev/iluvatar0", 0).node("/dev/iluvatar1", 1);
        check_unknown(
            nodes(two_chips().with(|chip| chip.driver = None)),
            "/sys announces no nodes, and 0000:04:00.0 has no driver",
        );
        check_unknown(
            two_chips().node("/dev/iluvatar0", 0).node("/dev/iluvatar1", 5),
            "/sys announces no nodes, and /dev/iluvatar1 is not minor 1",
        );
    }

    #[test]
    fn nodes_without_chips_are_no_problem() {
        check(ScanBuilder::default().node("/dev/iluvatar0", 0), &[]);
    }
}
