//! How each metric is read from a input: a function a row of the table.

use std::collections::BTreeSet;

use prometheus_client::metrics::histogram::Histogram;

use super::input::{MetricsInput, Samples, Value};
use super::meters::{CounterByLabel, EccKind, LabelValue, ResourceMeters, Source};
use crate::model::board::Chip;
use crate::model::cordon::{CordonState, CordonUsage};
use crate::model::device::{Device, Resource};
use crate::model::dra::slice::DraFeature;
use crate::model::health::Health;
use crate::model::pci::PciAddress;
use crate::model::pod_usage::{Holder, PodDevice};
use crate::model::warning::WarningCode;

pub(super) fn build_info(input: &MetricsInput<'_>, samples: &mut Samples) {
    let labels = [("version", input.build.version), ("revision", input.build.revision)];
    samples.level(labels, 1);
}

pub(super) fn devices(input: &MetricsInput<'_>, samples: &mut Samples) {
    for name in input.resources.keys() {
        let listed =
            input.snapshot.and_then(|snapshot| snapshot.resource(name)).map(Resource::listed);
        let listed: Vec<_> =
            listed.into_iter().flatten().map(|(_, device)| device.health).collect();
        for health in Health::ALL {
            let count = listed.iter().filter(|is| *is == health).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            samples.level([("resource", name), ("health", health.name())], count);
        }
    }
}

pub(super) fn device_unhealthy(input: &MetricsInput<'_>, samples: &mut Samples) {
    let resources = input.snapshot.iter().flat_map(|snapshot| &snapshot.resources);
    for Resource { name, devices, .. } in resources {
        for Device { id, reasons, .. } in devices {
            let codes: BTreeSet<_> = reasons.iter().map(|reason| reason.code).collect();
            for code in codes {
                let (id, code) = (id.to_string(), code.name());
                samples.level([("resource", name), ("device", &id), ("reason", code)], 1);
            }
        }
    }
}

pub(super) fn cordoned_pods(input: &MetricsInput<'_>, samples: &mut Samples) {
    for CordonState { id, usage, .. } in input.snapshot.iter().flat_map(|it| &it.cordons) {
        let pods = match usage {
            CordonUsage::Unknown => continue,
            CordonUsage::Drained => BTreeSet::new(),
            CordonUsage::Held(holders) => {
                holders.iter().map(|holder| (&holder.namespace, &holder.pod)).collect()
            }
        };
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        samples.level([("cordon", &id.to_string())], count);
    }
}

pub(super) fn device_pods(input: &MetricsInput<'_>, samples: &mut Samples) {
    let held = input.snapshot.and_then(|snapshot| snapshot.pod_devices.as_ref());
    for PodDevice { resource, device, chips, holder } in held.into_iter().flatten() {
        let Holder { namespace, pod, container } = holder;
        for chip in chips {
            let of_pod = [("namespace", namespace), ("pod", pod), ("container", container)];
            let labels = [("resource", resource.clone()), ("device", device.to_string())];
            let labels = labels.into_iter().chain(chip_labels(input, *chip));
            let of_pod = of_pod.map(|(label, value)| (label, value.clone()));
            samples.labelled(labels.chain(of_pod).collect(), Value::Level(1.0));
        }
    }
}

pub(super) fn rescan_in_progress(input: &MetricsInput<'_>, samples: &mut Samples) {
    samples.level([], input.scanning.map_or(0.0, |since| since.as_secs_f64()));
}

pub(super) fn warnings(input: &MetricsInput<'_>, samples: &mut Samples) {
    let warnings = input.snapshot.map_or(&[][..], |snapshot| &snapshot.warnings);
    for name in WarningCode::NAMES {
        let count = warnings.iter().filter(|warning| warning.code.name() == *name).count();
        samples.level([("code", name)], u32::try_from(count).unwrap_or(u32::MAX));
    }
}

pub(super) fn chips_not_offered(input: &MetricsInput<'_>, samples: &mut Samples) {
    let count = input.snapshot.map_or(0, |snapshot| snapshot.unoffered.len());
    samples.level([], u32::try_from(count).unwrap_or(u32::MAX));
}

pub(super) fn registrations(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| tally(samples, name, "result", &meters.registrations));
}

pub(super) fn open_streams(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| {
        let open = i32::try_from(meters.open_streams.get()).unwrap_or(i32::MAX);
        samples.level([("resource", name)], open);
    });
}

pub(super) fn lists_sent(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| {
        samples.add([("resource", name)], Value::Count(meters.lists_sent.get()));
    });
}

pub(super) fn time_to_first_list(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| {
        if let Some(took) = meters.first_list.get() {
            samples.level([("resource", name)], took.as_secs_f64());
        }
    });
}

pub(super) fn allocations(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| tally(samples, name, "result", &meters.allocations));
}

pub(super) fn allocation_duration(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| sizes(samples, name, &meters.allocation_duration));
}

pub(super) fn preferred_allocation_duration(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| {
        sizes(samples, name, &meters.preferred_allocation_duration);
    });
}

pub(super) fn container_starts(input: &MetricsInput<'_>, samples: &mut Samples) {
    each_resource(input, |name, meters| tally(samples, name, "result", &meters.container_starts));
}

pub(super) fn dra_registrations(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some((meters, _)) = input.dra {
        by_result(samples, &meters.registrations);
    }
}

pub(super) fn dra_kubelet_connected(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some((_, is_connected)) = input.dra {
        samples.level([], u8::from(is_connected));
    }
}

pub(super) fn dra_prepares(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some((meters, _)) = input.dra {
        by_result(samples, &meters.prepares);
    }
}

pub(super) fn dra_prepare_duration(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some((meters, _)) = input.dra {
        samples.add([], Value::Sizes(meters.prepare_duration.clone()));
    }
}

pub(super) fn dra_unprepares(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some((meters, _)) = input.dra {
        by_result(samples, &meters.unprepares);
    }
}

pub(super) fn dra_slices(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some(slices) = input.slices.and_then(|it| it.slices.as_ref()) {
        samples.level([], u32::try_from(slices.len()).unwrap_or(u32::MAX));
    }
}

pub(super) fn dra_slices_current(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some(slices) = input.slices {
        samples.level([], u8::from(slices.is_current));
    }
}

pub(super) fn dra_slice_writes(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some((meters, _)) = input.dra {
        by_result(samples, &meters.slice_writes);
    }
}

pub(super) fn dra_unsupported(input: &MetricsInput<'_>, samples: &mut Samples) {
    let Some(slices) = input.slices else { return };
    for feature in DraFeature::ALL {
        let is_dropped = !slices.support.has(feature);
        samples.level([("feature", feature.name())], u8::from(is_dropped));
    }
}

pub(super) fn dra_events(input: &MetricsInput<'_>, samples: &mut Samples) {
    if let Some((meters, _)) = input.dra {
        by_result(samples, &meters.events);
    }
}

fn by_result<L: LabelValue>(samples: &mut Samples, counters: &CounterByLabel<L>) {
    for (result, count) in counters.each() {
        samples.add([("result", result)], Value::Count(count));
    }
}

pub(super) fn rescans(input: &MetricsInput<'_>, samples: &mut Samples) {
    for (trigger, count) in input.node.rescans.each() {
        samples.add([("trigger", trigger)], Value::Count(count));
    }
}

pub(super) fn rescan_duration(input: &MetricsInput<'_>, samples: &mut Samples) {
    samples.add([], Value::Sizes(input.node.rescan_duration.clone()));
}

pub(super) fn uevents(input: &MetricsInput<'_>, samples: &mut Samples) {
    samples.add([], Value::Count(input.node.uevents.get()));
}

pub(super) fn uevent_overflows(input: &MetricsInput<'_>, samples: &mut Samples) {
    samples.add([], Value::Count(input.node.uevent_overflows.get()));
}

pub(super) fn config_reloads(input: &MetricsInput<'_>, samples: &mut Samples) {
    for (result, count) in input.node.config_reloads.each() {
        samples.add([("result", result)], Value::Count(count));
    }
}

pub(super) fn config_current(input: &MetricsInput<'_>, samples: &mut Samples) {
    samples.level([], u8::from(input.config_is_current));
}

pub(super) fn source_up(input: &MetricsInput<'_>, samples: &mut Samples) {
    for source in Source::ALL {
        let is_up = input.sources_up.contains(source);
        samples.level([("source", source.name())], u8::from(is_up));
    }
}

pub(super) fn link_below_maximum(input: &MetricsInput<'_>, samples: &mut Samples) {
    for Chip { address, link, .. } in
        input.snapshot.map(|snapshot| snapshot.inventory.chips()).unwrap_or_default()
    {
        let labels = chip_labels(input, *address);
        samples.labelled(labels, Value::Level(u8::from(link.is_below_maximum()).into()));
    }
}

pub(super) fn temperature(input: &MetricsInput<'_>, samples: &mut Samples) {
    for (chip, reading) in input.ixml.iter().flat_map(|reading| &reading.chips) {
        if let Some(degrees) = reading.temperature {
            samples.labelled(chip_labels(input, *chip), Value::Level(degrees.into()));
        }
    }
}

pub(super) fn ecc_errors(input: &MetricsInput<'_>, samples: &mut Samples) {
    for (chip, reading) in input.ixml.iter().flat_map(|reading| &reading.chips) {
        let Some(errors) = reading.ecc else { continue };
        for (kind, count) in
            [(EccKind::Corrected, errors.single), (EccKind::Uncorrected, errors.double)]
        {
            let mut labels = chip_labels(input, *chip);
            labels.push(("kind", kind.name().to_owned()));
            samples.labelled(labels, Value::Level(count.into()));
        }
    }
}

/// The chip's address and, where it is known, its UUID: exporters of the vendor have only that.
fn chip_labels(input: &MetricsInput<'_>, chip: PciAddress) -> Vec<(&'static str, String)> {
    let known = input.snapshot.and_then(|snapshot| snapshot.inventory.chip(chip));
    let uuid = known.and_then(|chip| chip.uuid.as_ref()).map(|uuid| ("uuid", uuid.to_string()));
    [("chip", chip.to_string())].into_iter().chain(uuid).collect()
}

fn each_resource(input: &MetricsInput<'_>, mut read: impl FnMut(&str, &ResourceMeters)) {
    for (name, meters) in input.resources {
        read(name, meters);
    }
}

fn tally<L: LabelValue>(
    samples: &mut Samples,
    resource: &str,
    label: &'static str,
    tally: &CounterByLabel<L>,
) {
    for (value, count) in tally.each() {
        samples.add([("resource", resource), (label, value)], Value::Count(count));
    }
}

fn sizes(samples: &mut Samples, resource: &str, histogram: &Histogram) {
    samples.add([("resource", resource)], Value::Sizes(histogram.clone()));
}
