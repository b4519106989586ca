//! The devices of one request: the fewest and the most ids that each may give. Requests that make no
//! sense are normalised here, so the search sees only sizes that fit.

use std::ops::Range;

use super::{DeviceSupply, PreferenceRequest};
use crate::model::device::DeviceId;
use crate::model::pci::PciAddress;

/// Every id that can be chosen, and the devices that they are of.
#[derive(Clone, Debug)]
pub(super) struct Candidates {
    /// Ascending, each once.
    pub(super) ids: Vec<Candidate>,
    /// All devices of the resource, ascending by address; also those with nothing to choose.
    pub(super) devices: Vec<CandidateDevice>,
    /// How many are chosen: what was asked for, or all there is.
    pub(super) size: usize,
}

/// An id that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) id: DeviceId,
    pub(super) optional: bool,
}

/// One device of the resource: its ids in the request, and how many of them may be chosen.
#[derive(Clone, Debug)]
pub(super) struct CandidateDevice {
    /// Index of its group in the distance tree; absent where the tree does not know the device.
    pub(super) group: Option<usize>,
    /// Its ids, as indices in [`Candidates::ids`].
    pub(super) ids: Range<usize>,
    /// How many of its ids must be included.
    pub(super) must: usize,
    /// How few of its ids may be chosen.
    pub(super) least: usize,
    /// How many of its ids may be chosen.
    pub(super) most: usize,
    /// Ids that the kubelet knows of it, in use or not.
    pub(super) total: usize,
}

impl Candidates {
    pub(super) fn new(supply: &DeviceSupply<'_>, request: &PreferenceRequest<'_>) -> Self {
        let mut addresses: Vec<_> = supply.devices.iter().map(|device| device.id.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let ids = known_ids(supply, request, &addresses);
        let must = ids.iter().filter(|candidate| !candidate.optional).count();
        let mut devices = candidate_devices(supply, &addresses, &ids);
        for device in &mut devices {
            if must <= request.size {
                device.least = device.must;
            } else {
                // More must be included than fits: the best of those, and nothing else.
                device.most = device.must;
            }
        }
        Self { size: request.size.min(ids.len()), ids, devices }
    }

    /// How many ids may be chosen at all.
    pub(super) fn most(&self) -> usize {
        self.devices.iter().map(|device| device.most).sum()
    }

    /// How many of `chosen` are ids of this device.
    pub(super) fn count_of(&self, device: &CandidateDevice, chosen: &[DeviceId]) -> usize {
        let own = &self.ids[device.ids.clone()];
        let is_chosen = |own: &&Candidate| chosen.contains(&own.id);
        own.iter().filter(is_chosen).count()
    }

    /// The ids that a number of them per device stands for: those that must be included, then the lowest.
    pub(super) fn pick(&self, taken: impl Fn(&CandidateDevice) -> usize) -> Vec<DeviceId> {
        let mut picked = Vec::with_capacity(self.size);
        for device in &self.devices {
            let taken = taken(device);
            let mut must = taken.min(device.must);
            let mut spare = taken - must;
            for candidate in &self.ids[device.ids.clone()] {
                let left = if candidate.optional { &mut spare } else { &mut must };
                if *left > 0 {
                    *left -= 1;
                    picked.push(candidate.id);
                }
            }
        }
        picked
    }
}

/// Ascending and each once, whatever order and repetition the kubelet sent.
fn known_ids(
    supply: &DeviceSupply<'_>,
    request: &PreferenceRequest<'_>,
    addresses: &[PciAddress],
) -> Vec<Candidate> {
    let available = request.available.iter().map(|id| (id, true));
    let must = request.must_include.iter().map(|id| (id, false));
    let mut ids: Vec<_> =
        available.chain(must).map(|(id, optional)| Candidate { id: *id, optional }).collect();
    ids.sort_unstable();
    // `false` sorts first, so of an id that is in both lists the one that must be included stays.
    ids.dedup_by_key(|candidate| candidate.id);
    let mut known = addresses.iter().peekable();
    ids.retain(|candidate| {
        let DeviceId { address, replica } = candidate.id;
        while known.next_if(|known| **known < address).is_some() {}
        known.peek() == Some(&&address) && is_offered(supply, replica)
    });
    ids
}

fn is_offered(supply: &DeviceSupply<'_>, replica: Option<u32>) -> bool {
    match (supply.sharing, replica) {
        (None, None) => true,
        (Some(sharing), Some(index)) => index < sharing.replicas,
        _ => false,
    }
}

fn candidate_devices(
    supply: &DeviceSupply<'_>,
    addresses: &[PciAddress],
    ids: &[Candidate],
) -> Vec<CandidateDevice> {
    let total = supply.sharing.map_or(1, |sharing| sharing.replicas as usize);
    let mut start = 0;
    let share = |address: &PciAddress| {
        let own = ids[start..].iter().take_while(|other| other.id.address == *address);
        let (count, must) = own.fold((0, 0), |(count, must), candidate| {
            (count + 1, must + usize::from(!candidate.optional))
        });
        let first = start;
        start += count;
        CandidateDevice {
            group: supply.tree.chips.get(address).copied(),
            ids: first..start,
            must,
            least: 0,
            most: count,
            total,
        }
    };
    addresses.iter().map(share).collect()
}
