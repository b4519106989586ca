//! The bus ids of libixml: the PCI address of a chip as the library writes it.

use crate::model::pci::SlotAddress;

/// The place in a bus id as the library writes it into a fixed buffer: `0000:15:00.0` or
/// `00000000:8A:00.0`, upper or lower case, padded with NUL.
///
/// The function number is left out: the library's own structure has none, and every chip is a
/// device by itself.
#[must_use]
pub fn parse_bus_id(buffer: &[u8]) -> Option<SlotAddress> {
    let text = buffer.split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?.trim();
    let place = text.split_once('.').map_or(text, |(place, _function)| place);
    // Without a device it would be a whole bus, which no chip is.
    if place.matches(':').count() != 2 {
        return None;
    }
    place.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(buffer: &[u8], expected: Option<(u32, u8, u8)>) {
        let expected = expected.map(|(domain, bus, device)| SlotAddress { domain, bus, device });
        assert_eq!(parse_bus_id(buffer), expected);
    }

    #[test]
    fn a_bus_id_is_read_in_every_spelling() {
        check(b"0000:15:00.0\0\0\0\0", Some((0, 0x15, 0)));
        check(b"00000000:8A:00.0", Some((0, 0x8a, 0)));
        check(b"00000001:01:1F.0\0junk", Some((1, 1, 0x1f)));
        check(b"0001:01:00", Some((1, 1, 0)));
    }

    #[test]
    fn what_names_no_device_is_no_bus_id() {
        for buffer in [&b""[..], b"\0\0\0", b"0000:15", b"15:00.0", b"0000:15:20.0", b"\xff\xfe"] {
            check(buffer, None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(buffer in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_bus_id(&buffer);
        }

        #[test]
        fn every_address_is_read_back_from_the_longest_spelling(
            domain: u32, bus: u8, device in 0u8..32, function in 0u8..8
        ) {
            let text = format!("{domain:08X}:{bus:02X}:{device:02X}.{function}\0\0");
            prop_assert_eq!(
                parse_bus_id(text.as_bytes()),
                Some(SlotAddress { domain, bus, device })
            );
        }
    }
}
