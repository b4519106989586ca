//! Admits pods, one by one, and starts their containers. Admission waits for plugins without a time
//! limit: a plugin that hangs in Allocate stops every pod behind it, as on a real node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::connection::rpc_error;
use super::node::{ConnectedPlugin, Node, NodeHandle, ShutDown};
use super::pod_devices::Held;
use super::pods::{
    Admission, AdmissionCause, AdmissionError, AdmittedContainer, ContainerRequest, Injection,
    PodRequest, StartError,
};
use super::selection::{AllocatableIds, PreferenceCall};
use crate::wire::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, PreStartContainerRequest, PreferredAllocationRequest,
};

/// A pod and the sender of its answer.
pub(super) type QueuedPod = (PodRequest, oneshot::Sender<Result<Admission, AdmissionError>>);

/// Admits pods in the order in which they come.
pub(super) async fn admit_one_by_one(
    node_handle: NodeHandle,
    mut queue: mpsc::Receiver<QueuedPod>,
) {
    while let Some((pod, answer)) = queue.recv().await {
        // The caller may have stopped waiting; the pod is admitted nevertheless.
        let _ = answer.send(admit(&node_handle, pod).await.map_err(AdmissionError::from));
    }
}

async fn admit(node_handle: &NodeHandle, pod: PodRequest) -> Result<Admission, AdmissionCause> {
    for request in &pod.containers {
        if let Err(cause) = allocate(node_handle, &pod.name, request).await {
            // A refused pod is no longer active, and the kubelet frees what such pods hold.
            node_handle.ask(move |node| node.pods.remove(&pod.name)).await.map_err(shut_down)?;
            return Err(cause);
        }
    }
    node_handle.ask(move |node| admission(node, &pod)).await.map_err(shut_down)
}

async fn allocate(
    node_handle: &NodeHandle,
    pod: &str,
    request: &ContainerRequest,
) -> Result<(), AdmissionCause> {
    let (name, wanted) = (pod.to_owned(), request.clone());
    let candidates = node_handle.ask(move |node| node.candidates(&name, &wanted)).await;
    let Some(candidates) = candidates.map_err(shut_down)?? else {
        return Ok(());
    };

    let preferred = preferred(node_handle, &request.resource, &candidates).await?;
    let devices = candidates.choose(&preferred);
    let response = ask_for(node_handle, &request.resource, devices.clone()).await?;

    let given = Held { devices: devices.into_iter().collect(), response };
    let (pod, request) = (pod.to_owned(), request.clone());
    let kept = node_handle.ask(move |node| {
        node.pods.hold(&pod, &request.name, &request.resource, given);
    });
    kept.await.map_err(shut_down)
}

/// Empty where the plugin is not to be asked, or named nothing.
async fn preferred(
    node_handle: &NodeHandle,
    resource: &str,
    candidates: &AllocatableIds,
) -> Result<BTreeSet<String>, AdmissionCause> {
    let Some(question) = candidates.question() else {
        return Ok(BTreeSet::new());
    };
    let plugin = plugin(node_handle, resource).await.map_err(shut_down)?;
    let Some(ConnectedPlugin { client, options: Some(options) }) = plugin else {
        return Ok(BTreeSet::new());
    };
    if !options.get_preferred_allocation_available {
        return Ok(BTreeSet::new());
    }
    let mut client =
        client.ok_or_else(|| AdmissionCause::Preference { error: endpoint_stopped(resource) })?;
    let answer = client
        .get_preferred_allocation(preferred_allocation_request(question))
        .await
        .map_err(|status| AdmissionCause::Preference { error: rpc_error(&status) })?;
    let first = answer.into_inner().container_responses.into_iter().next();
    Ok(first.into_iter().flat_map(|response| response.device_i_ds).collect())
}

fn preferred_allocation_request(question: PreferenceCall) -> PreferredAllocationRequest {
    PreferredAllocationRequest {
        container_requests: vec![ContainerPreferredAllocationRequest {
            available_device_i_ds: question.available,
            must_include_device_i_ds: question.must_include,
            allocation_size: i32::try_from(question.size).unwrap_or(i32::MAX),
        }],
    }
}

/// One call for one container and resource: the kubelet never asks for several at once.
async fn ask_for(
    node_handle: &NodeHandle,
    resource: &str,
    devices: Vec<String>,
) -> Result<ContainerAllocateResponse, AdmissionCause> {
    let resource_name = || resource.to_owned();
    let plugin = plugin(node_handle, resource).await.map_err(shut_down)?;
    let client = plugin.and_then(|plugin| plugin.client);
    let mut client = client.ok_or_else(|| AdmissionCause::Stopped { resource: resource_name() })?;
    let request = AllocateRequest {
        container_requests: vec![ContainerAllocateRequest { devices_ids: devices }],
    };
    let answer = client
        .allocate(request)
        .await
        .map_err(|status| AdmissionCause::Allocate { error: rpc_error(&status) })?;
    let first = answer.into_inner().container_responses.into_iter().next();
    first.ok_or_else(|| AdmissionCause::NoResponse { resource: resource_name() })
}

fn admission(node: &mut Node, pod: &PodRequest) -> Admission {
    let mut containers: Vec<AdmittedContainer> = Vec::new();
    for request in &pod.containers {
        if containers.iter().all(|container| container.name != request.name) {
            containers.push(admitted_container(node, &pod.name, &request.name));
        }
    }
    Admission { pod: pod.name.clone(), containers }
}

fn admitted_container(node: &Node, pod: &str, container: &str) -> AdmittedContainer {
    let held = node.pods.container(pod, container).into_iter().flatten();
    let ids = |held: &Held| held.devices.iter().cloned().collect();
    AdmittedContainer {
        name: container.to_owned(),
        devices: held.map(|(resource, held)| (resource.clone(), ids(held))).collect(),
        injection: node.pods.injection(pod, container),
    }
}

/// Prepares the start of a container, the first or a later one: the plugins that ask for it hear
/// of it, and what they answered to Allocate is used again.
pub(super) async fn start_container(
    node_handle: &NodeHandle,
    pod: String,
    container: String,
) -> Result<Injection, StartError> {
    let (pod_name, name) = (pod.clone(), container.clone());
    let held = node_handle.ask(move |node| node.pods.container(&pod_name, &name).cloned()).await;
    let held = held.map_err(|_| StartError::ShutDown)?;
    let held = held.ok_or_else(|| StartError::NotAdmitted {
        pod: pod.clone(),
        container: container.clone(),
    })?;
    pre_start(node_handle, held).await?;
    let injection = node_handle.ask(move |node| node.pods.injection(&pod, &container)).await;
    injection.map_err(|_| StartError::ShutDown)
}

async fn pre_start(
    node_handle: &NodeHandle,
    held: BTreeMap<String, Held>,
) -> Result<(), StartError> {
    let bound = node_handle.ask(|node| node.settings.pre_start_timeout).await;
    let bound = bound.map_err(|_| StartError::ShutDown)?;
    for (resource, held) in held {
        let plugin = plugin(node_handle, &resource).await.map_err(|_| StartError::ShutDown)?;
        let plugin = plugin.ok_or_else(|| StartError::NoEndpoint { resource: resource.clone() })?;
        if plugin.options.is_some_and(|options| options.pre_start_required) {
            call_pre_start(plugin, &resource, held, bound)
                .await
                .map_err(|error| StartError::PreStart { error })?;
        }
    }
    Ok(())
}

async fn call_pre_start(
    plugin: ConnectedPlugin,
    resource: &str,
    held: Held,
    bound: Duration,
) -> Result<(), String> {
    let mut client = plugin.client.ok_or_else(|| endpoint_stopped(resource))?;
    let devices_ids = held.devices.into_iter().collect();
    let call = client.pre_start_container(PreStartContainerRequest { devices_ids });
    match tokio::time::timeout(bound, call).await {
        Ok(answer) => answer.map(drop).map_err(|status| rpc_error(&status)),
        Err(_) => Err("rpc error: code = DeadlineExceeded desc = context deadline exceeded".into()),
    }
}

async fn plugin(
    node_handle: &NodeHandle,
    resource: &str,
) -> Result<Option<ConnectedPlugin>, ShutDown> {
    let resource = resource.to_owned();
    node_handle.ask(move |node| node.plugin(&resource)).await
}

fn endpoint_stopped(resource: &str) -> String {
    format!("endpoint {resource} has been stopped")
}

fn shut_down(_: ShutDown) -> AdmissionCause {
    AdmissionCause::ShutDown
}
