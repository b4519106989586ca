//! What a scheduler may allocate from: of each pool the highest generation, and only if it is
//! complete; pools and slices by name, devices in the order of their list.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{CounterSet, Device, ResourceSlice};

use crate::parse::quantity::parse_count;

/// A device in its pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceCandidate<'a> {
    pub(super) driver: &'a str,
    pub(super) pool: &'a str,
    pub(super) device: &'a Device,
}

/// What a device is found by: driver, pool and device.
pub(super) type CandidateKey<'a> = (&'a str, &'a str, &'a str);

/// What a node's drivers offer.
#[derive(Debug, Default)]
pub(super) struct Pools<'a> {
    /// In the order in which they are tried.
    pub(super) candidates: Vec<DeviceCandidate<'a>>,
    /// By driver, pool, set and counter.
    pub(super) counters: BTreeMap<(&'a str, &'a str, &'a str, &'a str), i64>,
}

impl<'a> DeviceCandidate<'a> {
    pub(super) fn key(&self) -> CandidateKey<'a> {
        (self.driver, self.pool, &self.device.name)
    }

    /// Whether several claims may have it.
    pub(super) fn is_shared(&self) -> bool {
        self.device.allow_multiple_allocations == Some(true)
    }
}

/// The pools of this node.
pub(super) fn pools<'a>(slices: &'a [ResourceSlice], node: &str) -> Pools<'a> {
    let mut by_pool: BTreeMap<(&str, &str), Vec<&ResourceSlice>> = BTreeMap::new();
    let here = slices.iter().filter(|slice| slice.spec.node_name.as_deref() == Some(node));
    for slice in here {
        by_pool.entry((&slice.spec.pool.name, &slice.spec.driver)).or_default().push(slice);
    }
    let mut pools = Pools::default();
    for ((pool, driver), slices) in by_pool {
        let Some(mut slices) = complete(slices) else { continue };
        slices.sort_by_key(|slice| slice.metadata.name.clone());
        for slice in slices {
            let devices = slice.spec.devices.iter().flatten();
            pools.candidates.extend(devices.map(|device| DeviceCandidate { driver, pool, device }));
            for CounterSet { name, counters } in slice.spec.shared_counters.iter().flatten() {
                let counters = counters
                    .iter()
                    .map(|(counter, it)| ((driver, pool, &**name, &**counter), whole(&it.value.0)));
                pools.counters.extend(counters);
            }
        }
    }
    pools
}

/// The slices of the highest generation; none where one is missing or a device is in twice.
fn complete(slices: Vec<&ResourceSlice>) -> Option<Vec<&ResourceSlice>> {
    let generation = slices.iter().map(|slice| slice.spec.pool.generation).max()?;
    let latest: Vec<_> =
        slices.into_iter().filter(|slice| slice.spec.pool.generation == generation).collect();
    let count = i64::try_from(latest.len()).unwrap_or(i64::MAX);
    let has_all = latest.iter().all(|slice| slice.spec.pool.resource_slice_count == count);
    let devices = latest.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    let mut names = BTreeSet::new();
    (has_all && devices.into_iter().all(|device| names.insert(&device.name))).then_some(latest)
}

/// A quantity that is a whole number; 0 for any other.
pub(super) fn whole(quantity: &str) -> i64 {
    parse_count(quantity).map_or(0, i64::from)
}
