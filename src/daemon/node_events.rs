//! Creates an event of the Node for each change of a device's health, as
//! `decide::dra::health_events` decides. Events are a convenience: nothing waits for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::claim_ledger::HoldersView;
use super::dra_telemetry::DraTelemetry;
use super::inventory_owner::SnapshotReceiver;
use super::timer::until;
use crate::decide::backoff::backoff_up_to;
use crate::decide::dra::health_events::HealthEvents;
use crate::decide::dra::health_list::health_list;
use crate::decide::dra::pool::pool;
use crate::host::clock::time_of_day;
use crate::host::kube_api::{KubeApi, KubeApiError};
use crate::model::dra::device::DraDeviceHealth;
use crate::model::dra::slice::{NodeIdentity, ServerSupport};
use crate::model::log_event::LogEvent;
use crate::wire::metrics::dra_meters::EventResult;
use crate::wire::node_event::node_event;

/// The longest wait after an event that could not be created.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Follows the health of the devices.
pub struct NodeEvents {
    node: String,
    api: KubeApi,
    snapshots: SnapshotReceiver,
    claims: HoldersView,
    telemetry: DraTelemetry,
    events: HealthEvents,
    started: Instant,
    failures: u32,
    retry_at: Option<Instant>,
}

impl NodeEvents {
    /// Events of this node.
    #[must_use]
    pub fn new(
        node: String,
        api: KubeApi,
        snapshots: SnapshotReceiver,
        claims: HoldersView,
        telemetry: DraTelemetry,
    ) -> Self {
        Self {
            node,
            api,
            snapshots,
            claims,
            telemetry,
            events: HealthEvents::default(),
            started: Instant::now(),
            failures: 0,
            retry_at: None,
        }
    }

    /// Creates events until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.observe();
            if self.retry_at.is_none_or(|at| at <= Instant::now())
                && let Some(change) = self.events.next(self.started.elapsed())
            {
                if stop.run_until_cancelled(self.send(change)).await.is_none() {
                    return;
                }
                continue;
            }
            let next = self.events.next_at().map(|at| self.started + at);
            let next = next.map(|at| at.max(self.retry_at.unwrap_or(at)));
            tokio::select! {
                () = stop.cancelled() => {}
                Ok(()) = self.snapshots.changed() => {}
                Ok(()) = self.claims.changed() => {}
                () = until(next) => {}
            }
        }
    }

    /// The health of every device now; what is off changes nothing, so that it is no change when it
    /// is on again.
    fn observe(&mut self) {
        let Some(snapshot) = self.snapshots.borrow_and_update().clone() else { return };
        let claims = Arc::clone(&self.claims.borrow_and_update());
        if snapshot.dra.events {
            self.events.observe(health_list(&pool(&snapshot, &claims, &ServerSupport::default())));
        } else {
            self.events = HealthEvents::default();
        }
    }

    async fn send(&mut self, change: DraDeviceHealth) {
        let results = &self.telemetry.meters.events;
        match self.create(&change).await {
            Ok(()) => {
                results.count(EventResult::Created);
                (self.failures, self.retry_at) = (0, None);
            }
            Err(error) => {
                results.count(EventResult::Failed);
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    warn!(
                        event = LogEvent::NodeEventFailed.name(), %error, device = %change.device,
                        "cannot create an event of the node; trying again"
                    );
                } else {
                    debug!(%error, device = %change.device, "cannot create an event of the node; trying again");
                }
                let wait =
                    backoff_up_to(LONGEST_WAIT, self.failures, u64::from(std::process::id()));
                let wait = wait.max(error.retry_after().unwrap_or_default());
                self.retry_at = Some(Instant::now() + wait);
                self.events.failed(&change);
            }
        }
    }

    async fn create(&self, change: &DraDeviceHealth) -> Result<(), KubeApiError> {
        let uid = self.api.node_uid(&self.node).await?;
        let node = NodeIdentity { name: self.node.clone(), uid };
        self.api.create_event(&node_event(&node, change, time_of_day())).await
    }
}
