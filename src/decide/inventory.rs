//! A survey to an inventory: the one place where boards, nodes, distances and health come together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::boards::{self, Group};
use super::judge::{Findings, Judge, Judgement};
use super::nodes::{self, FoundNode};
use super::topology::{self, Place};
use super::{health, models};
use crate::model::board::{Board, Chip};
use crate::model::config::{Config, HealthRules};
use crate::model::device::NodeEvidence;
use crate::model::function::ChipFunction;
use crate::model::health::{Health, Severity};
use crate::model::inventory::{Inventory, Skipped};
use crate::model::pci::PciAddress;
use crate::model::survey::Survey;

/// Concludes everything from one survey, health included, as far as one look can tell.
#[must_use]
pub fn build(survey: &Survey, config: &Config) -> Inventory {
    judged_once(&facts(survey, config), config)
}

/// The inventory as one look judges it, without any history.
#[must_use]
pub fn judged_once(facts: &Inventory, config: &Config) -> Inventory {
    let (chips, seen) = seen(facts);
    let mut judge = Judge::default();
    judge.observe(Duration::ZERO, &chips, health::SCOPE, &seen, &config.health);
    let judgement = judge.judge(Duration::ZERO, &config.health);
    judged(facts, &judgement, &config.health)
}

/// The chips of an inventory, and what a scan saw against each.
#[must_use]
pub fn seen(facts: &Inventory) -> (BTreeSet<PciAddress>, Findings) {
    let chips = facts.boards.iter().flat_map(|board| &board.chips);
    let seen = chips.clone().filter(|chip| !chip.reasons.is_empty());
    let seen = seen.map(|chip| (chip.address, chip.reasons.clone())).collect();
    (chips.map(|chip| chip.address).collect(), seen)
}

/// The inventory with the reasons that hold in place of everything that was seen.
#[must_use]
pub fn judged(facts: &Inventory, judgement: &Judgement, rules: &HealthRules) -> Inventory {
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
pub fn facts(survey: &Survey, config: &Config) -> Inventory {
    let (usable, skipped) = sort_out(survey, config);
    let found = nodes::find_nodes(&usable, survey, &config.discovery);
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
fn sort_out<'a>(survey: &'a Survey, config: &Config) -> (Vec<&'a ChipFunction>, Vec<Skipped>) {
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
    survey: &'a Survey,
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
            model: models::model_name(first.id, &self.config.boards),
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
