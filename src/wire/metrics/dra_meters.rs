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

label_value! {
    /// How a write of a slice ended.
    SliceWriteResult {
        /// The slice was created.
        Created = "created",
        /// It was replaced.
        Updated = "updated",
        /// It was deleted.
        Deleted = "deleted",
        /// The API server had another version of it.
        Conflict = "conflict",
        /// The API server refused it as invalid.
        Refused = "refused",
        /// Anything else went wrong.
        Failed = "failed",
    }
}

label_value! {
    /// How an event of the node ended.
    EventResult {
        /// The API server has it.
        Created = "created",
        /// It does not; another attempt follows.
        Failed = "failed",
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
    /// Writes of slices.
    pub slice_writes: CounterByLabel<SliceWriteResult>,
    /// Events of the node.
    pub events: CounterByLabel<EventResult>,
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
            slice_writes: CounterByLabel::default(),
            events: CounterByLabel::default(),
        }
    }
}
