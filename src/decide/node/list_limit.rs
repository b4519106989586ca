//! Lists that a kubelet can receive: a larger one would end the stream.

use std::collections::{BTreeMap, BTreeSet};

use super::advertise::advertise;
use crate::model::config::Config;
use crate::model::device::{DeviceId, Resource};
use crate::model::inventory::Inventory;
use crate::model::list_size::{fits, largest_replicas};
use crate::model::warning::{Subject, Warning, WarningCode};

/// The devices of each resource's last list that fits.
#[derive(Clone, Debug, Default)]
pub struct ListLimit {
    fitting: BTreeMap<String, BTreeSet<DeviceId>>,
}

impl ListLimit {
    /// Leaves devices out where a list would be too large: it keeps those that the last list that
    /// fitted had, and says which are left out.
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
