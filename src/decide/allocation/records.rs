//! Whether the chips that a container was allocated are still the ones that it would open.
//!
//! The kubelet restarts a container with the answer to its first Allocate, however old. Device nodes
//! are named by minor numbers, which the driver assigns anew when chips come back, so the same path
//! may lead to another chip by then.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::model::allocation::{AllocatedChip, AllocationRecord, AllocationRecords};
use crate::model::board::Chip;
use crate::model::cdi::{CdiKind, CdiName, CdiSpec};
use crate::model::device::{Device, DeviceId};
use crate::model::inventory::Inventory;
use crate::model::pci::{PciAddress, PciId};

/// How a container gets the device nodes of its chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeDelivery {
    /// As device nodes, with or without CDI names.
    DeviceNodes,
    /// As CDI names only.
    CdiNames,
}

/// The record of a device that is allocated now.
#[must_use]
pub fn record(inventory: &Inventory, device: &Device, delivery: NodeDelivery) -> AllocationRecord {
    let chips = device.chips.iter().filter_map(|address| {
        let chip = find_chip(inventory, *address)?;
        let path = &chip.node.as_ref()?.path;
        let node = (delivery == NodeDelivery::DeviceNodes).then(|| path.clone());
        Some(AllocatedChip { address: chip.address, id: chip.id, node })
    });
    AllocationRecord { chips: chips.collect() }
}

/// Why a container must not start with the devices that it was allocated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerificationError {
    /// The chip is not there.
    #[error("{id}: chip {address} was removed after it was allocated{REMEDY}")]
    Removed {
        /// The device.
        id: DeviceId,
        /// The chip.
        address: PciAddress,
    },
    /// Another chip is at its address.
    #[error("{id}: chip {address} was allocated as {was} but is now {now}{REMEDY}")]
    Replaced {
        /// The device.
        id: DeviceId,
        /// The address of both chips.
        address: PciAddress,
        /// PCI id when it was allocated.
        was: PciId,
        /// PCI id now.
        now: PciId,
    },
    /// The chip's node is another one.
    #[error("{id}: chip {address} was allocated as {was} but is now {now}{REMEDY}")]
    Renumbered {
        /// The device.
        id: DeviceId,
        /// The chip.
        address: PciAddress,
        /// Path when it was allocated.
        was: String,
        /// Path now, or that there is none.
        now: String,
    },
    /// No runtime would resolve the chip's CDI name to its node.
    #[error(
        "{id}: chip {address} was allocated as {name}, but no CDI spec gives that name its device \
         node now{REMEDY}"
    )]
    Unnamed {
        /// The device.
        id: DeviceId,
        /// The chip.
        address: PciAddress,
        /// The name, qualified.
        name: String,
    },
}

const REMEDY: &str = "; delete the pod, so that its replacement is allocated devices again";

/// Verifies one id that a container is about to start with. `on_disk` is the spec that its runtime
/// finds.
///
/// # Errors
/// The first chip that is not what it was, or that the container would not get.
pub fn verify(
    id: DeviceId,
    record: &AllocationRecord,
    now: &Inventory,
    on_disk: Option<&CdiSpec>,
) -> Result<(), VerificationError> {
    record.chips.iter().try_for_each(|chip| verify_chip(id, chip, now, on_disk))
}

fn verify_chip(
    id: DeviceId,
    was: &AllocatedChip,
    now: &Inventory,
    on_disk: Option<&CdiSpec>,
) -> Result<(), VerificationError> {
    let address = was.address;
    let Some(chip) = find_chip(now, address) else {
        return Err(VerificationError::Removed { id, address });
    };
    if chip.id != was.id {
        return Err(VerificationError::Replaced { id, address, was: was.id, now: chip.id });
    }
    let node = chip.node.as_ref().map(|node| &*node.path);
    match was.node.as_deref() {
        None if node.is_some() && named_node(on_disk, address) == node => Ok(()),
        None => {
            let name = CdiName::Chip(address).qualified(CdiKind::DevicePlugin);
            Err(VerificationError::Unnamed { id, address, name })
        }
        Some(path) if node == Some(path) => Ok(()),
        Some(path) => {
            let (was, now) = (path.to_owned(), node.unwrap_or("without a device node").to_owned());
            Err(VerificationError::Renumbered { id, address, was, now })
        }
    }
}

/// The node that a runtime finds by the chip's name.
fn named_node(on_disk: Option<&CdiSpec>, chip: PciAddress) -> Option<&str> {
    on_disk?.devices.get(&CdiName::Chip(chip))?.first().map(String::as_str)
}

fn find_chip(inventory: &Inventory, address: PciAddress) -> Option<&Chip> {
    let mut chips = inventory.chips_by_board();
    chips.find(|chip| chip.address == address)
}

/// A chip whose device node changed after it was allocated. A container that runs since then still
/// has access to the old path, whatever chip that leads to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenumberedChip {
    /// The resource of the allocation.
    pub resource: String,
    /// The device, as the kubelet names it.
    pub id: DeviceId,
    /// The chip.
    pub chip: PciAddress,
    /// Path of its node when it was allocated.
    pub was: String,
    /// Path of its node now; none where it has none or was removed.
    pub now: Option<String>,
    /// The chip that has the old path now.
    pub now_at_old_path: Option<PciAddress>,
}

/// Every recorded chip whose device node changed, by resource and id. Chips allocated by CDI name
/// only are left out: their record has no path.
///
/// A record stays when its pod ends. The caller must know which ids pods still hold.
#[must_use]
pub fn renumbered(records: &AllocationRecords, inventory: &Inventory) -> Vec<RenumberedChip> {
    let node = |chip: &'_ Chip| Some((chip.address, chip.node.as_ref()?.path.clone()));
    let nodes: BTreeMap<_, _> = inventory.chips_by_board().filter_map(node).collect();
    let chips: BTreeMap<_, _> = nodes.iter().map(|(chip, path)| (&**path, *chip)).collect();
    let changed = allocated_nodes(records).filter_map(|(resource, id, chip, was)| {
        let now = nodes.get(&chip).cloned();
        (now.as_deref() != Some(was)).then(|| RenumberedChip {
            resource: resource.to_owned(),
            id,
            chip,
            was: was.to_owned(),
            now,
            now_at_old_path: chips.get(was).copied(),
        })
    });
    changed.collect()
}

/// Each recorded chip with its path: resource, id, chip, path.
fn allocated_nodes(
    records: &AllocationRecords,
) -> impl Iterator<Item = (&str, DeviceId, PciAddress, &str)> {
    let devices = records.iter().flat_map(|(resource, devices)| {
        devices.iter().map(move |(id, record)| (&**resource, *id, record))
    });
    devices.flat_map(|(resource, id, record)| {
        let chips = record.chips.iter();
        chips.filter_map(move |chip| Some((resource, id, chip.address, chip.node.as_deref()?)))
    })
}

/// Whether `known` has all records of `others` as they are there.
#[must_use]
pub fn contains(known: &AllocationRecords, others: &AllocationRecords) -> bool {
    others.iter().all(|(resource, devices)| {
        let known = known.get(resource);
        devices.iter().all(|(id, record)| known.and_then(|known| known.get(id)) == Some(record))
    })
}

/// Adds `newer` records; where both have an id, the newer one counts.
pub fn merge(known: &mut AllocationRecords, newer: &AllocationRecords) {
    for (resource, devices) in newer {
        let entry = known.entry(resource.clone()).or_default();
        entry.extend(devices.iter().map(|(id, record)| (*id, record.clone())));
    }
}

/// Removes the records that are in `done` as they are there. One that changed since then stays.
pub fn forget(known: &mut AllocationRecords, done: &AllocationRecords) {
    known.retain(|resource, devices| {
        let done = done.get(resource);
        devices.retain(|id, record| done.and_then(|done| done.get(id)) != Some(record));
        !devices.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::node::advertise::advertise;
    use crate::decide::node::state::snapshot_of;
    use crate::decide::scan_builder::{ScanBuilder, UNKNOWN};
    use crate::model::config::Config;

    const ADDRESS: &str = "0000:13:00.0";

    fn id() -> DeviceId {
        ADDRESS.parse().unwrap()
    }

    fn allocated(node: &str) -> AllocationRecords {
        let id_of_chip = "1e3e:0002".parse().unwrap();
        let chip = AllocatedChip {
            address: id().address,
            id: id_of_chip,
            node: Some(format!("/dev/{node}")),
        };
        AllocationRecords::from([(
            "a.b/c".to_owned(),
            [(id(), AllocationRecord { chips: vec![chip] })].into(),
        )])
    }

    #[test]
    fn a_newer_record_replaces_an_older_one() {
        let mut known = allocated("iluvatar0");
        merge(&mut known, &allocated("iluvatar1"));
        assert_eq!(known, allocated("iluvatar1"));
    }

    #[test]
    fn a_record_that_changed_meanwhile_is_not_forgotten() {
        let mut known = allocated("iluvatar1");
        forget(&mut known, &allocated("iluvatar0"));
        assert_eq!(known, allocated("iluvatar1"));
        forget(&mut known, &allocated("iluvatar1"));
        assert_eq!(known, AllocationRecords::new());
    }

    #[test]
    fn a_refusal_names_the_device_what_changed_and_the_remedy() {
        let (id, address) = (id(), id().address);
        let refusals = [
            VerificationError::Removed { id, address },
            VerificationError::Replaced {
                id,
                address,
                was: "1e3e:0002".parse().unwrap(),
                now: "1e3e:0003".parse().unwrap(),
            },
            VerificationError::Renumbered {
                id,
                address,
                was: "/dev/iluvatar0".to_owned(),
                now: "without a device node".to_owned(),
            },
            VerificationError::Unnamed {
                id,
                address,
                name: CdiName::Chip(address).qualified(CdiKind::DevicePlugin),
            },
        ];
        let what = [
            "chip 0000:13:00.0 was removed after it was allocated",
            "chip 0000:13:00.0 was allocated as 1e3e:0002 but is now 1e3e:0003",
            "chip 0000:13:00.0 was allocated as /dev/iluvatar0 but is now without a device node",
            "chip 0000:13:00.0 was allocated as iluvatar.com/gpu=0000:13:00.0, but no CDI spec \
             gives that name its device node now",
        ];
        let remedy = "; delete the pod, so that its replacement is allocated devices again";
        for (refusal, what) in refusals.iter().zip(what) {
            assert_eq!(refusal.to_string(), format!("0000:13:00.0: {what}{remedy}"));
        }
    }

    /// The chips 14:00.0 and 17:00.0 of one board, with nodes of these minors; none for `None`.
    fn board(minors: [Option<u32>; 2]) -> Inventory {
        let mut sample = ScanBuilder::default().dual_board("00:01.0", 0x10, UNKNOWN);
        for (chip, minor) in ["14:00.0", "17:00.0"].into_iter().zip(minors) {
            let Some(minor) = minor else { continue };
            let name = format!("iluvatar{minor}");
            sample =
                sample.node(&format!("/dev/{name}"), minor).class_device(&name, minor, Some(chip));
        }
        (*snapshot_of(sample.scan(), &Config::default()).inventory).clone()
    }

    /// The board, recorded as one device of `a.b/c` with the nodes of [`board`].
    fn board_record(minors: [u32; 2], delivery: NodeDelivery) -> AllocationRecords {
        let inventory = board(minors.map(Some));
        let resources = advertise(&inventory, &Config::default().resources);
        let device = &resources.resources[0].devices[0];
        let record = record(&inventory, device, delivery);
        [("a.b/c".to_owned(), [(device.id, record)].into())].into()
    }

    /// `CHIP: OLD PATH -> NEW PATH, the old one is now CHIP'S`.
    fn shown(records: &AllocationRecords, now: &Inventory) -> Vec<String> {
        let shown = renumbered(records, now).into_iter().map(|it| {
            assert_eq!((&*it.resource, it.id.to_string()), ("a.b/c", "0000:14:00.0".to_owned()));
            let now = it.now.as_deref().unwrap_or("none");
            let other = it.now_at_old_path.map(|chip| format!(", now of {chip}"));
            format!("{}: {} -> {now}{}", it.chip, it.was, other.unwrap_or_default())
        });
        shown.collect()
    }

    #[test]
    fn a_chip_whose_node_changed_is_found_with_the_chip_that_has_its_old_node() {
        let records = board_record([0, 1], NodeDelivery::DeviceNodes);
        assert_eq!(shown(&records, &board([Some(0), Some(1)])), [""; 0]);
        assert_eq!(
            shown(&records, &board([Some(1), Some(0)])),
            [
                "0000:14:00.0: /dev/iluvatar0 -> /dev/iluvatar1, now of 0000:17:00.0",
                "0000:17:00.0: /dev/iluvatar1 -> /dev/iluvatar0, now of 0000:14:00.0",
            ]
        );
        assert_eq!(
            shown(&records, &board([Some(2), Some(1)])),
            ["0000:14:00.0: /dev/iluvatar0 -> /dev/iluvatar2"]
        );
        assert_eq!(
            shown(&records, &board([Some(1), None])),
            [
                "0000:14:00.0: /dev/iluvatar0 -> /dev/iluvatar1",
                "0000:17:00.0: /dev/iluvatar1 -> none, now of 0000:14:00.0",
            ]
        );
    }

    #[test]
    fn a_chip_that_was_allocated_by_name_has_no_old_node() {
        let records = board_record([0, 1], NodeDelivery::CdiNames);
        assert_eq!(shown(&records, &board([Some(1), Some(0)])), [""; 0]);
    }
}
