//! What the loops of DRA mode count with.

use prometheus_client::metrics::histogram::Histogram;

use super::meters::{ANSWER_BUCKETS, CounterByLabel, LabelValue, label_value};

label_value! {
    /// How a registration with the kubelet ended.
    DraRegistrationResult {
        /// The kubelet accepted the driver.
        Accepted = "accepted",
        /// It did not.
        Refused = "refused",
    }
}

label_value! {
    /// How the preparation of one claim ended.
    PrepareResult {
        /// The kubelet got its devices.
        Prepared = "prepared",
        /// It did not, with a reason.
        Refused = "refused",
    }
}

/// What is counted in DRA mode.
#[derive(Clone, Debug)]
pub struct DraMeters {
    /// Registrations with the kubelet.
    pub registrations: CounterByLabel<DraRegistrationResult>,
    /// Claims that the kubelet wanted prepared.
    pub prepares: CounterByLabel<PrepareResult>,
    /// How long the calls took.
    pub prepare_duration: Histogram,
    /// Claims that the kubelet wanted unprepared.
    pub unprepares: CounterByLabel<UnprepareResult>,
}

label_value! {
    /// How the end of one claim's use was recorded.
    UnprepareResult {
        /// Its devices are free.
        Released = "released",
        /// The record could not be written.
        Failed = "failed",
    }
}

impl Default for DraMeters {
    fn default() -> Self {
        Self {
            registrations: CounterByLabel::default(),
            prepares: CounterByLabel::default(),
            prepare_duration: Histogram::new(ANSWER_BUCKETS),
            unprepares: CounterByLabel::default(),
        }
    }
}
