//! What selectors and constraints of claims can ask of a device.
//!
//! An attribute that is not known is left out: a device without it never meets a constraint on it.

use std::collections::BTreeMap;

use crate::model::board::{Board, Chip};
use crate::model::dra::device::AttributeValue;
use crate::model::function::Function;
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;
use crate::model::topology::GroupKind;

/// The longest text or version that an API server takes, in bytes.
const VALUE_LIMIT: usize = 64;

/// Which part of a board a device is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) board: &'a Board,
    /// Of the device, ascending; not empty.
    pub(super) chips: &'a [&'a Chip],
    /// Whether the device is a board, or the only chip that the board should have.
    pub(super) is_whole_board: bool,
}

/// Every attribute of a device.
pub(super) fn attributes(part: Part<'_>) -> BTreeMap<String, AttributeValue> {
    let mut attributes = Attributes(BTreeMap::new());
    let Part { inventory, board, chips, is_whole_board } = part;
    attributes.int("chips", i64::try_from(chips.len()).ok());
    attributes.0.insert("wholeBoard".to_owned(), AttributeValue::Bool(is_whole_board));
    attributes.text("board", Some(board.address));
    attributes.text("model", Some(&board.model));
    attributes.text("pciId", agreed(chips, |chip| Some(chip.id)));
    attributes.text("driver", agreed(chips, |chip| chip.driver.clone()));
    attributes.text("slot", agreed(chips, |chip| chip.slot.clone()));
    attributes.version("driverVersion", inventory.driver_version.as_deref());
    add_places(part, &mut attributes);
    attributes.0
}

/// Where it is among ports, root buses and NUMA nodes.
fn add_places(part: Part<'_>, attributes: &mut Attributes) {
    let Part { inventory, board, chips, .. } = part;
    let function = |chip: &Chip| function_of(inventory, chip.address);
    attributes.text("pcieSwitch", shared_port(inventory, board));
    attributes.text("pcieRootPort", agreed(chips, |chip| function(chip)?.ports.first().copied()));
    let root = agreed(chips, |chip| function(chip)?.root_bus);
    attributes.text("resource.kubernetes.io/pcieRoot", root);
    if let [chip] = chips {
        // The standard's grammar has domains of four digits.
        let address = Some(chip.address).filter(|address| address.domain <= 0xffff);
        attributes.text("resource.kubernetes.io/pciBusID", address);
    }
    let numa_node = agreed(chips, |chip| chip.numa_node);
    attributes.int("resource.kubernetes.io/numaNode", numa_node.map(i64::from));
}

fn function_of(inventory: &Inventory, chip: PciAddress) -> Option<&Function> {
    let functions = &inventory.functions;
    let index = functions.binary_search_by_key(&chip, |function| function.address).ok()?;
    Some(&functions[index])
}

/// The nearest port above the board that joins it with another one.
fn shared_port(inventory: &Inventory, board: &Board) -> Option<PciAddress> {
    let tree = &inventory.tree;
    let mut group = tree.groups.get(*tree.chips.get(&board.chips.first()?.address)?)?;
    loop {
        if let GroupKind::Port(port) = group.kind {
            return Some(port);
        }
        group = tree.groups.get(group.parent?)?;
    }
}

/// The value that all chips have; none where one has another, or none.
fn agreed<T: PartialEq>(chips: &[&Chip], value: impl Fn(&Chip) -> Option<T>) -> Option<T> {
    let mut values = chips.iter().map(|chip| value(chip));
    let first = values.next()??;
    values.all(|value| value.as_ref() == Some(&first)).then_some(first)
}

struct Attributes(BTreeMap<String, AttributeValue>);

impl Attributes {
    fn int(&mut self, name: &str, value: Option<i64>) {
        self.0.extend(value.map(|value| (name.to_owned(), AttributeValue::Int(value))));
    }

    fn text(&mut self, name: &str, value: Option<impl ToString>) {
        let text = value.map(|value| cut(&value.to_string(), VALUE_LIMIT).to_owned());
        let text = text.filter(|text| !text.is_empty()).map(AttributeValue::Text);
        self.0.extend(text.map(|text| (name.to_owned(), text)));
    }

    /// As a version only by the strict rules of `SemVer`: an API server refuses the whole slice for
    /// any other.
    fn version(&mut self, name: &str, version: Option<&str>) {
        match version {
            Some(text) if is_semver(text) && text.len() <= VALUE_LIMIT => {
                self.0.insert(name.to_owned(), AttributeValue::Version(text.to_owned()));
            }
            other => self.text(name, other),
        }
    }
}

/// At most `limit` bytes, whole characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Whether a text is a version by `SemVer` 2.0.0: `MAJOR.MINOR.PATCH[-PRE][+BUILD]`.
fn is_semver(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, it)| (rest, Some(it)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, it)| (core, Some(it)));
    let numbers: Vec<_> = core.split('.').collect();
    let is_core =
        numbers.len() == 3 && numbers.iter().all(|it| is_number(it) && it.parse::<u64>().is_ok());
    let is_pre = pre.is_none_or(|pre| {
        pre.split('.').all(|it| is_identifier(it) && (!is_digits(it) || is_number(it)))
    });
    is_core && is_pre && build.is_none_or(|build| build.split('.').all(is_identifier))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Digits without a leading zero.
fn is_number(text: &str) -> bool {
    !text.is_empty() && is_digits(text) && (text == "0" || !text.starts_with('0'))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_an_api_server_accepts_are_sent_as_versions() {
        for text in ["4.3.8", "0.0.0", "4.3.8-rc.1", "4.3.8+git.5", "1.2.3-0a.x-y+01"] {
            assert!(is_semver(text), "{text}");
        }
        for text in [
            "",
            "4.3",
            "4.3.8.1",
            "v4.3.8",
            "04.3.8",
            "4.3.8-",
            "4.3.8+",
            "4.3.8-01",
            "4.3.8-a..b",
            "4.3.x",
            "4.3.8 ",
            "99999999999999999999.0.0",
        ] {
            assert!(!is_semver(text), "{text}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("ab€", 4), "ab");
    }
}
