//! Which containers hold which devices, as the kubelet tells it.

use std::collections::BTreeMap;
use std::fmt;

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

/// Every device id that some container holds, by resource. Ids are kept as the kubelet wrote them:
/// it tells those of other plugins too, and those that earlier plugins gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldDevices {
    by_resource: BTreeMap<String, BTreeMap<String, Holder>>,
}

impl HeldDevices {
    /// Notes that `holder` has the device `id` of `resource`. An init container and those after it
    /// may share a device; the first that is told stands for all of them.
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
    pub fn held(&self, resource: &str) -> impl Iterator<Item = (&str, &Holder)> {
        let ids = self.by_resource.get(resource).into_iter().flatten();
        ids.map(|(id, holder)| (id.as_str(), holder))
    }
}
