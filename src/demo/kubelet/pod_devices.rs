//! What each pod holds, with the answers that came with it: the part of the kubelet's memory that
//! outlives its process (its checkpoint). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::pods::Injection;
use crate::wire::v1beta1::ContainerAllocateResponse;

/// Pods by name, their containers by name, what these hold by resource.
#[derive(Default)]
pub(super) struct PodDevices {
    pods: BTreeMap<String, BTreeMap<String, BTreeMap<String, Held>>>,
}

/// Devices of one resource in one container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    /// Ids.
    pub devices: BTreeSet<String>,
    /// The plugin's answer; used for every start of the container, for as long as the pod lives.
    pub response: ContainerAllocateResponse,
}

impl PodDevices {
    pub(super) fn hold(&mut self, pod: &str, container: &str, resource: &str, held: Held) {
        let containers = self.pods.entry(pod.to_owned()).or_default();
        let resources = containers.entry(container.to_owned()).or_default();
        resources.insert(resource.to_owned(), held);
    }

    pub(super) fn held(&self, pod: &str, container: &str, resource: &str) -> Option<&Held> {
        self.container(pod, container)?.get(resource)
    }

    /// By resource.
    pub(super) fn container(&self, pod: &str, container: &str) -> Option<&BTreeMap<String, Held>> {
        self.pods.get(pod)?.get(container)
    }

    /// By container, then by resource; nothing for a pod that holds nothing.
    pub(super) fn containers(
        &self,
        pod: &str,
    ) -> impl Iterator<Item = (&String, &BTreeMap<String, Held>)> {
        self.pods.get(pod).into_iter().flatten()
    }

    /// Of every pod that holds something.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    /// Frees all devices of the pod.
    pub(super) fn remove(&mut self, pod: &str) {
        self.pods.remove(pod);
    }

    /// Devices of the resource that some pod holds.
    pub(super) fn in_use(&self, resource: &str) -> BTreeSet<String> {
        let containers = self.pods.values().flat_map(BTreeMap::values);
        let held = containers.filter_map(|resources| resources.get(resource));
        held.flat_map(|held| held.devices.iter().cloned()).collect()
    }

    /// What the container's runtime receives; empty where it holds nothing.
    pub(super) fn injection(&self, pod: &str, container: &str) -> Injection {
        let resources = self.container(pod, container).into_iter().flat_map(BTreeMap::values);
        Injection::merge(resources.map(|held| &held.response))
    }
}
