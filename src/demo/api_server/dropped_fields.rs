//! What the API server stores instead of what it was sent, without a word: fields of features that are
//! off are removed, unless the stored object has them already, and quantities are written in its way.

use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::profile::FeatureGates;
use crate::parse::quantity::{parse_count, write_count};

/// Writes quantities as the API server does, whatever they were sent as.
pub(super) fn rewrite_quantities(slice: &mut ResourceSlice) {
    let rewrite = |quantity: &mut Quantity| {
        if let Some(count) = parse_count(&quantity.0) {
            quantity.0 = write_count(count);
        }
    };
    let sets = slice.spec.shared_counters.iter_mut().flatten();
    sets.flat_map(|set| set.counters.values_mut()).for_each(|counter| rewrite(&mut counter.value));
    each_device(slice, |device| {
        let capacities = device.capacity.iter_mut().flat_map(|map| map.values_mut());
        capacities.for_each(|capacity| rewrite(&mut capacity.value));
        let used = device.consumes_counters.iter_mut().flatten();
        used.flat_map(|used| used.counters.values_mut()).for_each(|it| rewrite(&mut it.value));
    });
}

/// Removes what `gates` do not allow; what `old` uses stays.
pub(super) fn drop_disabled(
    slice: &mut ResourceSlice,
    old: Option<&ResourceSlice>,
    gates: FeatureGates,
) {
    let is_used = |used: fn(&ResourceSlice) -> bool| old.is_some_and(used);
    if !gates.partitionable_devices && !is_used(has_counters) {
        slice.spec.shared_counters = None;
        each_device(slice, |device| device.consumes_counters = None);
    }
    if !gates.device_taints && !is_used(has_taints) {
        each_device(slice, |device| device.taints = None);
    }
    if !gates.consumable_capacity && !is_used(is_shared) {
        each_device(slice, |device| {
            device.allow_multiple_allocations = None;
            let capacities = device.capacity.iter_mut().flat_map(|map| map.values_mut());
            capacities.for_each(|capacity| capacity.request_policy = None);
        });
    }
}

fn each_device(slice: &mut ResourceSlice, change: impl FnMut(&mut Device)) {
    slice.spec.devices.iter_mut().flatten().for_each(change);
}

fn any_device(slice: &ResourceSlice, is: impl Fn(&Device) -> bool) -> bool {
    slice.spec.devices.iter().flatten().any(is)
}

fn has_taints(slice: &ResourceSlice) -> bool {
    any_device(slice, |device| device.taints.is_some())
}

fn has_counters(slice: &ResourceSlice) -> bool {
    slice.spec.shared_counters.is_some()
        || any_device(slice, |device| device.consumes_counters.is_some())
}

fn is_shared(slice: &ResourceSlice) -> bool {
    any_device(slice, |device| {
        let mut capacities = device.capacity.iter().flat_map(|map| map.values());
        device.allow_multiple_allocations.is_some()
            || capacities.any(|capacity| capacity.request_policy.is_some())
    })
}
