//! What is wrong with a chip or a board, from the facts of one scan.

use super::sample_signals as vitals;
use crate::decide::machine::device_nodes::{FoundNode, NodeProblem};
use crate::model::config::DiscoveryRules;
use crate::model::function::ChipFunction;
use crate::model::health::{Health, Reason, ReasonCode};

/// The signals that a scan can see; the judgement of them is made elsewhere.
pub const SCOPE: &[ReasonCode] = &[
    ReasonCode::DriverNotBound,
    ReasonCode::DeviceNodeUnknown,
    ReasonCode::DeviceNodeMissing,
    ReasonCode::ConfigSpaceUnreadable,
    ReasonCode::LinkBelowMaximum,
];

/// Everything that a scan sees against one chip.
#[must_use]
pub fn chip_reasons(chip: &ChipFunction, node: &FoundNode, rules: &DiscoveryRules) -> Vec<Reason> {
    let address = chip.function.address;
    let mut reasons = Vec::new();
    let mut against = |code, detail| reasons.push(Reason { code, detail });
    if !chip.answers {
        against(ReasonCode::ConfigSpaceUnreadable, vitals::silence(address));
    }
    if let Some(detail) = slow_link(chip) {
        against(ReasonCode::LinkBelowMaximum, detail);
    }
    if chip.driver.is_none() {
        let expected = rules.drivers.join(" or ");
        let detail = format!("{address} is bound to no driver; expected {expected}");
        against(ReasonCode::DriverNotBound, detail);
        // Without a driver there is no node either; one reason is enough.
        return reasons;
    }
    match &node.problem {
        Some(NodeProblem::Unknown(why)) => {
            let detail = format!("the /dev node of {address} is not known: {why}");
            against(ReasonCode::DeviceNodeUnknown, detail);
        }
        Some(NodeProblem::Missing(what)) => {
            against(ReasonCode::DeviceNodeMissing, format!("{address}: {what}"));
        }
        None => {}
    }
    reasons
}

/// The reason against a board that shows fewer chips than it has; `taken` are those of its chips
/// that another driver holds.
#[must_use]
pub fn missing_chips(expected: usize, there: usize, taken: &[String]) -> Option<Reason> {
    if there >= expected {
        return None;
    }
    let mut detail = format!("{there} of {expected} chips are there");
    if !taken.is_empty() {
        detail = format!("{detail}; {}", taken.join("; "));
    }
    Some(Reason { code: ReasonCode::ChipMissing, detail })
}

/// Healthy only without any reason.
#[must_use]
pub fn verdict(reasons: &[Reason]) -> Health {
    if reasons.is_empty() { Health::Healthy } else { Health::Unhealthy }
}

fn slow_link(chip: &ChipFunction) -> Option<String> {
    let link = &chip.link;
    if !link.is_below_maximum() {
        return None;
    }
    let address = chip.function.address;
    let shown = |speed: &Option<String>, width: &Option<u32>| {
        let speed = speed.as_deref().unwrap_or("unknown speed");
        width.map_or(speed.to_owned(), |width| format!("{speed} x{width}"))
    };
    let now = shown(&link.speed, &link.width);
    let most = shown(&link.max_speed, &link.max_width);
    Some(format!("the PCIe link of {address} runs at {now}, its maximum is {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample::{SINGLE, Sample, node};
    use crate::model::device::NodeEvidence;

    #[track_caller]
    fn check(
        change: impl FnOnce(&mut ChipFunction),
        problem: Option<NodeProblem>,
        expected: &[&str],
    ) {
        let survey = Sample::default().chip("00:01.0 03:00.0", SINGLE).with(change).survey();
        let node = Some(node("/dev/iluvatar0", 0));
        let found = FoundNode { node, evidence: NodeEvidence::Sysfs, problem };
        let reasons = chip_reasons(&survey.chips[0], &found, &DiscoveryRules::default());
        let shown: Vec<_> =
            reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.detail)).collect();
        assert_eq!(shown, expected);
        let healthy = expected.is_empty();
        assert_eq!(verdict(&reasons), if healthy { Health::Healthy } else { Health::Unhealthy });
    }

    #[test]
    fn a_chip_with_all_it_needs_has_no_reason_against_it() {
        check(|_| (), None, &[]);
    }

    #[test]
    fn each_reason_says_what_was_seen() {
        check(
            |chip| chip.answers = false,
            None,
            &[
                "ConfigSpaceUnreadable: 0000:03:00.0 does not answer: its configuration space is empty \
             or all ones",
            ],
        );
        check(
            |chip| chip.driver = None,
            None,
            &["DriverNotBound: 0000:03:00.0 is bound to no driver; expected iluvatar or bi_driver"],
        );
        check(
            |_| (),
            Some(NodeProblem::Unknown("nothing tells".to_owned())),
            &["DeviceNodeUnknown: the /dev node of 0000:03:00.0 is not known: nothing tells"],
        );
        check(
            |_| (),
            Some(NodeProblem::Missing("/dev/iluvatar0 is away".to_owned())),
            &["DeviceNodeMissing: 0000:03:00.0: /dev/iluvatar0 is away"],
        );
    }

    #[test]
    fn a_chip_without_a_driver_is_not_blamed_for_its_node_too() {
        let problem = Some(NodeProblem::Unknown("nothing tells".to_owned()));
        check(
            |chip| chip.driver = None,
            problem,
            &["DriverNotBound: 0000:03:00.0 is bound to no driver; expected iluvatar or bi_driver"],
        );
    }

    #[test]
    fn a_board_that_lacks_a_chip_says_how_many_and_who_has_it() {
        let detail = |taken: &[String]| missing_chips(2, 1, taken).map(|reason| reason.detail);
        assert_eq!(detail(&[]).as_deref(), Some("1 of 2 chips are there"));
        let taken = ["0000:04:00.0 is bound to vfio-pci, which is left alone".to_owned()];
        let expected =
            "1 of 2 chips are there; 0000:04:00.0 is bound to vfio-pci, which is left alone";
        assert_eq!(detail(&taken).as_deref(), Some(expected));
        assert_eq!(missing_chips(2, 2, &[]), None);
    }
}
