//! The slices that the API server has, made those that are wanted, one write at a time.
//!
//! Schedulers use only the highest generation of a pool, and of that only a complete pool: as many
//! slices as each of them says. **Invariant.** A pool that is complete at its generation is one that
//! was wanted as a whole. So several slices change together under a new generation, first those that
//! are there, then those that are missing, and what is left over is deleted last; a change of a single
//! slice needs no new generation.

use super::slices::slices;
use crate::model::dra::slice::{DraSlice, NodeIdentity, SeenSlice, SliceContent, SliceWrite};

/// Whether a kubelet is connected to our service. Without one nothing is created: a node has no
/// devices before its driver can be reached, and a starting kubelet deletes all slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeletLink {
    /// It is.
    Connected,
    /// It is not.
    Away,
}

/// The next write; none where the server has what is wanted. `seen` is every slice of our driver and
/// this node; `last_generation` is the highest that this process has used.
#[must_use]
pub fn reconcile(
    node: &NodeIdentity,
    wanted: &[SliceContent],
    seen: &[SeenSlice],
    last_generation: i64,
    kubelet: KubeletLink,
) -> Option<SliceWrite> {
    let highest = seen.iter().map(|slice| slice.generation).max().unwrap_or(0);
    let generation = highest.max(last_generation).max(1);
    let current = slices(node, wanted, generation);
    let plan = plan_for(&current, seen);
    if plan.is_single() || is_growing(&current, seen, generation) {
        return plan.first(kubelet);
    }
    plan_for(&slices(node, wanted, generation + 1), seen).first(kubelet)
}

/// Whether no scheduler uses this generation yet: some of its slices are missing, and all that are
/// there belong to it.
fn is_growing(wanted: &[DraSlice], seen: &[SeenSlice], generation: i64) -> bool {
    let current: Vec<_> = seen.iter().filter(|slice| slice.generation == generation).collect();
    let belongs = |seen: &&SeenSlice| {
        wanted.iter().any(|slice| slice.name == seen.name && slice.slice_count == seen.slice_count)
    };
    current.len() < wanted.len() && current.iter().all(belongs)
}

/// What is left to do.
#[derive(Default)]
struct Plan {
    /// Each with whether its slice has the generation already.
    updates: Vec<(bool, SliceWrite)>,
    creates: Vec<SliceWrite>,
    /// Each with whether it has the generation, and so disturbs the pool.
    deletes: Vec<(bool, SliceWrite)>,
    /// Slices that must go first: their name is needed.
    in_the_way: Vec<SliceWrite>,
}

fn plan_for(wanted: &[DraSlice], seen: &[SeenSlice]) -> Plan {
    let mut plan = Plan::default();
    for slice in wanted {
        match seen.iter().find(|seen| seen.name == slice.name) {
            None => plan.creates.push(SliceWrite::Create(slice.clone())),
            Some(SeenSlice { content: None, .. }) => {}
            Some(seen) if is_same(seen, slice) => {}
            Some(seen) => {
                let resource_version = seen.resource_version.clone();
                let update = SliceWrite::Update { slice: slice.clone(), resource_version };
                plan.updates.push((seen.generation == slice.generation, update));
            }
        }
    }
    // A slice that counts already is corrected before another one joins it.
    plan.updates.sort_by_key(|(is_current, _)| !is_current);
    for seen in seen {
        let is_wanted = wanted.iter().any(|slice| slice.name == seen.name);
        let delete = SliceWrite::Delete {
            name: seen.name.clone(),
            resource_version: seen.resource_version.clone(),
        };
        match (is_wanted, &seen.content) {
            (true, Some(_)) => {}
            (true, None) => plan.in_the_way.push(delete),
            (false, _) => {
                let generation = wanted.first().map(|slice| slice.generation);
                plan.deletes.push((generation == Some(seen.generation), delete));
            }
        }
    }
    plan
}

fn is_same(seen: &SeenSlice, wanted: &DraSlice) -> bool {
    seen.generation == wanted.generation
        && seen.slice_count == wanted.slice_count
        && seen.content.as_ref() == Some(&wanted.content)
}

impl Plan {
    /// Whether one write is all that schedulers see, so that there is no state between.
    fn is_single(&self) -> bool {
        let Self { updates, creates, deletes, in_the_way } = self;
        let deletes = deletes.iter().filter(|(is_current, _)| *is_current);
        updates.len() + creates.len() + deletes.count() + 2 * in_the_way.len() <= 1
    }

    fn first(self, kubelet: KubeletLink) -> Option<SliceWrite> {
        let updates = self.updates.into_iter().map(|(_, update)| update);
        let mut writes = self.in_the_way.into_iter().chain(updates);
        match (writes.next(), self.creates.into_iter().next()) {
            (Some(write), _) => Some(write),
            (None, Some(create)) => Some(create).filter(|_| kubelet == KubeletLink::Connected),
            (None, None) => self.deletes.into_iter().next().map(|(_, delete)| delete),
        }
    }
}
