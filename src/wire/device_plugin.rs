//! Devices and grants as v1beta1 messages, and the one place that chooses gRPC codes.

use tonic::{Code, Status};

use super::v1beta1::{
    AllocateResponse, CdiDevice, ContainerAllocateResponse, ContainerPreferredAllocationResponse,
    Device as WireDevice, DevicePluginOptions, DeviceSpec, ListAndWatchResponse, NumaNode,
    PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest, TopologyInfo,
};
use crate::decide::allocation::allocate::{AllocateError, Grant};
use crate::decide::allocation::prefer::{DeviceSupply, PreferenceRequest, prefer};
use crate::model::cdi::CdiKind;
use crate::model::config::StartVerification;
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::topology::DistanceTree;

/// The version that a plugin registers with.
pub const VERSION: &str = "v1beta1";

/// The optional calls that the kubelet may make.
#[must_use]
pub fn options(verification: StartVerification) -> DevicePluginOptions {
    DevicePluginOptions {
        pre_start_required: verification == StartVerification::On,
        get_preferred_allocation_available: true,
    }
}

/// The registration of a resource: `endpoint` is the socket's file name.
#[must_use]
pub fn register_request(
    endpoint: &str,
    resource_name: &str,
    verification: StartVerification,
) -> RegisterRequest {
    RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource_name.to_owned(),
        options: Some(options(verification)),
    }
}

/// The whole list of a resource: every ListAndWatch message has all devices.
#[must_use]
pub fn list_and_watch_response(resource: &Resource) -> ListAndWatchResponse {
    let devices = resource.listed().map(|(id, device)| WireDevice {
        id: id.to_string(),
        health: device.health.to_string(),
        topology: topology(device),
    });
    ListAndWatchResponse { devices: devices.collect() }
}

/// None where no NUMA node is known: under a strict topology policy an invented node would reject pods
/// (kubelet, cm/topologymanager).
fn topology(device: &Device) -> Option<TopologyInfo> {
    let nodes: Vec<_> =
        device.numa_nodes.iter().map(|node| NumaNode { id: i64::from(*node) }).collect();
    (!nodes.is_empty()).then_some(TopologyInfo { nodes })
}

/// Device nodes have the same path in the container as on the host.
fn container_response(grant: Grant) -> ContainerAllocateResponse {
    let devices = grant.nodes.into_iter().map(|node| DeviceSpec {
        container_path: node.path.clone(),
        host_path: node.path,
        permissions: "rw".to_owned(),
    });
    let names = grant
        .cdi_names
        .into_iter()
        .map(|name| CdiDevice { name: name.qualified(CdiKind::DevicePlugin) });
    ContainerAllocateResponse {
        devices: devices.collect(),
        cdi_devices: names.collect(),
        envs: grant.env.into_iter().collect(),
        ..ContainerAllocateResponse::default()
    }
}

/// The response to a whole request: one grant for each container, in the order of the request.
#[must_use]
pub fn allocate_response(grants: Vec<Grant>) -> AllocateResponse {
    AllocateResponse { container_responses: grants.into_iter().map(container_response).collect() }
}

/// The best devices for each container of a request. Every request gets the best valid response,
/// because an error would fail the pod (kubernetes#97131): texts that are not ids are left out.
#[must_use]
pub fn preferred_response(
    tree: &DistanceTree,
    resource: &Resource,
    request: PreferredAllocationRequest,
) -> PreferredAllocationResponse {
    let containers = request.container_requests.into_iter().map(|container| {
        let choice = prefer(
            &DeviceSupply { tree, devices: &resource.devices, sharing: resource.sharing },
            &PreferenceRequest {
                available: &known_ids(&container.available_device_i_ds),
                must_include: &known_ids(&container.must_include_device_i_ds),
                size: usize::try_from(container.allocation_size).unwrap_or(0),
            },
        );
        let ids = choice.ids.iter().map(ToString::to_string).collect();
        ContainerPreferredAllocationResponse { device_i_ds: ids }
    });
    PreferredAllocationResponse { container_responses: containers.collect() }
}

fn known_ids(texts: &[String]) -> Vec<DeviceId> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The gRPC status of a refused allocation. The kubelet shows the message on the pod.
#[must_use]
pub fn status(error: &AllocateError) -> Status {
    let code = match error {
        AllocateError::Empty { .. }
        | AllocateError::Repeated { .. }
        | AllocateError::ManyReplicas { .. } => Code::InvalidArgument,
        AllocateError::Unknown { .. } => Code::NotFound,
        AllocateError::Unhealthy { .. } | AllocateError::UuidUnknown { .. } => {
            Code::FailedPrecondition
        }
    };
    Status::new(code, error.to_string())
}
