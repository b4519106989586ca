//! NodePrepareResources and NodeUnprepareResources: fetch the claim, let the ledger decide, answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::cdi_writer::CdiView;
use super::claim_ledger::{ClaimLedger, LedgerError};
use super::dra_telemetry::DraTelemetry;
use super::inventory_owner::SnapshotReceiver;
use crate::decide::dra::claims::{ClaimHolder, still_holds};
use crate::decide::dra::prepare::PrepareError;
use crate::model::dra::claim::{ClaimRef, DraClaim, PreparedDevice};
use crate::model::log_event::LogEvent;
use crate::wire::dra_service::{prepare_response, unprepare_response};
use crate::wire::dra_v1::dra_plugin_server::DraPlugin;
use crate::wire::dra_v1::{
    Claim, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use crate::wire::metrics::dra_meters::{PrepareResult, UnprepareResult};

/// How long a claim waits until its CDI names are on disk. The spec is written shortly after the
/// machine changed.
const CDI_SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a claim waits for the first scan of a plugin that has just started.
const FIRST_SCAN_TIMEOUT: Duration = Duration::from_secs(10);
/// How many holders of a claim's devices are checked; each that is gone leads to another attempt.
const HOLDER_LIMIT: usize = 64;

/// A claim as the API server has it, or none where there is none.
pub type FoundClaim = Result<Option<DraClaim>, String>;

/// Fetches a claim from the API server.
pub type ClaimReader =
    Arc<dyn Fn(ClaimRef) -> Pin<Box<dyn Future<Output = FoundClaim> + Send>> + Send + Sync>;

/// What every call is answered from; clones share it.
#[derive(Clone)]
pub struct DraService {
    /// The node's name.
    pub pool: String,
    /// The latest snapshot.
    pub snapshots: SnapshotReceiver,
    /// Fetches claims.
    pub claims: ClaimReader,
    /// Decides and records.
    pub ledger: ClaimLedger,
    /// The CDI spec that a container runtime finds.
    pub cdi: CdiView,
    /// Counts every claim.
    pub telemetry: DraTelemetry,
}

impl DraService {
    async fn prepare(&self, claim: &Claim) -> Result<Vec<PreparedDevice>, String> {
        let prepared = self.prepared(claim).await;
        let (uid, namespace, name) = (&claim.uid, &claim.namespace, &claim.name);
        let result = match &prepared {
            Ok(devices) => {
                let names: Vec<_> = devices.iter().map(|device| &*device.device).collect();
                let devices = names.join(",");
                info!(
                    event = LogEvent::ClaimPrepared.name(),
                    namespace, name, uid, devices, "claim prepared"
                );
                PrepareResult::Prepared
            }
            Err(error) => {
                warn!(
                    event = LogEvent::ClaimRefused.name(),
                    namespace, name, uid, error, "claim refused"
                );
                PrepareResult::Refused
            }
        };
        self.telemetry.meters.prepares.count(result);
        prepared
    }

    async fn prepared(&self, claim: &Claim) -> Result<Vec<PreparedDevice>, String> {
        let found = self.fetch(claim_ref(claim)).await?;
        let found = found.ok_or_else(|| {
            format!("claim {}/{} does not exist; retrying", claim.namespace, claim.name)
        })?;
        let (mut cdi, mut snapshots) = (self.cdi.clone(), self.snapshots.clone());
        // After a timeout, the ledger has the outcome.
        let _ = timeout(FIRST_SCAN_TIMEOUT, snapshots.wait_for(Option::is_some)).await;
        for _ in 0..HOLDER_LIMIT {
            cdi.mark_unchanged();
            match self.ledger.prepare(found.clone(), claim.uid.clone()).await {
                Ok(devices) => return Ok(devices),
                Err(LedgerError::Refused(PrepareError::HeldByClaim { device, holder })) => {
                    if self.still_holds(&holder).await? {
                        return Err(PrepareError::HeldByClaim { device, holder }.to_string());
                    }
                    self.forget(&holder).await?;
                }
                Err(LedgerError::Refused(PrepareError::NotInCdiSpec(device))) => {
                    let settled = timeout(CDI_SETTLE_TIMEOUT, cdi.changed()).await;
                    if !matches!(settled, Ok(Ok(()))) {
                        return Err(PrepareError::NotInCdiSpec(device).to_string());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("its devices are held by too many claims; retrying".to_owned())
    }

    /// Whether the API server has the holder, with that device. An error is no proof that it is gone.
    async fn still_holds(&self, holder: &ClaimHolder) -> Result<bool, String> {
        let claim = self.fetch(holder.claim.clone()).await?;
        Ok(still_holds(holder, &self.pool, claim.as_ref()))
    }

    async fn forget(&self, holder: &ClaimHolder) -> Result<(), String> {
        let claim = &holder.claim;
        info!(event = LogEvent::ClaimForgotten.name(), %claim, "the claim is gone; its devices are free");
        let released = self.ledger.release(holder.uid.clone(), claim.clone()).await;
        released.map_err(|error| error.to_string())
    }

    async fn fetch(&self, claim: ClaimRef) -> FoundClaim {
        (self.claims)(claim).await
    }

    async fn unprepare(&self, claim: &Claim) -> Result<(), String> {
        let (uid, namespace, name) = (&claim.uid, &claim.namespace, &claim.name);
        let released = self.ledger.release(Some(uid.clone()), claim_ref(claim)).await;
        let result = match &released {
            Ok(()) => {
                info!(
                    event = LogEvent::ClaimUnprepared.name(),
                    namespace, name, uid, "claim unprepared"
                );
                UnprepareResult::Released
            }
            Err(error) => {
                warn!(event = LogEvent::ClaimNotUnprepared.name(), namespace, name, uid, %error, "claim kept");
                UnprepareResult::Failed
            }
        };
        self.telemetry.meters.unprepares.count(result);
        released.map_err(|error| error.to_string())
    }
}

fn claim_ref(claim: &Claim) -> ClaimRef {
    ClaimRef { namespace: claim.namespace.clone(), name: claim.name.clone() }
}

#[tonic::async_trait]
impl DraPlugin for DraService {
    /// Claims are fetched at once: the kubelet waits 45 s for all of them together.
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let began = Instant::now();
        let mut calls = JoinSet::new();
        for claim in request.into_inner().claims {
            let service = self.clone();
            calls.spawn(async move {
                let prepared = service.prepare(&claim).await;
                (claim.uid, prepare_response(prepared))
            });
        }
        let claims = calls.join_all().await.into_iter().collect();
        self.telemetry.meters.prepare_duration.observe(began.elapsed().as_secs_f64());
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let mut response = NodeUnprepareResourcesResponse::default();
        for claim in request.into_inner().claims {
            let released = self.unprepare(&claim).await;
            response.claims.insert(claim.uid, unprepare_response(released));
        }
        Ok(Response::new(response))
    }
}
