//! What a scrape is made from, and the samples that come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use super::dra_meters::DraMeters;
use super::meters::{NodeMeters, ResourceMeters, Source};
use crate::decide::dra::publication::PublishedSlices;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::ixml::IxmlReading;

/// Which build runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Of the crate.
    pub version: &'static str,
    /// The commit, from `IX_REVISION` in the environment of the build.
    pub revision: &'static str,
}

/// This build.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: match option_env!("IX_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
};

/// The state of everything that is measured. What is there is read from the latest snapshot, so a
/// device that left takes its series with it.
#[derive(Clone, Copy, Debug)]
pub struct MetricsInput<'a> {
    /// Which build runs.
    pub build: Build,
    /// The latest snapshot; none before the first successful scan.
    pub snapshot: Option<&'a NodeSnapshot>,
    /// By the name of the resource; those that are configured and no others.
    pub resources: &'a BTreeMap<String, ResourceMeters>,
    /// What is counted of the node.
    pub node: &'a NodeMeters,
    /// What is counted in DRA mode, and whether the kubelet is connected; none in the other mode.
    pub dra: Option<(&'a DraMeters, bool)>,
    /// What is published; none in device plugin mode.
    pub slices: Option<&'a PublishedSlices>,
    /// For how long a scan has been running.
    pub scanning: Option<Duration>,
    /// False once a reload was refused.
    pub config_is_current: bool,
    /// Sources that work.
    pub sources_up: &'a BTreeSet<Source>,
    /// The latest reading of libixml; none while there is none.
    pub ixml: Option<&'a IxmlReading>,
}

/// The value of one series.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a gauge.
    Level(f64),
    /// Of a histogram.
    Sizes(Histogram),
}

/// One series: names and values of its labels, and its value.
pub type Series = (Vec<(&'static str, String)>, Value);

/// The series of one metric.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<Series>);

impl Samples {
    pub(super) fn add<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: Value) {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        self.0.push((labels.into(), value));
    }

    pub(super) fn labelled(&mut self, labels: Vec<(&'static str, String)>, value: Value) {
        self.0.push((labels, value));
    }

    pub(super) fn level<const N: usize>(
        &mut self,
        labels: [(&'static str, &str); N],
        level: impl Into<f64>,
    ) {
        self.add(labels, Value::Level(level.into()));
    }
}
