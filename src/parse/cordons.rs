//! The file that keeps cordons across restarts.

use super::state_file::{StateFileError, parse_state, write_state};
use crate::model::cordon::Cordons;

const HEADER: &str = "ix-device-plugin cordons 1";

/// Parses what [`write_cordons`] wrote.
///
/// # Errors
/// [`StateFileError`]; such a text is refused as a whole.
pub fn parse_cordons(text: &str) -> Result<Cordons, StateFileError> {
    parse_state(text, &[HEADER])
}

/// Writes a text that [`parse_cordons`] parses.
#[must_use]
pub fn write_cordons(cordons: &Cordons) -> String {
    write_state(HEADER, cordons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cordon::Cordon;
    use crate::model::pci::PciAddress;
    use proptest::prelude::*;

    fn cordons() -> impl Strategy<Value = Cordons> {
        let address = (any::<u32>(), any::<u8>(), 0u8..32, 0u8..8).prop_map(
            |(domain, bus, device, function)| PciAddress { domain, bus, device, function },
        );
        let reason = proptest::option::of("[a-zA-Z0-9\u{e4}\u{4e2d}\"\\\\:;/-]{1,200}")
            .prop_map(|reason| reason.map(|text| text.parse().unwrap()));
        let chips = proptest::collection::btree_set(address.clone(), 1..4);
        let cordon = (chips, reason).prop_map(|(chips, reason)| Cordon { chips, reason });
        proptest::collection::btree_map(address, cordon, 0..5)
    }

    #[test]
    fn the_file_is_text_that_an_operator_can_read() {
        let chips = ["0000:13:00.0", "0000:16:00.0"].map(|chip| chip.parse().unwrap()).into();
        let reason = Some("RMA-1234".parse().unwrap());
        let text =
            write_cordons(&[("0000:13:00.0".parse().unwrap(), Cordon { chips, reason })].into());
        let (header, body) = text.split_once('\n').unwrap();
        assert!(header.starts_with("ix-device-plugin cordons 1 "), "{header}");
        let expected = "{\n  \"0000:13:00.0\": {\n    \"chips\": [\n      \"0000:13:00.0\",\n      \
                        \"0000:16:00.0\"\n    ],\n    \"reason\": \"RMA-1234\"\n  }\n}\n";
        assert_eq!(body, expected);
    }

    #[test]
    fn a_damaged_file_says_how_it_is_damaged() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_cordons(text).unwrap_err().to_string(), expected);
        };
        check("", "it does not begin with `ix-device-plugin cordons 1`");
        check(
            "ix-device-plugin allocations 1 0\n{}",
            "it does not begin with `ix-device-plugin cordons 1`",
        );
        let body = "{\"0000:13:00.0\": {\"chips\": [], \"reason\": \"a\\nb\"}}";
        let valid = format!("{HEADER} {:08x}\n{body}", crc32fast::hash(body.as_bytes()));
        check(
            &valid,
            "its content is invalid: the text must be one line without control characters at line \
             1 column 48",
        );
        let cut = write_cordons(&Cordons::new()).replace("{}", "{");
        assert!(parse_cordons(&cut).unwrap_err().to_string().starts_with("its checksum is "));
    }

    proptest! {
        #[test]
        fn written_cordons_are_parsed_as_they_were(cordons in cordons()) {
            prop_assert_eq!(parse_cordons(&write_cordons(&cordons)).unwrap(), cordons);
        }

        #[test]
        fn a_changed_byte_is_detected(cordons in cordons(), at: prop::sample::Index, to: u8) {
            let mut bytes = write_cordons(&cordons).into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(parse_cordons(&text).is_err());
            }
        }
    }
}
