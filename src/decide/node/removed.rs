//! Devices whose hardware left while a pod may still hold them.
//!
//! A kubelet reports a device that is not in the list as Healthy to the pod that holds it (kubelet
//! 1.36, cm/devicemanager, `UpdateAllocatedResourcesStatus`). So a device that left stays listed,
//! unhealthy and without nodes, until PodResources shows that no pod holds it; without PodResources,
//! for a fixed time. Hardware that is there again replaces what left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::holdings::PodResourcesState;
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::health::{Health, Reason, ReasonCode};
use crate::model::inventory::{Inventory, SkipReason};
use crate::model::pci::{PciAddress, PciId};
use crate::model::pod_usage::{HeldDevices, Holder, KubeletInstance, PodUsage};

/// How long things are remembered without PodResources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a device that left stays listed while it is not known whether a pod holds it.
    pub unknown: Duration,
    /// How long a kubelet runs until it knows all of its pods. A younger one that does not show a
    /// holder proves nothing.
    pub kubelet_start: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { unknown: Duration::from_secs(5 * 60), kubelet_start: Duration::from_secs(30) }
    }
}

/// The hardware and the lists of one inventory.
#[derive(Clone, Debug, Default)]
pub struct Present {
    resources: Vec<Resource>,
    chips: BTreeMap<PciAddress, PciId>,
    skipped: BTreeMap<PciAddress, SkipReason>,
}

impl Present {
    /// What `inventory` has and `resources` offer of it.
    #[must_use]
    pub fn new(inventory: &Inventory, resources: &[Resource]) -> Self {
        let chips = inventory.chips_by_board().map(|chip| (chip.address, chip.id)).collect();
        let skipped = inventory.skipped.iter();
        let skipped = skipped.map(|skipped| (skipped.address, skipped.reason.clone())).collect();
        Self { resources: resources.to_vec(), chips, skipped }
    }

    fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

/// What the machine has now, and what left it and is still listed. Times are on the daemon's clock.
#[derive(Clone, Debug)]
pub struct RemovedDevices {
    retention: Retention,
    present: Option<Present>,
    /// By resource and by id without replica.
    removed: BTreeMap<(String, DeviceId), RemovedDevice>,
}

#[derive(Clone, Debug)]
struct RemovedDevice {
    device: Device,
    /// What its chips were; empty where it left before this process started.
    chips: BTreeMap<PciAddress, PciId>,
    since: Duration,
    /// Who holds it, and which kubelet showed that last.
    holder: Option<(Holder, KubeletInstance)>,
}

impl RemovedDevices {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self { retention, present: None, removed: BTreeMap::new() }
    }

    /// Takes in what is there at the time `now`: some devices may have left, some come back.
    pub fn observe(&mut self, present: Present, now: Duration) {
        if let Some(before) = &self.present {
            self.removed.extend(gone_devices(before, &present, now));
        }
        self.removed.retain(|(resource, id), removed| {
            let resource = present.resource(resource);
            resource.is_some_and(|resource| !has(resource, *id)) && !removed.is_back(&present.chips)
        });
        self.present = Some(present);
    }

    /// Takes in an answer of the kubelet. Held devices that the machine does not have are listed
    /// from now on, also those that left before this process started.
    pub fn answered(&mut self, usage: &PodUsage) {
        self.removed.retain(|(resource, id), removed| {
            let holder = holder_of(&usage.held, resource, *id);
            usage.queried_at <= removed.since || removed.stays(holder, usage.kubelet)
        });
        let unknown = self.present.as_ref().map(|present| unknown_devices(present, usage));
        for (key, removed) in unknown.into_iter().flatten() {
            self.removed.entry(key).or_insert(removed);
        }
    }

    /// Removes the devices whose time is over at `now`.
    pub fn expire(&mut self, now: Duration) {
        let retention = self.retention;
        self.removed.retain(|_, removed| removed.expiry(retention).is_none_or(|end| now < end));
    }

    /// When the next device leaves the list, if the kubelet goes on saying nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.removed.values().filter_map(|removed| removed.expiry(self.retention)).min()
    }

    /// Adds the devices that left to the lists of their resources.
    pub fn add_to(&self, resources: &mut [Resource], source: PodResourcesState) {
        for ((name, _), removed) in &self.removed {
            let resource = resources.iter_mut().find(|resource| resource.name == *name);
            if let Some(resource) = resource {
                resource.devices.push(self.listed(removed, source));
                resource.devices.sort_by_key(|device| device.id);
            }
        }
    }

    /// Chips of the devices that left and are still listed.
    #[must_use]
    pub fn chips(&self) -> BTreeSet<PciAddress> {
        self.removed.values().flat_map(|removed| &removed.device.chips).copied().collect()
    }

    /// The sentence names no seconds that pass: a list that changes each second would be sent each
    /// second.
    fn listed(&self, removed: &RemovedDevice, source: PodResourcesState) -> Device {
        let address = removed.device.id.address;
        let skipped = self.present.as_ref().and_then(|present| present.skipped.get(&address));
        let what = match skipped {
            Some(reason) => format!("{address} is {reason}"),
            None if removed.chips.is_empty() => format!("{address} is not on the PCI bus"),
            None => format!("{address} left the PCI bus"),
        };
        let why = match (&removed.holder, source) {
            (Some((holder, _)), _) => format!("still held by {holder}"),
            (None, PodResourcesState::Unavailable) => format!(
                "stays listed for {} s, since the kubelet does not report whether a pod holds it",
                self.retention.unknown.as_secs()
            ),
            (None, _) => "asking the kubelet whether a pod holds it".to_owned(),
        };
        Device {
            nodes: Vec::new(),
            health: Health::Unhealthy,
            reasons: vec![Reason { code: ReasonCode::Removed, detail: format!("{what}; {why}") }],
            awaits_kubelet: removed.holder.is_none() && source != PodResourcesState::Unavailable,
            ..removed.device.clone()
        }
    }
}

impl RemovedDevice {
    /// Whether it is still to be listed after an answer in which `holder` holds it. A kubelet that
    /// showed its holder before, or that knows its pods, is believed when it shows none.
    fn stays(&mut self, holder: Option<&Holder>, kubelet: KubeletInstance) -> bool {
        if let Some(holder) = holder {
            self.holder = Some((holder.clone(), kubelet));
            return true;
        }
        let is_believed = |by: &KubeletInstance| kubelet.knows_its_pods || by.id == kubelet.id;
        self.holder.as_ref().is_some_and(|(_, by)| !is_believed(by))
    }

    /// None while it is known to be held: then only answers end it.
    fn expiry(&self, retention: Retention) -> Option<Duration> {
        self.holder.is_none().then(|| self.since.saturating_add(retention.unknown))
    }

    /// All its chips are there as they were, so whoever does not list it does so on purpose.
    fn is_back(&self, present: &BTreeMap<PciAddress, PciId>) -> bool {
        !self.chips.is_empty() && self.chips.iter().all(|(chip, id)| present.get(chip) == Some(id))
    }
}

type Keyed = ((String, DeviceId), RemovedDevice);

/// Devices that were there before and whose hardware is not. One that the configuration no longer
/// wants has not left.
fn gone_devices(before: &Present, now: &Present, since: Duration) -> Vec<Keyed> {
    let mut gone = Vec::new();
    for resource in &before.resources {
        let Some(current) = now.resource(&resource.name) else { continue };
        for device in resource.devices.iter().filter(|device| !has(current, device.id)) {
            let mut chips = device.chips.iter();
            if chips.any(|chip| now.chips.get(chip) != before.chips.get(chip)) {
                let removed = removed_device(device, before, since);
                gone.push(((resource.name.clone(), device.id), removed));
            }
        }
    }
    gone
}

fn removed_device(device: &Device, before: &Present, since: Duration) -> RemovedDevice {
    let known = |chip: &PciAddress| Some((*chip, *before.chips.get(chip)?));
    let chips = device.chips.iter().filter_map(known).collect();
    RemovedDevice { device: device.clone(), chips, since, holder: None }
}

/// Devices that are held but that the machine does not have: they left before the first scan.
fn unknown_devices(present: &Present, usage: &PodUsage) -> Vec<Keyed> {
    let held = present.resources.iter().flat_map(|resource| {
        usage.held.of_resource(&resource.name).map(move |(id, holder)| (resource, id, holder))
    });
    held.filter_map(|(resource, text, holder)| {
        let id = own_id(resource, text)?;
        let is_there = has(resource, id) || present.chips.contains_key(&id.address);
        (!is_there).then(|| {
            let removed = RemovedDevice {
                device: unknown_device(id),
                chips: BTreeMap::new(),
                since: usage.queried_at,
                holder: Some((holder.clone(), usage.kubelet)),
            };
            ((resource.name.clone(), id), removed)
        })
    })
    .collect()
}

/// The id without replica of a text that this resource would list; none for texts of other forms,
/// as other plugins, or this one under another configuration, may have given them.
fn own_id(resource: &Resource, text: &str) -> Option<DeviceId> {
    let id: DeviceId = text.parse().ok()?;
    resource.lists(id).then(|| DeviceId::whole(id.address))
}

fn unknown_device(id: DeviceId) -> Device {
    Device {
        id,
        chips: vec![id.address],
        nodes: Vec::new(),
        health: Health::Unhealthy,
        reasons: Vec::new(),
        awaits_kubelet: false,
        numa_nodes: Vec::new(),
    }
}

/// Whatever form the id has: the resource may have been shared when it was given, and not be now.
fn holder_of<'a>(held: &'a HeldDevices, resource: &str, id: DeviceId) -> Option<&'a Holder> {
    let is_of = |text: &str| text.parse().is_ok_and(|held: DeviceId| held.address == id.address);
    held.of_resource(resource).find_map(|(text, holder)| is_of(text).then_some(holder))
}

fn has(resource: &Resource, id: DeviceId) -> bool {
    resource.devices.iter().any(|device| device.id == id)
}

#[cfg(test)]
pub(in crate::decide) mod tests;
