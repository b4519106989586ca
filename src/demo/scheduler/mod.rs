//! A scheduler for one node: it allocates devices to claims as Kubernetes does, first fit in the
//! order of the slices, with counters, taints, constraints, shared devices and extended resources.
//!
//! Of CEL it knows what device classes of this driver use; see [`selector`]. It does not score, and
//! it schedules no pods.

mod allocator;
pub mod explain;
mod pools;
mod requests;
pub mod selector;
mod usage;

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use self::allocator::{Allocator, Chosen};
use self::usage::{SLOTS, Usage};
use super::api_server::{ApiServer, ObjectKind};

/// Why a claim stays without devices: the pod stays Pending with this sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unschedulable(pub(super) String);

/// Allocates devices of this node to the claim, and writes that into its status. A claim that has
/// devices keeps them.
///
/// # Errors
/// There are no devices for it, or no such claim.
pub fn schedule(
    server: &ApiServer,
    node: &str,
    namespace: &str,
    name: &str,
) -> Result<Value, Unschedulable> {
    let api = |error: super::api_server::ApiFailure| Unschedulable(error.to_string());
    let mut stored = server.get(ObjectKind::ResourceClaim, namespace, name).map_err(api)?;
    if !stored["status"]["allocation"].is_null() {
        return Ok(stored);
    }
    let claim: ResourceClaim =
        serde_json::from_value(stored.clone()).map_err(|error| Unschedulable(error.to_string()))?;
    stored["status"]["allocation"] = allocation(server, node, &claim)?;
    server.update(ObjectKind::ResourceClaim, namespace, stored).map_err(api)
}

/// The claim that stands for `count` of an extended resource in a pod's container, if a device class
/// serves it; the class that was created last wins.
///
/// # Errors
/// No class serves the resource, or the claim exists.
pub fn claim_for_extended_resource(
    server: &ApiServer,
    namespace: &str,
    pod: &str,
    resource: &str,
    count: usize,
) -> Result<Value, Unschedulable> {
    let classes: Vec<DeviceClass> = server.store().all(ObjectKind::DeviceClass);
    let is_for = |class: &&DeviceClass| {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        class.spec.extended_resource_name.as_deref() == Some(resource)
            || resource.strip_prefix("deviceclass.resource.kubernetes.io/") == Some(name)
    };
    let age = |class: &&DeviceClass| {
        let version = class.metadata.resource_version.as_deref().unwrap_or_default();
        version.parse::<u64>().unwrap_or_default()
    };
    let class = classes.iter().filter(is_for).max_by_key(age);
    let class = class.and_then(|class| class.metadata.name.clone());
    let unserved = || Unschedulable(format!("no device class serves {resource}"));
    let exactly = json!({ "deviceClassName": class.ok_or_else(unserved)?, "count": count });
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": format!("{pod}-extended-resources"), "namespace": namespace },
        "spec": { "devices": { "requests": [
            { "name": "container-0-request-0", "exactly": exactly },
        ] } },
    });
    let created = server.create(ObjectKind::ResourceClaim, namespace, claim);
    created.map_err(|error| Unschedulable(error.to_string()))
}

/// What the claim would be given, as `status.allocation` has it.
fn allocation(
    server: &ApiServer,
    node: &str,
    claim: &ResourceClaim,
) -> Result<Value, Unschedulable> {
    let store = server.store();
    let slices: Vec<ResourceSlice> = store.all(ObjectKind::ResourceSlice);
    let classes: Vec<DeviceClass> = store.all(ObjectKind::DeviceClass);
    let claims: Vec<ResourceClaim> = store.all(ObjectKind::ResourceClaim);
    let pools = pools::pools(&slices, node);
    let usage = Usage::of(&claims, &pools);
    let requests = requests::requests(claim, &classes)?;
    let chosen = Allocator::new(claim, requests, &pools).allocate(&usage)?;
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let results: Vec<_> =
        chosen.iter().enumerate().map(|(index, chosen)| result(chosen, index, uid)).collect();
    let term = json!({
        "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }],
    });
    Ok(json!({
        "devices": { "results": results },
        "nodeSelector": { "nodeSelectorTerms": [term] },
    }))
}

fn result(chosen: &Chosen<'_>, index: usize, uid: &str) -> Value {
    let Chosen { wanted, candidate, slots } = chosen;
    let mut result = json!({
        "request": wanted.name, "driver": candidate.driver, "pool": candidate.pool,
        "device": candidate.device.name,
    });
    if wanted.admin_access {
        result["adminAccess"] = json!(true);
    }
    if !wanted.tolerations.is_empty() {
        result["tolerations"] = json!(wanted.tolerations);
    }
    if let Some(slots) = slots {
        // A UUID, as every share has.
        result["shareID"] = json!(format!("{index:08x}{}", uid.get(8..).unwrap_or_default()));
        result["consumedCapacity"] = json!({ SLOTS: slots.to_string() });
    }
    result
}
