//! Lists that a kubelet can receive: a larger one would end the stream.

use std::collections::{BTreeMap, BTreeSet};

use super::advertise::advertise;
use crate::model::config::Config;
use crate::model::device::{DeviceId, Resource};
use crate::model::inventory::Inventory;
use crate::model::warning::{Subject, Warning, WarningCode};

/// The largest list a kubelet reads, in bytes: the receive limit of grpc-go, which it does not
/// change. A longer message ends the stream.
pub const KUBELET_LIST_LIMIT: u64 = 4 << 20;

/// `ffffffff:ff:1f.7`, with the widest domain there is.
const ADDRESS: u64 = 16;
const REPLICA_SEPARATOR: u64 = 2;
/// Tag and length of a protobuf field whose content is shorter than 128 bytes.
const FIELD: u64 = 2;
/// `Unhealthy`, the longer of the two words.
const HEALTH: u64 = FIELD + 9;
/// Two `NUMANode`s, more than which no board spans; the number of a node is 32 bits, five bytes.
const TOPOLOGY: u64 = FIELD + 2 * (FIELD + 1 + 5);
/// What a replica takes in a list besides the digits of its index.
const REPLICA: u64 = FIELD + FIELD + ADDRESS + REPLICA_SEPARATOR + HEALTH + TOPOLOGY;

/// Whether a resource's list is one that a kubelet receives, in the worst case of
/// [`largest_replicas`].
#[must_use]
pub fn fits(resource: &Resource) -> bool {
    let replicas = resource.sharing.map_or(1, |sharing| sharing.replicas);
    replicas <= largest_replicas(resource.devices.len())
}

/// The most replicas of each of `devices` devices that fit into one list in the worst case:
/// every address of full length, all unhealthy, each on two NUMA nodes of large number.
///
/// Without a device everything fits.
#[must_use]
pub fn largest_replicas(devices: usize) -> u32 {
    let Some(mut budget) = KUBELET_LIST_LIMIT.checked_div(devices as u64) else {
        return u32::MAX;
    };
    let mut replicas = 0;
    // Indices of one length cost the same: 0..=9, then 10..=99, and so on.
    let (mut first, mut digits) = (0, 1);
    loop {
        let end = 10_u64.pow(digits);
        let fit = (budget / (REPLICA + u64::from(digits))).min(end - first);
        replicas += fit;
        if fit < end - first {
            return u32::try_from(replicas).unwrap_or(u32::MAX);
        }
        budget -= fit * (REPLICA + u64::from(digits));
        (first, digits) = (end, digits + 1);
    }
}

/// The devices of each resource's last list that fits.
#[derive(Clone, Debug, Default)]
pub struct ListLimit {
    fitting: BTreeMap<String, BTreeSet<DeviceId>>,
}

impl ListLimit {
    /// Leaves devices out where a list would be too large: it keeps those that the last list that
    /// fitted had, and warns of those left out.
    pub fn apply(&mut self, resources: &mut [Resource], warnings: &mut Vec<Warning>) {
        self.fitting.retain(|name, _| resources.iter().any(|resource| resource.name == *name));
        for resource in resources {
            if fits(resource) {
                let ids = resource.devices.iter().map(|device| device.id).collect();
                self.fitting.insert(resource.name.clone(), ids);
            } else if let Some(ids) = self.fitting.get(&resource.name) {
                warnings.push(leave_out(resource, ids));
            }
        }
    }
}

fn leave_out(resource: &mut Resource, fitting: &BTreeSet<DeviceId>) -> Warning {
    let (kept, out): (Vec<_>, Vec<_>) = std::mem::take(&mut resource.devices)
        .into_iter()
        .partition(|device| fitting.contains(&device.id));
    resource.devices = kept;
    let out: Vec<_> = out.iter().map(|device| device.id.to_string()).collect();
    let detail = format!(
        "{} left out, since the list would exceed the kubelet's limit of 4 MiB: {}; lower \
         sharing.timeSlicing.replicas",
        if out.len() == 1 {
            "1 device is".to_owned()
        } else {
            format!("{} devices are", out.len())
        },
        out.join(", ")
    );
    let subject = Subject::Resource(resource.name.clone());
    Warning { code: WarningCode::ListTooLarge, subject, detail }
}

/// As [`oversized`], of the lists that `config` would make of this inventory.
#[must_use]
pub fn oversized_under(inventory: &Inventory, config: &Config) -> Option<String> {
    oversized(&advertise(inventory, &config.resources).resources)
}

/// What is wrong where a list is larger than a kubelet receives, with the number that would fit.
#[must_use]
pub fn oversized(resources: &[Resource]) -> Option<String> {
    let resource = resources.iter().find(|resource| !fits(resource))?;
    let (name, devices) = (&resource.name, resource.devices.len());
    let replicas = resource.sharing.map_or(1, |sharing| sharing.replicas);
    let largest = largest_replicas(devices);
    Some(format!(
        "{name}: {replicas} replicas of each of {devices} devices make a list above the kubelet's \
         limit of 4 MiB; at most {largest} fit"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::MAX_REPLICAS;

    #[test]
    fn the_largest_number_fits_and_one_more_does_not() {
        for devices in [1, 2, 16, 64, 1000, 70_000] {
            let largest = u64::from(largest_replicas(devices));
            let size = |replicas: u64| -> u64 {
                let each: u64 =
                    (0..replicas).map(|index| REPLICA + index.to_string().len() as u64).sum();
                each * devices as u64
            };
            assert!(size(largest) <= KUBELET_LIST_LIMIT, "{devices} devices");
            assert!(size(largest + 1) > KUBELET_LIST_LIMIT, "{devices} devices");
        }
    }

    #[test]
    fn a_node_without_devices_can_share_at_will() {
        assert_eq!(largest_replicas(0), u32::MAX);
    }

    #[test]
    fn the_configurations_bound_is_what_fits_for_a_single_device() {
        assert_eq!(largest_replicas(1), MAX_REPLICAS);
    }
}
