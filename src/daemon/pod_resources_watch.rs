//! Queries PodResources: which pods hold which devices. No Allocate waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::allocation_store::AllocationsReceiver;
use super::inventory_inputs::PodsReport;
use super::inventory_owner::SnapshotReceiver;
use super::telemetry::Telemetry;
use super::timer::{next_tick, until};
use crate::decide::node::pod_resources_schedule::{
    ADMISSION_DELAY, PodResourcesSchedule, RequestFailure, kubelet_instance,
};
use crate::host::clock::time_of_day;
use crate::host::kubelet::socket_identity;
use crate::host::pod_resources::{self, PodResourcesError};
use crate::model::config::Config;
use crate::model::log_event::LogEvent;
use crate::model::pod_usage::{KubeletInstance, PodUsage};

/// How long the kubelet may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The least time between two queries: a flapping device must not overload the kubelet.
const MINIMUM_INTERVAL: Duration = Duration::from_millis(100);

/// Where and how the kubelet is queried.
#[derive(Clone, Debug)]
pub struct PodResourcesSettings {
    /// The kubelet's PodResources socket.
    pub socket: PathBuf,
    /// How long a kubelet runs until it knows all of its pods.
    pub kubelet_start: Duration,
}

/// What calls for a query.
#[derive(Debug)]
pub struct QueryTriggers {
    /// The list, which decides when the kubelet is queried.
    pub snapshots: SnapshotReceiver,
    /// A container that is allocated a device holds it soon.
    pub allocations: AllocationsReceiver,
    /// How often to query without a change.
    pub config: watch::Receiver<Arc<Config>>,
}

/// Owns the queries.
#[derive(Debug)]
pub struct PodResourcesWatch {
    settings: PodResourcesSettings,
    triggers: QueryTriggers,
    reports: watch::Sender<Option<PodsReport>>,
    schedule: PodResourcesSchedule,
    /// The socket of the last query, and when it was first seen.
    kubelet: Option<((u64, i128), Instant)>,
    telemetry: Telemetry,
}

impl PodResourcesWatch {
    /// A watch whose answers go to `reports`; times count from the daemon's start.
    #[must_use]
    pub fn new(
        settings: PodResourcesSettings,
        triggers: QueryTriggers,
        reports: watch::Sender<Option<PodsReport>>,
        telemetry: Telemetry,
    ) -> Self {
        let schedule = PodResourcesSchedule::default();
        Self { settings, triggers, reports, schedule, kubelet: None, telemetry }
    }

    /// Queries when due, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let asked = stop.run_until_cancelled(self.query_when_due()).await;
        if asked.is_some() {
            // No more snapshots will come; ending early would count as a failure.
            stop.cancelled().await;
        }
    }

    async fn query_when_due(&mut self) {
        // The first list is sent before the first query.
        if self.triggers.snapshots.wait_for(Option::is_some).await.is_err() {
            return;
        }
        self.is_due();
        loop {
            self.ask().await;
            if !self.wait_until_due().await {
                return;
            }
        }
    }

    /// False once there will be no more snapshots.
    async fn wait_until_due(&mut self) -> bool {
        let (asked, mut admitted) = (Instant::now(), None);
        loop {
            if self.is_due() {
                sleep_until(asked + MINIMUM_INTERVAL).await;
                return true;
            }
            let configured = self.triggers.config.borrow_and_update().pod_resources.interval;
            let again = self.schedule.interval(configured).map(|interval| {
                next_tick(self.telemetry.started(), asked, interval).max(asked + MINIMUM_INTERVAL)
            });
            let next = again.into_iter().chain(admitted).min();
            let follows_allocations = self.schedule.follows_allocations() && admitted.is_none();
            let QueryTriggers { snapshots, allocations, config } = &mut self.triggers;
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return false },
                Ok(()) = config.changed() => {}
                () = allocations.changed(), if follows_allocations => {
                    admitted = Some(Instant::now() + ADMISSION_DELAY);
                }
                () = until(next) => return true,
            }
        }
    }

    fn is_due(&mut self) -> bool {
        let snapshot = self.triggers.snapshots.borrow_and_update().clone();
        self.schedule.follow(snapshot.as_deref())
    }

    async fn ask(&mut self) {
        let asked = self.telemetry.started().elapsed();
        let kubelet = self.kubelet();
        match pod_resources::list(&self.settings.socket, ANSWER_TIMEOUT).await {
            Ok(held) => {
                self.telemetry.pod_resources(None);
                if self.schedule.answered() > 0 {
                    info!(
                        event = LogEvent::PodResourcesAnswering.name(),
                        "the kubelet's PodResources answers"
                    );
                }
                let usage = Arc::new(PodUsage { queried_at: asked, kubelet, held });
                self.reports.send_replace(Some(PodsReport::Usage(usage)));
            }
            Err(error) => self.failed(&error),
        }
    }

    /// The kubelet at the socket; none without a socket.
    fn kubelet(&mut self) -> KubeletInstance {
        let identity = socket_identity(&self.settings.socket);
        let id = identity.map_or((0, 0), |socket| (socket.inode, socket.modified));
        let (_, since) = *match &mut self.kubelet {
            Some(known) if known.0 == id => known,
            other => other.insert((id, Instant::now())),
        };
        let now = time_of_day().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        kubelet_instance(id, now, since.elapsed(), self.settings.kubelet_start)
    }

    fn failed(&mut self, error: &PodResourcesError) {
        self.telemetry.pod_resources(Some(&error.to_string()));
        let socket = self.settings.socket.display();
        match self.schedule.failed() {
            1 if error.is_absent() => info!(
                event = LogEvent::PodResourcesAbsent.name(),
                %socket,
                "no PodResources socket; which pods hold devices is unknown"
            ),
            1 => warn!(
                event = LogEvent::PodResourcesFailed.name(), %socket, %error,
                "PodResources does not answer; retrying"
            ),
            failures => debug!(%socket, %error, failures, "PodResources still does not answer"),
        }
        let failed =
            if error.is_absent() { RequestFailure::Absent } else { RequestFailure::Failed };
        if self.schedule.is_unavailable(failed) {
            self.reports.send_if_modified(|report| {
                let is_new = !matches!(report, Some(PodsReport::Unavailable));
                *report = Some(PodsReport::Unavailable);
                is_new
            });
        }
    }
}
