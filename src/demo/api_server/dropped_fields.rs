//! The fields of features that are off: the API server removes them from what it is sent, without a
//! word, unless the stored object has them already.

use k8s_openapi::api::resource::v1::{Device, ResourceSlice};

use super::profile::FeatureGates;

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
