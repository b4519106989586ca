//! The health of every device, for the kubelet: the complete list on each change and every ten
//! seconds, because the kubelet forgets what it was not sent for thirty.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, Response, Status};
use tracing::debug;

use super::claim_ledger::HoldersView;
use super::inventory_owner::SnapshotReceiver;
use crate::decide::dra::claims::ClaimHolders;
use crate::decide::dra::health_list::health_list;
use crate::decide::dra::pool::pool;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::host::clock::time_of_day;
use crate::model::dra::device::DraDeviceHealth;
use crate::model::dra::slice::ServerSupport;
use crate::wire::dra_health_v1::dra_resource_health_server as v1_server;
use crate::wire::dra_health_v1alpha1::dra_resource_health_server as v1alpha1_server;
use crate::wire::dra_service::HealthMessage;
use crate::wire::{dra_health_v1, dra_health_v1alpha1};

/// How often an unchanged list is sent.
pub const RESEND_INTERVAL: Duration = Duration::from_secs(10);

/// The service on one server; clones share it.
#[derive(Clone, Debug)]
pub struct DraHealthService {
    /// The node's name.
    pub pool: String,
    /// The latest snapshot.
    pub snapshots: SnapshotReceiver,
    /// Who holds what.
    pub holders: HoldersView,
    /// What the API server supports.
    pub support: watch::Receiver<ServerSupport>,
    /// Ends the streams.
    pub closing: CancellationToken,
}

impl DraHealthService {
    fn stream<T>(&self) -> HealthStream<T> {
        debug!("health stream opened");
        let mut resend = interval_at(Instant::now() + RESEND_INTERVAL, RESEND_INTERVAL);
        resend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        HealthStream {
            service: self.clone(),
            snapshots: WatchStream::new(self.snapshots.clone()),
            holders: WatchStream::from_changes(self.holders.clone()),
            support: WatchStream::from_changes(self.support.clone()),
            snapshot: None,
            last: None,
            resend,
            closing: Box::pin(self.closing.clone().cancelled_owned()),
            message: PhantomData,
        }
    }
}

/// One stream, whose messages are of the type `T`. It begins with the first snapshot.
pub struct HealthStream<T> {
    service: DraHealthService,
    snapshots: WatchStream<Option<Arc<NodeSnapshot>>>,
    holders: WatchStream<Arc<ClaimHolders>>,
    support: WatchStream<ServerSupport>,
    snapshot: Option<Arc<NodeSnapshot>>,
    last: Option<Vec<DraDeviceHealth>>,
    resend: Interval,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    message: PhantomData<fn() -> T>,
}

impl<T> HealthStream<T> {
    /// Takes in all that changed; true where the service ends.
    fn poll_changes(&mut self, context: &mut Context<'_>) -> bool {
        if self.closing.as_mut().poll(context).is_ready() {
            return true;
        }
        while let Poll::Ready(snapshot) = Pin::new(&mut self.snapshots).poll_next(context) {
            let Some(snapshot) = snapshot else { return true };
            self.snapshot = snapshot;
        }
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.holders).poll_next(context) {}
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.support).poll_next(context) {}
        false
    }

    fn list(&self) -> Option<Vec<DraDeviceHealth>> {
        let snapshot = self.snapshot.as_ref()?;
        let holders = Arc::clone(&self.service.holders.borrow());
        let support = self.service.support.borrow().clone();
        Some(health_list(&pool(snapshot, &holders, &support)))
    }
}

impl<T: From<HealthMessage>> Stream for HealthStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.poll_changes(context) {
            return Poll::Ready(None);
        }
        let mut is_due = false;
        while this.resend.poll_tick(context).is_ready() {
            is_due = true;
        }
        let list = this.list();
        if list.is_none() || (list == this.last && !is_due) {
            return Poll::Pending;
        }
        this.resend.reset();
        this.last.clone_from(&list);
        let (pool, at) = (this.service.pool.clone(), time_of_day());
        let message = HealthMessage { pool, devices: list.unwrap_or_default(), at };
        Poll::Ready(Some(Ok(message.into())))
    }
}

#[tonic::async_trait]
impl v1_server::DraResourceHealth for DraHealthService {
    type NodeWatchResourcesStream = HealthStream<dra_health_v1::NodeWatchResourcesResponse>;

    async fn node_watch_resources(
        &self,
        _: Request<dra_health_v1::NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        Ok(Response::new(self.stream()))
    }
}

#[tonic::async_trait]
impl v1alpha1_server::DraResourceHealth for DraHealthService {
    type NodeWatchResourcesStream = HealthStream<dra_health_v1alpha1::NodeWatchResourcesResponse>;

    async fn node_watch_resources(
        &self,
        _: Request<dra_health_v1alpha1::NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        Ok(Response::new(self.stream()))
    }
}
