//! First fit with backtracking, as the allocator of Kubernetes 1.36: requests in order, devices in
//! order, no scoring; the first combination that meets every constraint.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceConstraint, ResourceClaim};

use super::Unschedulable;
use super::pools::{DeviceCandidate, Pools};
use super::requests::Wanted;
use super::selector::attribute;
use super::usage::Usage;

/// One device for one request.
#[derive(Clone, Debug)]
pub(super) struct Chosen<'a> {
    pub(super) wanted: Wanted<'a>,
    pub(super) candidate: DeviceCandidate<'a>,
    pub(super) slots: Option<i64>,
}

/// The search for one claim.
pub(super) struct Allocator<'a> {
    pools: &'a Pools<'a>,
    requests: Vec<Vec<Wanted<'a>>>,
    constraints: &'a [DeviceConstraint],
}

impl<'a> Allocator<'a> {
    pub(super) fn new(
        claim: &'a ResourceClaim,
        requests: Vec<Vec<Wanted<'a>>>,
        pools: &'a Pools<'a>,
    ) -> Self {
        let devices = claim.spec.devices.as_ref();
        let constraints = devices.and_then(|devices| devices.constraints.as_deref());
        Self { pools, requests, constraints: constraints.unwrap_or_default() }
    }

    /// Devices for every request, or why there are none.
    pub(super) fn allocate(&self, usage: &Usage<'a>) -> Result<Vec<Chosen<'a>>, Unschedulable> {
        let mut chosen = Vec::new();
        if self.place(0, usage, &mut chosen)? {
            return Ok(chosen);
        }
        Err(self.explain(usage)?)
    }

    /// Places the requests from this one on; `chosen` is as before where that fails.
    fn place(
        &self,
        request: usize,
        usage: &Usage<'a>,
        chosen: &mut Vec<Chosen<'a>>,
    ) -> Result<bool, Unschedulable> {
        let Some(alternatives) = self.requests.get(request) else { return Ok(true) };
        for wanted in alternatives {
            let count = if wanted.all { self.fitting(wanted, usage)? } else { wanted.count };
            if count > 0 && self.pick(request, wanted, (count, 0), usage, chosen)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn fitting(&self, wanted: &Wanted<'a>, usage: &Usage<'a>) -> Result<usize, Unschedulable> {
        let mut count = 0;
        for candidate in &self.pools.candidates {
            count += usize::from(self.refusal(wanted, candidate, usage)?.is_none());
        }
        Ok(count)
    }

    /// Picks so many more devices for a request, from this candidate on: it takes no device twice.
    fn pick(
        &self,
        request: usize,
        wanted: &Wanted<'a>,
        (count, from): (usize, usize),
        usage: &Usage<'a>,
        chosen: &mut Vec<Chosen<'a>>,
    ) -> Result<bool, Unschedulable> {
        if count == 0 {
            return self.place(request + 1, usage, chosen);
        }
        for (at, candidate) in self.pools.candidates.iter().enumerate().skip(from) {
            if self.refusal(wanted, candidate, usage)?.is_some() {
                continue;
            }
            let slots = wanted.slots(candidate);
            chosen.push(Chosen { wanted: wanted.clone(), candidate: *candidate, slots });
            if self.meets_constraints(chosen) {
                let mut usage = usage.clone();
                if !wanted.admin_access {
                    usage.take(candidate, slots);
                }
                if self.pick(request, wanted, (count - 1, at + 1), &usage, chosen)? {
                    return Ok(true);
                }
            }
            chosen.pop();
        }
        Ok(false)
    }

    fn refusal(
        &self,
        wanted: &Wanted<'a>,
        candidate: &DeviceCandidate<'a>,
        usage: &Usage<'a>,
    ) -> Result<Option<String>, Unschedulable> {
        let refusal = wanted.refusal(candidate)?;
        if refusal.is_some() || wanted.admin_access {
            return Ok(refusal);
        }
        let slots = wanted.slots(candidate);
        Ok(usage.refusal(candidate, slots, self.pools).map(str::to_owned))
    }

    /// Why no request takes the device; none where one does.
    pub(super) fn first_refusal(
        &self,
        candidate: &DeviceCandidate<'a>,
        usage: &Usage<'a>,
    ) -> Result<Option<String>, Unschedulable> {
        let mut first = None;
        for wanted in self.requests.iter().flatten() {
            match self.refusal(wanted, candidate, usage)? {
                None => return Ok(None),
                Some(refusal) => first = first.or(Some(refusal)),
            }
        }
        Ok(first)
    }

    fn meets_constraints(&self, chosen: &[Chosen<'a>]) -> bool {
        self.constraints.iter().all(|constraint| {
            let requests = constraint.requests.as_deref().unwrap_or_default();
            let is_bound = |chosen: &&Chosen<'a>| {
                let main = chosen.wanted.name.split('/').next().unwrap_or_default();
                requests.is_empty()
                    || requests.iter().any(|name| *name == chosen.wanted.name || name == main)
            };
            let bound = chosen.iter().filter(is_bound);
            let values = |name: &str| {
                let values = bound.clone().map(|chosen| value(&chosen.candidate, name));
                values.collect::<Option<Vec<_>>>()
            };
            match (&constraint.match_attribute, &constraint.distinct_attribute) {
                (Some(name), _) => values(name)
                    .is_some_and(|values| values.windows(2).all(|pair| pair[0] == pair[1])),
                (None, Some(name)) => values(name).is_some_and(|values| {
                    let repeated = |(at, value)| values[..at].contains(value);
                    !values.iter().enumerate().any(repeated)
                }),
                (None, None) => true,
            }
        })
    }

    /// Why the first alternatives are not met: each device counts under its own reason.
    fn explain(&self, usage: &Usage<'a>) -> Result<Unschedulable, Unschedulable> {
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let Some(wanted) = self.requests.iter().find_map(|request| request.first()) else {
            return Ok(Unschedulable("the claim has no request".to_owned()));
        };
        for candidate in &self.pools.candidates {
            let refusal = self.refusal(wanted, candidate, usage)?;
            *reasons.entry(refusal.unwrap_or_else(|| "free".to_owned())).or_default() += 1;
        }
        let reasons: Vec<_> =
            reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let reasons = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
        Ok(Unschedulable(format!("cannot allocate all claims; devices: {reasons}")))
    }
}

fn value<'a>(candidate: &DeviceCandidate<'a>, name: &str) -> Option<&'a DeviceAttribute> {
    let (domain, name) = name.split_once('/')?;
    attribute(candidate.device, candidate.driver, domain, name)
}
