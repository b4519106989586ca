//! The kubelet's second service: which pod holds which devices, on a socket of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use tokio::net::UnixListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::dra::{DraContainer, DraNodeState};
use super::node::{Node, NodeHandle, ShutDown};
use super::pod_devices::Held;
use crate::host::abortable_stream::AbortableStream;
use crate::host::sockets;
use crate::wire::podresources_v1::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use crate::wire::podresources_v1::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, CdiDevice, ClaimResource,
    ContainerDevices, ContainerResources, DynamicResource, GetPodResourcesRequest,
    GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, NumaNode,
    PodResources, TopologyInfo,
};

/// Namespace of every pod here.
pub const NAMESPACE: &str = "default";

/// Listens on `socket`, in place of what an earlier life left there.
pub(super) fn bind(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        sockets::create_directory(directory)?;
    }
    sockets::remove_file_if_there(socket)?;
    UnixListener::bind(socket)
}

/// Serves until the task is dropped; the connections end with `cut`.
pub(super) async fn serve(listener: UnixListener, cut: CancellationToken, node_handle: NodeHandle) {
    let connections = UnixListenerStream::new(listener)
        .map(move |accepted| accepted.map(|stream| AbortableStream::new(stream, &cut)));
    let served = Server::builder()
        .add_service(PodResourcesListerServer::new(PodResourcesService { node_handle }))
        .serve_with_incoming(connections)
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "the embedded kubelet no longer serves PodResources");
    }
}

struct PodResourcesService {
    node_handle: NodeHandle,
}

#[tonic::async_trait]
impl PodResourcesLister for PodResourcesService {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let pods = self.node_handle.ask(|node| {
            node.pod_resources_calls += 1;
            let claims = node.claims.as_ref().map(|claims| claims.borrow());
            let users = claims.iter().flat_map(|state| state.pods.keys().cloned());
            let names: BTreeSet<_> = node.pods.names().cloned().chain(users).collect();
            names.iter().map(|name| pod_resources(node, name)).collect()
        });
        Ok(Response::new(ListPodResourcesResponse { pod_resources: pods.await.map_err(stopped)? }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let devices = self.node_handle.ask(|node| {
            let resources = node.resources.view().into_keys();
            resources.flat_map(|resource| allocatable(node, &resource)).collect()
        });
        let devices = devices.await.map_err(stopped)?;
        Ok(Response::new(AllocatableResourcesResponse { devices, ..Default::default() }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let name = pod_name.clone();
        let pod = self.node_handle.ask(move |node| {
            let has_claims =
                node.claims.as_ref().is_some_and(|claims| claims.borrow().pods.contains_key(&name));
            let is_known = node.pods.names().any(|pod| *pod == name) || has_claims;
            let is_known = is_known && pod_namespace == NAMESPACE;
            is_known.then(|| pod_resources(node, &name))
        });
        match pod.await.map_err(stopped)? {
            Some(pod) => Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(pod) })),
            None => Err(Status::unknown(format!("pod {pod_name} not found"))),
        }
    }
}

fn allocatable(node: &Node, resource: &str) -> Vec<ContainerDevices> {
    let ids = node.resources.healthy(resource).into_iter().flatten();
    ids.map(|id| devices(node, resource, id)).collect()
}

fn pod_resources(node: &Node, pod: &str) -> PodResources {
    let mut containers: BTreeMap<String, ContainerResources> = BTreeMap::new();
    let entry = |name: &String| ContainerResources { name: name.clone(), ..Default::default() };
    for (name, held) in node.pods.containers(pod) {
        let container = containers.entry(name.clone()).or_insert_with(|| entry(name));
        container.devices = container_devices(node, held);
    }
    let claims = node.claims.as_ref().map(|claims| claims.borrow());
    let using = claims.as_ref().and_then(|state| Some((state, state.pods.get(pod)?)));
    for container in using.iter().flat_map(|(_, pod)| &pod.containers) {
        let listed = containers.entry(container.name.clone());
        let listed = listed.or_insert_with(|| entry(&container.name));
        let state = using.as_ref().map(|(state, _)| state);
        listed.dynamic_resources =
            state.map(|state| dynamic_resources(state, container)).unwrap_or_default();
    }
    PodResources {
        name: pod.to_owned(),
        namespace: NAMESPACE.to_owned(),
        containers: containers.into_values().collect(),
    }
}

/// What a container has through claims: one entry for each claim.
fn dynamic_resources(state: &DraNodeState, container: &DraContainer) -> Vec<DynamicResource> {
    let claims = container.claims.iter().filter_map(|(claim, _)| {
        let used = state.claims.get(claim)?;
        let held = used.devices.iter().flat_map(|(driver, held)| {
            held.iter().map(move |device| ClaimResource {
                cdi_devices: device
                    .cdi_device_ids
                    .iter()
                    .map(|name| CdiDevice { name: name.clone() })
                    .collect(),
                driver_name: driver.clone(),
                pool_name: device.pool_name.clone(),
                device_name: device.device_name.clone(),
                share_id: device.share_id.clone(),
            })
        });
        Some(DynamicResource {
            claim_name: claim.name.clone(),
            claim_namespace: claim.namespace.clone(),
            claim_resources: held.collect(),
        })
    });
    claims.collect()
}

fn container_devices(node: &Node, held: &BTreeMap<String, Held>) -> Vec<ContainerDevices> {
    let held = held.iter().flat_map(|(resource, held)| {
        held.devices.iter().map(move |device| devices(node, resource, device))
    });
    held.collect()
}

/// One message for each device, as the kubelet writes them.
fn devices(node: &Node, resource: &str, device: &str) -> ContainerDevices {
    let nodes = node.resources.numa_nodes(resource, device);
    let nodes: Vec<_> = nodes.iter().map(|id| NumaNode { id: *id }).collect();
    ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![device.to_owned()],
        topology: (!nodes.is_empty()).then_some(TopologyInfo { nodes }),
    }
}

fn stopped(_: ShutDown) -> Status {
    Status::unavailable("the kubelet is stopping")
}
