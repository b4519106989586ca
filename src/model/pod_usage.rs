//! Which containers hold which devices, as the kubelet's PodResources API lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::device::DeviceId;
use super::dra::claim::ClaimUsage;
use super::pci::PciAddress;

/// One answer of PodResources `List`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// When the kubelet was queried, on the daemon's clock: a later allocation may be missing.
    pub queried_at: Duration,
    /// Which kubelet answered.
    pub kubelet: KubeletInstance,
    /// Who holds what.
    pub held: HeldDevices,
}

/// One run of the kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubeletInstance {
    /// Differs from that of every other run: the inode and the time of its socket.
    pub id: (u64, i128),
    /// True once it has run so long that it knows all of its pods. A kubelet that has just started
    /// answers before it does.
    pub knows_its_pods: bool,
}

/// One container that holds a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container in it.
    pub container: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, pod, container } = self;
        write!(f, "container {container} of pod {namespace}/{pod}")
    }
}

/// An id of the device plugin that a pod holds, or may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDevice {
    /// The resource.
    pub resource: String,
    /// The id.
    pub id: DeviceId,
    /// Who holds it; absent until the kubelet reports it.
    pub holder: Option<Holder>,
}

impl fmt::Display for HeldDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, id, holder } = self;
        match holder {
            Some(holder) => write!(f, "{resource} {id} by {holder}"),
            None => write!(f, "{resource} {id}, as far as the kubelet has reported"),
        }
    }
}

/// A device that a container holds, with the chips behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodDevice {
    /// The resource under which the container holds it.
    pub resource: String,
    /// Its id in that resource, without replica.
    pub device: DeviceId,
    /// Those of its chips that this node has, ascending; at least one.
    pub chips: Vec<PciAddress>,
    /// The container.
    pub holder: Holder,
}

/// Every device id that some container holds, by resource. Ids stay as the kubelet wrote them: it
/// also lists those of other plugins, and those that earlier plugins gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldDevices {
    by_resource: BTreeMap<String, BTreeMap<String, Holder>>,
    /// Devices of our DRA driver that containers have through claims.
    pub claimed: BTreeSet<ClaimUsage>,
}

impl HeldDevices {
    /// Adds that `holder` has the device `id` of `resource`. An init container and those after it
    /// may share a device; only the first that is added is kept.
    pub fn insert(&mut self, resource: &str, id: String, holder: Holder) {
        let ids = self.by_resource.entry(resource.to_owned()).or_default();
        ids.entry(id).or_insert(holder);
    }

    /// Who holds the device `id` of `resource`.
    #[must_use]
    pub fn holder(&self, resource: &str, id: &str) -> Option<&Holder> {
        self.by_resource.get(resource)?.get(id)
    }

    /// What is held of `resource`: ids and holders, ascending by id.
    pub fn of_resource(&self, resource: &str) -> impl Iterator<Item = (&str, &Holder)> {
        let ids = self.by_resource.get(resource).into_iter().flatten();
        ids.map(|(id, holder)| (id.as_str(), holder))
    }

    /// Everything that is held: resource, id, holder.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &Holder)> {
        self.by_resource.iter().flat_map(|(resource, ids)| {
            ids.iter().map(move |(id, holder)| (resource.as_str(), id.as_str(), holder))
        })
    }
}
