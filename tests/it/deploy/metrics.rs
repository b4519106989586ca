//! The names that alerts and dashboard may use, and which they do use.

use std::collections::{BTreeMap, BTreeSet};

/// What the plugin serves: name, as scraped and without a histogram's endings, and labels.
pub(super) const METRICS: &[(&str, &[&str])] = &[
    ("devices", &["resource", "health"]),
    ("device_unhealthy", &["resource", "device", "reason"]),
    ("registrations_total", &["resource", "result"]),
    ("open_streams", &["resource"]),
    ("lists_sent_total", &["resource"]),
    ("time_to_first_list_seconds", &["resource"]),
    ("allocations_total", &["resource", "result"]),
    ("allocation_duration_seconds", &["resource", "le"]),
    ("preferred_allocation_duration_seconds", &["resource", "le"]),
    ("container_starts_total", &["resource", "result"]),
    ("rescans_total", &["trigger"]),
    ("rescan_duration_seconds", &["le"]),
    ("uevents_total", &[]),
    ("uevent_overflows_total", &[]),
    ("config_reloads_total", &["result"]),
    ("config_current", &[]),
    ("source_up", &["source"]),
    ("link_below_maximum", &["chip"]),
    ("chip_temperature_celsius", &["chip"]),
    ("chip_ecc_errors", &["chip", "kind"]),
    ("build_info", &["version", "revision"]),
];

const PREFIX: &str = "iluvatar_device_plugin_";
/// The `PodMonitor` adds it.
const ADDED_LABEL: &str = "node";

/// A query uses metrics and labels of the plugin only.
#[track_caller]
pub(super) fn check_query(query: &str) {
    let known: BTreeMap<_, _> = METRICS.iter().copied().collect();
    let metrics = metrics_of(query);
    assert!(!metrics.is_empty(), "{query}: asks for nothing of ours");
    let mut labels = BTreeSet::from([ADDED_LABEL]);
    for metric in metrics {
        let of_metric = known.get(metric.as_str());
        labels.extend(of_metric.unwrap_or_else(|| panic!("{query}: there is no {metric}")).iter());
    }
    let unknown: Vec<_> =
        labels_of(query).into_iter().filter(|label| !labels.contains(label.as_str())).collect();
    assert!(unknown.is_empty(), "{query}: its metrics have no label {unknown:?}");
}

/// The metrics that a query names, without prefix and without a histogram's endings.
pub(super) fn metrics_of(query: &str) -> BTreeSet<String> {
    let after_prefix = query.split(PREFIX).skip(1);
    after_prefix.map(|rest| without_ending(word(rest)).to_owned()).collect()
}

fn word(text: &str) -> &str {
    let end = text.find(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    &text[..end.unwrap_or(text.len())]
}

fn without_ending(metric: &str) -> &str {
    metric.strip_suffix("_bucket").unwrap_or(metric)
}

/// The labels in braces and in `by (...)`.
fn labels_of(query: &str) -> BTreeSet<String> {
    let within = |open: &str, close: char| {
        let parts = query.split(open).skip(1);
        parts.filter_map(|part| part.split(close).next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let matchers = within("{", '}').join(",");
    let matchers = matchers.split(',').filter_map(|matcher| matcher.split(['=', '!']).next());
    let grouped = within("by (", ')').join(",");
    let labels = matchers.chain(grouped.split(',')).map(|label| label.trim().to_owned());
    labels.filter(|label| !label.is_empty()).collect()
}

#[test]
fn a_query_for_what_is_not_there_is_found() {
    let check = |query: &'static str| std::panic::catch_unwind(|| check_query(query)).is_ok();
    assert!(check("sum by (node) (iluvatar_device_plugin_devices{health=\"healthy\"}) == 0"));
    assert!(check("rate(iluvatar_device_plugin_rescan_duration_seconds_bucket[5m])"));
    assert!(!check("iluvatar_device_plugin_moons"));
    assert!(!check("iluvatar_device_plugin_devices{phase=\"full\"}"));
    assert!(!check("sum by (phase) (iluvatar_device_plugin_devices)"));
    assert!(!check("up"));
}
