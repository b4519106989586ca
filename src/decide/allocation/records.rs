//! Whether what a container was given is still what it would open.
//!
//! The kubelet restarts a container with the answer to its first Allocate, however old. Nodes are
//! named by minor numbers, which the driver gives anew when chips come back, so the same path may
//! be another chip by then.

use thiserror::Error;

use crate::model::allocation::{AllocatedChip, AllocationRecord, AllocationRecords};
use crate::model::board::Chip;
use crate::model::cdi::{CdiName, CdiSpec};
use crate::model::device::{Device, DeviceId};
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// How a container is given its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeDelivery {
    /// As nodes, whatever else it is given.
    Nodes,
    /// As CDI names alone.
    Names,
}

/// What is to be remembered of a device that is handed out now.
#[must_use]
pub fn record(inventory: &Inventory, device: &Device, given: NodeDelivery) -> AllocationRecord {
    let chips = device.chips.iter().filter_map(|address| {
        let chip = find_chip(inventory, *address)?;
        let node = chip.node.as_ref()?.path.clone();
        let node = (given == NodeDelivery::Nodes).then_some(node);
        Some(AllocatedChip { address: chip.address, id: chip.id, node })
    });
    AllocationRecord { chips: chips.collect() }
}

/// Why a container must not start with what it was given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerificationError {
    /// The chip is not there.
    #[error("{id}: chip {address} has left since it was handed out{REMEDY}")]
    Gone {
        /// The device.
        id: DeviceId,
        /// The chip.
        address: PciAddress,
    },
    /// Another chip is in its place.
    #[error("{id}: another chip is at {address} now: {now}, not {was}{REMEDY}")]
    Replaced {
        /// The device.
        id: DeviceId,
        /// The place.
        address: PciAddress,
        /// What was handed out.
        was: String,
        /// What is there.
        now: String,
    },
    /// The chip's node is another one.
    #[error("{id}: chip {address} was handed out as {was} and is {now} now{REMEDY}")]
    Renumbered {
        /// The device.
        id: DeviceId,
        /// The chip.
        address: PciAddress,
        /// Path then.
        was: String,
        /// Path now, or that there is none.
        now: String,
    },
    /// The chip's name would not lead to it.
    #[error(
        "{id}: chip {address} was handed out as {name}, and no CDI spec gives that name its node \
         now{REMEDY}"
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

const REMEDY: &str = "; delete the pod, so that its successor gets devices anew";

/// Checks one id that a container is about to start with; `there` is the spec that its runtime
/// would find.
///
/// # Errors
/// The first chip that is not what it was, or that the container would not get.
pub fn check(
    id: DeviceId,
    was: &AllocationRecord,
    now: &Inventory,
    there: Option<&CdiSpec>,
) -> Result<(), VerificationError> {
    was.chips.iter().try_for_each(|chip| check_chip(id, chip, now, there))
}

fn check_chip(
    id: DeviceId,
    was: &AllocatedChip,
    now: &Inventory,
    there: Option<&CdiSpec>,
) -> Result<(), VerificationError> {
    let address = was.address;
    let Some(chip) = find_chip(now, address) else {
        return Err(VerificationError::Gone { id, address });
    };
    if chip.id != was.id {
        let (was, now) = (was.id.to_string(), chip.id.to_string());
        return Err(VerificationError::Replaced { id, address, was, now });
    }
    let node = chip.node.as_ref().map(|node| node.path.clone());
    match &was.node {
        None if node.is_some() && named_node(there, address) == node => Ok(()),
        None => Err(VerificationError::Unnamed {
            id,
            address,
            name: CdiName::Chip(address).qualified(),
        }),
        Some(_) if was.node == node => Ok(()),
        Some(was) => {
            let now = node.unwrap_or_else(|| "no node".to_owned());
            Err(VerificationError::Renumbered { id, address, was: was.clone(), now })
        }
    }
}

/// The node that a runtime finds by the chip's name.
fn named_node(there: Option<&CdiSpec>, chip: PciAddress) -> Option<String> {
    there?.devices.get(&CdiName::Chip(chip))?.first().cloned()
}

fn find_chip(inventory: &Inventory, address: PciAddress) -> Option<&Chip> {
    let mut chips = inventory.chips_by_board();
    chips.find(|chip| chip.address == address)
}

/// Adds what is newer; the same id counts as it is there.
pub fn merge(known: &mut AllocationRecords, newer: &AllocationRecords) {
    for (resource, devices) in newer {
        let entry = known.entry(resource.clone()).or_default();
        entry.extend(devices.iter().map(|(id, record)| (*id, record.clone())));
    }
}

/// Removes what is there as it is in `done`. An id that was handed out anew since then stays.
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

    const ADDRESS: &str = "0000:13:00.0";

    fn id() -> DeviceId {
        ADDRESS.parse().unwrap()
    }

    fn given(node: &str) -> AllocationRecords {
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
    fn what_is_newer_counts() {
        let mut known = given("iluvatar0");
        merge(&mut known, &given("iluvatar1"));
        assert_eq!(known, given("iluvatar1"));
    }

    #[test]
    fn what_was_handed_out_anew_meanwhile_is_not_forgotten() {
        let mut known = given("iluvatar1");
        forget(&mut known, &given("iluvatar0"));
        assert_eq!(known, given("iluvatar1"));
        forget(&mut known, &given("iluvatar1"));
        assert_eq!(known, AllocationRecords::new());
    }

    #[test]
    fn a_refusal_names_the_device_what_changed_and_the_way_out() {
        let (id, address) = (id(), id().address);
        let refusals = [
            VerificationError::Gone { id, address },
            VerificationError::Replaced {
                id,
                address,
                was: "1e3e:0002".to_owned(),
                now: "1e3e:0003".to_owned(),
            },
            VerificationError::Renumbered {
                id,
                address,
                was: "/dev/iluvatar0".to_owned(),
                now: "no node".to_owned(),
            },
            VerificationError::Unnamed { id, address, name: CdiName::Chip(address).qualified() },
        ];
        let what = [
            "chip 0000:13:00.0 has left since it was handed out",
            "another chip is at 0000:13:00.0 now: 1e3e:0003, not 1e3e:0002",
            "chip 0000:13:00.0 was handed out as /dev/iluvatar0 and is no node now",
            "chip 0000:13:00.0 was handed out as iluvatar.com/gpu=0000:13:00.0, and no CDI spec \
             gives that name its node now",
        ];
        let way_out = "; delete the pod, so that its successor gets devices anew";
        for (refusal, what) in refusals.iter().zip(what) {
            assert_eq!(refusal.to_string(), format!("0000:13:00.0: {what}{way_out}"));
        }
    }
}
