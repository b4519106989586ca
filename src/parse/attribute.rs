//! Single attributes of /sys, as the kernel prints them.
//!
//! Source: `Documentation/ABI/testing/sysfs-bus-pci` and `drivers/pci/pci-sysfs.c`.

use thiserror::Error;

use crate::model::machine::DeviceNumber;
use crate::model::pci::ClassCode;

/// An attribute that does not hold what its name promises.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttributeError {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// Bytes that are not UTF-8.
    #[error("is not text")]
    NotText,
    /// Text of the wrong form, shortened, and the rule.
    #[error("`{0}` is not {1}")]
    Malformed(String, &'static str),
}

type Result<T> = std::result::Result<T, AttributeError>;

/// The attribute as trimmed text.
///
/// # Errors
/// [`AttributeError::Empty`] or [`AttributeError::NotText`].
pub fn parse_text(bytes: &[u8]) -> Result<&str> {
    match std::str::from_utf8(bytes).map(str::trim) {
        Err(_) => Err(AttributeError::NotText),
        Ok("") => Err(AttributeError::Empty),
        Ok(text) => Ok(text),
    }
}

/// `vendor`, `device`: `0x1e3e`.
///
/// # Errors
/// Anything but `0x` and one to four hexadecimal digits.
pub fn parse_id(bytes: &[u8]) -> Result<u16> {
    let number = parse_hex(bytes, "an id such as 0x1e3e")?;
    u16::try_from(number).map_err(|_| malformed(bytes, "an id of 16 bits"))
}

/// `class`: `0x120000`.
///
/// # Errors
/// Anything but `0x` and a number of at most 24 bits.
pub fn parse_class(bytes: &[u8]) -> Result<ClassCode> {
    match parse_hex(bytes, "a class code such as 0x120000")? {
        code @ 0..=0xff_ffff => Ok(ClassCode(code)),
        _ => Err(malformed(bytes, "a class code of 24 bits")),
    }
}

/// `numa_node`: a number, or -1 where firmware gave no affinity, which is `None`: the kubelet must
/// then get no hint at all.
///
/// # Errors
/// Anything but a whole number.
pub fn parse_numa_node(bytes: &[u8]) -> Result<Option<u32>> {
    let text = parse_text(bytes)?;
    let node: i32 = text.parse().map_err(|_| malformed(bytes, "a NUMA node number"))?;
    Ok(u32::try_from(node).ok())
}

/// `current_link_speed`, `max_link_speed`: `16.0 GT/s PCIe`; `Unknown` is `None`.
///
/// # Errors
/// Text that does not start with a number.
pub fn parse_link_speed(bytes: &[u8]) -> Result<Option<String>> {
    let text = parse_text(bytes)?;
    match text.as_bytes().first() {
        Some(b'0'..=b'9') => Ok(Some(text.to_owned())),
        _ if text.starts_with("Unknown") => Ok(None),
        _ => Err(malformed(bytes, "a link speed such as 16.0 GT/s PCIe")),
    }
}

/// `current_link_width`, `max_link_width`: lanes; 0 and 255 mean unknown.
///
/// # Errors
/// Anything but a whole number.
pub fn parse_link_width(bytes: &[u8]) -> Result<Option<u32>> {
    let width = parse_text(bytes)?.parse().map_err(|_| malformed(bytes, "a number of lanes"))?;
    Ok(Some(width).filter(|width| !matches!(width, 0 | 255)))
}

/// `dev`: `508:3`.
///
/// # Errors
/// Anything but two numbers with a colon between them.
pub fn parse_device_number(bytes: &[u8]) -> Result<DeviceNumber> {
    let text = parse_text(bytes)?;
    text.split_once(':')
        .and_then(|(major, minor)| {
            Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
        })
        .ok_or_else(|| malformed(bytes, "a device number such as 508:3"))
}

/// The total of `aer_dev_fatal` and its like: the number after `TOTAL_ERR_…` in its last line.
///
/// Source: `Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats`.
#[must_use]
pub fn parse_error_total(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("TOTAL_ERR_"))?;
    total.split_whitespace().nth(1)?.parse().ok()
}

/// The value of KEY in a `uevent` attribute, which holds `KEY=VALUE` lines.
#[must_use]
pub fn uevent_value<'a>(bytes: &'a [u8], key: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Longest name of a model that is taken from the udev database.
const LONGEST_MODEL: usize = 64;

/// What the host's hardware database calls a device: `E:ID_MODEL_FROM_DATABASE=NAME` in its file in
/// `/run/udev/data`. Absent where the host has no entry, or the name could not be shown.
///
/// Source: systemd, `sd-device/device-private.c`, `device_update_db`; `udev-builtin-hwdb.c`.
#[must_use]
pub fn udev_model(bytes: &[u8]) -> Option<&str> {
    let name = uevent_value(bytes, "E:ID_MODEL_FROM_DATABASE")?.trim();
    let is_shown = (1..=LONGEST_MODEL).contains(&name.len()) && !name.contains(char::is_control);
    is_shown.then_some(name)
}

/// Whether `config` holds a vendor and a device id, its first four bytes.
///
/// A function that left the bus reads as all ones (PCIe Base Specification, Unsupported Request
/// completion; the kernel puts the same in place of a read that fails). A file without its first
/// four bytes shows no function either: the kernel lets every reader have the first 64.
#[must_use]
pub fn config_space_answers(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|ids| *ids != [0xff; 4])
}

fn parse_hex(bytes: &[u8], rule: &'static str) -> Result<u32> {
    let text = parse_text(bytes)?;
    text.strip_prefix("0x")
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| malformed(bytes, rule))
}

fn malformed(bytes: &[u8], rule: &'static str) -> AttributeError {
    const SHOWN: usize = 40;
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.trim().escape_default().take(SHOWN).collect();
    if text.trim().escape_default().count() > SHOWN {
        shown.push_str("...");
    }
    AttributeError::Malformed(shown, rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_model_is_what_the_udev_database_calls_it_where_that_can_be_shown() {
        let check = |text: &str, expected| assert_eq!(udev_model(text.as_bytes()), expected);
        check("I:1\nE:ID_MODEL_FROM_DATABASE=BI-V150\nG:systemd\n", Some("BI-V150"));
        check("E:ID_VENDOR_FROM_DATABASE=Iluvatar CoreX\n", None);
        check("E:ID_MODEL_FROM_DATABASE=\n", None);
        check("E:ID_MODEL_FROM_DATABASE=a\u{1b}[31m\n", None);
        check(&format!("E:ID_MODEL_FROM_DATABASE={}\n", "x".repeat(65)), None);
    }

    #[test]
    fn attributes_read_as_the_kernel_prints_them() {
        assert_eq!(parse_id(b"0x1e3e\n"), Ok(0x1e3e));
        assert_eq!(parse_class(b"0x120000\n"), Ok(ClassCode(0x12_0000)));
        assert_eq!(parse_numa_node(b"1\n"), Ok(Some(1)));
        assert_eq!(parse_numa_node(b"-1\n"), Ok(None));
        assert_eq!(parse_link_speed(b"16.0 GT/s PCIe\n"), Ok(Some("16.0 GT/s PCIe".to_owned())));
        assert_eq!(parse_link_speed(b"Unknown\n"), Ok(None));
        assert_eq!(parse_link_width(b"16\n"), Ok(Some(16)));
        assert_eq!(parse_link_width(b"255\n"), Ok(None));
        assert_eq!(parse_device_number(b"508:3\n"), Ok(DeviceNumber { major: 508, minor: 3 }));
        assert_eq!(uevent_value(b"MAJOR=508\nDEVNAME=iluvatar3\n", "DEVNAME"), Some("iluvatar3"));
        assert_eq!(uevent_value(b"DEVNAME2=x\n", "DEVNAME"), None);
    }

    #[test]
    fn the_total_of_an_error_counter_is_in_its_last_line() {
        let counter = b"Undefined 0\nDLP 1\nUncorrIntErr 2\nTOTAL_ERR_FATAL 3\n";
        assert_eq!(parse_error_total(counter), Some(3));
        assert_eq!(parse_error_total(b"DLP 1\n"), None);
        assert_eq!(parse_error_total(b"TOTAL_ERR_FATAL\n"), None);
    }

    #[test]
    fn a_chip_that_left_the_bus_reads_all_ones() {
        assert!(!config_space_answers(&[0xff; 64]));
        assert!(config_space_answers(&[0x3e, 0x1e, 2, 0]));
    }

    #[test]
    fn a_configuration_space_too_short_for_its_ids_is_no_answer() {
        assert!(!config_space_answers(&[]));
        assert!(!config_space_answers(&[0x3e, 0x1e, 2]));
    }

    #[track_caller]
    fn check_error<T: std::fmt::Debug>(result: Result<T>, expected: &str) {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_wrong_attribute_is_named_with_its_value_and_the_rule() {
        check_error(parse_id(b"1e3e"), "`1e3e` is not an id such as 0x1e3e");
        check_error(parse_id(b"0x11e3e"), "`0x11e3e` is not an id of 16 bits");
        check_error(parse_id(b" \n"), "is empty");
        check_error(parse_id(b"\xff\xfe"), "is not text");
        check_error(parse_class(b"0x1000000"), "`0x1000000` is not a class code of 24 bits");
        check_error(parse_numa_node(b"one"), "`one` is not a NUMA node number");
        check_error(parse_link_speed(b"fast"), "`fast` is not a link speed such as 16.0 GT/s PCIe");
        check_error(parse_link_width(b"x16"), "`x16` is not a number of lanes");
        check_error(parse_device_number(b"508"), "`508` is not a device number such as 508:3");
        let long = vec![b'z'; 5000];
        let shown = format!("`{}...` is not a NUMA node number", "z".repeat(40));
        check_error(parse_numa_node(&long), &shown);
    }

    /// Text as the kernel might write it, cut or mangled, or any bytes.
    fn attributes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<Vec<u8>>(),
            "(0x)?[0-9a-fA-F]{0,9}\n?".prop_map(String::into_bytes),
            "-?[0-9]{0,11}\n?".prop_map(String::into_bytes),
            "[0-9]{0,11}:[0-9]{0,11}\n?".prop_map(String::into_bytes),
            "(DEVNAME=\\PC{0,5}\n|[A-Z]{1,3}=x\n){0,3}".prop_map(String::into_bytes),
            "\\PC{0,60}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        /// The property of the fuzz target `attributes`.
        #[test]
        fn whatever_an_attribute_holds_its_value_is_in_range(bytes in attributes()) {
            let _ = parse_id(&bytes);
            let _ = parse_link_speed(&bytes);
            let _ = parse_error_total(&bytes);
            let _ = config_space_answers(&bytes);
            if let Ok(class) = parse_class(&bytes) {
                prop_assert!(class.0 <= 0xff_ffff);
            }
            if let Ok(Some(node)) = parse_numa_node(&bytes) {
                prop_assert!(i32::try_from(node).is_ok());
            }
            if let Ok(Some(width)) = parse_link_width(&bytes) {
                prop_assert!(!matches!(width, 0 | 255));
            }
            if let Ok(number) = parse_device_number(&bytes) {
                prop_assert_eq!(parse_device_number(number.to_string().as_bytes()), Ok(number));
            }
            if let Ok(text) = parse_text(&bytes) {
                prop_assert!(!text.is_empty() && text == text.trim());
            }
            if let Some(value) = uevent_value(&bytes, "DEVNAME") {
                prop_assert!(!value.contains('\n'));
            }
            for error in [parse_id(&bytes).err(), parse_class(&bytes).err()].into_iter().flatten() {
                prop_assert!(error.to_string().len() < 120, "{}", error);
            }
        }
    }
}
