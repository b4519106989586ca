//! The names that alerts and dashboard may use, and which they do use.

use std::collections::{BTreeMap, BTreeSet};

use ix_device_plugin::wire::metrics::{METRICS, MetricKind, MetricRow, PREFIX};

/// The `PodMonitor` adds it.
const ADDED_LABEL: &str = "node";

/// What the plugin serves: name, without prefix and without a histogram's endings, and labels.
pub(super) fn served() -> BTreeMap<&'static str, Vec<&'static str>> {
    METRICS.iter().map(|row| (short_name(row), labels(row))).collect()
}

fn short_name(row: &MetricRow) -> &'static str {
    row.name.strip_prefix(PREFIX).expect("every name has it")
}

fn labels(row: &MetricRow) -> Vec<&'static str> {
    let bound = (row.kind == MetricKind::Histogram).then_some("le");
    row.labels.iter().map(|(name, _)| *name).chain(bound).collect()
}

/// A query uses metrics and labels of the plugin only.
#[track_caller]
pub(super) fn check_query(query: &str) {
    let known = served();
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
