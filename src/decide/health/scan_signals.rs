//! What one scan shows against a chip or a board.

use super::sample_signals;
use super::tracker::ChipReasons;
use crate::model::config::DiscoveryRules;
use crate::model::function::Link;
use crate::model::health::{Reason, ReasonCode};
use crate::model::observed::{NodeProblem, ObservedBoard, ObservedChip, ObservedNode};

/// The signals that a scan can see.
pub const SCOPE: &[ReasonCode] = &[
    ReasonCode::DriverNotBound,
    ReasonCode::DeviceNodeUnknown,
    ReasonCode::DeviceNodeMissing,
    ReasonCode::ConfigSpaceUnreadable,
    ReasonCode::LinkBelowMaximum,
];

/// What is seen against each chip of a node.
#[must_use]
pub fn signals(node: &ObservedNode, rules: &DiscoveryRules) -> ChipReasons {
    let chips = node.chips().map(|chip| (chip.address, chip_signals(chip, rules)));
    chips.filter(|(_, reasons)| !reasons.is_empty()).collect()
}

/// Everything that a scan shows against one chip.
#[must_use]
pub fn chip_signals(chip: &ObservedChip, rules: &DiscoveryRules) -> Vec<Reason> {
    let silent = (!chip.answers).then(|| Reason {
        code: ReasonCode::ConfigSpaceUnreadable,
        detail: sample_signals::silence(chip.address),
    });
    let slow = slow_link(chip).map(|detail| Reason { code: ReasonCode::LinkBelowMaximum, detail });
    // Without a driver there is no node either; one reason is enough.
    let unusable = unbound(chip, rules).or_else(|| node_reason(chip));
    silent.into_iter().chain(slow).chain(unusable).collect()
}

fn unbound(chip: &ObservedChip, rules: &DiscoveryRules) -> Option<Reason> {
    if chip.driver.is_some() {
        return None;
    }
    let (address, expected) = (chip.address, rules.drivers.join(" or "));
    let detail = format!("{address} is bound to no driver; expected {expected}");
    Some(Reason { code: ReasonCode::DriverNotBound, detail })
}

fn node_reason(chip: &ObservedChip) -> Option<Reason> {
    let address = chip.address;
    Some(match chip.node_problem.as_ref()? {
        NodeProblem::Unknown(why) => Reason {
            code: ReasonCode::DeviceNodeUnknown,
            detail: format!("the device node of {address} is not known: {why}"),
        },
        NodeProblem::Missing(what) | NodeProblem::Mismatch(what) => {
            Reason { code: ReasonCode::DeviceNodeMissing, detail: format!("{address}: {what}") }
        }
    })
}

/// The reason against a board that has fewer chips than it should have.
#[must_use]
pub fn missing_chips(board: &ObservedBoard) -> Option<Reason> {
    let (expected, present) = (board.expected_chips, board.chips.len());
    if present >= expected {
        return None;
    }
    let mut detail = format!("{present} of {expected} chips present");
    for skipped in &board.skipped {
        detail = format!("{detail}; {skipped}");
    }
    Some(Reason { code: ReasonCode::ChipMissing, detail })
}

fn slow_link(chip: &ObservedChip) -> Option<String> {
    let link = &chip.link;
    if !link.is_below_maximum() {
        return None;
    }
    let address = chip.address;
    let (now, most) = (shown(link, Side::Current), shown(link, Side::Maximum));
    Some(format!("the PCIe link of {address} runs at {now}, its maximum is {most}"))
}

#[derive(Clone, Copy)]
enum Side {
    Current,
    Maximum,
}

fn shown(link: &Link, side: Side) -> String {
    let (speed, width) = match side {
        Side::Current => (&link.speed, link.width),
        Side::Maximum => (&link.max_speed, link.max_width),
    };
    let speed = speed.as_deref().unwrap_or("unknown speed");
    width.map_or(speed.to_owned(), |width| format!("{speed} x{width}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::machine::observe::observe;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, at, node};
    use crate::model::config::Config;
    use crate::model::function::ChipFunction;
    use crate::model::inventory::{SkipReason, Skipped};

    /// One bound chip with a node of its own.
    fn chip() -> ObservedChip {
        let sample =
            ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE).node("/dev/iluvatar0", 0);
        let own_node = |chip: &mut ChipFunction| chip.child_nodes.push(node("/dev/iluvatar0", 0));
        let mut observed = observe(&sample.with(own_node).scan(), &Config::default());
        observed.boards[0].chips.remove(0)
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut ObservedChip), expected: &[&str]) {
        let mut chip = chip();
        change(&mut chip);
        let reasons = chip_signals(&chip, &DiscoveryRules::default());
        let shown: Vec<_> =
            reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.detail)).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_chip_with_all_it_needs_has_no_reason_against_it() {
        check(|_| (), &[]);
    }

    #[test]
    fn each_reason_names_what_was_observed() {
        check(
            |chip| chip.answers = false,
            &["ConfigSpaceUnreadable: 0000:03:00.0 does not answer: its configuration space is \
               empty or all ones"],
        );
        check(
            |chip| chip.driver = None,
            &["DriverNotBound: 0000:03:00.0 is bound to no driver; expected iluvatar or bi_driver"],
        );
        check(
            |chip| chip.node_problem = Some(NodeProblem::Unknown("no evidence".to_owned())),
            &["DeviceNodeUnknown: the device node of 0000:03:00.0 is not known: no evidence"],
        );
        check(
            |chip| chip.node_problem = Some(NodeProblem::Missing("/dev/x is gone".to_owned())),
            &["DeviceNodeMissing: 0000:03:00.0: /dev/x is gone"],
        );
        check(
            |chip| chip.node_problem = Some(NodeProblem::Mismatch("/dev/x is 508:1".to_owned())),
            &["DeviceNodeMissing: 0000:03:00.0: /dev/x is 508:1"],
        );
    }

    #[test]
    fn a_chip_without_a_driver_has_no_second_reason_for_its_node() {
        let change = |chip: &mut ObservedChip| {
            chip.driver = None;
            chip.node_problem = Some(NodeProblem::Unknown("no evidence".to_owned()));
        };
        check(
            change,
            &["DriverNotBound: 0000:03:00.0 is bound to no driver; expected iluvatar or bi_driver"],
        );
    }

    #[test]
    fn a_board_that_lacks_a_chip_names_how_many_are_missing_and_who_has_them() {
        let mut observed = observe(
            &ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE).scan(),
            &Config::default(),
        );
        let board = &mut observed.boards[0];
        assert_eq!(missing_chips(board), None);
        board.expected_chips = 2;
        let detail = |board: &ObservedBoard| missing_chips(board).unwrap().detail;
        assert_eq!(detail(board), "1 of 2 chips present");
        let reason = SkipReason::BoundTo("vfio-pci".to_owned());
        board.skipped.push(Skipped { address: at("04:00.0"), reason });
        assert_eq!(
            detail(board),
            "1 of 2 chips present; 0000:04:00.0 is bound to vfio-pci, which is not in \
             discovery.drivers"
        );
    }
}
