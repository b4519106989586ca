//! Checks of chips and boards.

use super::{and, count, or_ok};
use crate::model::board::Chip;
use crate::model::doctor::facts::{Facts, Hardware};
use crate::model::doctor::finding::{Finding, Level};
use crate::model::health::{ReasonCode, Severity};

pub(super) fn chips(hardware: &Hardware, facts: &Facts) -> Vec<Finding> {
    let survey = &hardware.survey;
    let mut findings: Vec<_> = survey
        .unreadable
        .iter()
        .map(|skipped| {
            Finding::warning(
                format!("{} could not be read: {}", skipped.address, skipped.reason),
                "look again; if it stays, the function is leaving the bus: see `dmesg`",
            )
        })
        .collect();
    if survey.chips.is_empty() {
        let vendors: Vec<_> =
            facts.config.discovery.vendor_ids.iter().map(|id| format!("{id:#06x}")).collect();
        findings.push(Finding::warning(
            format!(
                "no chip of vendor {} is among {}",
                and(&vendors),
                count(survey.functions.len(), "PCI function")
            ),
            "if this node should have GPUs, check that `lspci -d 1e3e:` shows them; else keep the \
             plugin off it with a node selector",
        ));
    }
    let (chips, boards) = (survey.chips.len(), hardware.inventory.boards.len());
    or_ok(findings, || {
        format!("{}, of which {} can be offered", count(chips, "chip"), count(boards, "board"))
    })
}

pub(super) fn config_space(hardware: &Hardware, facts: &Facts) -> Vec<Finding> {
    let silent = of_chips(hardware, facts, ReasonCode::ConfigSpaceUnreadable, |_| {
        "the chip fell off the bus: reset or power-cycle the node; if it comes back, look for the \
         cause in `dmesg` (AER, power, heat)"
            .to_owned()
    });
    or_ok(silent, || "every chip answers".to_owned())
}

pub(super) fn links(hardware: &Hardware, facts: &Facts) -> Vec<Finding> {
    let slow = of_chips(hardware, facts, ReasonCode::LinkBelowMaximum, |_| {
        "look again under load, for a link may be slow while idle; if it stays, reseat the board \
         and check the slot's width and the firmware's settings"
            .to_owned()
    });
    or_ok(slow, || "no PCIe link is below its maximum".to_owned())
}

pub(super) fn boards(hardware: &Hardware, facts: &Facts) -> Vec<Finding> {
    let boards = hardware.inventory.boards.iter();
    let halves = boards.flat_map(|board| {
        let missing = board.reasons.iter().filter(|it| it.code == ReasonCode::ChipMissing);
        missing.map(move |reason| {
            let sentence = format!("board {}: {}", board.address, reason.detail);
            Finding::failure(
                sentence,
                "give all of its chips to one driver; where one is not on the bus, `echo 1 > \
                 /sys/bus/pci/rescan`, then reset or reseat the board; where the board never had \
                 more, correct boards.chipsPerBoard or boards.pairs",
            )
            .at(level(facts, ReasonCode::ChipMissing))
        })
    });
    let halves = halves.collect();
    or_ok(halves, || "no board lacks a chip".to_owned())
}

pub(super) fn numa(hardware: &Hardware, _: &Facts) -> Vec<Finding> {
    let chips = hardware.inventory.chips();
    let nowhere: Vec<_> = chips
        .iter()
        .filter(|chip| chip.numa_node.is_none())
        .map(|chip| chip.address.to_string())
        .collect();
    if nowhere.is_empty() {
        let ok = if chips.is_empty() { "no chip to ask" } else { "every chip has a NUMA node" };
        return vec![Finding::ok(ok)];
    }
    let sentence = format!(
        "numa_node is -1 for {} and for all ports above: the kubelet gets no hint for placement",
        and(&nowhere)
    );
    let finding = Finding::warning(
        sentence,
        "switch NUMA (ACPI SRAT, _PXM) on in the firmware; in a virtual machine, give it a virtual \
         topology that names the node of the GPUs",
    );
    // With one node there is nothing to be near to.
    let level = if hardware.numa_nodes > 1 { Level::Warning } else { Level::Note };
    vec![finding.at(level)]
}

/// A finding for each chip against which this reason was seen.
pub(super) fn of_chips(
    hardware: &Hardware,
    facts: &Facts,
    code: ReasonCode,
    remedy: impl Fn(&Chip) -> String,
) -> Vec<Finding> {
    let level = level(facts, code);
    let seen = hardware.inventory.chips().into_iter().flat_map(|chip| {
        let reasons = chip.reasons.iter().filter(|reason| reason.code == code);
        reasons.map(move |reason| (chip, reason.detail.clone()))
    });
    seen.map(|(chip, detail)| Finding::warning(detail, remedy(chip)).at(level)).collect()
}

/// As grave as the configuration takes the signal.
fn level(facts: &Facts, code: ReasonCode) -> Level {
    match facts.config.health.severity(code) {
        Severity::Unhealthy => Level::Failure,
        Severity::Warn => Level::Warning,
        Severity::Ignore => Level::Note,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{self, check, hardware, one};
    use super::*;
    use crate::decide::sample::{Sample, UNKNOWN};
    use crate::model::function::Link;
    use crate::model::inventory::Skipped;

    #[test]
    fn a_node_without_chips_says_what_was_looked_for() {
        check(chips, &hardware(one()), &["ok: 1 chip, of which 1 board can be offered"]);
        check(
            chips,
            &hardware(Sample::default().other("00:01.0 03:00.0")),
            &["warning: no chip of vendor 0x1e3e is among 2 PCI functions -> if this node should \
               have GPUs, check that `lspci -d 1e3e:` shows them; else keep the plugin off it with \
               a node selector"],
        );
    }

    #[test]
    fn a_function_that_cannot_be_read_is_named() {
        let mut hardware = hardware(one());
        let address = "0000:04:00.0".parse().unwrap();
        hardware.survey.unreadable.push(Skipped { address, reason: "class is empty".to_owned() });
        check(
            chips,
            &hardware,
            &[
                "warning: 0000:04:00.0 could not be read: class is empty -> look again; if it stays, \
               the function is leaving the bus: see `dmesg`",
            ],
        );
    }

    #[test]
    fn a_chip_that_fell_off_the_bus_is_a_failure() {
        check(config_space, &hardware(one()), &["ok: every chip answers"]);
        check(
            config_space,
            &hardware(one().with(|chip| chip.answers = false)),
            &[
                "failure: 0000:03:00.0 does not answer: its configuration space is empty or all ones -> \
               the chip fell off the bus: reset or power-cycle the node; if it comes back, look \
               for the cause in `dmesg` (AER, power, heat)",
            ],
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
            &["warning: the PCIe link of 0000:03:00.0 runs at unknown speed x8, its maximum is \
               unknown speed x16 -> look again under load, for a link may be slow while idle; if \
               it stays, reseat the board and check the slot's width and the firmware's settings"],
        );
    }

    #[test]
    fn a_signal_is_as_grave_as_the_configuration_takes_it() {
        for (severity, expected) in
            [(Severity::Ignore, Level::Note), (Severity::Unhealthy, Level::Failure)]
        {
            let mut facts = sample_facts::facts(slow());
            facts.config.health.signals.insert(ReasonCode::LinkBelowMaximum, severity);
            assert_eq!(links(&slow(), &facts)[0].level, expected);
        }
    }

    #[test]
    fn a_half_board_is_a_failure() {
        let whole = || Sample::default().dual_board("00:01.0", 0x10, UNKNOWN);
        check(boards, &hardware(whole()), &["ok: no board lacks a chip"]);
        let half = whole().with(|chip| chip.driver = Some("vfio-pci".to_owned()));
        check(
            boards,
            &hardware(half),
            &["failure: board 0000:14:00.0: 1 of 2 chips are there; 0000:17:00.0 is bound to \
               vfio-pci, which is left alone -> give all of its chips to one driver; where one is \
               not on the bus, `echo 1 > /sys/bus/pci/rescan`, then reset or reseat the board; \
               where the board never had more, correct boards.chipsPerBoard or boards.pairs"],
        );
    }

    #[test]
    fn a_numa_node_is_missed_only_where_there_are_several() {
        let sentence = "numa_node is -1 for 0000:03:00.0 and for all ports above: the kubelet gets \
                        no hint for placement -> switch NUMA (ACPI SRAT, _PXM) on in the firmware; \
                        in a virtual machine, give it a virtual topology that names the node of \
                        the GPUs";
        let mut hardware = hardware(one());
        check(numa, &hardware, &[&format!("note: {sentence}")]);
        hardware.numa_nodes = 2;
        check(numa, &hardware, &[&format!("warning: {sentence}")]);
        let placed = sample_facts::hardware(one().with(|chip| chip.numa_node = Some(1)));
        check(numa, &placed, &["ok: every chip has a NUMA node"]);
    }
}
