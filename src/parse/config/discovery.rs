//! `discovery` and `container`: which PCI functions are chips, and what containers get.

use std::path::PathBuf;

use super::cursor::{Cursor, shown};
use super::keys::{self, SHORTEST_RESCAN, VISIBLE_DEVICES_WORDS};
use super::node::Yaml;
use super::section::Section;
use crate::model::config::{ContainerRules, DiscoveryRules, StartVerification, VisibleDevices};
use crate::parse::identities::IXSMI;

pub(super) fn read_discovery(root: &Section) -> DiscoveryRules {
    let discovery = root.section(&keys::DISCOVERY);
    let default = DiscoveryRules::default();
    DiscoveryRules {
        vendor_ids: discovery
            .find(&keys::discovery::VENDOR_IDS)
            .map_or(default.vendor_ids, |list| read_some(list, read_vendor)),
        drivers: discovery
            .find(&keys::discovery::DRIVERS)
            .map_or(default.drivers, |list| read_some(list, read_driver)),
        control_nodes: discovery
            .find(&keys::discovery::CONTROL_NODES)
            .map_or(default.control_nodes, |list| list.distinct(read_node)),
        rescan: discovery
            .find(&keys::discovery::RESCAN)
            .and_then(|cursor| cursor.duration(SHORTEST_RESCAN))
            .unwrap_or(default.rescan),
        identities: discovery.find(&keys::discovery::IDENTITIES).and_then(read_identities),
    }
}

/// Reads `container`. UUIDs need a file that has them.
pub(super) fn read_container(root: &Section, discovery: &DiscoveryRules) -> ContainerRules {
    let container = root.section(&keys::CONTAINER);
    let visible = container.find(&keys::container::VISIBLE_DEVICES);
    let visible_devices =
        visible.and_then(|cursor| cursor.word(&VISIBLE_DEVICES_WORDS)).unwrap_or_default();
    let are_uuids = visible_devices == VisibleDevices::Uuids;
    if let Some(cursor) = visible.filter(|_| are_uuids && discovery.identities.is_none()) {
        cursor.problem(format!(
            "`uuids` needs the file that has them: set discovery.identities to the path of what \
             `{IXSMI}` prints"
        ));
    }
    let legacy = container.find(&keys::container::LEGACY_VARIABLES).and_then(Cursor::boolean);
    let verifies = container.find(&keys::container::VERIFY_ON_START).and_then(Cursor::boolean);
    ContainerRules {
        visible_devices,
        legacy_variables: legacy.unwrap_or(are_uuids),
        start_verification: match verifies {
            Some(false) => StartVerification::Off,
            Some(true) | None => StartVerification::On,
        },
    }
}

fn read_identities(cursor: &Cursor) -> Option<PathBuf> {
    cursor.absolute_path("the absolute path of a file, such as /run/ix-identities/identities.csv")
}

/// A list that must not be empty: nothing could be found with it.
fn read_some<'a, T: Ord + Clone>(
    list: &Cursor<'a>,
    read: impl Fn(&Cursor<'a>) -> Option<T>,
) -> Vec<T> {
    if list.is_empty_list() {
        list.problem("the list is empty; no GPU could be found. Remove the key for the default");
    }
    list.distinct(read)
}

/// Hexadecimal, with or without `0x`.
fn read_vendor(cursor: &Cursor) -> Option<u16> {
    let vendor = match cursor.yaml() {
        Yaml::Integer(number) => hexadecimal_number(cursor, *number)?,
        Yaml::Float(_) => hexadecimal_number(cursor, 0)?,
        Yaml::Text(text) => {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            let valid = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = valid.then(|| i128::from_str_radix(digits, 16).ok()).flatten();
            number.or_else(|| {
                cursor.mismatch("a PCI vendor id such as \"0x1e3e\"");
                None
            })?
        }
        _ => {
            cursor.mismatch("a PCI vendor id such as \"0x1e3e\"; put it in quotes");
            return None;
        }
    };
    // Reads of a function that is not there give all ones; 0 was never assigned.
    let assigned = u16::try_from(vendor).ok();
    let assigned = assigned.filter(|vendor| !matches!(vendor, 0 | 0xffff));
    if assigned.is_none() {
        cursor.problem(format!("{vendor:#06x} is not the id of a PCI vendor"));
    }
    assigned
}

/// The number, if it is written in hexadecimal: YAML has lost how, and `8086` is not 0x8086.
fn hexadecimal_number(cursor: &Cursor, number: i128) -> Option<i128> {
    let spelling = cursor.spelling();
    if spelling.as_ref().is_some_and(|text| text.starts_with("0x")) {
        return Some(number);
    }
    cursor.problem(format!(
        "`{}` is a decimal number in YAML; write a vendor id in quotes, such as \"0x1e3e\"",
        shown(&spelling.unwrap_or_else(|| number.to_string()))
    ));
    None
}

fn read_driver(cursor: &Cursor) -> Option<String> {
    let driver = cursor.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !driver.bytes().all(allowed) || matches!(driver, "." | "..") {
        cursor.mismatch("the name of a kernel driver, as in /sys/bus/pci/drivers");
        return None;
    }
    Some(driver.to_owned())
}

fn read_node(cursor: &Cursor) -> Option<String> {
    let path = cursor.text()?;
    let plain = |name: &str| !matches!(name, "" | "." | "..");
    let below_dev = path.strip_prefix("/dev/").is_some_and(|rest| rest.split('/').all(plain));
    if !below_dev {
        cursor.mismatch("the path of a device node below /dev, such as /dev/itrctl");
        return None;
    }
    Some(path.to_owned())
}
