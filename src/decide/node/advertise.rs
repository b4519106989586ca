//! The boards of an inventory as devices of one or more resources.

use std::collections::BTreeMap;

use crate::model::board::{Board, Chip};
use crate::model::config::{Granularity, ResourceRule, Selector};
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::health::Health;
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;
use crate::model::warning::{Subject, Warning, WarningCode};

/// What a configuration makes of an inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// In the configuration's order.
    pub resources: Vec<Resource>,
    /// Devices that a resource matches but an earlier one offers already.
    pub overlaps: Vec<Warning>,
    /// Chips that no resource offers, ascending.
    pub unoffered: Vec<PciAddress>,
}

/// The resources of a configuration. A chip is offered once, by the first resource that matches it:
/// the kubelet would allocate it under each name.
#[must_use]
pub fn advertise(inventory: &Inventory, rules: &[ResourceRule]) -> Advertised {
    let mut offered: BTreeMap<PciAddress, &str> = BTreeMap::new();
    let mut advertised = Advertised::default();
    for rule in rules {
        let mut devices = Vec::new();
        for device in inventory.boards.iter().flat_map(|board| devices_of(board, rule)) {
            match device.chips.iter().find_map(|chip| offered.get(chip)) {
                Some(first) => advertised.overlaps.push(overlap(&device, rule, first)),
                None => devices.push(device),
            }
        }
        for chip in devices.iter().flat_map(|device| &device.chips) {
            offered.insert(*chip, &rule.name);
        }
        devices.sort_by_key(|device| device.id);
        let resource = Resource { name: rule.name.clone(), sharing: rule.sharing, devices };
        advertised.resources.push(resource);
    }
    let chips = inventory.chips().into_iter().map(|chip| chip.address);
    advertised.unoffered = chips.filter(|chip| !offered.contains_key(chip)).collect();
    advertised
}

fn overlap(device: &Device, rule: &ResourceRule, first: &str) -> Warning {
    let detail = format!(
        "{} also matches, but {first} offers it already; make the matches exclude each other",
        rule.name
    );
    let subject = Subject::Chip(device.id.address);
    Warning { code: WarningCode::OverlappingResources, subject, detail }
}

/// The warning about chips that no resource offers.
#[must_use]
pub fn unoffered_warning(chips: &[PciAddress]) -> Option<Warning> {
    let first = chips.first()?;
    let detail = match chips.len() {
        1 => format!("no resource offers chip {first}; check `match` under `resources`"),
        count => format!(
            "no resource offers {count} chips, {first} and others; check `match` under `resources`"
        ),
    };
    Some(Warning { code: WarningCode::ChipsNotOffered, subject: Subject::Node, detail })
}

fn devices_of(board: &Board, rule: &ResourceRule) -> Vec<Device> {
    let mut chips = board.chips.iter();
    match rule.granularity {
        Granularity::Board if chips.any(|chip| wants(&rule.selector, board, chip)) => {
            vec![board_device(board)]
        }
        Granularity::Board => Vec::new(),
        Granularity::Chip => {
            chips.filter(|chip| wants(&rule.selector, board, chip)).map(chip_device).collect()
        }
    }
}

fn wants(selector: &Selector, board: &Board, chip: &Chip) -> bool {
    let Selector { model, pci_id, addresses } = selector;
    model.as_ref().is_none_or(|model| *model == board.model)
        && pci_id.is_none_or(|id| id == chip.id)
        && (addresses.is_empty() || addresses.contains(&chip.address))
}

fn board_device(board: &Board) -> Device {
    Device {
        id: DeviceId::whole(board.address),
        chips: board.chips.iter().map(|chip| chip.address).collect(),
        nodes: board.chips.iter().filter_map(|chip| chip.node.clone()).collect(),
        health: board.health,
        reasons: board.reasons.clone(),
        awaits_kubelet: false,
        numa_nodes: board.numa_nodes.clone(),
    }
}

fn chip_device(chip: &Chip) -> Device {
    Device {
        id: DeviceId::whole(chip.address),
        chips: vec![chip.address],
        nodes: chip.node.iter().cloned().collect(),
        health: Health::of(&chip.reasons),
        reasons: chip.reasons.clone(),
        awaits_kubelet: false,
        numa_nodes: chip.numa_node.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::node::snapshot::NodeSnapshot;
    use crate::decide::node::state::snapshot_of;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN, at};
    use crate::model::config::{Config, Sharing, SharingPolicy};
    use crate::model::health::Health;
    use crate::model::pci::PciId;

    /// A board of the chips 14:00.0 and 17:00.0 and an MR-V100 at 20:00.0, which has no driver.
    fn inventory() -> Inventory {
        let sample = ScanBuilder::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .chip("00:02.0 20:00.0", SINGLE)
            .with(|chip| chip.driver = None)
            .class_device("iluvatar0", 0, Some("14:00.0"))
            .class_device("iluvatar1", 1, Some("17:00.0"))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1);
        (*snapshot_of(sample.scan(), &Config::default()).inventory).clone()
    }

    fn rule(name: &str, granularity: Granularity, selector: Selector) -> ResourceRule {
        ResourceRule { name: name.to_owned(), selector, granularity, sharing: None }
    }

    /// `gpu: ID ID`, with the chips behind an id where they are several, and `!` where it is
    /// unhealthy.
    fn shown(resource: &Resource) -> String {
        let device = |device: &Device| {
            let ill = if device.health == Health::Healthy { "" } else { "!" };
            format!(" {}{}{ill}", device.id, "+".repeat(device.chips.len() - 1))
        };
        format!("{}:{}", resource.name, resource.devices.iter().map(device).collect::<String>())
    }

    #[track_caller]
    fn check(rules: &[ResourceRule], expected: &[&str]) {
        let resources = advertise(&inventory(), rules).resources;
        assert_eq!(resources.iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_device_is_a_board_or_a_chip_as_configured() {
        let everything = Selector::default;
        check(
            &[rule("gpu", Granularity::Board, everything())],
            &["gpu: 0000:14:00.0+ 0000:20:00.0!"],
        );
        check(
            &[rule("gpu", Granularity::Chip, everything())],
            &["gpu: 0000:14:00.0 0000:17:00.0 0000:20:00.0!"],
        );
    }

    #[test]
    fn a_selector_wants_all_that_it_names() {
        let by_model = Selector { model: Some("MR-V100".to_owned()), ..Selector::default() };
        check(&[rule("gpu", Granularity::Board, by_model.clone())], &["gpu: 0000:20:00.0!"]);
        let id = PciId { vendor: 0x1e3e, device: UNKNOWN };
        let by_id = Selector { pci_id: Some(id), ..Selector::default() };
        check(&[rule("gpu", Granularity::Board, by_id)], &["gpu: 0000:14:00.0+"]);
        let nothing = Selector { pci_id: Some(id), ..by_model };
        check(&[rule("gpu", Granularity::Board, nothing)], &["gpu:"]);
    }

    #[test]
    fn a_board_is_wanted_as_soon_as_one_of_its_chips_is() {
        let selector = Selector { addresses: vec![at("17:00.0")], ..Selector::default() };
        check(&[rule("gpu", Granularity::Board, selector.clone())], &["gpu: 0000:14:00.0+"]);
        check(&[rule("gpu", Granularity::Chip, selector)], &["gpu: 0000:17:00.0"]);
    }

    #[test]
    fn two_resources_never_offer_one_chip_twice() {
        let chip = Selector { addresses: vec![at("17:00.0")], ..Selector::default() };
        let rules = [
            rule("first", Granularity::Chip, chip),
            rule("boards", Granularity::Board, Selector::default()),
            rule("rest", Granularity::Chip, Selector::default()),
        ];
        // The board lost a chip to the first resource, so only its other chip is left.
        check(&rules, &["first: 0000:17:00.0", "boards: 0000:20:00.0!", "rest: 0000:14:00.0"]);
    }

    #[test]
    fn chips_that_no_resource_offers_are_named() {
        let nothing = Selector { model: Some("BI-V100".to_owned()), ..Selector::default() };
        let advertised = advertise(&inventory(), &[rule("gpu", Granularity::Board, nothing)]);
        let unoffered = [at("14:00.0"), at("17:00.0"), at("20:00.0")];
        assert_eq!(advertised.unoffered, unoffered);
        let detail = |chips: &[PciAddress]| unoffered_warning(chips).map(|warning| warning.detail);
        let all = "no resource offers 3 chips, 0000:14:00.0 and others; check `match` under \
                   `resources`";
        assert_eq!(detail(&unoffered).as_deref(), Some(all));
        let one = "no resource offers chip 0000:14:00.0; check `match` under `resources`";
        assert_eq!(detail(&unoffered[..1]).as_deref(), Some(one));
        assert_eq!(detail(&[]), None);
    }

    #[test]
    fn replicas_are_listed_one_by_one_and_carry_their_devices_health() {
        let sharing = Sharing {
            replicas: 2,
            fail_requests_greater_than_one: false,
            policy: SharingPolicy::Spread,
        };
        let rule = ResourceRule { sharing: Some(sharing), ..ResourceRule::default() };
        let resources = advertise(&inventory(), &[rule]).resources;
        let listed: Vec<_> =
            resources[0].listed().map(|(id, device)| format!("{id} {}", device.health)).collect();
        assert_eq!(
            listed,
            [
                "0000:14:00.0::0 Healthy",
                "0000:14:00.0::1 Healthy",
                "0000:20:00.0::0 Unhealthy",
                "0000:20:00.0::1 Unhealthy",
            ]
        );
    }

    #[test]
    fn a_resource_is_found_by_its_whole_name() {
        let snapshot = NodeSnapshot::new(inventory(), &Config::default());
        assert!(snapshot.resource("iluvatar.com/gpu").is_some());
        assert!(snapshot.resource("iluvatar.com/gp").is_none());
    }
}
