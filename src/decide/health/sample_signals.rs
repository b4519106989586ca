//! What two health samples, one after the other, show against the chips.

use super::tracker::ChipReasons;
use crate::model::health::{Reason, ReasonCode};
use crate::model::health_sample::{ChipHealthSample, HealthSample};
use crate::model::observed::{NodeProblem, ObservedChip, ObservedNode};
use crate::model::pci::PciAddress;

/// The signals that a health sample can see.
pub const SCOPE: &[ReasonCode] =
    &[ReasonCode::ConfigSpaceUnreadable, ReasonCode::AerFatal, ReasonCode::AerNonFatal];

/// What is seen against each chip. A counter counts by its rise, so the first sample of a chip shows
/// nothing of it, and a counter that fell belongs to a function that came anew.
#[must_use]
pub fn signals(before: &HealthSample, now: &HealthSample) -> ChipReasons {
    now.iter()
        .filter(|(_, sample)| sample.is_there)
        .map(|(chip, sample)| (*chip, chip_findings(*chip, before.get(chip), sample)))
        .filter(|(_, reasons)| !reasons.is_empty())
        .collect()
}

fn chip_findings(
    chip: PciAddress,
    before: Option<&ChipHealthSample>,
    now: &ChipHealthSample,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut against = |code, detail| reasons.push(Reason { code, detail });
    if now.answers == Some(false) {
        against(ReasonCode::ConfigSpaceUnreadable, silence(chip));
    }
    if let Some((was, is)) = risen(before.and_then(|it| it.fatal_errors), now.fatal_errors) {
        let detail = format!("{chip}: fatal PCIe errors rose from {was} to {is}");
        against(ReasonCode::AerFatal, detail);
    }
    if let Some((was, is)) = risen(before.and_then(|it| it.non_fatal_errors), now.non_fatal_errors)
    {
        let detail = format!("{chip}: non-fatal PCIe errors rose from {was} to {is}");
        against(ReasonCode::AerNonFatal, detail);
    }
    reasons
}

/// The sentence about a chip that does not answer.
#[must_use]
pub fn silence(chip: PciAddress) -> String {
    format!("{chip} does not answer: its configuration space is empty or all ones")
}

pub(super) fn risen(before: Option<u64>, now: Option<u64>) -> Option<(u64, u64)> {
    Some((before?, now?)).filter(|(before, now)| now > before)
}

/// True where a sample shows that the scan is outdated: a chip left, its driver changed, or its
/// device node appeared or disappeared.
#[must_use]
pub fn is_outdated(node: &ObservedNode, sample: &HealthSample) -> bool {
    let mut chips = node.chips();
    chips.any(|chip| sample.get(&chip.address).is_some_and(|sample| differs(chip, sample)))
}

/// A node of another number is in /dev all the same, so only a missing one can appear.
fn differs(chip: &ObservedChip, sample: &ChipHealthSample) -> bool {
    let was_in_dev = !matches!(chip.node_problem, Some(NodeProblem::Missing(_)));
    !sample.is_there
        || sample.driver != chip.driver
        || sample.has_node.is_some_and(|has_node| has_node != was_in_dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip() -> PciAddress {
        PciAddress { domain: 0, bus: 0x13, device: 0, function: 0 }
    }

    fn healthy() -> ChipHealthSample {
        ChipHealthSample {
            is_there: true,
            driver: Some("iluvatar".to_owned()),
            has_node: Some(true),
            answers: Some(true),
            fatal_errors: Some(1),
            non_fatal_errors: Some(7),
        }
    }

    #[track_caller]
    fn check(before: Option<ChipHealthSample>, now: ChipHealthSample, expected: &[(&str, &str)]) {
        let before: HealthSample = before.into_iter().map(|sample| (chip(), sample)).collect();
        let found = signals(&before, &HealthSample::from([(chip(), now)]));
        let found: Vec<_> = found
            .get(&chip())
            .into_iter()
            .flatten()
            .map(|reason| (reason.code.name(), reason.detail.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_chip_that_answers_and_counts_no_more_errors_has_nothing_against_it() {
        check(Some(healthy()), healthy(), &[]);
    }

    #[test]
    fn a_chip_that_does_not_answer_has_that_reason() {
        let silent = ChipHealthSample { answers: Some(false), ..healthy() };
        let detail = "0000:13:00.0 does not answer: its configuration space is empty or all ones";
        check(Some(healthy()), silent, &[("ConfigSpaceUnreadable", detail)]);
    }

    #[test]
    fn counters_tell_by_rising() {
        let more =
            ChipHealthSample { fatal_errors: Some(2), non_fatal_errors: Some(9), ..healthy() };
        let fatal = ("AerFatal", "0000:13:00.0: fatal PCIe errors rose from 1 to 2");
        let other = ("AerNonFatal", "0000:13:00.0: non-fatal PCIe errors rose from 7 to 9");
        check(Some(healthy()), more.clone(), &[fatal, other]);
        check(None, more.clone(), &[]);
        check(Some(more), healthy(), &[]);
    }

    #[test]
    fn counters_that_the_kernel_does_not_have_say_nothing() {
        let none = ChipHealthSample { fatal_errors: None, non_fatal_errors: None, ..healthy() };
        check(Some(healthy()), none.clone(), &[]);
        check(Some(none), healthy(), &[]);
    }
}
