//! The node as seen from outside: the numbers of `kubectl describe node`, and what led to them.

use std::collections::BTreeMap;

use crate::model::health::Health;

/// The node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Whether `kubelet.sock` is served.
    pub serving: bool,
    /// How often Register was called, refused calls included, since the embedded kubelet started.
    pub register_calls: u64,
    /// Calls of PodResources since the embedded kubelet started.
    pub pod_resources_calls: u64,
    /// By resource name. A resource stays here, with nothing in it, once the kubelet dropped it.
    pub resources: BTreeMap<String, ResourceView>,
}

impl NodeView {
    /// Devices that a scheduler may allocate: the healthy ones; 0 for an unknown resource.
    #[must_use]
    pub fn allocatable(&self, resource: &str) -> usize {
        self.resources.get(resource).map_or(0, |view| view.allocatable)
    }

    /// Devices the node has, healthy or not; 0 for an unknown resource.
    #[must_use]
    pub fn capacity(&self, resource: &str) -> usize {
        self.resources.get(resource).map_or(0, |view| view.capacity)
    }
}

/// One extended resource of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceView {
    /// Whether a plugin is connected for it; false as soon as the kubelet disconnects it.
    pub registered: bool,
    /// `ListAndWatch` streams that are open, those of replaced instances included.
    pub streams_open: usize,
    /// By id, as the kubelet counts them now: after a lost stream every one is unhealthy.
    pub devices: BTreeMap<String, DeviceView>,
    /// Healthy and unhealthy ones.
    pub capacity: usize,
    /// Healthy ones.
    pub allocatable: usize,
    /// Registrations that were accepted since the embedded kubelet started.
    pub registrations: u64,
    /// Lists received since the embedded kubelet started.
    pub lists_received: u64,
    /// Why the stream that ended last did so, for example `EOF`.
    pub last_stream_end: Option<String>,
}

/// One device of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// As the kubelet counts it.
    pub health: Health,
    /// As the plugin listed them; empty where it gave no `TopologyInfo`.
    pub numa_nodes: Vec<i64>,
}

/// The health of a pod's devices: by resource, then by device id.
pub type ResourceHealth = BTreeMap<String, BTreeMap<String, Health>>;
