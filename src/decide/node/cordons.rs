//! What cordons mean: for the health of chips, for who still holds them, and for whoever types an id.

use std::collections::BTreeSet;

use thiserror::Error;

use super::holdings::Holdings;
use super::snapshot::NodeSnapshot;
use crate::decide::health::tracker::HealthVerdicts;
use crate::model::cordon::{Cordon, CordonList, CordonReason, CordonState, Cordons};
use crate::model::device::DeviceId;
use crate::model::health::{Reason, ReasonCode};
use crate::model::inventory::Inventory;
use crate::model::pci::{PciAddress, PciAddressError};
use crate::model::warning::{Subject, Warning, WarningCode};

/// The detail of a cordon without a text.
const NO_REASON: &str = "by an operator";

/// Makes every cordoned chip unhealthy. A chip under two cordons has both reasons.
pub fn add_to(cordons: &Cordons, verdicts: &mut HealthVerdicts) {
    for cordon in cordons.values() {
        let detail = cordon.reason.as_ref().map_or(NO_REASON.to_owned(), ToString::to_string);
        for chip in &cordon.chips {
            let reason = Reason { code: ReasonCode::Cordoned, detail: detail.clone() };
            verdicts.reasons.entry(*chip).or_default().push(reason);
        }
    }
}

/// The warning about a file of cordons that could not be used.
#[must_use]
pub fn warning(list: &CordonList) -> Option<Warning> {
    let (code, subject) = (WarningCode::CordonFileUnusable, Subject::Node);
    list.problem.clone().map(|detail| Warning { code, subject, detail })
}

/// Each cordon with who still holds its chips, ascending by id.
#[must_use]
pub fn states(cordons: &Cordons, holdings: &Holdings, inventory: &Inventory) -> Vec<CordonState> {
    let states = cordons.iter().map(|(id, cordon)| CordonState {
        id: *id,
        cordon: cordon.clone(),
        usage: holdings.usage(&cordon.chips, inventory),
    });
    states.collect()
}

/// Why an id cannot be cordoned or uncordoned.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum CordonIdError {
    /// It has not the form of an id.
    #[error("{error}; {existing}")]
    NotAnAddress {
        /// The text, and the rule that it breaks.
        error: PciAddressError,
        /// What can be typed.
        existing: String,
    },
    /// It is one of several replicas of a device.
    #[error("`{0}` is a replica, and replicas of a device are cordoned together; type {address}", address = .0.address)]
    Replica(DeviceId),
    /// The machine has no such board and no such chip.
    #[error("{id} is not a board or chip of this machine; {existing}")]
    Unknown {
        /// What was typed.
        id: PciAddress,
        /// What can be typed.
        existing: String,
    },
    /// It is not cordoned.
    #[error("{id} is not cordoned; {existing}")]
    NotCordoned {
        /// What was typed.
        id: PciAddress,
        /// What is cordoned.
        existing: String,
    },
    /// Another id was cordoned, and it is part of that.
    #[error("{id} is cordoned as part of {whole}; type `uncordon {whole}`")]
    Part {
        /// What was typed.
        id: PciAddress,
        /// What was cordoned.
        whole: PciAddress,
    },
}

/// What `text` names on this machine: its address, and the chips that are to be cordoned. The id of a
/// device stands for that device; another address for its board or its chip.
///
/// # Errors
/// [`CordonIdError`], which names what exists.
pub fn chips_of(
    text: &str,
    snapshot: &NodeSnapshot,
) -> Result<(PciAddress, BTreeSet<PciAddress>), CordonIdError> {
    let id = address(text, || existing(&snapshot.inventory))?;
    let device = snapshot.devices().find(|(_, device)| device.id.address == id);
    let board = snapshot.inventory.boards.iter().find(|board| board.address == id);
    let chips = match (device, board) {
        (Some((_, device)), _) => device.chips.clone(),
        (None, Some(board)) => board.chips.iter().map(|chip| chip.address).collect(),
        (None, None) if snapshot.inventory.chip(id).is_some() => Vec::new(),
        (None, None) => {
            return Err(CordonIdError::Unknown { id, existing: existing(&snapshot.inventory) });
        }
    };
    // The lowest chip of a configured board may be absent now.
    Ok((id, chips.into_iter().chain([id]).collect()))
}

/// Adds a cordon. One of the same id is extended, never narrowed; its reason is replaced.
pub fn add(
    cordons: &mut Cordons,
    id: PciAddress,
    chips: BTreeSet<PciAddress>,
    reason: Option<CordonReason>,
) {
    let cordon = cordons.entry(id).or_insert(Cordon { chips: BTreeSet::new(), reason: None });
    cordon.chips.extend(chips);
    cordon.reason = reason;
}

/// Removes the cordon that `text` names; the machine need not have it any more.
///
/// # Errors
/// [`CordonIdError`], which names what is cordoned.
pub fn remove(cordons: &mut Cordons, text: &str) -> Result<(PciAddress, Cordon), CordonIdError> {
    let id = address(text, || cordoned(cordons))?;
    if let Some(cordon) = cordons.remove(&id) {
        return Ok((id, cordon));
    }
    let whole = cordons.iter().find(|(_, cordon)| cordon.chips.contains(&id));
    Err(match whole {
        Some((whole, _)) => CordonIdError::Part { id, whole: *whole },
        None => CordonIdError::NotCordoned { id, existing: cordoned(cordons) },
    })
}

fn address(text: &str, existing: impl Fn() -> String) -> Result<PciAddress, CordonIdError> {
    let id: DeviceId = text
        .parse()
        .map_err(|error| CordonIdError::NotAnAddress { error, existing: existing() })?;
    if id.replica.is_some() { Err(CordonIdError::Replica(id)) } else { Ok(id.address) }
}

fn existing(inventory: &Inventory) -> String {
    if inventory.boards.is_empty() {
        return "it has none".to_owned();
    }
    let boards = list(inventory.boards.iter().map(|board| board.address));
    let chips = list(inventory.chips().iter().map(|chip| chip.address));
    format!("the boards are {boards}; the chips are {chips}")
}

fn cordoned(cordons: &Cordons) -> String {
    match cordons.len() {
        0 => "nothing is cordoned".to_owned(),
        _ => format!("cordoned: {}", list(cordons.keys().copied())),
    }
}

/// Addresses for a sentence.
pub fn list(addresses: impl IntoIterator<Item = PciAddress>) -> String {
    let addresses: Vec<_> = addresses.into_iter().map(|address| address.to_string()).collect();
    addresses.join(", ")
}
