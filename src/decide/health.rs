//! What is wrong with a chip or a board, from the facts of one scan.

use super::nodes::{FoundNode, NodeProblem};
use crate::model::config::DiscoveryRules;
use crate::model::function::ChipFunction;
use crate::model::health::{Health, Reason, ReasonCode};

/// Every reason against one chip; none means that it can be handed out.
#[must_use]
pub fn judge_chip(chip: &ChipFunction, node: &FoundNode, rules: &DiscoveryRules) -> Vec<Reason> {
    let address = chip.function.address;
    let mut reasons = Vec::new();
    let mut against = |code, detail| reasons.push(Reason { code, detail });
    if !chip.answers {
        let detail = format!("{address} does not answer: its configuration space reads all ones");
        against(ReasonCode::ConfigSpaceUnreadable, detail);
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
pub fn judge_board(expected: usize, there: usize, taken: &[String]) -> Option<Reason> {
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
