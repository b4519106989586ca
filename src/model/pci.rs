//! PCI's own words: addresses, ids and class codes, as the kernel spells them.

use std::fmt;
use std::str::FromStr;

use super::serde_text::serde_as_text;

/// Where a PCI function sits: domain, bus, device and function.
///
/// Written as the kernel names the directory in `/sys/bus/pci/devices`: `0000:13:00.0`, lower case
/// hexadecimal. The domain has at least four digits and may have eight: hosts with Intel VMD have
/// `10000:e1:00.0`. Ordered as the kernel enumerates: by domain, then bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// PCI segment group; 16 bits on real hardware, wider where a driver makes domains of its own.
    pub domain: u32,
    /// Bus number, 0..=255.
    pub bus: u8,
    /// Device number, 0..=31 (PCI gives it five bits).
    pub device: u8,
    /// Function number, 0..=7 (PCI gives it three bits).
    pub function: u8,
}

/// A text that is not a PCI address, with the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciAddressError {
    text: String,
}

impl fmt::Display for PciAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(f, "`{text}` is not a PCI address such as `0000:13:00.0`")
    }
}

impl std::error::Error for PciAddressError {}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_address(text).ok_or_else(|| PciAddressError { text: text.to_owned() })
    }
}

fn parse_address(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (domain, bus, device) = split_bus(rest)?;
    Some(PciAddress {
        domain,
        bus,
        device: u8::try_from(hex(device, 2..=2)?).ok().filter(|device| *device < 32)?,
        function: u8::try_from(hex(function, 1..=1)?).ok().filter(|function| *function < 8)?,
    })
}

/// `0000:13:00` as (domain, bus, the text of the device).
fn split_bus(text: &str) -> Option<(u32, u8, &str)> {
    let (bus, device) = text.rsplit_once(':')?;
    let (domain, bus) = parse_bus(bus)?;
    Some((domain, bus, device))
}

fn parse_bus(text: &str) -> Option<(u32, u8)> {
    let (domain, bus) = text.split_once(':')?;
    let bus = u8::try_from(hex(bus, 2..=2)?).ok()?;
    Some((hex(domain, 4..=8)?, bus))
}

fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let valid = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

serde_as_text!(PciAddress);

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl PciAddress {
    /// The device this function belongs to, without the function number.
    #[must_use]
    pub fn slot_address(self) -> SlotAddress {
        SlotAddress { domain: self.domain, bus: self.bus, device: self.device }
    }
}

/// What `/sys/bus/pci/slots/*/address` names: a device without its function, `0000:15:00`.
///
/// Source: `Documentation/ABI/testing/sysfs-bus-pci`, `/sys/bus/pci/slots/.../address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotAddress {
    /// PCI segment group.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0..=31.
    pub device: u8,
}

impl FromStr for SlotAddress {
    type Err = PciAddressError;

    /// Takes `0000:15:00`; slots of a whole bus are written without the device (`0000:15`) and
    /// stand for its device 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_slot(text).ok_or_else(|| PciAddressError { text: text.to_owned() })
    }
}

fn parse_slot(text: &str) -> Option<SlotAddress> {
    if let Some((domain, bus)) = parse_bus(text) {
        return Some(SlotAddress { domain, bus, device: 0 });
    }
    let (domain, bus, device) = split_bus(text)?;
    let device = u8::try_from(hex(device, 2..=2)?).ok().filter(|device| *device < 32)?;
    Some(SlotAddress { domain, bus, device })
}

impl fmt::Display for SlotAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}")
    }
}

/// A root bus: the host bridge's own bus, written as its directory is: `pci0000:14`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootBus {
    /// PCI segment group.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
}

impl FromStr for RootBus {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("pci")
            .and_then(parse_bus)
            .map(|(domain, bus)| Self { domain, bus })
            .ok_or_else(|| PciAddressError { text: text.to_owned() })
    }
}

impl fmt::Display for RootBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus } = self;
        write!(f, "pci{domain:04x}:{bus:02x}")
    }
}

/// Vendor and device id of a function, written `1e3e:0002`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// Vendor id; Iluvatar CoreX is 0x1e3e.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
}

/// A text that is not a vendor and device id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciIdError {
    text: String,
}

impl fmt::Display for PciIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(f, "`{text}` is not a PCI vendor and device id such as `1e3e:0002`")
    }
}

impl std::error::Error for PciIdError {}

impl FromStr for PciId {
    type Err = PciIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_id(text).ok_or_else(|| PciIdError { text: text.to_owned() })
    }
}

fn parse_id(text: &str) -> Option<PciId> {
    let (vendor, device) = text.split_once(':')?;
    let vendor = u16::try_from(hex(vendor, 4..=4)?).ok()?;
    let device = u16::try_from(hex(device, 4..=4)?).ok()?;
    Some(PciId { vendor, device })
}

serde_as_text!(PciId);

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// A 24-bit class code: base class, subclass, programming interface; `0x120000` is a processing
/// accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassCode(pub u32);

impl ClassCode {
    /// The upper eight of the 24 bits: 0x12 for accelerators, 0x06 for bridges.
    #[must_use]
    pub fn base(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// True for base class 0x06: host bridges, ports of switches, root ports.
    #[must_use]
    pub fn is_bridge(self) -> bool {
        self.base() == 0x06
    }
}

impl fmt::Display for ClassCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_address(text: &str, expected: (u32, u8, u8, u8)) {
        let address: PciAddress = text.parse().expect(text);
        let (domain, bus, device, function) = expected;
        assert_eq!(address, PciAddress { domain, bus, device, function });
    }

    #[test]
    fn an_address_keeps_its_wide_domain() {
        check_address("0000:13:00.0", (0, 0x13, 0, 0));
        check_address("10000:e1:1f.7", (0x10000, 0xe1, 0x1f, 7));
        check_address("00000001:01:00.0", (1, 1, 0, 0));
        assert_eq!("10000:E1:00.0".parse::<PciAddress>().unwrap().to_string(), "10000:e1:00.0");
    }

    #[test]
    fn what_is_not_an_address_is_named_with_the_rule() {
        for text in ["", "13:00.0", "0000:13:20.0", "0000:13:00.8", "0000:13:00", "+000:13:00.0"] {
            let error = text.parse::<PciAddress>().unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is not a PCI address such as `0000:13:00.0`"));
        }
    }

    #[test]
    fn a_slot_names_a_device_without_its_function() {
        let slot: SlotAddress = "0000:15:00".parse().unwrap();
        assert_eq!(slot, "0000:15:00.3".parse::<PciAddress>().unwrap().slot_address());
        assert_eq!("0000:15".parse::<SlotAddress>().unwrap(), slot);
        assert!("15".parse::<SlotAddress>().is_err());
    }

    #[test]
    fn ids_and_classes_read_as_the_kernel_writes_them() {
        assert_eq!("1E3E:0002".parse::<PciId>().unwrap().to_string(), "1e3e:0002");
        assert!("1e3e:2".parse::<PciId>().is_err());
        assert_eq!(ClassCode(0x12_0000).to_string(), "0x120000");
        assert!(ClassCode(0x06_0400).is_bridge());
        assert!(!ClassCode(0x12_0000).is_bridge());
        assert_eq!("pci0000:14".parse::<RootBus>().unwrap().to_string(), "pci0000:14");
    }
}
