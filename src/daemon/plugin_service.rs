//! The five RPCs of v1beta1 for one resource, answered from the latest snapshot.
//!
//! Allocate and GetPreferredAllocation never wait and do no I/O: the kubelet admits pods one at a time,
//! and calls these without a timeout.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};
use tracing::{debug, info, warn};

use super::allocation_store::AllocationStore;
use super::cdi_writer::CdiView;
use super::inventory_owner::SnapshotReceiver;
use super::telemetry::Telemetry;
use crate::decide::allocation::allocate::{AllocationContext, Grant, allocate};
use crate::decide::allocation::cdi::CdiNames;
use crate::decide::allocation::records::{self, VerificationError};
use crate::decide::node::snapshot::NodeSnapshot;
use crate::host::kubelet::Peer;
use crate::model::allocation::AllocationRecord;
use crate::model::config::StartVerification;
use crate::model::device::{DeviceId, Resource};
use crate::model::log_event::LogEvent;
use crate::wire::device_plugin;
use crate::wire::metrics::meters::{AllocationResult, ResourceMeters, StartResult};
use crate::wire::v1beta1::device_plugin_server::DevicePlugin;
use crate::wire::v1beta1::{
    AllocateRequest, AllocateResponse, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse,
};

/// How long a container's start waits until its CDI names are on disk.
const CDI_SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// ListAndWatch streams of one server.
#[derive(Debug, Default)]
pub struct Streams {
    /// Open streams by number, each with the process at its other end.
    open: BTreeMap<u64, Peer>,
    /// Processes of which a stream ended; at most one entry for each process id.
    ended: BTreeSet<Peer>,
}

impl Streams {
    /// Open streams of the kubelet, which is the process that answered Register; of all processes
    /// where none did yet. The stream of a debugging client does not show that the kubelet has the
    /// list.
    #[must_use]
    pub fn open_of(&self, kubelet: Option<Peer>) -> usize {
        self.open.values().filter(|peer| is(kubelet, **peer)).count()
    }

    /// Whether a stream of the kubelet has ended, even if others are open.
    #[must_use]
    pub fn has_ended_of(&self, kubelet: Option<Peer>) -> bool {
        self.ended.iter().any(|peer| is(kubelet, *peer))
    }
}

fn is(kubelet: Option<Peer>, peer: Peer) -> bool {
    kubelet.is_none_or(|kubelet| kubelet == peer)
}

/// What every RPC is answered from; clones share it.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The latest snapshot.
    pub snapshots: SnapshotReceiver,
    /// The allocation records.
    pub store: AllocationStore,
    /// The CDI spec that a container runtime finds.
    pub cdi: CdiView,
    /// Counts every call.
    pub telemetry: Telemetry,
}

/// The service of one resource on one server.
pub struct PluginService {
    resource: String,
    sources: Sources,
    meters: ResourceMeters,
    streams: Arc<watch::Sender<Streams>>,
    closing: CancellationToken,
}

impl PluginService {
    /// A service whose streams end with `closing`, and a view of its streams.
    #[must_use]
    pub fn new(
        resource: String,
        sources: Sources,
        closing: CancellationToken,
    ) -> (Self, watch::Receiver<Streams>) {
        let (streams, open) = watch::channel(Streams::default());
        let meters = sources.telemetry.resource(&resource).meters;
        (Self { resource, sources, meters, streams: Arc::new(streams), closing }, open)
    }

    fn snapshot(&self) -> Result<Arc<NodeSnapshot>, Status> {
        let snapshot = self.sources.snapshots.borrow().clone();
        snapshot.ok_or_else(|| Status::unavailable("the machine has not been scanned yet"))
    }

    fn verification(&self) -> StartVerification {
        let snapshot = self.sources.snapshots.borrow();
        snapshot.as_ref().map_or(StartVerification::On, |it| it.container.start_verification)
    }

    fn prefer(
        &self,
        request: PreferredAllocationRequest,
    ) -> Result<PreferredAllocationResponse, Status> {
        let snapshot = self.snapshot()?;
        let resource = self.resource(&snapshot)?;
        Ok(device_plugin::preferred_response(&snapshot.inventory.tree, resource, request))
    }

    fn grant(&self, request: &AllocateRequest) -> Result<AllocateResponse, Status> {
        let snapshot = self.snapshot()?;
        let on_disk = self.sources.cdi.borrow().clone();
        let context = AllocationContext {
            resource: self.resource(&snapshot)?,
            inventory: &snapshot.inventory,
            container: snapshot.container,
            cdi: CdiNames::new(&snapshot.cdi, snapshot.cdi_spec.as_ref(), on_disk.as_deref()),
        };
        let containers = request.container_requests.iter();
        let grants = containers.map(|container| allocate(&context, &container.devices_ids));
        let mut grants: Vec<Grant> = grants.collect::<Result<_, _>>().map_err(|error| {
            let event = LogEvent::AllocationRefused.name();
            warn!(event, resource = self.resource, %error, "allocation refused");
            device_plugin::status(&error)
        })?;
        let records = grants.iter_mut().flat_map(|grant| mem::take(&mut grant.records)).collect();
        let (event, resource) = (LogEvent::Allocated.name(), &self.resource);
        info!(event, resource, devices = ids_text(&records), "allocated");
        self.sources.store.record(&self.resource, records);
        Ok(device_plugin::allocate_response(grants))
    }

    /// The records of these ids. There is none for an id that another plugin allocated, whose ids may
    /// have any form, or whose record was lost; its container starts unverified.
    fn records_of(&self, ids: &[String]) -> Vec<(DeviceId, AllocationRecord)> {
        let records = ids.iter().filter_map(|text| {
            let id = text.parse().ok();
            let record = id.and_then(|id| Some((id, self.sources.store.find(&self.resource, id)?)));
            if record.is_none() {
                debug!(resource = self.resource, device = text, "no allocation record to verify");
            }
            record
        });
        records.collect()
    }

    fn verify(&self, records: &[(DeviceId, AllocationRecord)]) -> Result<(), Status> {
        let snapshot = self.snapshot()?;
        let on_disk = self.sources.cdi.borrow().clone();
        records.iter().try_for_each(|(id, record)| {
            let verified = records::verify(*id, record, &snapshot.inventory, on_disk.as_deref());
            verified.map_err(|error| {
                let (event, resource) = (LogEvent::StartRefused.name(), &self.resource);
                warn!(event, resource, device = %id, %error, "container start refused");
                Status::failed_precondition(format!("{}: {error}", self.resource))
            })
        })
    }

    /// Waits until the CDI names in `records` resolve to their chips. The spec is written shortly
    /// after the machine changed, and no container should fail in between.
    async fn wait_for_names(&self, records: &[(DeviceId, AllocationRecord)]) {
        let mut cdi = self.sources.cdi.clone();
        let resolved = cdi.wait_for(|on_disk| {
            let Some(snapshot) = self.sources.snapshots.borrow().clone() else { return true };
            !records.iter().any(|(id, record)| {
                let verified =
                    records::verify(*id, record, &snapshot.inventory, on_disk.as_deref());
                matches!(verified, Err(VerificationError::Unnamed { .. }))
            })
        });
        // After a timeout, the verification names the chip.
        let _ = tokio::time::timeout(CDI_SETTLE_TIMEOUT, resolved).await;
    }

    fn resource<'a>(&self, snapshot: &'a NodeSnapshot) -> Result<&'a Resource, Status> {
        snapshot
            .resource(&self.resource)
            .ok_or_else(|| Status::not_found(format!("{} is no longer configured", self.resource)))
    }
}

/// The ids of these records, for the log.
fn ids_text(records: &BTreeMap<DeviceId, AllocationRecord>) -> String {
    records.keys().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[tonic::async_trait]
impl DevicePlugin for PluginService {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(device_plugin::options(self.verification())))
    }

    type ListAndWatchStream = ListStream;

    async fn list_and_watch(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let peer = peer(&request);
        debug!(resource = self.resource, ?peer, "stream opened");
        Ok(Response::new(ListStream {
            resource: self.resource.clone(),
            snapshots: WatchStream::new(self.sources.snapshots.clone()),
            last: None,
            lists_sent: self.meters.lists_sent.clone(),
            closing: Box::pin(self.closing.clone().cancelled_owned()),
            _open: OpenStream::new(Arc::clone(&self.streams), peer),
        }))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let began = Instant::now();
        let response = self.prefer(request.into_inner());
        self.meters.preferred_allocation_duration.observe(began.elapsed().as_secs_f64());
        response.map(Response::new)
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let began = Instant::now();
        let response = self.grant(request.get_ref());
        self.meters.allocation_duration.observe(began.elapsed().as_secs_f64());
        let granted = AllocationResult::Granted;
        self.meters
            .allocations
            .count(response.as_ref().map_or(AllocationResult::Refused, |_| granted));
        response.map(Response::new)
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        if self.verification() == StartVerification::Off {
            // A kubelet calls it until the resource is registered anew.
            return Ok(Response::new(PreStartContainerResponse {}));
        }
        let ids = request.into_inner().devices_ids;
        self.sources.store.synchronised().await;
        let records = self.records_of(&ids);
        self.wait_for_names(&records).await;
        let verified = self.verify(&records);
        let allowed = StartResult::Allowed;
        self.meters
            .container_starts
            .count(verified.as_ref().map_or(StartResult::Refused, |()| allowed));
        verified.map(|()| Response::new(PreStartContainerResponse {}))
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    let connection = request.extensions().get::<UdsConnectInfo>();
    Peer::of(connection.and_then(|connection| connection.peer_cred))
}

/// One ListAndWatch stream: the whole list, and again whenever it changes. It holds only the latest
/// snapshot, so a slow reader delays no other stream and skips outdated lists. A list is made only to
/// be sent, after comparing what the kubelet would see of both snapshots.
pub struct ListStream {
    resource: String,
    snapshots: WatchStream<Option<Arc<NodeSnapshot>>>,
    /// Of this snapshot the kubelet has the list.
    last: Option<Arc<NodeSnapshot>>,
    lists_sent: Counter,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: OpenStream,
}

impl Stream for ListStream {
    type Item = Result<ListAndWatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            let Some(snapshot) =
                std::task::ready!(Pin::new(&mut self.snapshots).poll_next(context))
            else {
                return Poll::Ready(None);
            };
            if let Some(list) = snapshot.and_then(|snapshot| self.next_list(snapshot)) {
                self.lists_sent.inc();
                return Poll::Ready(Some(Ok(list)));
            }
        }
    }
}

impl ListStream {
    /// The list of `snapshot`, if the kubelet has another one.
    fn next_list(&mut self, snapshot: Arc<NodeSnapshot>) -> Option<ListAndWatchResponse> {
        let resource = snapshot.resource(&self.resource)?;
        let last = self.last.as_ref().and_then(|last| last.resource(&self.resource));
        let is_new = last.is_none_or(|last| !last.is_listed_like(resource));
        let response = is_new.then(|| device_plugin::list_and_watch_response(resource));
        self.last = Some(snapshot);
        response
    }
}

/// Counts a stream while it is open.
struct OpenStream {
    number: u64,
    peer: Peer,
    streams: Arc<watch::Sender<Streams>>,
}

impl OpenStream {
    fn new(streams: Arc<watch::Sender<Streams>>, peer: Peer) -> Self {
        let mut number = 0;
        streams.send_modify(|streams| {
            number = streams.open.last_key_value().map_or(0, |(last, _)| last + 1);
            streams.open.insert(number, peer);
        });
        Self { number, peer, streams }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.send_modify(|streams| {
            streams.open.remove(&self.number);
            streams.ended.insert(self.peer);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET: Peer = Peer(Some(812));
    const CLIENT: Peer = Peer(Some(4711));
    const UNSEEN: Peer = Peer(None);

    fn streams(open: &[Peer], ended: &[Peer]) -> Streams {
        Streams {
            open: (0..).zip(open.iter().copied()).collect(),
            ended: ended.iter().copied().collect(),
        }
    }

    #[track_caller]
    fn check(streams: &Streams, kubelet: Option<Peer>, open: usize, has_ended: bool) {
        assert_eq!((streams.open_of(kubelet), streams.has_ended_of(kubelet)), (open, has_ended));
    }

    #[test]
    fn a_stream_of_another_process_does_not_count_as_the_kubelets() {
        check(&streams(&[CLIENT], &[]), Some(KUBELET), 0, false);
        check(&streams(&[CLIENT], &[KUBELET]), Some(KUBELET), 0, true);
        check(&streams(&[KUBELET], &[CLIENT]), Some(KUBELET), 1, false);
        check(&streams(&[CLIENT], &[CLIENT]), Some(UNSEEN), 0, false);
    }

    #[test]
    fn every_stream_counts_until_the_kubelet_is_known() {
        check(&streams(&[CLIENT, UNSEEN], &[]), None, 2, false);
        check(&streams(&[], &[CLIENT]), None, 0, true);
    }

    #[test]
    fn processes_without_a_visible_id_count_as_a_kubelet_without_one() {
        check(&streams(&[UNSEEN, UNSEEN], &[UNSEEN]), Some(UNSEEN), 2, true);
    }
}
