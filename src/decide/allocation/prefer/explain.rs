//! Why a choice was made: the choice and the best other one, what each leaves of the node, and the
//! criterion that decides between them.

use super::candidates::Candidates;
use super::effect::{DeviceUnit, Effect, effect, unit};
use super::score::{Criterion, Score};
use super::{Choice, DeviceSupply, PreferenceRequest, best};
use crate::model::config::SharingPolicy;
use crate::model::device::DeviceId;

/// A choice with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// How the devices are shared; absent where they are not.
    pub policy: Option<SharingPolicy>,
    /// How many ids were asked for; the choice has fewer where there are fewer.
    pub asked: usize,
    /// What a device of the resource is.
    pub unit: DeviceUnit,
    /// What [`super::prefer`] answers.
    pub choice: Choice,
    /// What the choice means for the node.
    pub effect: Effect,
    /// The best of all other choices; absent where there is no other.
    pub runner_up: Option<RunnerUp>,
    /// Ids of the request that the resource does not have, ascending; they were dropped.
    pub unknown: Vec<DeviceId>,
}

/// The best choice that takes another number of ids of some device than the chosen one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerUp {
    /// What it would have been.
    pub choice: Choice,
    /// What it would have meant for the node.
    pub effect: Effect,
    /// The first criterion in which it is worse.
    pub why: Criterion,
}

/// Chooses, and explains why. One more search for every device chosen: for people, not for the kubelet.
#[must_use]
pub fn explain(supply: &DeviceSupply<'_>, request: &PreferenceRequest<'_>) -> Explanation {
    let candidates = Candidates::new(supply, request);
    let choice = best(supply, &candidates);
    let effect = |choice: &Choice| effect(supply.tree, &candidates, &choice.ids);
    let runner_up = runner_up(supply, &candidates, &choice).map(|other| RunnerUp {
        why: choice.score.first_difference(&other.score),
        effect: effect(&other),
        choice: other,
    });
    Explanation {
        policy: supply.policy(),
        asked: request.size,
        unit: unit(supply),
        effect: effect(&choice),
        choice,
        runner_up,
        unknown: unknown_ids(request, &candidates),
    }
}

/// Any other choice takes fewer ids of some chosen device, so the best for each such limit
/// are all that can be second.
fn runner_up(
    supply: &DeviceSupply<'_>,
    candidates: &Candidates,
    choice: &Choice,
) -> Option<Choice> {
    let mut limited = candidates.clone();
    let mut second: Option<Choice> = None;
    for (index, device) in candidates.devices.iter().enumerate() {
        let taken = candidates.count_of(device, &choice.ids);
        if taken == device.least {
            continue;
        }
        limited.devices[index].most = taken - 1;
        if limited.most() >= limited.size {
            let other = best(supply, &limited);
            second = Some(match second {
                Some(second) if rank(&second) <= rank(&other) => second,
                _ => other,
            });
        }
        limited.devices[index].most = device.most;
    }
    second
}

fn rank(choice: &Choice) -> (Score, impl Ord + use<>) {
    let addresses: Vec<_> = choice.ids.iter().map(|id| id.address).collect();
    (choice.score, addresses)
}

fn unknown_ids(request: &PreferenceRequest<'_>, candidates: &Candidates) -> Vec<DeviceId> {
    let is_unknown = |id: &DeviceId| {
        let known = &candidates.ids;
        known.binary_search_by_key(id, |candidate| candidate.id).is_err()
    };
    let asked = request.available.iter().chain(request.must_include);
    let mut unknown: Vec<_> = asked.copied().filter(is_unknown).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}
