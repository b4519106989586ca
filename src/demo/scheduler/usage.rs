//! What claims have taken already: devices, slots of shared devices, and counters.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus};

use super::pools::{CandidateKey, DeviceCandidate, Pools, whole};

/// The capacity that claims share.
pub(super) const SLOTS: &str = "slots";

/// What is taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage<'a> {
    devices: BTreeSet<(String, String, String)>,
    slots: BTreeMap<(String, String, String), i64>,
    counters: BTreeMap<(&'a str, &'a str, &'a str, &'a str), i64>,
}

impl<'a> Usage<'a> {
    /// What these claims hold of these pools. Admin access holds nothing.
    pub(super) fn of(claims: &[ResourceClaim], pools: &Pools<'a>) -> Self {
        let mut usage = Self::default();
        let allocations = claims.iter().filter_map(|claim| {
            let ResourceClaimStatus { allocation, .. } = claim.status.as_ref()?;
            allocation.as_ref()?.devices.as_ref()?.results.as_ref()
        });
        let results = allocations.flatten().filter(|result| result.admin_access != Some(true));
        for result in results {
            let key = (&*result.driver, &*result.pool, &*result.device);
            let consumed = result.consumed_capacity.iter().flatten();
            let slots = consumed.clone().find(|(name, _)| *name == SLOTS);
            let slots = slots.map(|(_, quantity)| whole(&quantity.0));
            let candidate = pools.candidates.iter().find(|candidate| candidate.key() == key);
            match candidate {
                Some(candidate) => usage.take(candidate, slots),
                None => usage.take_device(key),
            }
        }
        usage
    }

    /// Takes the device, or so many of its slots, and what it consumes of counters.
    pub(super) fn take(&mut self, candidate: &DeviceCandidate<'a>, slots: Option<i64>) {
        match slots {
            Some(slots) => *self.slots.entry(owned(candidate.key())).or_default() += slots,
            None => self.take_device(candidate.key()),
        }
        for (counter, count) in consumed(candidate) {
            *self.counters.entry(counter).or_default() += count;
        }
    }

    fn take_device(&mut self, key: CandidateKey<'_>) {
        self.devices.insert(owned(key));
    }

    /// Why so many slots of the device, or all of it, cannot be taken; none where they can.
    pub(super) fn refusal(
        &self,
        candidate: &DeviceCandidate<'a>,
        slots: Option<i64>,
        pools: &Pools<'a>,
    ) -> Option<&'static str> {
        let key = owned(candidate.key());
        if self.devices.contains(&key) {
            return Some("in use");
        }
        let taken = self.slots.get(&key).copied().unwrap_or_default();
        let has = candidate.device.capacity.iter().flatten().find(|(name, _)| *name == SLOTS);
        let has = has.map_or(i64::MAX, |(_, capacity)| whole(&capacity.value.0));
        if slots.is_some_and(|slots| taken.saturating_add(slots) > has) {
            return Some("without a free slot");
        }
        let mut counters = consumed(candidate);
        let is_short = counters.any(|(counter, count)| {
            let taken = self.counters.get(&counter).copied().unwrap_or_default();
            taken + count > pools.counters.get(&counter).copied().unwrap_or_default()
        });
        is_short.then_some("without free counters")
    }
}

fn owned((driver, pool, device): CandidateKey<'_>) -> (String, String, String) {
    (driver.to_owned(), pool.to_owned(), device.to_owned())
}

/// What the device takes of each counter.
fn consumed<'a>(
    candidate: &DeviceCandidate<'a>,
) -> impl Iterator<Item = ((&'a str, &'a str, &'a str, &'a str), i64)> + use<'a> {
    let DeviceCandidate { driver, pool, device } = *candidate;
    device.consumes_counters.iter().flatten().flat_map(move |consumption| {
        consumption.counters.iter().map(move |(name, counter)| {
            ((driver, pool, &*consumption.counter_set, &**name), whole(&counter.value.0))
        })
    })
}
