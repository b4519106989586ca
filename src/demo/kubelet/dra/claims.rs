//! Prepares and unprepares the claims of pods, as kubelet 1.36 does.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::registry::DraContext;
use super::state::{DraPodSpec, UsedClaim};
use crate::demo::kubelet::connection::rpc_error;
use crate::model::dra::claim::{ClaimRef, DraClaim};
use crate::wire::dra_v1::dra_plugin_client::DraPluginClient;
use crate::wire::dra_v1::{Claim, NodePrepareResourcesRequest, NodeUnprepareResourcesRequest};

const DEADLINE: &str = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";

/// Prepares the claims of a pod that are not prepared, and returns CDI names by container.
pub(super) async fn prepare(
    context: &DraContext,
    pod: &DraPodSpec,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let claims = fetch(context, pod).await?;
    let wanted = reserve(context, pod, &claims)?;
    let mut batches: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    for claim in &wanted {
        for driver in drivers(claim) {
            batches.entry(driver).or_default().push(message(&claim.claim, &claim.uid));
        }
    }
    for (driver, claims) in batches {
        prepare_with(context, &driver, claims).await?;
    }
    let mut names = BTreeMap::new();
    context.state.send_modify(|state| {
        for claim in &wanted {
            if let Some(used) = state.claims.get_mut(&claim.claim) {
                used.is_prepared = true;
            }
        }
        names = state.cdi_names(pod);
    });
    Ok(names)
}

async fn fetch(context: &DraContext, pod: &DraPodSpec) -> Result<Vec<DraClaim>, String> {
    let mut claims = Vec::new();
    for claim in claims_of(pod) {
        let found = (context.settings.claims)(claim.clone()).await?;
        let found =
            found.ok_or_else(|| format!("fetch ResourceClaim {}: not found", claim.name))?;
        for driver in drivers(&found) {
            if !context.state.borrow().is_registered(&driver) {
                return Err(format!("DRA driver {driver} is not registered"));
            }
        }
        claims.push(found);
    }
    Ok(claims)
}

/// Notes that the pod uses the claims; returns those that are not prepared.
fn reserve(
    context: &DraContext,
    pod: &DraPodSpec,
    claims: &[DraClaim],
) -> Result<Vec<DraClaim>, String> {
    let mut result = Ok(Vec::new());
    context.state.send_modify(|state| {
        state.pods.insert(pod.name.clone(), pod.clone());
        for claim in claims {
            let used = state
                .claims
                .entry(claim.claim.clone())
                .or_insert_with(|| UsedClaim { uid: claim.uid.clone(), ..UsedClaim::default() });
            if used.uid != claim.uid {
                let (name, uid) = (&claim.claim.name, &used.uid);
                result = Err(format!(
                    "old ResourceClaim with same name {name} and different UID {uid} still exists \
                     (previous pod force-deleted?!)"
                ));
                return;
            }
            used.pods.insert(pod.name.clone());
            if let (Ok(wanted), false) = (&mut result, used.is_prepared) {
                wanted.push(claim.clone());
            }
        }
    });
    result
}

async fn prepare_with(
    context: &DraContext,
    driver: &str,
    claims: Vec<Claim>,
) -> Result<(), String> {
    let mut client = DraPluginClient::new(channel(context, driver)?);
    let request = NodePrepareResourcesRequest { claims: claims.clone() };
    let call = timeout(context.settings.deadlines.call, client.node_prepare_resources(request));
    let answered = call.await.map_err(|_| format!("NodePrepareResources: {DEADLINE}"))?;
    let response = answered.map_err(|it| format!("NodePrepareResources: {}", rpc_error(&it)))?;
    let responses = response.into_inner().claims;
    let unfinished = claims.len().saturating_sub(responses.len());
    for (uid, response) in responses {
        let claim = claims.iter().find(|claim| claim.uid == uid);
        let claim = claim.ok_or_else(|| {
            format!("NodePrepareResources returned result for unknown claim UID {uid}")
        })?;
        if !response.error.is_empty() {
            let (name, error) = (&claim.name, response.error);
            return Err(format!("NodePrepareResources failed for ResourceClaim {name}: {error}"));
        }
        let repeated = context.settings.repeated;
        let key = ClaimRef { namespace: claim.namespace.clone(), name: claim.name.clone() };
        let devices = response.devices;
        context.state.send_modify(|state| state.prepared(&key, driver, devices, repeated));
    }
    if unfinished > 0 {
        return Err(format!("NodePrepareResources skipped {unfinished} ResourceClaims"));
    }
    Ok(())
}

/// Unprepares those claims of a pod that no other pod uses.
pub(super) async fn unprepare(context: &DraContext, pod: &str) -> Result<(), String> {
    let (mut ours, mut last) = (Vec::new(), Vec::new());
    for (claim, used) in &context.state.borrow().claims {
        if used.pods.contains(pod) {
            ours.push(claim.clone());
            if used.pods.len() == 1 {
                last.push((claim.clone(), used.clone()));
            }
        }
    }
    let mut batches: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    for (claim, used) in &last {
        for driver in used.devices.keys() {
            batches.entry(driver.clone()).or_default().push(message(claim, &used.uid));
        }
    }
    for (driver, claims) in batches {
        unprepare_with(context, &driver, claims).await?;
    }
    context.state.send_modify(|state| {
        for claim in &ours {
            if let Some(used) = state.claims.get_mut(claim) {
                used.pods.remove(pod);
            }
        }
        state.claims.retain(|_, used| !used.pods.is_empty());
        state.pods.remove(pod);
    });
    Ok(())
}

async fn unprepare_with(
    context: &DraContext,
    driver: &str,
    claims: Vec<Claim>,
) -> Result<(), String> {
    let mut client = DraPluginClient::new(channel(context, driver)?);
    let wanted = claims.len();
    let request = NodeUnprepareResourcesRequest { claims };
    let call = timeout(context.settings.deadlines.call, client.node_unprepare_resources(request));
    let answered = call.await.map_err(|_| format!("NodeUnprepareResources: {DEADLINE}"))?;
    let response = answered.map_err(|it| format!("NodeUnprepareResources: {}", rpc_error(&it)))?;
    let responses = response.into_inner().claims;
    if let Some(failed) = responses.values().find(|response| !response.error.is_empty()) {
        return Err(format!("NodeUnprepareResources failed: {}", failed.error));
    }
    if responses.len() != wanted {
        return Err("NodeUnprepareResources skipped ResourceClaims".to_owned());
    }
    Ok(())
}

/// Unprepares what pods that are not active left behind, until the task is dropped.
pub(super) async fn unprepare_inactive(context: DraContext) {
    loop {
        sleep(context.settings.deadlines.unprepare).await;
        let inactive: BTreeSet<_> = {
            let state = context.state.borrow();
            let users = state.claims.values().flat_map(|used| used.pods.clone());
            users.filter(|pod| !state.pods.contains_key(pod)).collect()
        };
        for pod in inactive {
            if let Err(error) = unprepare(&context, &pod).await {
                context.state.send_modify(|state| state.last_error = Some(error));
            }
        }
    }
}

fn channel(context: &DraContext, driver: &str) -> Result<Channel, String> {
    let state = context.state.borrow();
    let instance = state.preferred(driver);
    let instance = instance.ok_or_else(|| format!("DRA driver {driver} is not registered"))?;
    instance.channel.clone().ok_or_else(|| {
        "rpc error: code = Unavailable desc = connection error: connection refused".to_owned()
    })
}

fn claims_of(pod: &DraPodSpec) -> BTreeSet<ClaimRef> {
    let claims = pod.containers.iter().flat_map(|container| &container.claims);
    claims.map(|(claim, _)| claim.clone()).collect()
}

fn drivers(claim: &DraClaim) -> BTreeSet<String> {
    let results = claim.allocation.iter().flat_map(|allocation| &allocation.results);
    results.map(|result| result.driver.clone()).collect()
}

fn message(claim: &ClaimRef, uid: &str) -> Claim {
    let ClaimRef { namespace, name } = claim.clone();
    Claim { namespace, uid: uid.to_owned(), name }
}
