//! A survey to an inventory: the one place where boards, nodes, distances and health come together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::boards::{self, Group};
use super::device_nodes::{self, FoundNode};
use super::models;
use super::topology::{self, Place};
use crate::decide::health::scan_signals as health;
use crate::decide::health::tracker::{ChipReasons, HealthTracker, HealthVerdicts};
use crate::model::board::{Board, Chip};
use crate::model::config::{Config, HealthRules};
use crate::model::device::NodeEvidence;
use crate::model::function::ChipFunction;
use crate::model::health::{Health, Severity};
use crate::model::inventory::{Inventory, Skipped};
use crate::model::pci::PciAddress;
use crate::model::sysfs::SysfsScan;

/// Concludes everything from one survey, health included, as far as one look can tell.
#[must_use]
pub fn build(survey: &SysfsScan, config: &Config) -> Inventory {
    judged_once(&facts(survey, config), config)
}

/// The inventory as one look judges it, without any history.
#[must_use]
pub fn judged_once(facts: &Inventory, config: &Config) -> Inventory {
    let (chips, seen) = seen(facts);
    let mut judge = HealthTracker::default();
    judge.observe(Duration::ZERO, &chips, health::SCOPE, &seen, &config.health);
    let judgement = judge.judge(Duration::ZERO, &config.health);
    judged(facts, &judgement, &config.health)
}

/// The chips of an inventory, and what a scan saw against each.
#[must_use]
pub fn seen(facts: &Inventory) -> (BTreeSet<PciAddress>, ChipReasons) {
    let chips = facts.chips_by_board();
    let seen = chips.clone().filter(|chip| !chip.reasons.is_empty());
    let seen = seen.map(|chip| (chip.address, chip.reasons.clone())).collect();
    (chips.map(|chip| chip.address).collect(), seen)
}

/// The inventory with the reasons that hold in place of everything that was seen.
#[must_use]
pub fn judged(facts: &Inventory, judgement: &HealthVerdicts, rules: &HealthRules) -> Inventory {
    let mut inventory = facts.clone();
    for board in &mut inventory.boards {
        for chip in &mut board.chips {
            chip.reasons = judgement.reasons.get(&chip.address).cloned().unwrap_or_default();
        }
        judge_board(board, &mut inventory.warnings, rules);
    }
    inventory.warnings.extend(judgement.warnings.iter().cloned());
    inventory
}

/// A board is as healthy as its chips, and as the reasons of its own allow.
fn judge_board(board: &mut Board, warnings: &mut Vec<String>, rules: &HealthRules) {
    let own = std::mem::take(&mut board.reasons);
    for reason in own {
        match rules.severity(reason.code) {
            Severity::Unhealthy => board.reasons.push(reason),
            Severity::Warn => {
                warnings.push(format!("{}: {}: {}", board.address, reason.code, reason.detail));
            }
            Severity::Ignore => {}
        }
    }
    let of_chips = board.chips.iter().flat_map(|chip| chip.reasons.iter().cloned());
    board.reasons.extend(of_chips);
    board.health = health::verdict(&board.reasons);
}

/// What one survey shows, not yet judged: a chip's reasons are everything that was seen against it,
/// a board's are those that no single chip has, and every board counts as healthy.
#[must_use]
pub fn facts(survey: &SysfsScan, config: &Config) -> Inventory {
    let (usable, skipped) = sort_out(survey, config);
    let found = device_nodes::find_nodes(&usable, survey, &config.discovery);
    let groups = boards::assemble(survey, &config.boards);
    let facts = Facts {
        survey,
        config,
        usable: usable.iter().map(|chip| (chip.function.address, *chip)).collect(),
        found: &found,
        skipped: &skipped,
    };
    let boards: Vec<Board> = groups.groups.iter().filter_map(|group| facts.board(group)).collect();
    Inventory {
        tree: facts.tree(&boards),
        warnings: groups.notes.into_iter().chain(facts.warnings()).collect(),
        control_nodes: facts.control_nodes(),
        functions: usable.iter().map(|chip| chip.function.clone()).collect(),
        driver_version: survey.driver_version.clone(),
        boards,
        skipped,
    }
}

/// Chips that can be offered, and the functions that are left alone, each with its reason.
fn sort_out<'a>(survey: &'a SysfsScan, config: &Config) -> (Vec<&'a ChipFunction>, Vec<Skipped>) {
    let mut usable = Vec::new();
    let mut skipped = survey.unreadable.clone();
    for chip in &survey.chips {
        match reason_to_skip(chip, config) {
            Some(reason) => skipped.push(Skipped { address: chip.function.address, reason }),
            None => usable.push(chip),
        }
    }
    skipped.sort();
    (usable, skipped)
}

fn reason_to_skip(chip: &ChipFunction, config: &Config) -> Option<String> {
    if let Some(physical) = chip.virtual_of {
        return Some(format!("virtual function of {physical}"));
    }
    let driver = chip.driver.as_ref()?;
    let foreign = !config.discovery.drivers.contains(driver);
    foreign.then(|| format!("bound to {driver}, which is left alone"))
}

struct Facts<'a> {
    survey: &'a SysfsScan,
    config: &'a Config,
    usable: BTreeMap<PciAddress, &'a ChipFunction>,
    found: &'a BTreeMap<PciAddress, FoundNode>,
    skipped: &'a [Skipped],
}

impl Facts<'_> {
    /// None where every chip of the group is left alone.
    fn board(&self, group: &Group) -> Option<Board> {
        let chips: Vec<Chip> = group.chips.iter().filter_map(|chip| self.chip(*chip)).collect();
        let first = chips.first()?;
        let missing = health::missing_chips(group.expected_chips, chips.len(), &self.taken(group));
        let numa_nodes: BTreeSet<_> = chips.iter().filter_map(|chip| chip.numa_node).collect();
        Some(Board {
            address: group.address,
            model: models::model_name(self.usable.get(&first.address)?, &self.config.boards),
            evidence: group.evidence,
            expected_chips: group.expected_chips,
            health: Health::Healthy,
            reasons: missing.into_iter().collect(),
            numa_nodes: numa_nodes.into_iter().collect(),
            chips,
        })
    }

    fn chip(&self, address: PciAddress) -> Option<Chip> {
        let function = self.usable.get(&address)?;
        let found = self.found.get(&address)?;
        Some(Chip {
            address,
            id: function.id,
            driver: function.driver.clone(),
            node: found.node.clone(),
            node_evidence: found.evidence,
            numa_node: function.numa_node,
            slot: boards::slot_of(&function.function, &self.survey.slots).map(|(_, name)| name),
            link: function.link.clone(),
            reasons: health::chip_reasons(function, found, &self.config.discovery),
        })
    }

    /// Chips of the group that are there but left alone, as sentences.
    fn taken(&self, group: &Group) -> Vec<String> {
        let skipped = self.skipped.iter().filter(|skipped| group.chips.contains(&skipped.address));
        skipped.map(|skipped| format!("{} is {}", skipped.address, skipped.reason)).collect()
    }

    fn tree(&self, boards: &[Board]) -> crate::model::topology::DistanceTree {
        let places: Vec<_> = boards
            .iter()
            .map(|board| {
                let chips = board.chips.iter().filter_map(|chip| self.place(chip.address));
                (board.address, chips.collect())
            })
            .collect();
        topology::distance_tree(&places)
    }

    fn place(&self, address: PciAddress) -> Option<Place<'_>> {
        let chip = self.usable.get(&address)?;
        Some(Place { function: &chip.function, numa_node: chip.numa_node })
    }

    fn warnings(&self) -> impl Iterator<Item = String> {
        self.usable.values().flat_map(|chip| {
            let address = chip.function.address;
            let odd = chip.oddities.iter().map(move |oddity| format!("{address}: {oddity}"));
            odd.chain(self.inferred_node(address))
        })
    }

    fn inferred_node(&self, address: PciAddress) -> Option<String> {
        let found = self.found.get(&address)?;
        let node = found.node.as_ref().filter(|_| found.evidence == NodeEvidence::Inferred)?;
        let path = &node.path;
        Some(format!("{address}: {path} is inferred from the order of chips and nodes"))
    }

    /// Those of the configuration that exist, in its order.
    fn control_nodes(&self) -> Vec<crate::model::device::DeviceNode> {
        let wanted = self.config.discovery.control_nodes.iter();
        let there = &self.survey.device_nodes;
        wanted.filter_map(|path| there.iter().find(|node| node.path == *path).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample::{SINGLE, Sample, UNKNOWN, at, node};
    use crate::model::function::Link;

    fn look(sample: Sample) -> Inventory {
        build(&sample.survey(), &Config::default())
    }

    /// A chip with a node of its own.
    fn with_node(sample: Sample, path: &str, device: u16, minor: u32) -> Sample {
        let name = format!("/dev/iluvatar{minor}");
        let sample = sample.chip(path, device).node(&name, minor);
        sample.with(|chip| chip.child_nodes.push(node(&name, minor)))
    }

    fn skipped(inventory: &Inventory) -> Vec<String> {
        let skipped = inventory.skipped.iter();
        skipped.map(|skipped| format!("{}: {}", skipped.address, skipped.reason)).collect()
    }

    fn reasons(board: &Board) -> Vec<String> {
        let reasons = board.reasons.iter();
        reasons.map(|reason| format!("{}: {}", reason.code, reason.detail)).collect()
    }

    #[test]
    fn virtual_functions_and_foreign_drivers_are_left_alone_aloud() {
        let sample = with_node(Sample::default(), "00:01.0 03:00.0", SINGLE, 0)
            .chip("00:01.0 03:00.1", SINGLE)
            .with(|chip| chip.virtual_of = Some(at("03:00.0")))
            .chip("00:02.0 04:00.0", SINGLE)
            .with(|chip| chip.driver = Some("vfio-pci".to_owned()));
        let inventory = look(sample);
        assert_eq!(inventory.boards.len(), 1);
        assert_eq!(
            skipped(&inventory),
            [
                "0000:03:00.1: virtual function of 0000:03:00.0",
                "0000:04:00.0: bound to vfio-pci, which is left alone",
            ]
        );
    }

    #[test]
    fn a_board_whose_chip_another_driver_took_lacks_it() {
        let sample = Sample::default().dual_board("00:01.0", 0x10, UNKNOWN);
        let sample = sample.with(|chip| chip.driver = Some("vfio-pci".to_owned()));
        let inventory =
            look(sample.class_device("iluvatar0", 0, Some("14:00.0")).node("/dev/iluvatar0", 0));
        let [board] = &*inventory.boards else { panic!("one board") };
        assert_eq!(
            reasons(board),
            [
                "ChipMissing: 1 of 2 chips are there; 0000:17:00.0 is bound to vfio-pci, which is left \
             alone",
            ]
        );
        assert_eq!((board.health, board.chips.len()), (Health::Unhealthy, 1));
    }

    #[test]
    fn a_board_of_which_every_chip_is_taken_is_not_shown() {
        let taken = |chip: &mut ChipFunction| chip.driver = Some("vfio-pci".to_owned());
        let inventory = look(Sample::default().chip("00:01.0 03:00.0", SINGLE).with(taken));
        assert_eq!((inventory.boards.len(), inventory.skipped.len()), (0, 1));
    }

    #[test]
    fn a_configured_board_with_an_absent_chip_keeps_its_id() {
        let mut config = Config::default();
        config.boards.pairs = vec![vec![at("04:00.0"), at("03:00.0")]];
        let sample = with_node(Sample::default(), "00:02.0 04:00.0", UNKNOWN, 0);
        let inventory = build(&sample.survey(), &config);
        let [board] = &*inventory.boards else { panic!("one board") };
        assert_eq!((board.address, board.chips[0].address), (at("03:00.0"), at("04:00.0")));
        assert_eq!(reasons(board), ["ChipMissing: 1 of 2 chips are there"]);
    }

    #[test]
    fn an_unbound_chip_stays_listed_as_unhealthy() {
        let sample =
            Sample::default().chip("00:01.0 03:00.0", SINGLE).with(|chip| chip.driver = None);
        let inventory = look(sample);
        assert_eq!(
            reasons(&inventory.boards[0]),
            ["DriverNotBound: 0000:03:00.0 is bound to no driver; expected iluvatar or bi_driver",]
        );
    }

    #[test]
    fn a_board_reports_the_numa_nodes_of_its_chips_each_once() {
        let sample = Sample::default().dual_board("00:01.0", 0x10, UNKNOWN);
        assert_eq!(look(sample).boards[0].numa_nodes, Vec::<u32>::new());
        let mut survey = Sample::default().dual_board("00:01.0", 0x10, UNKNOWN).survey();
        survey.chips[0].numa_node = Some(1);
        survey.chips[1].numa_node = Some(1);
        assert_eq!(build(&survey, &Config::default()).boards[0].numa_nodes, [1]);
        survey.chips[1].numa_node = Some(0);
        assert_eq!(build(&survey, &Config::default()).boards[0].numa_nodes, [0, 1]);
    }

    #[test]
    fn a_model_is_named_by_configuration_then_by_the_table_and_else_unknown() {
        let sample = || {
            Sample::default()
                .chip("00:01.0 03:00.0", SINGLE)
                .chip("00:02.0 04:00.0", UNKNOWN)
                .chip("00:03.0 05:00.0", 9)
                .survey()
        };
        let mut config = Config::default();
        let id = |device| crate::model::pci::PciId { vendor: 0x1e3e, device };
        config.boards.models = [(id(UNKNOWN), "BI-V150".to_owned())].into();
        let inventory = build(&sample(), &config);
        let models: Vec<_> = inventory.boards.iter().map(|board| &*board.model).collect();
        assert_eq!(models, ["MR-V100", "BI-V150", "unknown"]);
    }

    #[test]
    fn what_is_odd_but_not_broken_is_a_warning() {
        let link = |speed: &str, width, max_width| Link {
            speed: Some(speed.to_owned()),
            width: Some(width),
            max_speed: Some("16.0 GT/s PCIe".to_owned()),
            max_width: Some(max_width),
        };
        let sample = Sample::default()
            .chip("00:01.0 03:00.0", SINGLE)
            .with(|chip| chip.oddities = vec!["numa_node is empty".to_owned()])
            .chip("00:02.0 04:00.0", SINGLE)
            .with(|chip| chip.link = link("8.0 GT/s PCIe", 8, 16))
            .chip("00:03.0 05:00.0", SINGLE)
            .with(|chip| chip.link = link("16.0 GT/s PCIe", 16, 16))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1)
            .node("/dev/iluvatar2", 2);
        assert_eq!(
            look(sample).warnings,
            [
                "0000:03:00.0: numa_node is empty",
                "0000:03:00.0: /dev/iluvatar0 is inferred from the order of chips and nodes",
                "0000:04:00.0: /dev/iluvatar1 is inferred from the order of chips and nodes",
                "0000:05:00.0: /dev/iluvatar2 is inferred from the order of chips and nodes",
                "LinkBelowMaximum: the PCIe link of 0000:04:00.0 runs at 8.0 GT/s PCIe x8, its \
                 maximum is 16.0 GT/s PCIe x16",
            ]
        );
    }

    #[test]
    fn control_nodes_are_those_that_are_there_in_the_configured_order() {
        let shown = |sample: Sample| {
            let nodes = look(sample).control_nodes;
            nodes.into_iter().map(|node| node.path).collect::<Vec<_>>()
        };
        assert_eq!(shown(Sample::default()), Vec::<String>::new());
        assert_eq!(shown(Sample::default().node("/dev/itrlink", 1)), ["/dev/itrlink"]);
        let both = Sample::default().node("/dev/itrlink", 1).node("/dev/itrctl", 0);
        assert_eq!(shown(both), ["/dev/itrctl", "/dev/itrlink"]);
    }
}
