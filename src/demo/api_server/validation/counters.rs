//! The rules for shared counters, in the form that they have since 1.35.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{Counter, CounterSet, Device, ResourceSliceSpec};

use super::names::is_label;
use super::repeated;

/// Counter sets of one slice.
const SET_LIMIT: usize = 8;
/// Counters of one set, and of one consumption.
const COUNTER_LIMIT: usize = 32;
/// Counter sets that one device consumes.
const CONSUMPTION_LIMIT: usize = 2;

pub(super) fn problems(spec: &ResourceSliceSpec) -> Vec<String> {
    let sets = spec.shared_counters.as_deref().unwrap_or_default();
    let mut problems = Vec::new();
    if sets.len() > SET_LIMIT {
        problems.push(format!("spec.sharedCounters: at most {SET_LIMIT} sets"));
    }
    let names = sets.iter().map(|set| set.name.as_str());
    let duplicates = repeated(names);
    problems
        .extend(duplicates.iter().map(|name| format!("spec.sharedCounters: duplicate: {name:?}")));
    problems.extend(sets.iter().flat_map(of_set));
    problems.extend(spec.devices.iter().flatten().flat_map(of_device));
    problems
}

fn of_set(set: &CounterSet) -> Vec<String> {
    let path = format!("spec.sharedCounters[{}]", set.name);
    let mut problems = of_counters(&path, &set.counters);
    if !is_label(&set.name) {
        problems.push(format!("{path}.name: must be a DNS label"));
    }
    problems
}

fn of_device(device: &Device) -> Vec<String> {
    let consumptions = device.consumes_counters.as_deref().unwrap_or_default();
    let path = format!("spec.devices[{}].consumesCounters", device.name);
    let mut problems: Vec<_> = consumptions
        .iter()
        .flat_map(|consumption| {
            of_counters(&format!("{path}[{}]", consumption.counter_set), &consumption.counters)
        })
        .collect();
    if consumptions.len() > CONSUMPTION_LIMIT {
        problems.push(format!("{path}: at most {CONSUMPTION_LIMIT}"));
    }
    let names = consumptions.iter().map(|consumption| consumption.counter_set.as_str());
    problems.extend(repeated(names).iter().map(|name| format!("{path}: duplicate: {name:?}")));
    problems
}

fn of_counters(path: &str, counters: &BTreeMap<String, Counter>) -> Vec<String> {
    let mut problems = Vec::new();
    if counters.is_empty() || counters.len() > COUNTER_LIMIT {
        problems.push(format!("{path}.counters: must have 1 to {COUNTER_LIMIT} items"));
    }
    let bad = counters.keys().filter(|name| !is_label(name));
    problems.extend(bad.map(|name| format!("{path}.counters[{name}]: must be a DNS label")));
    problems
}
