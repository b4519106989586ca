//! What the kubelet is told: the boards of an inventory as devices of one or more resources.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::decide::allocation::cdi::spec;
use crate::decide::health::scan_signals as health;
use crate::model::board::{Board, Chip};
use crate::model::cdi::CdiSpec;
use crate::model::config::{CdiRules, Config, ContainerRules, Granularity, ResourceRule, Selector};
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::inventory::Inventory;
use crate::model::list_size::largest_replicas;
use crate::model::pci::PciAddress;

/// The resources of a configuration, in its order. A chip is offered once: by the first resource
/// that wants it, for the kubelet would hand it out under each name.
#[must_use]
pub fn advertise(inventory: &Inventory, rules: &[ResourceRule]) -> Vec<Resource> {
    let mut offered: BTreeSet<PciAddress> = BTreeSet::new();
    rules
        .iter()
        .map(|rule| {
            let mut devices: Vec<_> =
                inventory.boards.iter().flat_map(|board| devices_of(board, rule)).collect();
            devices.retain(|device| device.chips.iter().all(|chip| !offered.contains(chip)));
            offered.extend(devices.iter().flat_map(|device| &device.chips));
            devices.sort_by_key(|device| device.id);
            Resource { name: rule.name.clone(), sharing: rule.sharing, devices }
        })
        .collect()
}

/// Devices that a resource wants but an earlier one already offers.
fn overlaps(inventory: &Inventory, rules: &[ResourceRule]) -> Vec<String> {
    let mut offered: BTreeMap<PciAddress, &str> = BTreeMap::new();
    let mut overlaps = Vec::new();
    for rule in rules {
        for device in inventory.boards.iter().flat_map(|board| devices_of(board, rule)) {
            let taken = device.chips.iter().find_map(|chip| offered.get(chip));
            match taken {
                Some(first) => overlaps.push(format!(
                    "{}: {} also matches, but {first} offers it already; make the matches exclude \
                     each other",
                    device.id, rule.name
                )),
                None => offered.extend(device.chips.iter().map(|chip| (*chip, rule.name.as_str()))),
            }
        }
    }
    overlaps
}

/// What is wrong where a resource has so many replicas that its list would not reach a kubelet on
/// this node; with the number that would fit.
#[must_use]
pub fn oversized(inventory: &Inventory, config: &Config) -> Option<String> {
    let resources = advertise(inventory, &config.resources);
    resources.iter().find_map(|resource| {
        let replicas = resource.sharing?.replicas;
        let devices = resource.devices.len();
        let largest = largest_replicas(devices);
        (replicas > largest).then(|| {
            format!(
                "{}: {replicas} replicas of each of {devices} devices make a list above the \
                 kubelet's limit of 4 MiB; at most {largest} fit",
                resource.name
            )
        })
    })
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
        numa_nodes: board.numa_nodes.clone(),
    }
}

fn chip_device(chip: &Chip) -> Device {
    Device {
        id: DeviceId::whole(chip.address),
        chips: vec![chip.address],
        nodes: chip.node.iter().cloned().collect(),
        health: health::verdict(&chip.reasons),
        reasons: chip.reasons.clone(),
        numa_nodes: chip.numa_node.into_iter().collect(),
    }
}

/// Everything that the daemon's loops share: one look at the node under one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSnapshot {
    /// What the scan concluded.
    pub inventory: Inventory,
    /// What the kubelet is told.
    pub resources: Vec<Resource>,
    /// What containers are told.
    pub container: ContainerRules,
    /// What container runtimes are told.
    pub cdi: CdiRules,
    /// The CDI spec of the inventory; none where CDI is off.
    pub cdi_spec: Option<CdiSpec>,
    /// Chips that more than one resource wants, one sentence each.
    pub overlaps: Vec<String>,
    /// Since when each device has the health that it has, by resource and id; see
    /// [`NodeSnapshot::since`].
    since: BTreeMap<(String, DeviceId), SystemTime>,
}

impl NodeSnapshot {
    /// What `inventory` offers under `config`.
    #[must_use]
    pub fn new(inventory: Inventory, config: &Config) -> Self {
        let resources = advertise(&inventory, &config.resources);
        let overlaps = overlaps(&inventory, &config.resources);
        let (container, cdi) = (config.container, config.cdi.clone());
        let cdi_spec = cdi.enabled.then(|| spec(&inventory));
        Self { inventory, resources, container, cdi, cdi_spec, overlaps, since: BTreeMap::new() }
    }

    /// The same, with the time at which each device became what it is: `now`, unless `last` had it
    /// in the same health.
    #[must_use]
    pub fn following(mut self, last: Option<&Self>, now: SystemTime) -> Self {
        let since = self.devices().map(|(resource, device)| {
            let before = last.and_then(|last| last.moment(&resource.name, device));
            ((resource.name.clone(), device.id), before.unwrap_or(now))
        });
        self.since = since.collect();
        self
    }

    /// Since when this device has the health that it has; none before the offer [follows] another.
    ///
    /// [follows]: Self::following
    #[must_use]
    pub fn since(&self, resource: &str, device: DeviceId) -> Option<SystemTime> {
        self.since.get(&(resource.to_owned(), device)).copied()
    }

    /// Since when it was as healthy as `device` is.
    fn moment(&self, resource: &str, device: &Device) -> Option<SystemTime> {
        let mut devices = self.resource(resource)?.devices.iter();
        let same = devices.find(|it| it.id == device.id && it.health == device.health)?;
        self.since(resource, same.id)
    }

    /// Everything that an operator should look at.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.inventory.warnings.iter().chain(&self.overlaps)
    }

    /// Every device with its resource, in the resources' order.
    pub fn devices(&self) -> impl Iterator<Item = (&Resource, &Device)> {
        self.resources
            .iter()
            .flat_map(|resource| resource.devices.iter().map(move |device| (resource, device)))
    }

    /// The resource of this name, if the configuration has it.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::machine::observe::build;
    use crate::decide::sample::{SINGLE, Sample, UNKNOWN, at};
    use crate::model::config::{Sharing, SharingPolicy};
    use crate::model::health::Health;
    use crate::model::pci::PciId;

    /// A board of the chips 14:00.0 and 17:00.0 and an MR-V100 at 20:00.0, which has no driver.
    fn inventory() -> Inventory {
        let sample = Sample::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .chip("00:02.0 20:00.0", SINGLE)
            .with(|chip| chip.driver = None)
            .class_device("iluvatar0", 0, Some("14:00.0"))
            .class_device("iluvatar1", 1, Some("17:00.0"))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1);
        build(&sample.survey(), &Config::default())
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
        let resources = advertise(&inventory(), rules);
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
    fn replicas_are_listed_one_by_one_and_carry_their_devices_health() {
        let sharing = Sharing {
            replicas: 2,
            fail_requests_greater_than_one: false,
            policy: SharingPolicy::Spread,
        };
        let rule = ResourceRule { sharing: Some(sharing), ..ResourceRule::default() };
        let resources = advertise(&inventory(), &[rule]);
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
