//! What the loops count with. Each meter is a cheap handle: clones count together.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::model::health::Health;
use crate::model::rescan::RescanTrigger;
use crate::model::session::RegisterOutcome;

/// Upper bounds in seconds for answers that are made from memory.
pub(super) const ANSWER_BUCKETS: [f64; 10] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.1, 1.0];
/// Upper bounds in seconds for scans of the machine.
const SCAN_BUCKETS: [f64; 11] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The words that a label's value can be.
pub trait LabelValue: Copy + PartialEq + 'static {
    /// Every one.
    const ALL: &'static [Self];

    /// As it is scraped.
    fn name(self) -> &'static str;
}

macro_rules! label_value {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type {
            $($(#[$variant_doc])* $variant),*
        }

        impl LabelValue for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }
        }
    };
}

pub(super) use label_value;

label_value! {
    /// How a call of Allocate ended.
    AllocationResult {
        /// The container got its devices.
        Granted = "granted",
        /// It did not, with a reason.
        Refused = "refused",
    }
}

label_value! {
    /// How a call of PreStartContainer ended.
    StartResult {
        /// The container may start.
        Allowed = "allowed",
        /// Its devices changed since they were allocated.
        Refused = "refused",
    }
}

label_value! {
    /// What became of a change of the configuration file.
    ReloadResult {
        /// The change is active.
        Applied = "applied",
        /// The last valid configuration stays active.
        Refused = "refused",
    }
}

impl LabelValue for RescanTrigger {
    const ALL: &'static [Self] = &[
        Self::Start,
        Self::Uevent,
        Self::Poll,
        Self::Request,
        Self::Configuration,
        Self::Identities,
        Self::Health,
        Self::Settling,
        Self::Retry,
        Self::Timer,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Uevent => "uevent",
            Self::Poll => "poll",
            Self::Request => "request",
            Self::Configuration => "configuration",
            Self::Identities => "identities",
            Self::Health => "health",
            Self::Settling => "settling",
            Self::Retry => "retry",
            Self::Timer => "timer",
        }
    }
}

label_value! {
    /// Where news comes from.
    Source {
        /// The kernel's uevents.
        Netlink = "netlink",
        /// Changes of the directories of the kubelet and of the configuration.
        Inotify = "inotify",
        /// The vendor's library.
        Ixml = "ixml",
        /// The kubelet, of who holds what.
        PodResources = "pod_resources",
    }
}

label_value! {
    /// Which memory errors.
    EccKind {
        /// ECC corrected them.
        Corrected = "corrected",
        /// It could not.
        Uncorrected = "uncorrected",
    }
}

/// How a call of Register ended.
pub type RegistrationResult = RegisterOutcome;

impl LabelValue for RegisterOutcome {
    const ALL: &'static [Self] = &[Self::Accepted, Self::Refused, Self::TimedOut];

    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::TimedOut => "timeout",
        }
    }
}

impl LabelValue for Health {
    const ALL: &'static [Self] = &[Self::Healthy, Self::Unhealthy];

    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A counter for each value of a label; each is there from the start.
#[derive(Clone)]
pub struct CounterByLabel<L> {
    counters: Arc<[(L, Counter)]>,
}

impl<L: LabelValue> Default for CounterByLabel<L> {
    fn default() -> Self {
        Self { counters: L::ALL.iter().map(|value| (*value, Counter::default())).collect() }
    }
}

impl<L: LabelValue> fmt::Debug for CounterByLabel<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.each()).finish()
    }
}

impl<L: LabelValue> CounterByLabel<L> {
    /// One more of this.
    pub fn count(&self, value: L) {
        for (_, counter) in self.counters.iter().filter(|(of, _)| *of == value) {
            counter.inc();
        }
    }

    /// How many there were of each.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counters.iter().map(|(value, counter)| (value.name(), counter.get()))
    }
}

/// What is counted of one resource.
#[derive(Clone, Debug)]
pub struct ResourceMeters {
    /// Calls of Register.
    pub registrations: CounterByLabel<RegistrationResult>,
    /// Streams that the kubelet holds open.
    pub open_streams: Gauge,
    /// Lists sent on any stream.
    pub lists_sent: Counter,
    /// How long it took until the kubelet first had the list.
    pub first_list: Arc<OnceLock<Duration>>,
    /// Calls of Allocate.
    pub allocations: CounterByLabel<AllocationResult>,
    /// How long they took.
    pub allocation_duration: Histogram,
    /// How long calls of GetPreferredAllocation took.
    pub preferred_allocation_duration: Histogram,
    /// Calls of PreStartContainer.
    pub container_starts: CounterByLabel<StartResult>,
}

impl Default for ResourceMeters {
    fn default() -> Self {
        Self {
            registrations: CounterByLabel::default(),
            open_streams: Gauge::default(),
            lists_sent: Counter::default(),
            first_list: Arc::default(),
            allocations: CounterByLabel::default(),
            allocation_duration: Histogram::new(ANSWER_BUCKETS),
            preferred_allocation_duration: Histogram::new(ANSWER_BUCKETS),
            container_starts: CounterByLabel::default(),
        }
    }
}

/// What is counted of the node as a whole.
#[derive(Clone, Debug)]
pub struct NodeMeters {
    /// Scans of the machine.
    pub rescans: CounterByLabel<RescanTrigger>,
    /// How long they took.
    pub rescan_duration: Histogram,
    /// Uevents received.
    pub uevents: Counter,
    /// Times that some were lost.
    pub uevent_overflows: Counter,
    /// Changes of the configuration file.
    pub config_reloads: CounterByLabel<ReloadResult>,
}

impl Default for NodeMeters {
    fn default() -> Self {
        Self {
            rescans: CounterByLabel::default(),
            rescan_duration: Histogram::new(SCAN_BUCKETS),
            uevents: Counter::default(),
            uevent_overflows: Counter::default(),
            config_reloads: CounterByLabel::default(),
        }
    }
}
