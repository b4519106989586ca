//! What is wrong with a chip or a board, from the facts of one scan.

use super::nodes::{FoundNode, NodeProblem};
use super::vitals;
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
