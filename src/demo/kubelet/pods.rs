//! Pods as far as devices are concerned: what they ask for, what they get, why they are refused.

use std::collections::{BTreeMap, HashMap};

use crate::wire::v1beta1::{ContainerAllocateResponse, DeviceSpec, Mount};

/// A pod that wants to run here. Init containers, which lend their devices to the containers
/// after them, are not modelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequest {
    /// Stands for the pod's UID: the same name is the same pod.
    pub name: String,
    /// One entry for each container and resource, in the order of the pod's text.
    pub containers: Vec<ContainerRequest>,
}

impl PodRequest {
    /// A pod with the single container `main`, which asks for `count` devices of one resource.
    #[must_use]
    pub fn single(name: &str, resource: &str, count: usize) -> Self {
        Self {
            name: name.to_owned(),
            containers: vec![ContainerRequest {
                name: "main".to_owned(),
                resource: resource.to_owned(),
                count,
            }],
        }
    }
}

/// What one container asks for of one resource; a container may have several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRequest {
    /// Name of the container, unique in its pod.
    pub name: String,
    /// For example `iluvatar.com/gpu`.
    pub resource: String,
    /// How many devices.
    pub count: usize,
}

/// A pod that was let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// The pod's name.
    pub pod: String,
    /// In the order of the request, each container once.
    pub containers: Vec<AdmittedContainer>,
}

/// What one container was given.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmittedContainer {
    /// Name of the container.
    pub name: String,
    /// Ids by resource, sorted.
    pub devices: BTreeMap<String, Vec<String>>,
    /// What its runtime receives.
    pub injection: Injection,
}

/// The answers of all plugins to one container, merged: for each variable, path or name the
/// first one wins. The kubelet goes through the resources in random order, we by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Injection {
    /// Environment variables.
    pub envs: BTreeMap<String, String>,
    /// Device nodes, each path in the container once.
    pub devices: Vec<DeviceSpec>,
    /// Mounts, each path in the container once.
    pub mounts: Vec<Mount>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// CDI names, each once.
    pub cdi_devices: Vec<String>,
}

impl Injection {
    /// All of `responses`, the earlier before the later.
    pub(super) fn merge<'a>(
        responses: impl IntoIterator<Item = &'a ContainerAllocateResponse>,
    ) -> Self {
        let mut merged = Self::default();
        for response in responses {
            merged.add(response);
        }
        merged
    }

    fn add(&mut self, response: &ContainerAllocateResponse) {
        add_names(&mut self.envs, &response.envs);
        add_names(&mut self.annotations, &response.annotations);
        add_items(&mut self.devices, &response.devices, |one| &one.container_path);
        add_items(&mut self.mounts, &response.mounts, |one| &one.container_path);
        let names = response.cdi_devices.iter().map(|device| &device.name);
        add_items(&mut self.cdi_devices, names, |name| name);
    }
}

fn add_names(merged: &mut BTreeMap<String, String>, offered: &HashMap<String, String>) {
    for (name, value) in offered {
        merged.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

fn add_items<'a, T: Clone + 'a>(
    merged: &mut Vec<T>,
    offered: impl IntoIterator<Item = &'a T>,
    key: impl Fn(&T) -> &String,
) {
    for item in offered {
        if merged.iter().all(|one| key(one) != key(item)) {
            merged.push(item.clone());
        }
    }
}

/// The pod is refused and stays `Failed`; worded as its status words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("UnexpectedAdmissionError: Allocate failed due to {cause}, which is unexpected")]
pub struct AdmissionError {
    /// What went wrong.
    #[source]
    pub cause: AdmissionCause,
}

/// Why a pod is refused; worded as the kubelet words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionCause {
    /// No list was ever received for the resource, or it was dropped after the grace period.
    #[error("cannot allocate unregistered device {resource}")]
    Unregistered {
        /// The resource.
        resource: String,
    },
    /// The list is empty, all devices are broken, or the plugin is gone.
    #[error("no healthy devices present; cannot allocate unhealthy devices {resource}")]
    NoneHealthy {
        /// The resource.
        resource: String,
    },
    /// The pod was admitted before, and a device it holds broke since.
    #[error(
        "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
    )]
    HeldUnhealthy {
        /// The resource.
        resource: String,
    },
    /// The pod was admitted before with another count.
    #[error(
        "pod {pod:?} container {container:?} changed request for resource {resource:?} from {held} to {requested}"
    )]
    RequestChanged {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// The resource.
        resource: String,
        /// Devices it holds.
        held: usize,
        /// Devices it wants now.
        requested: usize,
    },
    /// More wanted than free.
    #[error(
        "requested number of devices unavailable for {resource}. Requested: {requested}, Available: {available}"
    )]
    TooFew {
        /// The resource.
        resource: String,
        /// Devices wanted.
        requested: usize,
        /// Devices healthy and in no pod.
        available: usize,
    },
    /// The plugin went away between the choice of devices and the call.
    #[error("endpoint {resource} has been stopped")]
    Stopped {
        /// The resource.
        resource: String,
    },
    /// `GetPreferredAllocation` failed.
    #[error("device plugin GetPreferredAllocation rpc failed with err: {error}")]
    Preference {
        /// The status, as grpc-go prints it.
        error: String,
    },
    /// `Allocate` failed.
    #[error("{error}")]
    Allocate {
        /// The status, as grpc-go prints it.
        error: String,
    },
    /// `Allocate` answered for no container.
    #[error("no containers return in allocation response of {resource}")]
    NoResponse {
        /// The resource.
        resource: String,
    },
    /// The embedded kubelet was shut down meanwhile.
    #[error("the embedded kubelet being shut down")]
    ShutDown,
}

impl From<AdmissionCause> for AdmissionError {
    fn from(cause: AdmissionCause) -> Self {
        Self { cause }
    }
}

/// A container cannot start; worded as the kubelet words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The pod holds nothing for this container.
    #[error("pod {pod} has no container {container} with devices")]
    NotAdmitted {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The resource was dropped after the grace period.
    #[error("endpoint not found in cache for a registered resource: {resource}")]
    NoEndpoint {
        /// The resource.
        resource: String,
    },
    /// `PreStartContainer` failed, ran out of time, or the plugin is gone.
    #[error("device plugin PreStartContainer rpc failed with err: {error}")]
    PreStart {
        /// The status, as grpc-go prints it.
        error: String,
    },
    /// The embedded kubelet was shut down meanwhile.
    #[error("the embedded kubelet was shut down")]
    ShutDown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1beta1::CdiDevice;

    fn response(value: &str, host_path: &str) -> ContainerAllocateResponse {
        ContainerAllocateResponse {
            envs: [("NAME".to_owned(), value.to_owned())].into(),
            devices: vec![DeviceSpec {
                container_path: "/dev/x".to_owned(),
                host_path: host_path.to_owned(),
                permissions: "rw".to_owned(),
            }],
            cdi_devices: vec![CdiDevice { name: "iluvatar.com/gpu=0".to_owned() }],
            ..Default::default()
        }
    }

    #[test]
    fn of_two_answers_to_one_container_the_first_wins() {
        let merged = Injection::merge(&[response("one", "/dev/a"), response("two", "/dev/b")]);
        assert_eq!(merged.envs["NAME"], "one");
        assert_eq!(merged.devices.len(), 1);
        assert_eq!(merged.devices[0].host_path, "/dev/a");
        assert_eq!(merged.cdi_devices, ["iluvatar.com/gpu=0"]);
    }

    #[test]
    fn a_refusal_reads_as_in_the_pods_status() {
        let cause = AdmissionCause::TooFew {
            resource: "iluvatar.com/gpu".to_owned(),
            requested: 4,
            available: 1,
        };
        assert_eq!(
            AdmissionError::from(cause).to_string(),
            "UnexpectedAdmissionError: Allocate failed due to requested number of devices \
             unavailable for iluvatar.com/gpu. Requested: 4, Available: 1, which is unexpected"
        );
    }
}
