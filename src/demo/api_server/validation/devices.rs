//! The rules for devices.

use k8s_openapi::api::resource::v1::{
    Device, DeviceAttribute, DeviceCapacity, DeviceTaint, ResourceSliceSpec,
};

use super::super::profile::ServerVersion;
use super::names::{is_label, is_label_key, is_label_value, is_qualified_name};
use super::repeated;

/// Devices of one slice.
const DEVICE_LIMIT: usize = 128;
/// Devices of one slice where any has taints or consumes counters.
const LARGE_DEVICE_LIMIT: usize = 64;
/// Attributes and capacities of one device together.
const ATTRIBUTE_LIMIT: usize = 32;
/// Bytes of a string or version.
const VALUE_LIMIT: usize = 64;

pub(super) fn problems(spec: &ResourceSliceSpec, version: ServerVersion) -> Vec<String> {
    let devices = spec.devices.as_deref().unwrap_or_default();
    let is_large = |device: &Device| device.taints.is_some() || device.consumes_counters.is_some();
    let limit = if devices.iter().any(is_large) { LARGE_DEVICE_LIMIT } else { DEVICE_LIMIT };
    let mut problems = Vec::new();
    if devices.len() > limit {
        let count = devices.len();
        problems.push(format!("spec.devices: too many: {count}: must have at most {limit} items"));
    }
    let names = devices.iter().map(|device| device.name.as_str());
    problems
        .extend(repeated(names).iter().map(|name| format!("spec.devices: duplicate: {name:?}")));
    problems.extend(devices.iter().flat_map(|device| of_device(device, version)));
    problems
}

fn of_device(device: &Device, version: ServerVersion) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_label(&device.name) {
        problems.push("name: must be a DNS label".to_owned());
    }
    let attributes = device.attributes.iter().flatten();
    let capacities = device.capacity.iter().flatten();
    let count = attributes.clone().count() + capacities.clone().count();
    if count > ATTRIBUTE_LIMIT {
        problems.push(format!("{count} attributes and capacities: at most {ATTRIBUTE_LIMIT}"));
    }
    let keys = attributes.clone().map(|(key, _)| key).chain(capacities.clone().map(|(key, _)| key));
    let bad_keys = keys.filter(|key| !is_qualified_name(key));
    problems.extend(bad_keys.map(|key| format!("{key:?}: must be a C identifier")));
    problems.extend(attributes.filter_map(|(key, value)| of_attribute(key, value)));
    let is_shared = device.allow_multiple_allocations == Some(true);
    problems.extend(capacities.filter_map(|(key, value)| of_capacity(key, value, is_shared)));
    problems.extend(of_taints(device.taints.as_deref().unwrap_or_default(), version));
    let path = |problem| format!("spec.devices[{}].{problem}", device.name);
    problems.into_iter().map(path).collect()
}

fn of_attribute(key: &str, value: &DeviceAttribute) -> Option<String> {
    let DeviceAttribute { bool, int, string, version } = value;
    let set = [bool.is_some(), int.is_some(), string.is_some(), version.is_some()];
    if set.iter().filter(|is_set| **is_set).count() != 1 {
        return Some(format!("attributes[{key}]: exactly one value must be specified"));
    }
    let text = string.as_deref().or(version.as_deref()).unwrap_or_default();
    if text.len() > VALUE_LIMIT {
        return Some(format!("attributes[{key}]: must be at most {VALUE_LIMIT} bytes"));
    }
    let version = version.as_deref()?;
    semver::Version::parse(version).err().map(|error| {
        format!(
            "attributes[{key}].version: invalid value: {version:?}: must be a string compatible \
             with semver.org spec 2.0.0 ({error})"
        )
    })
}

fn of_capacity(key: &str, value: &DeviceCapacity, is_shared: bool) -> Option<String> {
    let policy = value.request_policy.as_ref()?;
    if !is_shared {
        return Some(format!("capacity[{key}].requestPolicy: needs allowMultipleAllocations"));
    }
    let is_limited = policy.valid_range.is_some() || policy.valid_values.is_some();
    let needs_default = is_limited && policy.default.is_none();
    needs_default.then(|| format!("capacity[{key}].requestPolicy.default: required value"))
}

fn of_taints(taints: &[DeviceTaint], version: ServerVersion) -> Vec<String> {
    let mut problems = Vec::new();
    if taints.len() > version.taint_limit() {
        problems.push(format!("taints: at most {}", version.taint_limit()));
    }
    for DeviceTaint { key, value, effect, .. } in taints {
        let is_effect = match effect.as_str() {
            "NoSchedule" | "NoExecute" => true,
            "None" => version.has_effect_none(),
            _ => false,
        };
        if !is_effect {
            problems.push(format!("taints[{key}].effect: unsupported value: {effect:?}"));
        }
        if !is_label_key(key) || !is_label_value(value.as_deref().unwrap_or_default()) {
            problems.push(format!("taints[{key}]: invalid key or value"));
        }
    }
    problems
}
