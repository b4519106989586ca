//! The environment variables of a container that name its devices.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::config::{ContainerRules, VisibleDevices};
use crate::model::device::{Device, DeviceId};
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// The names of the vendor's plugin since 4.4.
const VISIBLE: &str = "IX_VISIBLE_DEVICES";
const REPLICAS: &str = "IX_REPLICA_DEVICES";
/// Its names up to 4.3.
const LEGACY_VISIBLE: &str = "ILUVATAR_COREX_VISIBLE_DEVICES";
const LEGACY_REPLICAS: &str = "ILUVATAR_COREX_REPLICA_DEVICES";

/// A chip whose UUID is needed and not known.
pub(super) struct MissingUuid(pub(super) PciAddress);

/// The variables for these devices. A value is never an integer, which the vendor's container
/// toolkit would take for an index of its own, and never missing, which it would take for all GPUs.
pub(super) fn environment(
    rules: ContainerRules,
    inventory: &Inventory,
    devices: &BTreeMap<DeviceId, &Device>,
) -> Result<BTreeMap<String, String>, MissingUuid> {
    let (visible, replicas) = match rules.visible_devices {
        VisibleDevices::Addresses => (join(chips(devices)), join(devices.keys())),
        VisibleDevices::Uuids => (chip_uuids(inventory, devices)?, ids(inventory, devices)?),
        VisibleDevices::None => ("none".to_owned(), join(devices.keys())),
        VisibleDevices::Void => ("void".to_owned(), join(devices.keys())),
    };
    let mut variables = vec![(VISIBLE, visible.clone()), (REPLICAS, replicas.clone())];
    if rules.legacy_variables {
        variables.extend([(LEGACY_VISIBLE, visible), (LEGACY_REPLICAS, replicas)]);
    }
    Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Every chip once, ascending.
fn chips(devices: &BTreeMap<DeviceId, &Device>) -> BTreeSet<PciAddress> {
    devices.values().flat_map(|device| &device.chips).copied().collect()
}

fn chip_uuids(
    inventory: &Inventory,
    devices: &BTreeMap<DeviceId, &Device>,
) -> Result<String, MissingUuid> {
    let uuids = chips(devices).into_iter().map(|chip| uuid(inventory, chip));
    Ok(join(uuids.collect::<Result<Vec<_>, _>>()?))
}

/// The ids as the vendor's plugin writes them: the UUID of a board's first chip, and the number of
/// the replica.
fn ids(
    inventory: &Inventory,
    devices: &BTreeMap<DeviceId, &Device>,
) -> Result<String, MissingUuid> {
    let id = |(id, device): (&DeviceId, &&Device)| {
        let first = device.chips.first().copied().unwrap_or(id.address);
        let uuid = uuid(inventory, first)?;
        Ok(id.replica.map_or(uuid.clone(), |replica| format!("{uuid}::{replica}")))
    };
    Ok(join(devices.iter().map(id).collect::<Result<Vec<_>, _>>()?))
}

fn uuid(inventory: &Inventory, chip: PciAddress) -> Result<String, MissingUuid> {
    let found = inventory.chip(chip).and_then(|chip| chip.uuid.as_ref());
    found.map(ToString::to_string).ok_or(MissingUuid(chip))
}

/// Comma-separated.
fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
