//! The file that keeps allocation records across restarts.

use super::state_file::{StateFileError, parse_state, write_state};
use crate::model::allocation::AllocationRecords;

const HEADER: &str = "ix-device-plugin allocations 1";

/// The header of `iluvatar-gpu.handouts`, the same file under its former name.
const FORMER_HEADER: &str = "ix-device-plugin handouts 1";

/// Parses what [`write_allocations`] wrote, under its present or its former name.
///
/// # Errors
/// [`StateFileError`]; such a text is refused as a whole.
pub fn parse_allocations(text: &str) -> Result<AllocationRecords, StateFileError> {
    parse_state(text, &[HEADER, FORMER_HEADER])
}

/// Writes a text that [`parse_allocations`] parses.
#[must_use]
pub fn write_allocations(records: &AllocationRecords) -> String {
    write_state(HEADER, records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allocation::{AllocatedChip, AllocationRecord};
    use crate::model::device::DeviceId;
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

    /// As releases under the former name wrote it.
    const FORMER: &str = r#"ix-device-plugin handouts 1 CRC
{
  "iluvatar.com/gpu": {
    "0000:15:00.0::1": [
      {
        "address": "0000:15:00.0",
        "pciId": "1e3e:0002",
        "node": "/dev/iluvatar3"
      }
    ],
    "0000:2d:00.0": [
      {
        "address": "0000:2d:00.0",
        "pciId": "1e3e:0002",
        "node": null
      }
    ]
  }
}
"#;

    #[test]
    fn a_file_under_the_former_name_is_read_and_written_under_the_present_one() {
        let former = FORMER.replace("CRC", "5c74691e");
        let records = parse_allocations(&former).unwrap();
        assert_eq!(records["iluvatar.com/gpu"].len(), 2);
        assert_eq!(write_allocations(&records), former.replace("handouts", "allocations"));
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_damage() {
        let text = write_allocations(&AllocationRecords::new());
        assert_eq!(text, "ix-device-plugin allocations 1 dda1b006\n{}\n");
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_allocations(text).unwrap_err().to_string(), expected);
        };
        check("", "it does not begin with `ix-device-plugin allocations 1`");
        check(&text.replace("{}", "{ }"), "its checksum is df7350c4, but its header has dda1b006");
        let body = "{\"a.b/c\": {\"gpu0\": []}}";
        let valid = format!("{HEADER} {:08x}\n{body}", crc32fast::hash(body.as_bytes()));
        check(
            &valid,
            "its content is invalid: `gpu0` is not a PCI address such as `0000:13:00.0` at line 1 \
             column 17",
        );
    }

    proptest! {
        #[test]
        fn written_records_are_parsed_as_they_were(records in records()) {
            prop_assert_eq!(parse_allocations(&write_allocations(&records)).unwrap(), records);
        }

        #[test]
        fn a_changed_byte_is_detected(records in records(), at: prop::sample::Index, to: u8) {
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
