//! Devices that left the machine while a pod may still hold them.
//!
//! A kubelet tells a pod that a device which is not in the list is Healthy (kubelet 1.36,
//! cm/devicemanager, `UpdateAllocatedResourcesStatus`). So a device that left stays listed,
//! unhealthy and without nodes, until the kubelet says that nobody holds it; where the kubelet
//! says nothing, for a fixed time. What is there again replaces what left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::decide::node::advertise::NodeSnapshot;
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::health::{Health, Reason, ReasonCode};
use crate::model::inventory::Inventory;
use crate::model::pci::{PciAddress, PciId};
use crate::model::pod_usage::{HeldDevices, Holder};

/// How long a device that left stays listed, where no rule of the kubelet says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Since it left, where nobody says whether it is held.
    pub unknown: Duration,
    /// Since an answer first did not show it held any more. A kubelet that has just started answers
    /// before it knows its pods, and must not be taken at its word.
    pub released: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { unknown: Duration::from_secs(5 * 60), released: Duration::from_secs(30) }
    }
}

/// What the kubelet told of holders. Times are since any fixed moment, the same one everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// When it was asked for: what left later may be held, whatever the answer says.
    pub asked: Duration,
    /// Who holds what.
    pub holders: HeldDevices,
}

/// What the machine has now, and what left it and is still to be listed.
#[derive(Clone, Debug)]
pub struct RemovedDevices {
    retention: Retention,
    scanned: Option<NodeSnapshot>,
    /// By resource and by id without replica.
    left: BTreeMap<(String, DeviceId), RemovedDevice>,
}

#[derive(Clone, Debug)]
struct RemovedDevice {
    device: Device,
    /// What its chips were; empty where it left before we came.
    chips: BTreeMap<PciAddress, PciId>,
    since: Duration,
    /// As the last answer says that shows one.
    holder: Option<Holder>,
    /// When the first answer after that was asked for.
    released: Option<Duration>,
}

impl RemovedDevices {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self { retention, scanned: None, left: BTreeMap::new() }
    }

    /// Takes in what was found at the time `now`: some devices may have left, some come back.
    pub fn observe(&mut self, snapshot: NodeSnapshot, now: Duration) {
        let chips = chip_ids(&snapshot.inventory);
        if let Some(before) = &self.scanned {
            let gone = gone_devices(before, &snapshot, &chips, now);
            self.left.extend(gone);
        }
        self.left.retain(|(resource, id), removed_device| {
            let resource = snapshot.resource(resource);
            resource.is_some_and(|resource| !has(resource, *id)) && !removed_device.is_back(&chips)
        });
        self.scanned = Some(snapshot);
    }

    /// Takes in what the kubelet said. Held devices that the machine does not have are listed from
    /// now on, also those that left before we came.
    pub fn hear(&mut self, answer: &PodUsage) {
        let retention = self.retention;
        self.left.retain(|(resource, id), removed_device| {
            let holder = holder_of(&answer.holders, resource, *id);
            answer.asked <= removed_device.since
                || removed_device.stays(holder, answer.asked, retention)
        });
        let unknown = self.scanned.as_ref().map(|snapshot| unknown_devices(snapshot, answer));
        for (key, removed_device) in unknown.into_iter().flatten() {
            self.left.entry(key).or_insert(removed_device);
        }
    }

    /// Everything to be listed at the time `now`; none before anything was found.
    pub fn snapshot(&mut self, now: Duration) -> Option<NodeSnapshot> {
        let retention = self.retention;
        self.left.retain(|_, removed_device| {
            removed_device.expiry(retention).is_none_or(|end| now < end)
        });
        let mut snapshot = self.scanned.clone()?;
        for ((name, _), removed_device) in &self.left {
            let device = removed_device.listed(&snapshot.inventory, retention);
            let resource = snapshot.resources.iter_mut().find(|resource| resource.name == *name);
            if let Some(resource) = resource {
                resource.devices.push(device);
                resource.devices.sort_by_key(|device| device.id);
            }
        }
        Some(snapshot)
    }

    /// When the next device leaves the list, if the kubelet goes on saying nothing.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        self.left.values().filter_map(|removed_device| removed_device.expiry(self.retention)).min()
    }

    /// Chips of the devices that left and are still listed.
    #[must_use]
    pub fn chips(&self) -> BTreeSet<PciAddress> {
        self.left
            .values()
            .flat_map(|removed_device| &removed_device.device.chips)
            .copied()
            .collect()
    }
}

/// The devices of an offer that left.
pub fn removed(snapshot: &NodeSnapshot) -> impl Iterator<Item = (&Resource, &Device)> {
    snapshot.devices().filter(|(_, device)| is_removed(device))
}

/// Whether a device is listed only because it is, or may be, held.
#[must_use]
pub fn is_removed(device: &Device) -> bool {
    device.reasons.iter().any(|reason| reason.code == ReasonCode::Removed)
}

impl RemovedDevice {
    /// Whether it is still to be listed after an answer that was asked for at `asked`.
    fn stays(&mut self, holder: Option<&Holder>, asked: Duration, retention: Retention) -> bool {
        if holder.is_some() {
            self.holder = holder.cloned();
            self.released = None;
            return true;
        }
        let released = *self.released.get_or_insert(asked);
        self.holder.is_some() && asked.saturating_sub(released) < retention.released
    }

    /// None where an answer was seen that shows it held: then only answers end it.
    fn expiry(&self, retention: Retention) -> Option<Duration> {
        self.holder.is_none().then(|| self.since.saturating_add(retention.unknown))
    }

    /// All its chips are there as they were, so whoever does not list it does so on purpose.
    fn is_back(&self, there: &BTreeMap<PciAddress, PciId>) -> bool {
        !self.chips.is_empty() && self.chips.iter().all(|(chip, id)| there.get(chip) == Some(id))
    }

    /// The sentence says nothing of seconds that pass: a list that changes each second would be
    /// sent each second.
    fn listed(&self, inventory: &Inventory, retention: Retention) -> Device {
        let address = self.device.id.address;
        let skipped = inventory.skipped.iter().find(|skipped| skipped.address == address);
        let what = match skipped {
            Some(skipped) => format!("{address} is {}", skipped.reason),
            None if self.chips.is_empty() => format!("{address} is not on the PCI bus"),
            None => format!("{address} left the PCI bus"),
        };
        let why = match (&self.holder, self.released) {
            (Some(holder), None) => format!("still held by {holder}"),
            (Some(holder), Some(_)) => {
                format!(
                    "stays listed for {} s after {holder} let go of it",
                    retention.released.as_secs()
                )
            }
            (None, _) => format!(
                "stays listed for {} s, as it is not known whether a pod holds it",
                retention.unknown.as_secs()
            ),
        };
        let reason = Reason { code: ReasonCode::Removed, detail: format!("{what}; {why}") };
        Device {
            nodes: Vec::new(),
            health: Health::Unhealthy,
            reasons: vec![reason],
            ..self.device.clone()
        }
    }
}

type Keyed = ((String, DeviceId), RemovedDevice);

/// Devices that were there before and whose hardware is not. One that the configuration no longer
/// wants has not left.
fn gone_devices(
    before: &NodeSnapshot,
    now: &NodeSnapshot,
    chips: &BTreeMap<PciAddress, PciId>,
    since: Duration,
) -> Vec<Keyed> {
    let ids = chip_ids(&before.inventory);
    let devices = before
        .resources
        .iter()
        .flat_map(|resource| resource.devices.iter().map(move |device| (resource, device)));
    let gone = devices.filter(|(resource, device)| {
        let resource = now.resource(&resource.name);
        resource.is_some_and(|resource| !has(resource, device.id))
            && device.chips.iter().any(|chip| chips.get(chip) != ids.get(chip))
    });
    gone.map(|(resource, device)| {
        let known = |chip: &PciAddress| Some((*chip, *ids.get(chip)?));
        let removed_device = RemovedDevice {
            chips: device.chips.iter().filter_map(known).collect(),
            device: device.clone(),
            since,
            holder: None,
            released: None,
        };
        ((resource.name.clone(), device.id), removed_device)
    })
    .collect()
}

/// Devices that are held but that the machine does not have: they left before we looked first.
fn unknown_devices(snapshot: &NodeSnapshot, answer: &PodUsage) -> Vec<Keyed> {
    let chips = chip_ids(&snapshot.inventory);
    let held = snapshot.resources.iter().flat_map(|resource| {
        answer.holders.held(&resource.name).map(move |(id, holder)| (resource, id, holder))
    });
    held.filter_map(|(resource, text, holder)| {
        let id = own_id(resource, text)?;
        let is_there = has(resource, id) || chips.contains_key(&id.address);
        (!is_there).then(|| {
            let removed_device = RemovedDevice {
                device: unknown_device(id),
                chips: BTreeMap::new(),
                since: answer.asked,
                holder: Some(holder.clone()),
                released: None,
            };
            ((resource.name.clone(), id), removed_device)
        })
    })
    .collect()
}

/// The id without replica of a text that this resource would list; none for texts of other forms,
/// as other plugins, or this one under another configuration, may have given them.
fn own_id(resource: &Resource, text: &str) -> Option<DeviceId> {
    let id: DeviceId = text.parse().ok()?;
    let fits = match (id.replica, resource.sharing) {
        (None, None) => true,
        (Some(index), Some(sharing)) => index < sharing.replicas,
        _ => false,
    };
    fits.then(|| DeviceId::whole(id.address))
}

fn unknown_device(id: DeviceId) -> Device {
    Device {
        id,
        chips: vec![id.address],
        nodes: Vec::new(),
        health: Health::Unhealthy,
        reasons: Vec::new(),
        numa_nodes: Vec::new(),
    }
}

/// Whatever form the id has: the resource may have been shared when it was given, and not be now.
fn holder_of<'a>(holders: &'a HeldDevices, resource: &str, id: DeviceId) -> Option<&'a Holder> {
    let is_of = |text: &str| text.parse().is_ok_and(|held: DeviceId| held.address == id.address);
    holders.held(resource).find_map(|(text, holder)| is_of(text).then_some(holder))
}

fn has(resource: &Resource, id: DeviceId) -> bool {
    resource.devices.iter().any(|device| device.id == id)
}

fn chip_ids(inventory: &Inventory) -> BTreeMap<PciAddress, PciId> {
    let chips = inventory.chips_by_board();
    chips.map(|chip| (chip.address, chip.id)).collect()
}

#[cfg(test)]
pub(in crate::decide) mod tests;
