//! The text that is scraped: OpenMetrics, or the older text format on request.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::input::{MetricsInput, Samples, Series, Value};
use super::{METRICS, MetricKind, MetricRow};

/// In which words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4, which is all that some tools read.
    Classic,
}

impl Format {
    /// The format for a scraper's `Accept`: OpenMetrics unless it wants plain text and nothing newer.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        let is_classic =
            accept.contains("text/plain") && !accept.contains("application/openmetrics-text");
        if is_classic { Self::Classic } else { Self::OpenMetrics }
    }

    /// The answer's `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Every metric of the input.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "writing to a String cannot fail")]
pub fn exposition(input: &MetricsInput<'_>, format: Format) -> String {
    let families = METRICS.iter().map(|row| {
        let mut samples = Samples::default();
        (row.read)(input, &mut samples);
        (row, samples.0)
    });
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families.collect())));
    let mut scraped = String::new();
    text::encode(&mut scraped, &registry).expect("writing to a String cannot fail");
    match format {
        Format::OpenMetrics => scraped,
        Format::Classic => classic(&scraped),
    }
}

#[derive(Debug)]
struct Families(Vec<(&'static MetricRow, Vec<Series>)>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (row, samples) in &self.0 {
            // OpenMetrics names a counter without what its samples end in.
            let name = row.name.strip_suffix("_total").unwrap_or(row.name);
            let kind = metric_type(row.kind);
            let help = format!("{}.", row.help);
            let mut metric = encoder.encode_descriptor(name, &help, None, kind)?;
            match &samples[..] {
                [(labels, value)] if labels.is_empty() => encode(metric, value)?,
                _ => samples
                    .iter()
                    .try_for_each(|(labels, value)| encode(metric.encode_family(labels)?, value))?,
            }
        }
        Ok(())
    }
}

fn metric_type(kind: MetricKind) -> MetricType {
    match kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    }
}

fn encode(mut metric: MetricEncoder<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Count(count) => metric.encode_counter::<[(&str, &str); 0], _, f64>(count, None),
        Value::Level(level) => metric.encode_gauge(level),
        Value::Sizes(histogram) => histogram.encode(metric),
    }
}

/// The older format names a counter like its samples and has no end mark.
fn classic(open_metrics: &str) -> String {
    let counters: Vec<_> =
        METRICS.iter().filter_map(|row| row.name.strip_suffix("_total")).collect();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some("EOF"), ..] => String::new(),
            [Some("#"), Some(what), Some(name), Some(rest)] if counters.contains(&name) => {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    open_metrics.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, wanted: Format) {
        assert_eq!(Format::wanted(accept), wanted, "{accept}");
    }

    #[test]
    fn the_older_format_is_for_those_who_know_no_other() {
        check("", Format::OpenMetrics);
        check("*/*", Format::OpenMetrics);
        check(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*",
            Format::OpenMetrics,
        );
        check("text/plain;version=0.0.4", Format::Classic);
    }

    #[test]
    fn a_counter_has_the_name_of_its_samples_in_the_older_format() {
        let open_metrics = "# HELP iluvatar_device_plugin_uevents Uevents received.\n\
                            # TYPE iluvatar_device_plugin_uevents counter\n\
                            iluvatar_device_plugin_uevents_total 3\n\
                            # TYPE iluvatar_device_plugin_devices gauge\n# EOF\n";
        let expected = "# HELP iluvatar_device_plugin_uevents_total Uevents received.\n\
                        # TYPE iluvatar_device_plugin_uevents_total counter\n\
                        iluvatar_device_plugin_uevents_total 3\n\
                        # TYPE iluvatar_device_plugin_devices gauge\n";
        assert_eq!(classic(open_metrics), expected);
    }
}
