//! Publishes what the node offers as `ResourceSlices`: carries out what
//! `decide::dra::publication` decides, and reports to it what the watch and each write bring.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::resource::v1::ResourceSlice;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::claim_ledger::HoldersView;
use super::dra_telemetry::DraTelemetry;
use super::inventory_owner::SnapshotReceiver;
use super::timer::until;
use crate::decide::backoff::backoff_up_to;
use crate::decide::dra::pool::pool;
use crate::decide::dra::publication::{
    KnownSlice, Publication, PublishStep, PublishedSlices, SliceReport, WriteOutcome,
};
use crate::decide::dra::reconcile::KubeletLink;
use crate::decide::dra::slices::contents;
use crate::host::kube_api::{KubeApi, KubeApiError, SliceEvent, SliceEvents};
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::slice::{DraFeature, NodeIdentity, ServerSupport, SliceContent, SliceWrite};
use crate::model::log_event::LogEvent;
use crate::wire::dra_objects::{seen_slice, slice_object};
use crate::wire::metrics::dra_meters::SliceWriteResult;

/// The longest wait before the API server is asked for its list again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

type PublishedObject = Arc<ResourceSlice>;
type WriteInFlight = Pin<Box<dyn Future<Output = WriteOutcome<PublishedObject>> + Send>>;

/// What the slices follow.
pub struct SliceInputs {
    /// What the node offers.
    pub snapshots: SnapshotReceiver,
    /// Which claims hold devices.
    pub claims: HoldersView,
    /// Whether a kubelet is connected to the driver's service.
    pub is_connected: watch::Receiver<bool>,
}

/// The one writer of this node's slices.
pub struct SlicePublisher {
    node: String,
    api: KubeApi,
    inputs: SliceInputs,
    telemetry: DraTelemetry,
    support: watch::Sender<ServerSupport>,
    started: Instant,
    seed: u64,
    watch_failures: u32,
    /// When the watch is polled again after an error.
    poll_at: Option<Instant>,
    watch_error: Option<String>,
    /// Each error is logged once.
    logged_error: Option<String>,
}

impl SlicePublisher {
    /// Publishes for this node, and sends what the API server supports. Nothing is written before a
    /// first snapshot.
    #[must_use]
    pub fn new(
        node: String,
        api: KubeApi,
        inputs: SliceInputs,
        support: watch::Sender<ServerSupport>,
        telemetry: DraTelemetry,
    ) -> Self {
        Self {
            node,
            api,
            inputs,
            telemetry,
            support,
            started: Instant::now(),
            seed: u64::from(std::process::id()),
            watch_failures: 0,
            poll_at: None,
            watch_error: None,
            logged_error: None,
        }
    }

    /// Publishes until `stop`. The slices stay: the kubelet removes them if no driver follows.
    pub async fn run(mut self, stop: CancellationToken) {
        let Some(Some(uid)) = stop.run_until_cancelled(self.node_uid(&stop)).await else { return };
        let node = NodeIdentity { name: self.node.clone(), uid };
        let mut events = self.api.slice_events(DRIVER_NAME, &node.name);
        let mut publication = Publication::new(node, self.seed);
        let mut in_flight: Option<(SliceWrite, WriteInFlight)> = None;
        while !stop.is_cancelled() {
            let mut retry_at = None;
            if in_flight.is_none() {
                match self.next(&publication) {
                    PublishStep::Write(write) => {
                        let request = self.start(&publication, &write);
                        in_flight = Some((write, request));
                    }
                    PublishStep::Wait(until) => retry_at = until.map(|until| self.started + until),
                    PublishStep::Current => {}
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                event = next_event(&mut events, self.poll_at) => self.take_event(event, &mut publication),
                (write, outcome) = finished(&mut in_flight) => {
                    self.take_outcome(&write, outcome, &mut publication);
                }
                () = changed(&mut self.inputs) => {}
                () = until(retry_at) => {}
            }
            self.publish_state(&publication, in_flight.is_some());
        }
    }

    /// Asks until the API server knows the node.
    async fn node_uid(&mut self, stop: &CancellationToken) -> Option<String> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let error = match self.api.node_uid(&self.node).await {
                Ok(uid) => return Some(uid),
                Err(error) => error,
            };
            failures += 1;
            self.log_error(&error.to_string());
            let last_error = Some(error.to_string());
            self.telemetry.publish_slices(PublishedSlices { last_error, ..Default::default() });
            let wait = backoff_up_to(LONGEST_WAIT, failures, self.seed);
            tokio::time::sleep(wait.max(error.retry_after().unwrap_or_default())).await;
        }
        None
    }

    /// What the node offers to this API server; none before the first snapshot.
    fn wanted(&self, support: &ServerSupport) -> Option<Vec<SliceContent>> {
        let snapshot = self.inputs.snapshots.borrow().clone()?;
        let claims = Arc::clone(&self.inputs.claims.borrow());
        Some(contents(&pool(&snapshot, &claims, support), support))
    }

    fn next<Object: Clone>(&self, publication: &Publication<Object>) -> PublishStep {
        let Some(wanted) = self.wanted(publication.support()) else {
            return PublishStep::Wait(None);
        };
        let is_connected = *self.inputs.is_connected.borrow();
        let link = if is_connected { KubeletLink::Connected } else { KubeletLink::Away };
        publication.next(&wanted, link, self.started.elapsed())
    }

    fn start(
        &self,
        publication: &Publication<PublishedObject>,
        write: &SliceWrite,
    ) -> WriteInFlight {
        let (api, node, write) = (self.api.clone(), publication.node().clone(), write.clone());
        let replaced = match &write {
            SliceWrite::Update { slice, .. } => publication.object(&slice.name).cloned(),
            _ => None,
        };
        Box::pin(async move { carry_out(&api, &node, &write, replaced).await })
    }

    fn take_event(
        &mut self,
        event: Result<SliceEvent, KubeApiError>,
        publication: &mut Publication<PublishedObject>,
    ) {
        match event {
            Ok(event) => {
                (self.watch_failures, self.poll_at, self.watch_error) = (0, None, None);
                publication.reported(report(event, publication.node()));
            }
            Err(error) => {
                self.watch_failures = self.watch_failures.saturating_add(1);
                let wait = backoff_up_to(LONGEST_WAIT, self.watch_failures, self.seed);
                let wait = wait.max(error.retry_after().unwrap_or_default());
                self.poll_at = Some(Instant::now() + wait);
                // An old version is no failure: the next poll lists anew.
                if error.code() != Some(410) {
                    self.log_error(&error.to_string());
                    self.watch_error = Some(error.to_string());
                }
            }
        }
    }

    fn take_outcome(
        &mut self,
        write: &SliceWrite,
        outcome: WriteOutcome<PublishedObject>,
        publication: &mut Publication<PublishedObject>,
    ) {
        self.telemetry.meters.slice_writes.count(result_of(write, &outcome));
        let learned = publication.wrote(write, outcome, self.started.elapsed());
        if !learned.is_empty() {
            self.support.send_replace(publication.support().clone());
        }
        for feature in learned {
            log_missing(feature);
        }
        if let Some(error) = publication.last_error() {
            self.log_error(error);
        } else {
            self.logged_error = None;
            log_written(write);
        }
    }

    fn publish_state<Object: Clone>(&self, publication: &Publication<Object>, is_writing: bool) {
        let is_current = !is_writing && self.next(publication) == PublishStep::Current;
        let slices = publication.known().map(|known| known.seen.clone());
        self.telemetry.publish_slices(PublishedSlices {
            slices: publication.is_listed().then(|| slices.collect()),
            is_current: is_current && publication.is_listed(),
            support: publication.support().clone(),
            last_error: publication
                .last_error()
                .map(str::to_owned)
                .or_else(|| self.watch_error.clone()),
        });
    }

    fn log_error(&mut self, error: &str) {
        if self.logged_error.as_deref() == Some(error) {
            debug!(error, "the API server cannot be used; trying again");
        } else {
            warn!(
                event = LogEvent::SlicesFailed.name(),
                error, "the API server cannot be used; the slices stay as they are; trying again"
            );
            self.logged_error = Some(error.to_owned());
        }
    }
}

fn log_missing(feature: DraFeature) {
    warn!(
        event = LogEvent::FeatureDropped.name(),
        %feature,
        gate = feature.gate(),
        "the API server dropped what it was sent: its feature gate is off; {}",
        feature.fallback()
    );
}

fn log_written(write: &SliceWrite) {
    match write {
        SliceWrite::Create(slice) | SliceWrite::Update { slice, .. } => {
            let devices = match &slice.content {
                SliceContent::Devices(devices) => devices.len(),
                SliceContent::Counters(_) => 0,
            };
            let (name, generation) = (&slice.name, slice.generation);
            info!(
                event = LogEvent::SlicePublished.name(),
                slice = name,
                generation,
                devices,
                "published a slice"
            );
        }
        SliceWrite::Delete { name, .. } => {
            info!(event = LogEvent::SliceDeleted.name(), slice = name, "deleted a slice");
        }
    }
}

fn result_of<Object>(write: &SliceWrite, outcome: &WriteOutcome<Object>) -> SliceWriteResult {
    match (outcome, write) {
        (WriteOutcome::Stored(_), SliceWrite::Create(_)) => SliceWriteResult::Created,
        (WriteOutcome::Stored(_), _) => SliceWriteResult::Updated,
        (WriteOutcome::Deleted, _) => SliceWriteResult::Deleted,
        (WriteOutcome::Conflict | WriteOutcome::NodeReplaced(_), _) => SliceWriteResult::Conflict,
        (WriteOutcome::Invalid(_), _) => SliceWriteResult::Refused,
        (WriteOutcome::Failed(..), _) => SliceWriteResult::Failed,
    }
}

/// The watch, polled again after an error once it is time.
async fn next_event(
    events: &mut SliceEvents,
    poll_at: Option<Instant>,
) -> Result<SliceEvent, KubeApiError> {
    if let Some(poll_at) = poll_at {
        sleep_until(poll_at).await;
    }
    match events.next().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

async fn finished(
    in_flight: &mut Option<(SliceWrite, WriteInFlight)>,
) -> (SliceWrite, WriteOutcome<PublishedObject>) {
    let Some((_, request)) = in_flight else { return std::future::pending().await };
    let outcome = request.await;
    let Some((write, _)) = in_flight.take() else { return std::future::pending().await };
    (write, outcome)
}

/// Any input changed. An input whose sender is gone never changes: the daemon ends.
async fn changed(inputs: &mut SliceInputs) {
    let SliceInputs { snapshots, claims, is_connected } = inputs;
    tokio::select! {
        Ok(()) = snapshots.changed() => {}
        Ok(()) = claims.changed() => {}
        Ok(()) = is_connected.changed() => {}
        else => std::future::pending().await,
    }
}

fn known(slice: ResourceSlice, node: &NodeIdentity) -> KnownSlice<PublishedObject> {
    KnownSlice { seen: seen_slice(&slice, node), object: Arc::new(slice) }
}

fn report(event: SliceEvent, node: &NodeIdentity) -> SliceReport<PublishedObject> {
    match event {
        SliceEvent::Init => SliceReport::ListBegan,
        SliceEvent::InitApply(slice) => SliceReport::Listed(known(slice, node)),
        SliceEvent::InitDone => SliceReport::ListEnded,
        SliceEvent::Apply(slice) => SliceReport::Applied(known(slice, node)),
        SliceEvent::Delete(slice) => SliceReport::Deleted(seen_slice(&slice, node)),
    }
}

async fn carry_out(
    api: &KubeApi,
    node: &NodeIdentity,
    write: &SliceWrite,
    replaced: Option<PublishedObject>,
) -> WriteOutcome<PublishedObject> {
    let stored = match write {
        SliceWrite::Create(slice) => match api.node_uid(&node.name).await {
            // Owned by a node that is gone, the slice would be deleted at once.
            Ok(uid) if uid != node.uid => return WriteOutcome::NodeReplaced(uid),
            Ok(_) => api.create_slice(&slice_object(slice, node, None)).await,
            Err(error) => return failed(&error),
        },
        SliceWrite::Update { slice, .. } => {
            api.replace_slice(&slice_object(slice, node, replaced.as_deref())).await
        }
        SliceWrite::Delete { name, resource_version } => {
            let deleted = api.delete_slice(name, resource_version.clone()).await;
            return deleted.map_or_else(|error| failed(&error), |()| WriteOutcome::Deleted);
        }
    };
    match stored {
        Ok(slice) => WriteOutcome::Stored(known(slice, node)),
        Err(error) if error.is_not_found() && replaced.is_some() => WriteOutcome::Deleted,
        Err(error) => failed(&error),
    }
}

fn failed(error: &KubeApiError) -> WriteOutcome<PublishedObject> {
    match error.code() {
        Some(409) => WriteOutcome::Conflict,
        Some(422) => WriteOutcome::Invalid(error.to_string()),
        _ => WriteOutcome::Failed(error.to_string(), error.retry_after()),
    }
}
