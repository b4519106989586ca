//! The objective read word by word, over every subset: slow, and right.

use std::collections::BTreeSet;

use super::node::Node;
use crate::decide::allocation::prefer::{Choice, Score};
use crate::model::config::SharingPolicy;
use crate::model::device::DeviceId;
use crate::model::pci::PciAddress;
use crate::model::topology::{Distance, GroupKind};

/// Every id of a request, and what the objective asks of sets of them. Sets are bits.
pub(super) struct Oracle<'a> {
    node: &'a Node,
    ids: Vec<DeviceId>,
    /// Cost of the pair, by index.
    distances: Vec<Vec<u64>>,
    /// For each device its ids.
    devices: Vec<u32>,
    /// Whole boards and switches.
    boards: Vec<u32>,
    switches: Vec<u32>,
    /// Subsets that may be the answer: those of the right size that have what must be included.
    choices: Vec<(Score, u32)>,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(
        node: &'a Node,
        available: &[DeviceId],
        must: &[DeviceId],
        size: usize,
    ) -> Self {
        let known: BTreeSet<_> = all_ids(node).into_iter().collect();
        let asked: BTreeSet<_> = available.iter().chain(must).copied().collect();
        let ids: Vec<_> = asked.intersection(&known).copied().collect();
        let sets = choices(&ids, must, size);
        let mut oracle = Self {
            distances: distances(node, &ids),
            devices: Vec::new(),
            boards: Vec::new(),
            switches: Vec::new(),
            choices: Vec::new(),
            node,
            ids,
        };
        for device in &node.devices {
            oracle.devices.push(oracle.set(|id| id.address == device.id.address));
        }
        for group in 0..node.tree.groups.len() {
            oracle.add_whole(group);
        }
        oracle.choices = sets.into_iter().map(|set| (oracle.score(set), set)).collect();
        oracle
    }

    fn add_whole(&mut self, group: usize) {
        let below = |address: &PciAddress| path(self.node, *address).contains(&group);
        let addresses: BTreeSet<_> = self.node.tree.chips.keys().copied().filter(below).collect();
        let offered = all_ids(self.node);
        let mut offered = offered.iter().filter(|id| addresses.contains(&id.address));
        if !offered.clone().any(|_| true) || !offered.all(|id| self.ids.contains(id)) {
            return;
        }
        let own = |id: &DeviceId| addresses.contains(&id.address);
        let set = self.set(own);
        match self.node.tree.groups[group].kind {
            GroupKind::Board(_) => self.boards.push(set),
            GroupKind::Port(_) if self.sides(group) > 1 => self.switches.push(set),
            _ => {}
        }
    }

    /// How many children of a group, chips of its own among them, have devices.
    fn sides(&self, group: usize) -> usize {
        let devices = self.node.devices.iter().map(|device| device.id.address);
        let sides = devices.filter_map(|address| {
            let path = path(self.node, address);
            let at = path.iter().position(|step| *step == group)?;
            Some(if at == 0 { Err(address) } else { Ok(path[at - 1]) })
        });
        sides.collect::<BTreeSet<_>>().len()
    }

    fn set(&self, has: impl Fn(&DeviceId) -> bool) -> u32 {
        let bits = self.ids.iter().enumerate();
        bits.map(|(index, id)| u32::from(has(id)) << index).sum()
    }

    pub(super) fn best(&self) -> Choice {
        self.best_where(|_| true).expect("there is a choice")
    }

    /// The best choice that is not of the same devices.
    pub(super) fn second(&self, best: &Choice) -> Option<Choice> {
        let best = self.set(|id| best.ids.contains(id));
        let count = |set: u32, device: &u32| (set & device).count_ones();
        let differs = |set, device| count(set, device) != count(best, device);
        self.best_where(|set| self.devices.iter().any(|device| differs(set, device)))
    }

    fn best_where(&self, may: impl Fn(u32) -> bool) -> Option<Choice> {
        let choices = self.choices.iter().filter(|(_, set)| may(*set));
        let (score, set) = choices.min_by(|(one, ones), (other, others)| {
            let lists = || self.lists(*ones).cmp(&self.lists(*others));
            one.cmp(other).then_with(lists)
        })?;
        Some(Choice { ids: self.members(*set), score: *score })
    }

    /// The ascending lists of addresses, then of ids.
    fn lists(&self, set: u32) -> (Vec<PciAddress>, Vec<DeviceId>) {
        let ids = self.members(set);
        (ids.iter().map(|id| id.address).collect(), ids)
    }

    fn members(&self, set: u32) -> Vec<DeviceId> {
        let members = (0..self.ids.len()).filter(|index| set >> index & 1 == 1);
        members.map(|index| self.ids[index]).collect()
    }

    fn score(&self, set: u32) -> Score {
        let all = (1 << self.ids.len()) - 1;
        let broken = |whole: &[u32]| whole.iter().filter(|whole| *whole & set != 0).count() as u64;
        let (crowding, load) = self.sharing(set);
        Score {
            crowding,
            load,
            distance: self.total_distance(set),
            scatter: self.total_distance(all & !set),
            boards: broken(&self.boards),
            switches: broken(&self.switches),
        }
    }

    fn total_distance(&self, set: u32) -> u64 {
        let (mut total, mut ones) = (0, set);
        while ones != 0 {
            let row = &self.distances[ones.trailing_zeros() as usize];
            ones &= ones - 1;
            let mut others = ones;
            while others != 0 {
                total += row[others.trailing_zeros() as usize];
                others &= others - 1;
            }
        }
        total
    }

    fn sharing(&self, set: u32) -> (u64, u64) {
        let Some(sharing) = self.node.sharing else {
            return (0, 0);
        };
        let (mut pairs, mut devices, mut in_use, mut free) = (0, 0, 0, 0);
        for device in &self.devices {
            let before = u64::from(device.count_ones());
            let taken = u64::from((device & set).count_ones());
            pairs += (1..taken).sum::<u64>();
            devices += u64::from(taken > 0);
            in_use += taken * (u64::from(sharing.replicas) - before);
            free += taken * before;
        }
        match sharing.policy {
            SharingPolicy::Spread => (pairs, in_use),
            SharingPolicy::Pack => (devices, free),
        }
    }
}

fn all_ids(node: &Node) -> Vec<DeviceId> {
    let replicas = match node.sharing {
        None => vec![None],
        Some(sharing) => (0..sharing.replicas).map(Some).collect(),
    };
    let addresses = node.devices.iter().map(|device| device.id.address);
    let ids = |address| {
        let id = move |replica: &Option<u32>| DeviceId { address, replica: *replica };
        replicas.iter().map(id).collect::<Vec<_>>()
    };
    addresses.flat_map(ids).collect()
}

/// The groups that hold a chip, from its own to the machine.
fn path(node: &Node, address: PciAddress) -> Vec<usize> {
    let first = node.tree.chips.get(&address).copied();
    std::iter::successors(first, |group| node.tree.groups[*group].parent).collect()
}

fn distances(node: &Node, ids: &[DeviceId]) -> Vec<Vec<u64>> {
    let distance = |one: &DeviceId, other: &DeviceId| {
        if one.address == other.address {
            return 0;
        }
        let known = node.tree.distance(one.address, other.address);
        known.unwrap_or(Distance::Sys).cost()
    };
    let row = |one| ids.iter().map(|other| distance(one, other)).collect();
    ids.iter().map(row).collect()
}

fn choices(ids: &[DeviceId], must: &[DeviceId], size: usize) -> Vec<u32> {
    let must: u32 = (0..ids.len()).map(|i| u32::from(must.contains(&ids[i])) << i).sum();
    let too_many = must.count_ones() as usize > size;
    let size = size.min(ids.len());
    let fits = |set: &u32| set.count_ones() as usize == size;
    let may = |set: &u32| {
        if too_many { must & set == *set } else { must & set == must }
    };
    (0..1 << ids.len()).filter(fits).filter(may).collect()
}
