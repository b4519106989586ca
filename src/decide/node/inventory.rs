//! An observation and the health verdicts to an inventory.

use std::collections::BTreeSet;

use super::known_uuids::KnownUuids;
use crate::decide::health::scan_signals;
use crate::decide::health::tracker::HealthVerdicts;
use crate::model::board::{Board, Chip};
use crate::model::config::{Config, HealthRules};
use crate::model::health::{Health, Reason, Severity};
use crate::model::inventory::Inventory;
use crate::model::observed::{ObservedBoard, ObservedChip, ObservedNode};
use crate::model::warning::{Subject, Warning, WarningCode};

/// The node's hardware with the health that holds now.
#[must_use]
pub fn conclude(
    node: &ObservedNode,
    verdicts: &HealthVerdicts,
    uuids: &KnownUuids,
    config: &Config,
) -> Inventory {
    let mut warnings: Vec<_> = node.warnings.iter().chain(uuids.warning()).cloned().collect();
    let conclusion = Conclusion { verdicts, uuids, config };
    let boards = node.boards.iter();
    Inventory {
        boards: boards.map(|board| conclusion.board(board, &mut warnings)).collect(),
        skipped: node.skipped.clone(),
        control_nodes: node.control_nodes.clone(),
        tree: node.tree.clone(),
        functions: node.functions.clone(),
        driver_version: node.driver_version.clone(),
        warnings: warnings.into_iter().chain(verdicts.warnings.iter().cloned()).collect(),
    }
}

/// The node's hardware with everything that one scan shows against it, whatever the configuration
/// makes of that: for whoever explains a machine.
#[must_use]
pub fn as_seen(node: &ObservedNode, uuids: &KnownUuids, config: &Config) -> Inventory {
    let reasons = scan_signals::signals(node, &config.discovery);
    let verdicts = HealthVerdicts { reasons, warnings: Vec::new() };
    let config = Config { health: HealthRules::default(), ..config.clone() };
    conclude(node, &verdicts, uuids, &config)
}

/// What is known beside the observation.
struct Conclusion<'a> {
    verdicts: &'a HealthVerdicts,
    uuids: &'a KnownUuids,
    config: &'a Config,
}

impl Conclusion<'_> {
    /// A board is as healthy as its chips, and as complete as it should be.
    fn board(&self, board: &ObservedBoard, warnings: &mut Vec<Warning>) -> Board {
        let chips: Vec<_> = board.chips.iter().map(|chip| self.chip(chip)).collect();
        let mut reasons = Vec::new();
        if let Some(missing) = scan_signals::missing_chips(board) {
            match self.config.health.severity(missing.code) {
                Severity::Unhealthy => reasons.push(missing),
                Severity::Warn => warnings.push(warning(board, &missing)),
                Severity::Ignore => {}
            }
        }
        for reason in chips.iter().flat_map(|chip| &chip.reasons) {
            // A cordoned board has one reason, whatever the number of its chips.
            if !reasons.contains(reason) {
                reasons.push(reason.clone());
            }
        }
        let numa_nodes: BTreeSet<_> = chips.iter().filter_map(|chip| chip.numa_node).collect();
        Board {
            address: board.address,
            model: board.model.clone(),
            evidence: board.evidence,
            expected_chips: board.expected_chips,
            health: Health::of(&reasons),
            numa_nodes: numa_nodes.into_iter().collect(),
            chips,
            reasons,
        }
    }

    fn chip(&self, chip: &ObservedChip) -> Chip {
        let found = self.verdicts.reasons.get(&chip.address);
        let mut reasons = found.cloned().unwrap_or_default();
        reasons.extend(self.uuids.unknown(chip.address, self.config));
        Chip {
            address: chip.address,
            id: chip.id,
            uuid: self.uuids.get(chip.address).cloned(),
            driver: chip.driver.clone(),
            node: chip.node.clone(),
            node_evidence: chip.node_evidence,
            numa_node: chip.numa_node,
            slot: chip.slot.clone(),
            link: chip.link.clone(),
            reasons,
        }
    }
}

fn warning(board: &ObservedBoard, reason: &Reason) -> Warning {
    Warning {
        code: WarningCode::Signal(reason.code),
        subject: Subject::Board(board.address),
        detail: format!("{}: {}", reason.code, reason.detail),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decide::node::state::snapshot_of;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN, at, node};
    use crate::model::function::{ChipFunction, Link};
    use crate::model::sysfs::SysfsScan;

    fn inventory_of(scan: SysfsScan, config: &Config) -> Arc<Inventory> {
        Arc::clone(&snapshot_of(scan, config).inventory)
    }

    fn found(sample: ScanBuilder) -> Arc<Inventory> {
        inventory_of(sample.scan(), &Config::default())
    }

    /// A chip with a node of its own.
    fn with_node(sample: ScanBuilder, path: &str, device: u16, minor: u32) -> ScanBuilder {
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
    fn virtual_functions_and_chips_of_other_drivers_are_skipped_with_a_reason() {
        let sample = with_node(ScanBuilder::default(), "00:01.0 03:00.0", SINGLE, 0)
            .chip("00:01.0 03:00.1", SINGLE)
            .with(|chip| chip.virtual_of = Some(at("03:00.0")))
            .chip("00:02.0 04:00.0", SINGLE)
            .with(|chip| chip.driver = Some("vfio-pci".to_owned()));
        let inventory = found(sample);
        assert_eq!(inventory.boards.len(), 1);
        assert_eq!(
            skipped(&inventory),
            [
                "0000:03:00.1: a virtual function of 0000:03:00.0",
                "0000:04:00.0: bound to vfio-pci, which is not in discovery.drivers",
            ]
        );
    }

    #[test]
    fn a_board_whose_chip_another_driver_took_lacks_it() {
        let sample = ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN);
        let sample = sample.with(|chip| chip.driver = Some("vfio-pci".to_owned()));
        let inventory =
            found(sample.class_device("iluvatar0", 0, Some("14:00.0")).node("/dev/iluvatar0", 0));
        let [board] = &*inventory.boards else { panic!("one board") };
        assert_eq!(
            reasons(board),
            [
                "ChipMissing: 1 of 2 chips present; 0000:17:00.0 is bound to vfio-pci, which is not in \
             discovery.drivers",
            ]
        );
        assert_eq!((board.health, board.chips.len()), (Health::Unhealthy, 1));
    }

    #[test]
    fn a_board_of_which_every_chip_is_taken_is_not_shown() {
        let taken = |chip: &mut ChipFunction| chip.driver = Some("vfio-pci".to_owned());
        let inventory = found(ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE).with(taken));
        assert_eq!((inventory.boards.len(), inventory.skipped.len()), (0, 1));
    }

    #[test]
    fn a_configured_board_with_an_absent_chip_keeps_its_id() {
        let mut config = Config::default();
        config.boards.pairs = vec![vec![at("04:00.0"), at("03:00.0")]];
        let sample = with_node(ScanBuilder::default(), "00:02.0 04:00.0", UNKNOWN, 0);
        let inventory = inventory_of(sample.scan(), &config);
        let [board] = &*inventory.boards else { panic!("one board") };
        assert_eq!((board.address, board.chips[0].address), (at("03:00.0"), at("04:00.0")));
        assert_eq!(reasons(board), ["ChipMissing: 1 of 2 chips present"]);
    }

    #[test]
    fn an_unbound_chip_stays_listed_as_unhealthy() {
        let sample =
            ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE).with(|chip| chip.driver = None);
        let inventory = found(sample);
        assert_eq!(
            reasons(&inventory.boards[0]),
            ["DriverNotBound: 0000:03:00.0 is bound to no driver; expected iluvatar or bi_driver",]
        );
    }

    #[test]
    fn a_board_reports_the_numa_nodes_of_its_chips_each_once() {
        let sample = ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN);
        assert_eq!(found(sample).boards[0].numa_nodes, Vec::<u32>::new());
        let mut scan = ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN).scan();
        scan.chips[0].numa_node = Some(1);
        scan.chips[1].numa_node = Some(1);
        assert_eq!(inventory_of(scan.clone(), &Config::default()).boards[0].numa_nodes, [1]);
        scan.chips[1].numa_node = Some(0);
        assert_eq!(inventory_of(scan.clone(), &Config::default()).boards[0].numa_nodes, [0, 1]);
    }

    #[test]
    fn a_model_is_named_by_configuration_then_by_the_table_and_else_unknown() {
        let sample = || {
            ScanBuilder::default()
                .chip("00:01.0 03:00.0", SINGLE)
                .chip("00:02.0 04:00.0", UNKNOWN)
                .chip("00:03.0 05:00.0", 9)
                .scan()
        };
        let mut config = Config::default();
        let id = |device| crate::model::pci::PciId { vendor: 0x1e3e, device };
        config.boards.models = [(id(UNKNOWN), "BI-V150".to_owned())].into();
        let inventory = inventory_of(sample(), &config);
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
        let sample = ScanBuilder::default()
            .chip("00:01.0 03:00.0", SINGLE)
            .with(|chip| chip.oddities = vec!["numa_node is empty".to_owned()])
            .chip("00:02.0 04:00.0", SINGLE)
            .with(|chip| chip.link = link("8.0 GT/s PCIe", 8, 16))
            .chip("00:03.0 05:00.0", SINGLE)
            .with(|chip| chip.link = link("16.0 GT/s PCIe", 16, 16))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1)
            .node("/dev/iluvatar2", 2);
        let warnings: Vec<_> = found(sample).warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
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
        let shown = |sample: ScanBuilder| {
            let nodes = &found(sample).control_nodes;
            nodes.iter().map(|node| node.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(shown(ScanBuilder::default()), Vec::<String>::new());
        assert_eq!(shown(ScanBuilder::default().node("/dev/itrlink", 1)), ["/dev/itrlink"]);
        let both = ScanBuilder::default().node("/dev/itrlink", 1).node("/dev/itrctl", 0);
        assert_eq!(shown(both), ["/dev/itrctl", "/dev/itrlink"]);
    }
}
