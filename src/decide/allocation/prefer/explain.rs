//! Why a choice was made: the choice beside the best other one, and what tells them apart.

use std::fmt;

use super::candidates::Candidates;
use super::score::{Component, Score};
use super::{Choice, DeviceSupply, Request, best};
use crate::model::config::SharingPolicy;
use crate::model::device::DeviceId;

/// A choice with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// How the devices are shared; absent where they are not.
    pub policy: Option<SharingPolicy>,
    /// How many ids were asked for; the choice has fewer where there are fewer.
    pub asked: usize,
    /// What [`super::prefer`] answers.
    pub choice: Choice,
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
    /// The first component of the score in which it is worse.
    pub why: Component,
}

/// Chooses, and says why. One more search for every device chosen: for people, not for the kubelet.
#[must_use]
pub fn explain(stock: &DeviceSupply<'_>, request: &Request<'_>) -> Explanation {
    let candidates = Candidates::new(stock, request);
    let choice = best(stock, &candidates);
    let runner_up = runner_up(stock, &candidates, &choice)
        .map(|other| RunnerUp { why: choice.score.first_difference(&other.score), choice: other });
    Explanation {
        policy: stock.policy(),
        asked: request.size,
        choice,
        runner_up,
        unknown: unknown_ids(request, &candidates),
    }
}

/// Any other choice takes fewer ids of some chosen device, so the best for each such limit
/// are all that can be second.
fn runner_up(stock: &DeviceSupply<'_>, candidates: &Candidates, choice: &Choice) -> Option<Choice> {
    let mut limited = candidates.clone();
    let mut second: Option<Choice> = None;
    for (index, device) in candidates.devices.iter().enumerate() {
        let of_device = |id: &&DeviceId| {
            let mut own = candidates.ids[device.ids.clone()].iter();
            own.any(|candidate| candidate.id == **id)
        };
        let taken = choice.ids.iter().filter(of_device).count();
        if taken == device.least {
            continue;
        }
        limited.devices[index].most = taken - 1;
        if limited.most() >= limited.size {
            let other = best(stock, &limited);
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

fn unknown_ids(request: &Request<'_>, candidates: &Candidates) -> Vec<DeviceId> {
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

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice { ids, score } = &self.choice;
        writeln!(f, "choice     {}", list(ids))?;
        writeln!(f, "           {score}")?;
        match &self.runner_up {
            None => writeln!(f, "runner-up  none: there is no other choice")?,
            Some(other) => {
                writeln!(f, "runner-up  {}", list(&other.choice.ids))?;
                writeln!(f, "           {}", other.choice.score)?;
                writeln!(f, "why        {}", self.reason(other))?;
            }
        }
        if ids.len() < self.asked {
            writeln!(f, "short      {} asked for, {} available", self.asked, ids.len())?;
        }
        if !self.unknown.is_empty() {
            writeln!(f, "unknown    {}", list(&self.unknown))?;
        }
        Ok(())
    }
}

impl Explanation {
    fn reason(&self, other: &RunnerUp) -> String {
        let spread = self.policy == Some(SharingPolicy::Spread);
        let what = match other.why {
            Component::Crowding if spread => "fewer pairs of its replicas share a device",
            Component::Crowding => "its replicas are on fewer devices",
            Component::Load if spread => "its devices have fewer replicas in use",
            Component::Load => "its devices have fewer replicas free",
            Component::Distance => "its devices are closer together",
            Component::Scatter => "what remains is closer together",
            Component::Boards => "it breaks fewer whole boards",
            Component::Switches => "it breaks fewer whole switches",
            Component::Addresses => {
                return "both cost the same; its addresses are lower".to_owned();
            }
        };
        let value = |score: &Score| score.component(other.why).unwrap_or_default();
        let (own, others) = (value(&self.choice.score), value(&other.choice.score));
        format!("{what}: {own}, not {others}")
    }
}

fn list(ids: &[DeviceId]) -> String {
    if ids.is_empty() {
        return "nothing".to_owned();
    }
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(" ")
}
