//! The five RPCs of v1beta1 for one resource, answered from the latest snapshot.
//!
//! Allocate and GetPreferredAllocation never wait, read or call anybody: the kubelet admits pods one
//! by one behind them, without a timeout.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::decide::allocation::allocate::{AllocateError, Grant, allocate};
use crate::decide::allocation::cdi::named;
use crate::decide::allocation::records::{self, NodeDelivery, VerificationError};
use crate::decide::node::advertise::NodeSnapshot;
use crate::host::kubelet::Peer;
use crate::model::cdi::CdiSpec;
use crate::model::device::{DeviceId, Resource};
use crate::wire::device_plugin;
use crate::wire::metrics::meters::{AllocationResult, ResourceMeters, StartResult};
use crate::wire::v1beta1::device_plugin_server::DevicePlugin;
use crate::wire::v1beta1::{
    AllocateRequest, AllocateResponse, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse,
};

/// How long a container's start waits for its CDI names.
const MOMENT: Duration = Duration::from_secs(2);

/// ListAndWatch streams of one server.
#[derive(Debug, Default)]
pub struct Streams {
    /// Open ones by number, with the process at the other end of each.
    open: BTreeMap<u64, Peer>,
    /// Processes of which a stream ended: no more than there are process ids.
    ended: BTreeSet<Peer>,
}

impl Streams {
    /// Open streams of the kubelet, which is the process that answered Register; of anybody where
    /// none did yet. A debugging client's stream is no sign that the kubelet has our list.
    #[must_use]
    pub fn open_of(&self, kubelet: Option<Peer>) -> usize {
        self.open.values().filter(|peer| is(kubelet, **peer)).count()
    }

    /// Whether a stream of the kubelet has ended, whatever others are open.
    #[must_use]
    pub fn has_ended_of(&self, kubelet: Option<Peer>) -> bool {
        self.ended.iter().any(|peer| is(kubelet, *peer))
    }
}

fn is(kubelet: Option<Peer>, peer: Peer) -> bool {
    kubelet.is_none_or(|kubelet| kubelet == peer)
}

/// What every answer is taken from; clones see the same.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The latest snapshot.
    pub snapshots: SnapshotReceiver,
    /// What was handed out.
    pub store: AllocationStore,
    /// The names that a container runtime would find.
    pub cdi: CdiView,
    /// Where every answer is counted.
    pub telemetry: Telemetry,
}

/// One resource's service on one server.
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
        snapshot.ok_or_else(|| Status::unavailable("the machine has not been looked at yet"))
    }

    fn remember(&self, snapshot: &NodeSnapshot, resource: &Resource, grant: &Grant) {
        info!(resource = self.resource, devices = grant.ids_text(), "allocated");
        let given = if grant.nodes.is_empty() { NodeDelivery::Names } else { NodeDelivery::Nodes };
        let records = grant.ids.iter().filter_map(|id| {
            let device = resource.find(*id)?;
            Some((*id, records::record(&snapshot.inventory, device, given)))
        });
        self.sources.store.record(&self.resource, records);
    }

    /// A container may start with an id of which nothing is known: it was handed out by another
    /// plugin, whose ids may have any form, or what we knew was lost.
    fn check(&self, snapshot: &NodeSnapshot, text: &str) -> Result<(), Status> {
        let known = text
            .parse()
            .ok()
            .and_then(|id: DeviceId| Some((id, self.sources.store.find(&self.resource, id)?)));
        let Some((id, record)) = known else {
            debug!(resource = self.resource, device = text, "started; not known what it was given");
            return Ok(());
        };
        let there = self.sources.cdi.borrow().clone();
        records::check(id, &record, &snapshot.inventory, there.as_deref()).map_err(|outdated| {
            warn!(resource = self.resource, "a container may not start: {outdated}");
            Status::failed_precondition(format!("{}: {outdated}", self.resource))
        })
    }

    /// Waits until the names that these ids were handed out by lead to their chips. The spec
    /// follows the machine within moments, for which no container should fail.
    async fn names_settled(&self, ids: &[String]) {
        let mut cdi = self.sources.cdi.clone();
        let settled =
            cdi.wait_for(|there| !ids.iter().any(|id| self.is_unnamed(id, there.as_deref())));
        // Should it not come to that, the check says so.
        let _ = tokio::time::timeout(MOMENT, settled).await;
    }

    fn is_unnamed(&self, id: &str, there: Option<&CdiSpec>) -> bool {
        let Ok(id) = id.parse() else { return false };
        let Some(record) = self.sources.store.find(&self.resource, id) else { return false };
        let Some(snapshot) = self.sources.snapshots.borrow().clone() else { return false };
        let checked = records::check(id, &record, &snapshot.inventory, there);
        matches!(checked, Err(VerificationError::Unnamed { .. }))
    }

    fn prefer(
        &self,
        request: PreferredAllocationRequest,
    ) -> Result<PreferredAllocationResponse, Status> {
        let snapshot = self.snapshot()?;
        let resource = snapshot.resource(&self.resource).ok_or_else(|| self.unknown_resource())?;
        Ok(device_plugin::preferred_response(&snapshot.inventory.tree, resource, request))
    }

    fn grant(&self, request: AllocateRequest) -> Result<AllocateResponse, Status> {
        let snapshot = self.snapshot()?;
        let resource = snapshot.resource(&self.resource).ok_or_else(|| self.unknown_resource())?;
        let there = self.sources.cdi.borrow().clone();
        let grant = |ids: &[String]| {
            let grant =
                allocate(resource, &snapshot.inventory.control_nodes, snapshot.container, ids)?;
            Ok(named(grant, &snapshot, there.as_deref()))
        };
        let requests = request.container_requests;
        let grants: Result<Vec<_>, AllocateError> =
            requests.iter().map(|container| grant(&container.devices_ids)).collect();
        let grants = grants.map_err(|error| {
            warn!(%error, "allocation refused");
            device_plugin::status(&error)
        })?;
        for grant in &grants {
            self.remember(&snapshot, resource, grant);
        }
        Ok(device_plugin::allocate_response(grants))
    }

    fn unknown_resource(&self) -> Status {
        Status::not_found(format!("{} is no longer configured", self.resource))
    }
}

#[tonic::async_trait]
impl DevicePlugin for PluginService {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(device_plugin::options()))
    }

    type ListAndWatchStream = Lists;

    async fn list_and_watch(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let peer = peer(&request);
        debug!(resource = self.resource, ?peer, "stream opened");
        Ok(Response::new(Lists {
            resource: self.resource.clone(),
            snapshots: WatchStream::new(self.sources.snapshots.clone()),
            last: None,
            sent: self.meters.lists_sent.clone(),
            closing: Box::pin(self.closing.clone().cancelled_owned()),
            _open: OpenStream::new(Arc::clone(&self.streams), peer),
        }))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let began = Instant::now();
        let answer = self.prefer(request.into_inner());
        self.meters.preferred_allocation_duration.observe(began.elapsed().as_secs_f64());
        answer.map(Response::new)
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let began = Instant::now();
        let answer = self.grant(request.into_inner());
        self.meters.allocation_duration.observe(began.elapsed().as_secs_f64());
        let granted = AllocationResult::Granted;
        self.meters
            .allocations
            .count(answer.as_ref().map_or(AllocationResult::Refused, |_| granted));
        answer.map(Response::new)
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let ids = request.into_inner().devices_ids;
        self.sources.store.settled().await;
        self.names_settled(&ids).await;
        let checked = self
            .snapshot()
            .and_then(|snapshot| ids.iter().try_for_each(|text| self.check(&snapshot, text)));
        let allowed = StartResult::Allowed;
        self.meters
            .container_starts
            .count(checked.as_ref().map_or(StartResult::Refused, |()| allowed));
        checked.map(|()| Response::new(PreStartContainerResponse {}))
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    let connection = request.extensions().get::<UdsConnectInfo>();
    Peer::of(connection.and_then(|connection| connection.peer_cred))
}

/// One ListAndWatch stream: the full list, then again whenever it changed. It holds the latest
/// snapshot only, so a slow reader delays nobody and skips what is outdated.
pub struct Lists {
    resource: String,
    snapshots: WatchStream<Option<Arc<NodeSnapshot>>>,
    last: Option<ListAndWatchResponse>,
    sent: Counter,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: OpenStream,
}

impl Stream for Lists {
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
            let list = snapshot.as_deref().and_then(|snapshot| {
                snapshot.resource(&self.resource).map(device_plugin::list_and_watch_response)
            });
            if list.is_some() && list != self.last {
                self.last.clone_from(&list);
                self.sent.inc();
                return Poll::Ready(list.map(Ok));
            }
        }
    }
}

/// Counts a stream for as long as it lives.
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
    fn another_process_s_stream_is_no_sign_of_the_kubelet() {
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
    fn processes_that_cannot_be_seen_all_count_as_the_kubelet_that_cannot() {
        check(&streams(&[UNSEEN, UNSEEN], &[UNSEEN]), Some(UNSEEN), 2, true);
    }
}
