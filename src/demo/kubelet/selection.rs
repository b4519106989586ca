//! Which devices a container gets: the rules of the kubelet's `devicesToAllocate`, without its
//! chance. Where the kubelet takes any device, we take the lowest id. Pure.

use std::collections::BTreeSet;

use super::pod_devices::PodDevices;
use super::pods::{AdmissionCause, ContainerRequest};
use super::resources::ResourceTable;

type IdSet = BTreeSet<String>;

/// Devices that one container may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AllocatableIds {
    needed: usize,
    /// On NUMA nodes that the topology manager asks for; empty under its policy `none`.
    aligned: IdSet,
    /// On other NUMA nodes.
    unaligned: IdSet,
    /// All others; under the policy `none` this is everything that is free.
    no_affinity: IdSet,
}

/// What `GetPreferredAllocation` is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PreferenceCall {
    /// Sorted.
    pub available: Vec<String>,
    /// Sorted; those taken already.
    pub must_include: Vec<String>,
    /// Of the answer.
    pub size: usize,
}

/// The devices that `request` may be served from; none where it needs no new ones.
///
/// # Errors
/// The kubelet's reasons to refuse a pod, in its order.
pub(super) fn candidates(
    resources: &ResourceTable,
    pods: &PodDevices,
    pod: &str,
    request: &ContainerRequest,
    affinity: Option<&BTreeSet<i64>>,
) -> Result<Option<AllocatableIds>, AdmissionCause> {
    let resource = || request.resource.clone();
    let held = pods.held(pod, &request.name, &request.resource);
    if let Some(held) = held.filter(|held| held.devices.len() != request.count) {
        return Err(changed(pod, request, held.devices.len()));
    }
    let healthy = resources
        .healthy(&request.resource)
        .ok_or_else(|| AdmissionCause::Unregistered { resource: resource() })?;
    if healthy.is_empty() {
        return Err(AdmissionCause::NoneHealthy { resource: resource() });
    }
    if held.is_some_and(|held| !held.devices.is_subset(healthy)) {
        return Err(AdmissionCause::HeldUnhealthy { resource: resource() });
    }
    if held.is_some() || request.count == 0 {
        return Ok(None);
    }
    let available = healthy - &pods.in_use(&request.resource);
    if available.len() < request.count {
        let (requested, available) = (request.count, available.len());
        return Err(AdmissionCause::TooFew { resource: resource(), requested, available });
    }
    let numa_nodes = |id: &str| resources.numa_nodes(&request.resource, id);
    Ok(Some(AllocatableIds::sort(request.count, available, affinity, numa_nodes)))
}

fn changed(pod: &str, request: &ContainerRequest, held: usize) -> AdmissionCause {
    AdmissionCause::RequestChanged {
        pod: pod.to_owned(),
        container: request.name.clone(),
        resource: request.resource.clone(),
        held,
        requested: request.count,
    }
}

impl AllocatableIds {
    /// Sorts what is free by NUMA affinity. If no device has a NUMA node, or nothing is asked
    /// for, no device is aligned.
    fn sort<'a>(
        needed: usize,
        available: IdSet,
        affinity: Option<&BTreeSet<i64>>,
        numa_nodes: impl Fn(&str) -> &'a [i64],
    ) -> Self {
        let mut sorted = Self {
            needed,
            aligned: IdSet::new(),
            unaligned: IdSet::new(),
            no_affinity: IdSet::new(),
        };
        for id in available {
            let (nodes, affinity) = (numa_nodes(&id), affinity);
            match affinity {
                Some(wanted) if nodes.iter().any(|node| wanted.contains(node)) => {
                    sorted.aligned.insert(id)
                }
                Some(_) if !nodes.is_empty() => sorted.unaligned.insert(id),
                _ => sorted.no_affinity.insert(id),
            };
        }
        sorted
    }

    /// What the plugin is asked, if it can be asked at all: the choice among aligned devices, or
    /// the choice of the rest once all aligned ones are taken. Under the policy `none` that is
    /// always, even where every device is needed.
    pub(super) fn question(&self) -> Option<PreferenceCall> {
        let sorted = |ids: &IdSet| ids.iter().cloned().collect();
        let size = self.needed;
        if self.needed < self.aligned.len() {
            return Some(PreferenceCall {
                available: sorted(&self.aligned),
                must_include: vec![],
                size,
            });
        }
        (self.needed > self.aligned.len()).then(|| PreferenceCall {
            available: sorted(&self.all()),
            must_include: sorted(&self.aligned),
            size,
        })
    }

    /// The choice, sorted. Of `preferred` counts what is available, up to what is needed; a short
    /// answer is topped up.
    pub(super) fn choose(&self, preferred: &IdSet) -> Vec<String> {
        let steps = if self.needed < self.aligned.len() {
            vec![preferred & &self.aligned, self.aligned.clone()]
        } else {
            let rest = [self.unaligned.clone(), self.no_affinity.clone()];
            [vec![self.aligned.clone(), preferred & &self.all()], rest.to_vec()].concat()
        };
        let mut chosen = IdSet::new();
        for id in steps.into_iter().flatten() {
            if chosen.len() < self.needed {
                chosen.insert(id);
            }
        }
        chosen.into_iter().collect()
    }

    fn all(&self) -> IdSet {
        &(&self.aligned | &self.unaligned) | &self.no_affinity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> IdSet {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn words(text: &str) -> Vec<String> {
        ids(text).into_iter().collect()
    }

    fn free(needed: usize, available: &str) -> AllocatableIds {
        AllocatableIds::sort(needed, ids(available), None, |_| &[])
    }

    /// Ids that begin with 0 are on NUMA node 0, with 1 on node 1, others on none; 0 is wanted.
    fn near_node_0(needed: usize, available: &str) -> AllocatableIds {
        let numa_nodes = |id: &str| match id.as_bytes()[0] {
            b'0' => &[0][..],
            b'1' => &[1],
            _ => &[],
        };
        AllocatableIds::sort(needed, ids(available), Some(&[0].into()), numa_nodes)
    }

    #[test]
    fn without_affinity_the_plugin_is_asked_even_where_it_has_no_choice() {
        let question = free(2, "a b").question().unwrap();
        assert_eq!(question.available, ["a", "b"]);
        assert!(question.must_include.is_empty());
        assert_eq!(question.size, 2);
    }

    #[test]
    fn among_aligned_devices_the_plugin_is_asked_only_when_there_is_a_choice() {
        let question = near_node_0(1, "0a 0b 1a").question().unwrap();
        assert_eq!(question.available, ["0a", "0b"]);
        assert_eq!(near_node_0(2, "0a 0b 1a").question(), None);
    }

    #[test]
    fn beyond_the_aligned_devices_the_plugin_is_asked_for_the_rest() {
        let question = near_node_0(3, "0a 0b 1a x").question().unwrap();
        assert_eq!(question.available, ["0a", "0b", "1a", "x"]);
        assert_eq!(question.must_include, ["0a", "0b"]);
        assert_eq!(question.size, 3);
    }

    #[test]
    fn a_preference_is_kept_to_what_is_available_and_needed() {
        #[track_caller]
        fn check(candidates: &AllocatableIds, preferred: &str, chosen: &str) {
            assert_eq!(candidates.choose(&ids(preferred)), words(chosen));
        }
        check(&free(2, "a b c d"), "c d", "c d");
        check(&free(2, "a b c d"), "", "a b");
        check(&free(2, "a b c d"), "d", "a d"); // topped up
        check(&free(2, "a b c d"), "b c d", "b c"); // surplus
        check(&free(2, "a b c d"), "x d y", "a d"); // unknown
        check(&near_node_0(1, "0a 0b 1a"), "1a", "0a"); // not aligned
        check(&near_node_0(3, "0a 0b 1a 1b x"), "1b", "0a 0b 1b");
        check(&near_node_0(4, "0a 0b 1a 1b x"), "x", "0a 0b 1a x");
        check(&near_node_0(4, "0a 0b 1a 1b x"), "", "0a 0b 1a 1b");
    }
}
