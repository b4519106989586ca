//! Checks of chips and boards.

use super::{Hardware, and, count, or_ok};
use crate::model::board::{Board, Evidence};
use crate::model::config::Config;

use crate::model::doctor::finding::{Finding, Level};
use crate::model::health::{ReasonCode, Severity};
use crate::model::warning::WarningCode;
use crate::parse::identities::IXSMI;

pub(super) fn chips(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let scan = &hardware.facts.scan;
    let mut findings: Vec<_> = scan
        .unreadable
        .iter()
        .map(|skipped| {
            Finding::warning(
                skipped.to_string(),
                "check again; if it persists, the function may be leaving the bus: see `dmesg`",
            )
        })
        .collect();
    if scan.chips.is_empty() {
        let vendors: Vec<_> =
            config.discovery.vendor_ids.iter().map(|id| format!("{id:#06x}")).collect();
        findings.push(Finding::warning(
            format!(
                "no chip of vendor {} is among {}",
                and(&vendors),
                count(scan.functions.len(), "PCI function")
            ),
            "if this node should have GPUs, check that `lspci -d 1e3e:` lists them; otherwise \
             exclude it with a node selector",
        ));
    }
    let (chips, boards) = (scan.chips.len(), hardware.inventory.boards.len());
    or_ok(findings, || format!("{} on {}", count(chips, "chip"), count(boards, "board")))
}

/// Problems of the file of `discovery.identities`, and chips whose UUID containers miss.
pub(super) fn uuids(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let warnings = hardware.inventory.warnings.iter();
    let of_file = warnings.filter(|warning| warning.code == WarningCode::IdentitiesFile);
    let of_file = of_file.map(|warning| {
        Finding::warning(warning.detail.clone(), format!("write it with `{IXSMI}`"))
    });
    of_file.chain(against_chips(hardware, config, ReasonCode::UuidUnknown)).collect()
}

pub(super) fn config_space(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let silent = against_chips(hardware, config, ReasonCode::ConfigSpaceUnreadable);
    or_ok(silent, || "every chip answers on the bus".to_owned())
}

pub(super) fn links(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let slow = against_chips(hardware, config, ReasonCode::LinkBelowMaximum);
    or_ok(slow, || "no PCIe link is below its maximum".to_owned())
}

pub(super) fn boards(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let halves = hardware.inventory.boards.iter().flat_map(|board| {
        let missing = board.reasons.iter().filter(|it| it.code == ReasonCode::ChipMissing);
        missing.map(|reason| {
            let sentence = format!(
                "board {}: {} ({} by {})",
                board.address,
                reason.detail,
                board.expected_chips,
                what_shows_its_chips(board)
            );
            of_reason(config, reason.code, sentence)
        })
    });
    or_ok(halves.collect(), || "no board is known to lack a chip".to_owned())
}

/// What shows how many chips the board should have.
fn what_shows_its_chips(board: &Board) -> String {
    let id = board.chips.first().map_or_else(String::new, |chip| chip.id.to_string());
    match board.evidence {
        Evidence::Config => "boards.pairs".to_owned(),
        Evidence::DeviceId => format!("its device id {id}"),
        Evidence::Siblings => format!("the other boards of {id} on this node"),
        evidence => format!("the evidence `{evidence}`"),
    }
}

pub(super) fn numa(hardware: &Hardware, _: &Config) -> Vec<Finding> {
    let chips = hardware.inventory.chips();
    let nowhere: Vec<_> = chips
        .iter()
        .filter(|chip| chip.numa_node.is_none())
        .map(|chip| chip.address.to_string())
        .collect();
    if nowhere.is_empty() {
        let ok = if chips.is_empty() {
            "no chip needs a NUMA node"
        } else {
            "every chip has a NUMA node"
        };
        return vec![Finding::ok(ok)];
    }
    let sentence = format!(
        "numa_node is -1 for {} and for all ports above: the kubelet gets no NUMA hints",
        and(&nowhere)
    );
    let finding = Finding::warning(
        sentence,
        "enable NUMA (ACPI SRAT, _PXM) in the firmware; in a virtual machine, define a virtual \
         NUMA topology with the node of the GPUs",
    );
    // With one NUMA node a hint would change nothing.
    let level = if hardware.facts.numa_nodes > 1 { Level::Warning } else { Level::Note };
    vec![finding.at(level)]
}

/// A finding for each chip that has this reason.
pub(super) fn against_chips(
    hardware: &Hardware,
    config: &Config,
    code: ReasonCode,
) -> Vec<Finding> {
    let reasons = hardware.inventory.chips().into_iter().flat_map(|chip| &chip.reasons);
    let with_code = reasons.filter(|reason| reason.code == code);
    with_code.map(|reason| of_reason(config, code, reason.detail.clone())).collect()
}

fn of_reason(config: &Config, code: ReasonCode, sentence: String) -> Finding {
    Finding::warning(sentence, code.remedy()).at(level(config, code))
}

/// As grave as configured.
fn level(config: &Config, code: ReasonCode) -> Level {
    match config.health.severity(code) {
        Severity::Unhealthy => Level::Failure,
        Severity::Warn => Level::Warning,
        Severity::Ignore => Level::Note,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{self, check, hardware, one, with_remedy};
    use super::*;
    use crate::decide::scan_builder::{ScanBuilder, UNKNOWN};
    use crate::model::function::Link;
    use crate::model::inventory::{SkipReason, Skipped};

    #[test]
    fn a_node_without_chips_names_the_vendors_searched_for() {
        check(chips, &hardware(one()), &["ok: 1 chip on 1 board"]);
        check(
            chips,
            &hardware(ScanBuilder::default().other("00:01.0 03:00.0")),
            &["warning: no chip of vendor 0x1e3e is among 2 PCI functions -> if this node \
                 should have GPUs, check that `lspci -d 1e3e:` lists them; otherwise exclude it \
                 with a node selector"],
        );
    }

    #[test]
    fn a_function_that_cannot_be_read_is_named() {
        let mut hardware = hardware(one());
        let address = "0000:04:00.0".parse().unwrap();
        hardware
            .facts
            .scan
            .unreadable
            .push(Skipped { address, reason: SkipReason::Unreadable("class is empty".to_owned()) });
        check(
            chips,
            &hardware,
            &["warning: 0000:04:00.0 is not readable: class is empty -> check again; if it \
               persists, the function may be leaving the bus: see `dmesg`"],
        );
    }

    #[test]
    fn a_chip_that_fell_off_the_bus_is_a_failure() {
        check(config_space, &hardware(one()), &["ok: every chip answers on the bus"]);
        check(
            config_space,
            &hardware(one().with(|chip| chip.answers = false)),
            &[&with_remedy(
                "failure: 0000:03:00.0 does not answer: its configuration space is empty or all \
                 ones",
                ReasonCode::ConfigSpaceUnreadable,
            )],
        );
    }

    fn slow() -> Hardware {
        let link = |width| Link { width: Some(width), max_width: Some(16), ..Link::default() };
        hardware(one().with(|chip| chip.link = link(8)))
    }

    #[test]
    fn a_slow_link_is_a_warning() {
        check(links, &hardware(one()), &["ok: no PCIe link is below its maximum"]);
        check(
            links,
            &slow(),
            &[&with_remedy(
                "warning: the PCIe link of 0000:03:00.0 runs at unknown speed x8, its maximum is \
                 unknown speed x16",
                ReasonCode::LinkBelowMaximum,
            )],
        );
    }

    #[test]
    fn a_signal_is_as_grave_as_the_configuration_takes_it() {
        for (severity, expected) in
            [(Severity::Ignore, Level::Note), (Severity::Unhealthy, Level::Failure)]
        {
            let mut config = Config::default();
            config.health.signals.insert(ReasonCode::LinkBelowMaximum, severity);
            assert_eq!(links(&slow(), &config)[0].level, expected);
        }
    }

    #[test]
    fn a_half_board_is_a_failure() {
        let whole = || ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN);
        check(boards, &hardware(whole()), &["ok: no board is known to lack a chip"]);
        let half = whole().with(|chip| chip.driver = Some("vfio-pci".to_owned()));
        check(
            boards,
            &hardware(half),
            &[&with_remedy(
                "failure: board 0000:14:00.0: 1 of 2 chips present; 0000:17:00.0 is bound to \
                 vfio-pci, which is not in discovery.drivers (2 by the evidence `own bridges`)",
                ReasonCode::ChipMissing,
            )],
        );
    }

    #[test]
    fn a_half_board_is_named_with_what_shows_that_it_should_have_more() {
        let sample = ScanBuilder::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .chip("00:02.0 20:00.0", UNKNOWN);
        let expected = "failure: board 0000:20:00.0: 1 of 2 chips present (2 by the other boards \
                        of 1e3e:0003 on this node)";
        check(boards, &hardware(sample), &[&with_remedy(expected, ReasonCode::ChipMissing)]);
    }

    #[test]
    fn a_numa_node_is_missed_only_where_there_are_several() {
        let sentence = "numa_node is -1 for 0000:03:00.0 and for all ports above: the kubelet \
                        gets no NUMA hints -> enable NUMA (ACPI SRAT, _PXM) in the firmware; in a \
                        virtual machine, define a virtual NUMA topology with the node of the GPUs";
        let mut hardware = hardware(one());
        check(numa, &hardware, &[&format!("note: {sentence}")]);
        hardware.facts.numa_nodes = 2;
        check(numa, &hardware, &[&format!("warning: {sentence}")]);
        let placed = sample_facts::hardware(one().with(|chip| chip.numa_node = Some(1)));
        check(numa, &placed, &["ok: every chip has a NUMA node"]);
    }
}
