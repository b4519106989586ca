//! The file that keeps across restarts which claims were prepared.

use super::state_file::{StateFileError, parse_state, write_state};
use crate::model::dra::claim::ClaimRecords;

const HEADER: &str = "ix-device-plugin claims 1";

/// Parses what [`write_claim_records`] wrote.
///
/// # Errors
/// [`StateFileError`]; such a text is refused as a whole.
pub fn parse_claim_records(text: &str) -> Result<ClaimRecords, StateFileError> {
    parse_state(text, &[HEADER])
}

/// Writes a text that [`parse_claim_records`] parses.
#[must_use]
pub fn write_claim_records(records: &ClaimRecords) -> String {
    write_state(HEADER, records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::dra::claim::{ClaimHolding, ClaimRef, ClaimedDevice};
    use crate::model::dra::device::DraDeviceName;
    use crate::model::pci::PciAddress;

    fn records() -> impl Strategy<Value = ClaimRecords> {
        let address = (any::<u32>(), any::<u8>(), 0_u8..32, 0_u8..8).prop_map(
            |(domain, bus, device, function)| PciAddress { domain, bus, device, function },
        );
        let device =
            (address, any::<bool>(), any::<bool>()).prop_map(|(address, board, shared)| {
                let name = if board { DraDeviceName::Board } else { DraDeviceName::Chip };
                ClaimedDevice { device: name(address), chips: vec![address], is_shared: shared }
            });
        let devices = proptest::collection::vec(device, 0..3);
        let holding =
            ("[a-z-]{1,9}", "[a-z-]{1,9}", devices).prop_map(|(namespace, name, devices)| {
                ClaimHolding { claim: ClaimRef { namespace, name }, devices }
            });
        proptest::collection::btree_map("[a-f0-9-]{1,36}", holding, 0..4)
    }

    #[test]
    fn a_damaged_file_says_how_it_is_damaged() {
        let text = write_claim_records(&ClaimRecords::new());
        assert_eq!(text, "ix-device-plugin claims 1 dda1b006\n{}\n");
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_claim_records(text).unwrap_err().to_string(), expected);
        };
        check("", "it does not begin with `ix-device-plugin claims 1`");
        check(&text.replace("{}", "{ }"), "its checksum is df7350c4, but its header has dda1b006");
    }

    proptest! {
        #[test]
        fn written_claims_are_parsed_as_they_were(records in records()) {
            prop_assert_eq!(parse_claim_records(&write_claim_records(&records)).unwrap(), records);
        }

        #[test]
        fn any_text_is_a_file_of_claims_or_an_error(text in "(?s).{0,80}") {
            let _ = parse_claim_records(&text);
        }
    }
}
