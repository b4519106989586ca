//! One device of a slice.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::model::health::{Health, Reason};
use crate::model::pci::PciAddress;
use crate::model::serde_text::serde_as_text;

/// The name of a device in the pool: a DNS label, so an address with `-` in place of `:` and `.`.
///
/// It means the same under every configuration. A board that has one chip is named as that chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DraDeviceName {
    /// All chips of a board that has several, by the lowest one: `board-0000-13-00-0`.
    Board(PciAddress),
    /// One chip: `chip-0000-13-00-0`.
    Chip(PciAddress),
}

/// A text that is not the name of a device of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraDeviceNameError {
    text: String,
}

impl fmt::Display for DraDeviceNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(f, "`{text}` is not a device name such as `chip-0000-13-00-0`")
    }
}

impl std::error::Error for DraDeviceNameError {}

impl DraDeviceName {
    /// The chip, or the lowest chip of the board.
    #[must_use]
    pub fn address(self) -> PciAddress {
        match self {
            Self::Board(address) | Self::Chip(address) => address,
        }
    }
}

impl fmt::Display for DraDeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, address) = match self {
            Self::Board(address) => ("board", address),
            Self::Chip(address) => ("chip", address),
        };
        write!(f, "{kind}-{}", DnsAddress(*address))
    }
}

impl FromStr for DraDeviceName {
    type Err = DraDeviceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DraDeviceNameError { text: text.to_owned() };
        let (kind, address) = text.split_once('-').ok_or_else(error)?;
        let address = parse_dns_address(address).ok_or_else(error)?;
        let name = match kind {
            "board" => Self::Board(address),
            "chip" => Self::Chip(address),
            _ => return Err(error()),
        };
        // One spelling: no upper case, no other separators.
        if name.to_string() == text { Ok(name) } else { Err(error()) }
    }
}

serde_as_text!(DraDeviceName);

/// An address as part of a DNS label: `0000-13-00-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsAddress(pub PciAddress);

impl fmt::Display for DnsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace([':', '.'], "-"))
    }
}

fn parse_dns_address(text: &str) -> Option<PciAddress> {
    let parts: Vec<_> = text.split('-').collect();
    let [domain, bus, device, function] = parts[..] else { return None };
    format!("{domain}:{bus}:{device}.{function}").parse().ok()
}

/// A device as it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraDevice {
    /// Unique in the pool.
    pub name: DraDeviceName,
    /// Its chips, ascending; empty where a claim holds it and its hardware left.
    pub chips: Vec<PciAddress>,
    /// By name; one without a domain belongs to the driver.
    pub attributes: BTreeMap<String, AttributeValue>,
    /// How many claims may share it; none where one claim has it alone.
    pub slots: Option<u32>,
    /// What it takes of its board's counter; none where boards and chips are not both offered.
    pub counter: Option<CounterUse>,
    /// At most one of each key.
    pub taints: Vec<DraTaint>,
    /// Why it is unhealthy; empty for a healthy device.
    pub reasons: Vec<Reason>,
    /// Whether a claim holds it: it stays published then, whatever happens to it.
    pub is_claimed: bool,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttributeValue {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// At most 64 characters.
    Text(String),
    /// A version by the rules of `SemVer` 2.0.0, at most 64 characters.
    Version(String),
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Text(value) | Self::Version(value) => f.pad(value),
        }
    }
}

/// What keeps new claims from a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DraTaint {
    /// For example `gpu.iluvatar.com/unhealthy`.
    pub key: String,
    /// For example `AerFatal`.
    pub value: String,
    /// What it does to claims that do not tolerate it.
    pub effect: TaintEffect,
}

/// What a taint does to claims that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaintEffect {
    /// No new claim gets the device.
    NoSchedule,
    /// Besides, the pods of claims that hold it are deleted.
    NoExecute,
}

impl fmt::Display for TaintEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoSchedule => "NoSchedule",
            Self::NoExecute => "NoExecute",
        })
    }
}

impl fmt::Display for DraTaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.key, self.value, self.effect)
    }
}

/// What a device takes of the counter of its board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterUse {
    /// The set that has the counter.
    pub set: String,
    /// The counter.
    pub counter: String,
    /// How many chips.
    pub chips: u32,
}

/// Counters that devices take from, so that a board and its chips exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedCounters {
    /// Unique in the pool.
    pub name: String,
    /// How many chips each board has, by counter.
    pub counters: BTreeMap<String, u32>,
}

/// The health of one device, for the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraDeviceHealth {
    /// Which one.
    pub device: DraDeviceName,
    /// Whether nothing is against it.
    pub health: Health,
    /// Reasons and remedies, at most 1024 bytes; empty for a healthy device.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_name_reads_back_as_it_was_written_and_is_a_dns_label() {
        for text in ["board-0000-13-00-0", "chip-10000-e1-1f-7", "chip-ffffffff-ff-1f-7"] {
            assert_eq!(text.parse::<DraDeviceName>().unwrap().to_string(), text);
            assert!(text.len() <= 63);
        }
    }

    #[test]
    fn what_is_not_a_device_name_is_named_with_the_rule() {
        for text in
            ["", "chip", "chip-", "gpu-0000-13-00-0", "chip-0000:13:00.0", "chip-0000-13-00-0-1"]
        {
            let error = text.parse::<DraDeviceName>().unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is not a device name such as `chip-0000-13-00-0`"));
        }
        assert!("chip-0000-E1-00-0".parse::<DraDeviceName>().is_err());
    }
}
