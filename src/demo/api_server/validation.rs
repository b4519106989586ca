//! What the API server refuses: the rules of resource.k8s.io/v1 for slices, with its limits.

mod counters;
mod devices;
mod names;

use std::collections::BTreeSet;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::resource::v1::{ResourceSlice, ResourceSliceSpec};

pub(super) use self::names::is_subdomain;
use self::names::{DRIVER_LIMIT, is_pool_name};
use super::profile::ServerVersion;

/// Everything that is wrong with the slice, each with its path.
pub(super) fn slice_problems(
    slice: &ResourceSlice,
    old: Option<&ResourceSlice>,
    version: ServerVersion,
) -> Vec<String> {
    let spec = &slice.spec;
    let mut problems = Vec::new();
    problems.extend(spec_problems(spec));
    problems.extend(old.into_iter().flat_map(|old| changed_fields(spec, &old.spec)));
    problems.extend(owner_problems(slice));
    problems.extend(devices::problems(spec, version));
    problems.extend(counters::problems(spec));
    problems
}

fn spec_problems(spec: &ResourceSliceSpec) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_subdomain(&spec.driver) || spec.driver.len() > DRIVER_LIMIT {
        problems.push(format!("spec.driver: invalid value: {:?}", spec.driver));
    }
    if !is_pool_name(&spec.pool.name) {
        problems.push(format!("spec.pool.name: invalid value: {:?}", spec.pool.name));
    }
    if spec.pool.resource_slice_count < 1 {
        problems.push("spec.pool.resourceSliceCount: must be greater than zero".to_owned());
    }
    if spec.pool.generation < 0 {
        problems.push("spec.pool.generation: must not be negative".to_owned());
    }
    let where_it_is = [
        spec.node_name.is_some(),
        spec.node_selector.is_some(),
        spec.all_nodes == Some(true),
        spec.per_device_node_selection == Some(true),
    ];
    if where_it_is.iter().filter(|is| **is).count() != 1 {
        problems.push(
            "spec: exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
             `perDeviceNodeSelection` is required"
                .to_owned(),
        );
    }
    let has_devices = spec.devices.as_ref().is_some_and(|devices| !devices.is_empty());
    if has_devices && spec.shared_counters.is_some() {
        problems.push("spec: `devices` and `sharedCounters` exclude each other".to_owned());
    }
    problems
}

fn changed_fields(spec: &ResourceSliceSpec, old: &ResourceSliceSpec) -> Vec<String> {
    let fields = [
        ("spec.driver", spec.driver == old.driver),
        ("spec.pool.name", spec.pool.name == old.pool.name),
        ("spec.nodeName", spec.node_name == old.node_name),
    ];
    let changed = fields.into_iter().filter(|(_, is_same)| !is_same);
    changed.map(|(field, _)| format!("{field}: field is immutable")).collect()
}

fn owner_problems(slice: &ResourceSlice) -> Vec<String> {
    let owners = slice.metadata.owner_references.iter().flatten();
    let incomplete = owners.filter(|owner| {
        [&owner.api_version, &owner.kind, &owner.name, &owner.uid]
            .iter()
            .any(|text| text.is_empty())
    });
    incomplete
        .map(|owner| format!("metadata.ownerReferences: incomplete reference to {:?}", owner.name))
        .collect()
}

/// What events.k8s.io/v1 demands of a new event.
pub(super) fn event_problems(event: &Event, namespace: &str) -> Vec<String> {
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().len();
    let of_node = event.regarding.as_ref().is_none_or(|object| object.namespace.is_none());
    let rules = [
        (event.event_time.is_some(), "eventTime: required value"),
        ((1..=128).contains(&text(&event.reporting_controller)), "reportingController: 1 to 128"),
        ((1..=128).contains(&text(&event.reporting_instance)), "reportingInstance: 1 to 128"),
        ((1..=128).contains(&text(&event.action)), "action: 1 to 128 bytes"),
        ((1..=128).contains(&text(&event.reason)), "reason: 1 to 128 bytes"),
        (text(&event.note) <= 1024, "note: at most 1024 bytes"),
        (
            event.type_.as_deref().is_some_and(|name| ["Normal", "Warning"].contains(&name)),
            "type: must be Normal or Warning",
        ),
        (!of_node || namespace == "default", "metadata.namespace: must be default"),
    ];
    let broken = rules.into_iter().filter(|(holds, _)| !holds);
    broken.map(|(_, rule)| rule.to_owned()).collect()
}

/// Names that occur more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}
