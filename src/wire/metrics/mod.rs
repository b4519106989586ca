//! Every metric in one table: name, type, labels, meaning, and how it is read from a [`MetricsInput`].
//! The exposition and the documentation are both made from it.

pub mod input;
pub mod meters;

pub mod dra_meters;

pub mod exposition;
mod readings;

use self::dra_meters::{
    DraRegistrationResult, EventResult, PrepareResult, SliceWriteResult, UnprepareResult,
};
use self::input::{MetricsInput, Samples};
use self::meters::{
    AllocationResult, LabelValue, RegistrationResult, ReloadResult, Source, StartResult,
};
use crate::model::dra::slice::DraFeature;
use crate::model::rescan::RescanTrigger;
use crate::model::warning::WarningCode;

/// What every metric's name begins with.
pub const PREFIX: &str = "iluvatar_device_plugin_";

/// How Prometheus takes a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises, and begins anew with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size: scraped as `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl MetricKind {
    /// As OpenMetrics spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a label's value can be; every set is bounded.
#[derive(Clone, Copy, Debug)]
pub enum LabelValues {
    /// These words and no others; each has a series from the start.
    Words(fn() -> Vec<&'static str>),
    /// For example the names of the resources that are configured.
    Of(&'static str),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricRow {
    /// As it is scraped; a counter's ends in `_total`.
    pub name: &'static str,
    /// How Prometheus takes it.
    pub kind: MetricKind,
    /// Names and values of its labels.
    pub labels: &'static [(&'static str, LabelValues)],
    /// What it means, with its unit.
    pub help: &'static str,
    read: fn(&MetricsInput<'_>, &mut Samples),
}

const RESOURCE: (&str, LabelValues) = ("resource", LabelValues::Of("configured resource"));
const FEATURE: (&str, LabelValues) =
    ("feature", LabelValues::Words(|| DraFeature::ALL.map(DraFeature::name).to_vec()));
const CHIP: (&str, LabelValues) = ("chip", LabelValues::Of("PCI address of a present chip"));
const UUID: (&str, LabelValues) = ("uuid", LabelValues::Of("UUID of the chip, where known"));

const fn words<L: LabelValue>(label: &'static str) -> (&'static str, LabelValues) {
    (label, LabelValues::Words(|| L::ALL.iter().map(|value| value.name()).collect()))
}

macro_rules! row {
    ($kind:ident $name:literal [$($label:expr),*] $read:path, $help:literal) => {
        MetricRow {
            name: concat!("iluvatar_device_plugin_", $name),
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: $help,
            read: $read,
        }
    };
}

/// Every metric, in the order of the exposition.
pub const METRICS: &[MetricRow] = &[
    row!(Gauge "build_info" [("version", LabelValues::Of("version of the program")),
        ("revision", LabelValues::Of("commit that it was built from"))] readings::build_info,
        "Constant 1, labeled with the version and revision of the running build"),
    row!(Gauge "devices" [RESOURCE, words::<crate::model::health::Health>("health")]
        readings::devices,
        "Devices in the kubelet's list, by health; each replica of a shared device counts"),
    row!(Gauge "device_unhealthy" [RESOURCE, ("device", LabelValues::Of("id without replica")),
        ("reason", LabelValues::Of("reason code"))] readings::device_unhealthy,
        "1 for each reason why a device is unhealthy; healthy devices have no series"),
    row!(Gauge "cordoned_pods" [("cordon", LabelValues::Of("address of a cordoned board or chip"))]
        readings::cordoned_pods,
        "Pods that still hold a cordoned board or chip: 0 once it is drained, absent while \
         PodResources is unavailable"),
    row!(Gauge "device_pods" [("resource", LabelValues::Of("resource under which it is held")),
        ("device", LabelValues::Of("id without replica")), CHIP, UUID,
        ("namespace", LabelValues::Of("namespace of the pod")), ("pod", LabelValues::Of("its name")),
        ("container", LabelValues::Of("its container"))] readings::device_pods,
        "1 for each chip of a device that a container holds, from the kubelet's PodResources; \
         absent while it is unavailable"),
    row!(Counter "registrations_total" [RESOURCE, words::<RegistrationResult>("result")]
        readings::registrations,
        "Calls of Register; `refused` includes connection failures, `timeout` means no answer \
         in time"),
    row!(Gauge "open_streams" [RESOURCE] readings::open_streams,
        "Open ListAndWatch streams; at 0 the kubelet does not have the list"),
    row!(Counter "lists_sent_total" [RESOURCE] readings::lists_sent,
        "Device lists sent on ListAndWatch streams, to the kubelet or any other client"),
    row!(Gauge "time_to_first_list_seconds" [RESOURCE] readings::time_to_first_list,
        "Seconds from process start, or from the resource's configuration, until the kubelet \
         first had the list; absent until then"),
    row!(Counter "allocations_total" [RESOURCE, words::<AllocationResult>("result")]
        readings::allocations,
        "Calls of Allocate, by result"),
    row!(Histogram "allocation_duration_seconds" [RESOURCE] readings::allocation_duration,
        "Duration of Allocate in seconds"),
    row!(Histogram "preferred_allocation_duration_seconds" [RESOURCE]
        readings::preferred_allocation_duration,
        "Duration of GetPreferredAllocation in seconds"),
    row!(Counter "container_starts_total" [RESOURCE, words::<StartResult>("result")]
        readings::container_starts,
        "Calls of PreStartContainer, by result; `refused` means that the container's devices \
         changed after they were allocated"),
    row!(Counter "dra_registrations_total" [words::<DraRegistrationResult>("result")]
        readings::dra_registrations,
        "Registrations of the DRA driver with the kubelet, by result; DRA mode only"),
    row!(Gauge "dra_kubelet_connected" [] readings::dra_kubelet_connected,
        "1 while the kubelet is connected to the DRA driver; a kubelet before 1.36 drops the \
         connection after 30 idle minutes; DRA mode only"),
    row!(Counter "dra_prepares_total" [words::<PrepareResult>("result")] readings::dra_prepares,
        "Calls to prepare a ResourceClaim, by result; DRA mode only"),
    row!(Histogram "dra_prepare_duration_seconds" [] readings::dra_prepare_duration,
        "Duration of NodePrepareResources in seconds, requests to the API server included; DRA \
         mode only"),
    row!(Counter "dra_unprepares_total" [words::<UnprepareResult>("result")]
        readings::dra_unprepares,
        "Calls to unprepare a ResourceClaim, by result; DRA mode only"),
    row!(Gauge "dra_slices" [] readings::dra_slices,
        "ResourceSlices of this node that the API server has; absent until they were listed; DRA \
         mode only"),
    row!(Gauge "dra_slices_current" [] readings::dra_slices_current,
        "1 if the API server has what the node offers; DRA mode only"),
    row!(Counter "dra_slice_writes_total" [words::<SliceWriteResult>("result")]
        readings::dra_slice_writes,
        "Writes of ResourceSlices, by result; DRA mode only"),
    row!(Gauge "dra_unsupported" [FEATURE] readings::dra_unsupported,
        "1 if the API server dropped the fields of this feature: its feature gate is off; DRA mode \
         only"),
    row!(Counter "dra_events_total" [words::<EventResult>("result")] readings::dra_events,
        "Events of the Node for changes of health, by result; DRA mode only"),
    row!(Counter "rescans_total" [words::<RescanTrigger>("trigger")] readings::rescans,
        "Rescans of the PCI bus, by trigger"),
    row!(Histogram "rescan_duration_seconds" [] readings::rescan_duration,
        "Duration of rescans in seconds"),
    row!(Gauge "rescan_in_progress_seconds" [] readings::rescan_in_progress,
        "Seconds since the running rescan began, 0 if none runs; keeps rising while a driver \
         hangs"),
    row!(Gauge "warnings" [("code", LabelValues::Words(|| WarningCode::NAMES.to_vec()))]
        readings::warnings,
        "Active warnings, by code; `status` shows their text"),
    row!(Gauge "chips_not_offered" [] readings::chips_not_offered,
        "Chips that no resource offers"),
    row!(Counter "uevents_total" [] readings::uevents,
        "Kernel uevents received, of any vendor's devices"),
    row!(Counter "uevent_overflows_total" [] readings::uevent_overflows,
        "Overflows of the uevent buffer; each triggers a rescan"),
    row!(Counter "config_reloads_total" [words::<ReloadResult>("result")] readings::config_reloads,
        "Reloads of the configuration file, by result"),
    row!(Gauge "config_current" [] readings::config_current,
        "1 if the active configuration is the one in the file, 0 after a refused reload"),
    row!(Gauge "source_up" [words::<Source>("source")] readings::source_up,
        "1 if the source is available, 0 when unavailable; netlink and inotify fall back to \
         polling"),
    row!(Gauge "link_below_maximum" [CHIP, UUID] readings::link_below_maximum,
        "1 if the chip's PCIe link is slower or narrower than both ends support"),
    row!(Gauge "chip_temperature_celsius" [CHIP, UUID] readings::temperature,
        "Chip temperature in degrees Celsius, from libixml; absent without it"),
    row!(Gauge "chip_ecc_errors" [CHIP, UUID, words::<meters::EccKind>("kind")] readings::ecc_errors,
        "Memory errors counted by the chip's ECC, from libixml; absent without it"),
];

/// The table as Markdown: name, type, labels, meaning.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for MetricRow { name, kind, labels, help, .. } in METRICS {
        let labels: Vec<_> = labels.iter().map(|(name, values)| label(name, *values)).collect();
        let (kind, labels) = (kind.name(), labels.join("<br>"));
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    table
}

fn label(name: &str, values: LabelValues) -> String {
    match values {
        LabelValues::Words(words) => format!("`{name}`: {}", words().join(", ")),
        LabelValues::Of(what) => format!("`{name}`: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_there_once() {
        let names: BTreeSet<_> = METRICS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for MetricRow { name, kind, help, .. } in METRICS {
            assert!(name.starts_with(PREFIX), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(!help.ends_with('.') && !help.contains('|'), "{name}: {help}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_metric() {
        let table = markdown_table();
        assert_eq!(table.lines().count(), METRICS.len() + 2);
        let row = "| `iluvatar_device_plugin_registrations_total` | counter | `resource`: \
                   configured resource<br>`result`: accepted, refused, timeout | Calls of \
                   Register;";
        assert!(table.contains(row), "{table}");
    }
}
