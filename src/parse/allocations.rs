//! The file that keeps what was handed out across our restarts: a line with a checksum, then JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::model::allocation::{AllocatedChip, AllocationRecord, AllocationRecords};
use crate::model::device::DeviceId;

const NAME: &str = "ix-device-plugin handouts 1";

/// Why a text cannot be believed.
#[derive(Debug, Error)]
pub enum AllocationRecordsError {
    /// Not ours, or of another version.
    #[error("it does not begin with `{NAME}`")]
    Unknown,
    /// Cut off or changed.
    #[error("its checksum is {found:08x}, but it says {said}")]
    Damaged {
        /// Of what is there.
        found: u32,
        /// As it is written.
        said: String,
    },
    /// The checksum is right, the rest is not.
    #[error("it is not what this version writes: {0}")]
    Malformed(#[from] serde_json::Error),
    /// An id, address or PCI id that is none.
    #[error("`{0}` is no id of a device")]
    BadId(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipRecord {
    address: String,
    #[serde(rename = "pciId")]
    pci_id: String,
    node: Option<String>,
}

type Records = BTreeMap<String, BTreeMap<String, Vec<ChipRecord>>>;

/// Reads what [`write_allocations`] wrote.
///
/// # Errors
/// [`AllocationRecordsError`]; nothing of such a text counts.
pub fn parse_allocations(text: &str) -> Result<AllocationRecords, AllocationRecordsError> {
    let (first, body) = text.split_once('\n').ok_or(AllocationRecordsError::Unknown)?;
    let said = first.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(' '));
    let said = said.ok_or(AllocationRecordsError::Unknown)?;
    let found = crc32fast::hash(body.as_bytes());
    if said != format!("{found:08x}") {
        return Err(AllocationRecordsError::Damaged { found, said: said.to_owned() });
    }
    let records: Records = serde_json::from_str(body)?;
    records
        .into_iter()
        .map(|(resource, devices)| {
            let devices: Result<_, _> = devices.into_iter().map(parse_device).collect();
            Ok((resource, devices?))
        })
        .collect()
}

fn parse_device(
    (id, chips): (String, Vec<ChipRecord>),
) -> Result<(DeviceId, AllocationRecord), AllocationRecordsError> {
    let parsed: DeviceId = id.parse().map_err(|_| AllocationRecordsError::BadId(id))?;
    let chips: Result<_, _> = chips.into_iter().map(parse_chip).collect();
    Ok((parsed, AllocationRecord { chips: chips? }))
}

fn parse_chip(chip: ChipRecord) -> Result<AllocatedChip, AllocationRecordsError> {
    Ok(AllocatedChip {
        address: chip.address.parse().map_err(|_| AllocationRecordsError::BadId(chip.address))?,
        id: chip.pci_id.parse().map_err(|_| AllocationRecordsError::BadId(chip.pci_id))?,
        node: chip.node,
    })
}

/// Writes so that [`parse_allocations`] reads it back.
#[must_use]
pub fn write_allocations(records: &AllocationRecords) -> String {
    let resources: Map<_, _> = records
        .iter()
        .map(|(resource, devices)| {
            let devices = devices.iter().map(|(id, record)| (id.to_string(), chips(record)));
            (resource.clone(), Value::Object(devices.collect()))
        })
        .collect();
    let body = format!("{:#}\n", Value::Object(resources));
    format!("{NAME} {:08x}\n{body}", crc32fast::hash(body.as_bytes()))
}

fn chips(record: &AllocationRecord) -> Value {
    let chips = record.chips.iter().map(|chip| {
        json!({
            "address": chip.address.to_string(),
            "pciId": chip.id.to_string(),
            "node": chip.node,
        })
    });
    chips.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pci::{PciAddress, PciId};
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = AllocationRecords> {
        let address = (any::<u32>(), any::<u8>(), 0u8..32, 0u8..8).prop_map(
            |(domain, bus, device, function)| PciAddress { domain, bus, device, function },
        );
        let id = (any::<u16>(), any::<u16>()).prop_map(|(vendor, device)| PciId { vendor, device });
        let chip = (address.clone(), id, any::<Option<u8>>())
            .prop_map(|(address, id, minor)| (address, id, minor.map(|it| format!("/dev/x{it}"))))
            .prop_map(|(address, id, node)| AllocatedChip { address, id, node });
        let device = (address, any::<Option<u32>>())
            .prop_map(|(address, replica)| DeviceId { address, replica });
        let record =
            proptest::collection::vec(chip, 0..3).prop_map(|chips| AllocationRecord { chips });
        let devices = proptest::collection::btree_map(device, record, 0..4);
        proptest::collection::btree_map("[a-z./]{1,9}", devices, 0..3)
    }

    #[test]
    fn a_damaged_file_says_how_it_is_damaged() {
        let text = write_allocations(&AllocationRecords::new());
        assert_eq!(text, "ix-device-plugin handouts 1 dda1b006\n{}\n");
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_allocations(text).unwrap_err().to_string(), expected);
        };
        check("", "it does not begin with `ix-device-plugin handouts 1`");
        check(&text.replace("{}", "{ }"), "its checksum is df7350c4, but it says dda1b006");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(records in records()) {
            prop_assert_eq!(parse_allocations(&write_allocations(&records)).unwrap(), records);
        }

        #[test]
        fn a_changed_byte_is_noticed(records in records(), at: prop::sample::Index, to: u8) {
            let mut bytes = write_allocations(&records).into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(parse_allocations(&text).is_err());
            }
        }
    }
}
