//! What DRA mode reports of itself. Clones share one state.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::telemetry::WatchMethod;
use crate::decide::dra::publication::PublishedSlices;
use crate::model::session::Progress;
use crate::wire::metrics::dra_meters::DraMeters;

/// Its meters and notes.
#[derive(Clone, Debug, Default)]
pub struct DraTelemetry {
    /// What is counted.
    pub meters: DraMeters,
    notes: Arc<watch::Sender<DraNotes>>,
    slices: Arc<watch::Sender<Arc<PublishedSlices>>>,
}

/// The state of the registration with the kubelet.
#[derive(Clone, Debug)]
pub struct DraNotes {
    /// False in device plugin mode.
    pub is_used: bool,
    /// When it last made a step.
    pub last_step: Instant,
    /// How far it is.
    pub progress: Progress,
    /// When the kubelet accepted the driver; none while it does not.
    pub registered: Option<Instant>,
    /// Whether the kubelet is connected to the service.
    pub is_connected: bool,
    /// How changes of the kubelet's directories are noticed.
    pub followed: WatchMethod,
    /// The last error since the last success.
    pub last_error: Option<String>,
}

impl Default for DraNotes {
    fn default() -> Self {
        Self {
            is_used: false,
            last_step: Instant::now(),
            progress: Progress::Waiting,
            registered: None,
            is_connected: false,
            followed: WatchMethod::Nothing,
            last_error: None,
        }
    }
}

impl DraTelemetry {
    /// The state of the registration.
    #[must_use]
    pub fn notes(&self) -> DraNotes {
        self.notes.borrow().clone()
    }

    /// What is published; to wait on, too.
    #[must_use]
    pub fn slices(&self) -> watch::Receiver<Arc<PublishedSlices>> {
        self.slices.subscribe()
    }

    /// Publishes what is published, if that differs.
    pub fn publish_slices(&self, slices: PublishedSlices) {
        self.slices.send_if_modified(|last| {
            let is_new = **last != slices;
            if is_new {
                *last = Arc::new(slices);
            }
            is_new
        });
    }

    /// Changes it.
    pub fn note(&self, change: impl FnOnce(&mut DraNotes)) {
        self.notes.send_modify(change);
    }
}
