//! Which devices a claim would get on one node where nothing is in use, and why not the others.

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};

use super::Unschedulable;
use super::allocator::Allocator;
use super::pools::{DeviceCandidate, pools};
use super::requests::requests;
use super::usage::Usage;

/// What a scheduler would do with a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimExplanation {
    /// Request and device of each choice, or why there is none.
    pub chosen: Result<Vec<(String, String)>, String>,
    /// Devices that are not chosen, each with why not.
    pub others: Vec<(String, String)>,
}

/// Tries the claim on the slices of a node.
///
/// # Errors
/// A class that is not known, or a selector that cannot be judged.
pub fn explain(
    slices: &[ResourceSlice],
    classes: &[DeviceClass],
    node: &str,
    claim: &ResourceClaim,
) -> Result<ClaimExplanation, Unschedulable> {
    let pools = pools(slices, node);
    let usage = Usage::of(&[], &pools);
    let allocator = Allocator::new(claim, requests(claim, classes)?, &pools);
    let chosen = allocator.allocate(&usage);
    let chosen = chosen.map(|chosen| {
        let choice = chosen.into_iter();
        choice.map(|it| (it.wanted.name, it.candidate.device.name.clone())).collect::<Vec<_>>()
    });
    let is_chosen = |candidate: &&DeviceCandidate<'_>| {
        let name = &candidate.device.name;
        chosen.as_ref().is_ok_and(|chosen| chosen.iter().any(|(_, device)| device == name))
    };
    let mut others = Vec::new();
    for candidate in pools.candidates.iter().filter(|candidate| !is_chosen(candidate)) {
        let refusal = allocator.first_refusal(candidate, &usage)?;
        let free = if chosen.is_ok() { "earlier devices meet the claim" } else { FITS_ALONE };
        let reason = refusal.unwrap_or_else(|| free.to_owned());
        others.push((candidate.device.name.clone(), reason));
    }
    Ok(ClaimExplanation { chosen: chosen.map_err(|error| error.to_string()), others })
}

/// Of a device that a request takes, where the claim as a whole is not met.
const FITS_ALONE: &str = "fits, but not enough devices or constraints do together";
