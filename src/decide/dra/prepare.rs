//! What the containers of a claim get: a function of the claim, the snapshot and who holds what.
//!
//! CDI names are those of chips and mean the same at any time, so that a repeated call, which each
//! kubelet sends after it was restarted, gives the same answer.

use thiserror::Error;

use super::claims::{ClaimHolder, ClaimHolders, chips_of};
use crate::decide::allocation::cdi::CdiNames;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::board::Board;
use crate::model::cdi::{CdiKind, CdiName, CdiSpec};
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::claim::{
    AllocatedDevice, ClaimRef, ClaimedDevice, DraAllocation, DraClaim, OpaqueConfig, PreparedDevice,
};
use crate::model::dra::device::DraDeviceName;
use crate::model::health::Reason;
use crate::model::pod_usage::HeldDevice;

/// What a claim is prepared against.
#[derive(Clone, Copy, Debug)]
pub struct PrepareContext<'a> {
    /// The node's name.
    pub pool: &'a str,
    /// The latest snapshot.
    pub snapshot: &'a NodeSnapshot,
    /// The CDI spec that a runtime finds.
    pub cdi_on_disk: Option<&'a CdiSpec>,
    /// Who holds what.
    pub holders: &'a ClaimHolders,
}

/// A claim that can be given to containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedClaim {
    /// The answer: one for each of our devices, in the claim's order.
    pub devices: Vec<PreparedDevice>,
    /// What it holds since; without devices that it has for monitoring.
    pub held: Vec<ClaimedDevice>,
}

/// Why a claim cannot be prepared. The kubelet shows it in an event of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrepareError {
    /// Another claim of that name exists since.
    #[error("claim {claim} has the uid {found}, not {wanted}: it was created anew; retrying")]
    AnotherUid {
        /// The claim.
        claim: ClaimRef,
        /// The uid that the kubelet named.
        wanted: String,
        /// That of the API server.
        found: String,
    },
    /// It has nothing.
    #[error("claim {0} is not allocated; retrying once a scheduler has allocated it")]
    NotAllocated(ClaimRef),
    /// It has parameters.
    #[error(
        "the claim or its class has parameters for {}, which takes none; remove `opaque` from `config`",
        DRIVER_NAME
    )]
    UnknownConfig,
    /// A device of another node.
    #[error("{device} is of pool {pool}, but this node's pool is {expected}")]
    AnotherPool {
        /// The device.
        device: String,
        /// Its pool.
        pool: String,
        /// Ours.
        expected: String,
    },
    /// A device that is not on this machine.
    #[error(
        "{0} is not on this node; delete the pod, so that a new claim is allocated from the \
         present devices"
    )]
    UnknownDevice(String),
    /// A device that is not healthy.
    #[error("{device} is unhealthy: {}: {}; {}", .reason.code, .reason.detail, .reason.code.remedy())]
    Unhealthy {
        /// The device.
        device: DraDeviceName,
        /// The first reason.
        reason: Reason,
    },
    /// A pod has it from the device plugin.
    #[error("{device} is held as {held}; it is free once that pod ends")]
    HeldByPod {
        /// The device.
        device: DraDeviceName,
        /// Which id, and by whom.
        held: Box<HeldDevice>,
    },
    /// Another claim has it. The service makes sure that the claim still exists.
    #[error("{device} is held by claim {}; it is free once that claim is unprepared", .holder.claim)]
    HeldByClaim {
        /// The device.
        device: DraDeviceName,
        /// The claim.
        holder: Box<ClaimHolder>,
    },
    /// The runtime would not find it.
    #[error(
        "the CDI spec does not have the device nodes of {0} yet; retrying; check that the plugin \
         can write to cdi.specDir"
    )]
    NotInCdiSpec(DraDeviceName),
}

/// Prepares a claim that the kubelet named with this uid.
///
/// # Errors
/// [`PrepareError`]: nothing of it is prepared.
pub fn prepare(
    context: &PrepareContext<'_>,
    claim: &DraClaim,
    uid: &str,
) -> Result<PreparedClaim, PrepareError> {
    let allocation = allocation(claim, uid)?;
    let ours: Vec<_> =
        allocation.results.iter().filter(|result| result.driver == DRIVER_NAME).collect();
    if allocation.configs.iter().any(|config| concerns(config, &ours)) {
        return Err(PrepareError::UnknownConfig);
    }
    let mut prepared = PreparedClaim { devices: Vec::new(), held: Vec::new() };
    for result in ours {
        let device = resolve(context, result)?;
        if !result.admin_access {
            check_free(context, claim, &device)?;
            prepared.held.push(device.clone());
        }
        prepared.devices.push(answer(context, result, &device)?);
    }
    Ok(prepared)
}

fn allocation<'a>(claim: &'a DraClaim, uid: &str) -> Result<&'a DraAllocation, PrepareError> {
    if claim.uid != uid {
        return Err(PrepareError::AnotherUid {
            claim: claim.claim.clone(),
            wanted: uid.to_owned(),
            found: claim.uid.clone(),
        });
    }
    let not_allocated = || PrepareError::NotAllocated(claim.claim.clone());
    claim.allocation.as_ref().ok_or_else(not_allocated)
}

/// Whether parameters are for one of our devices; those of a subrequest that was not chosen are not.
fn concerns(config: &OpaqueConfig, ours: &[&AllocatedDevice]) -> bool {
    let names = |result: &AllocatedDevice| {
        let main = main_request(&result.request).to_owned();
        config.requests.contains(&result.request) || config.requests.contains(&main)
    };
    config.driver == DRIVER_NAME
        && (config.requests.is_empty() || ours.iter().any(|result| names(result)))
}

/// A request without its subrequest.
fn main_request(request: &str) -> &str {
    request.split('/').next().unwrap_or_default()
}

/// The hardware behind a result.
fn resolve(
    context: &PrepareContext<'_>,
    result: &AllocatedDevice,
) -> Result<ClaimedDevice, PrepareError> {
    if result.pool != context.pool {
        return Err(PrepareError::AnotherPool {
            device: result.device.clone(),
            pool: result.pool.clone(),
            expected: context.pool.to_owned(),
        });
    }
    let unknown = || PrepareError::UnknownDevice(result.device.clone());
    let device: DraDeviceName = result.device.parse().map_err(|_| unknown())?;
    let chips = chips_of(&context.snapshot.inventory, device);
    if chips.is_empty() {
        return Err(unknown());
    }
    Ok(ClaimedDevice { device, chips, is_shared: result.share_id.is_some() })
}

/// Refuses what another holder has. What this claim has already it keeps, whatever its health.
fn check_free(
    context: &PrepareContext<'_>,
    claim: &DraClaim,
    wanted: &ClaimedDevice,
) -> Result<(), PrepareError> {
    let device = wanted.device;
    let snapshot = context.snapshot;
    if let Some(held) = wanted.chips.iter().find_map(|chip| snapshot.held_by_pods.get(chip)) {
        return Err(PrepareError::HeldByPod { device, held: Box::new(held.clone()) });
    }
    let mut others = context.holders.all(&snapshot.inventory).into_iter().filter(|holder| {
        let is_this = match &holder.uid {
            Some(uid) => *uid == claim.uid,
            None => holder.claim == claim.claim,
        };
        !is_this && conflicts(&holder.held, wanted)
    });
    if let Some(holder) = others.next() {
        return Err(PrepareError::HeldByClaim { device, holder: Box::new(holder) });
    }
    let known = context.holders.of(&claim.uid);
    if known.is_some_and(|holding| holding.devices.iter().any(|held| held.device == device)) {
        return Ok(());
    }
    match reasons(snapshot, wanted).first() {
        Some(reason) => Err(PrepareError::Unhealthy { device, reason: reason.clone() }),
        None => Ok(()),
    }
}

/// Whether two claims must not have these devices at once.
fn conflicts(held: &ClaimedDevice, wanted: &ClaimedDevice) -> bool {
    let shares_chips = wanted.chips.iter().any(|chip| held.chips.contains(chip));
    let may_share = held.device == wanted.device && held.is_shared && wanted.is_shared;
    shares_chips && !may_share
}

/// What is against a device: of a board everything, of a chip its own.
fn reasons<'a>(snapshot: &'a NodeSnapshot, wanted: &ClaimedDevice) -> &'a [Reason] {
    let inventory = &snapshot.inventory;
    let address = wanted.device.address();
    let board = inventory.boards.iter().find(|board| board.address == address);
    let is_whole = |board: &&Board| {
        matches!(wanted.device, DraDeviceName::Board(_)) || board.expected_chips == 1
    };
    match board.filter(is_whole) {
        Some(board) => &board.reasons[..],
        None => inventory.chip(address).map_or(&[][..], |chip| &chip.reasons[..]),
    }
}

fn answer(
    context: &PrepareContext<'_>,
    result: &AllocatedDevice,
    device: &ClaimedDevice,
) -> Result<PreparedDevice, PrepareError> {
    let snapshot = context.snapshot;
    let names = CdiNames::new(&snapshot.cdi, snapshot.cdi_spec.as_ref(), context.cdi_on_disk);
    let chips = device.chips.iter().copied().collect();
    if !names.is_some_and(|names| names.resolve(&chips)) {
        return Err(PrepareError::NotInCdiSpec(device.device));
    }
    let cdi_ids = chips.iter().map(|chip| CdiName::Chip(*chip).qualified(CdiKind::Dra));
    Ok(PreparedDevice {
        request: main_request(&result.request).to_owned(),
        pool: result.pool.clone(),
        device: result.device.clone(),
        cdi_ids: cdi_ids.collect(),
        share_id: result.share_id.clone(),
    })
}
