//! What is known of one key of the configuration file: name, default, meaning, and the values that
//! it takes.

use std::ops::RangeInclusive;

/// One key of a mapping.
#[derive(Debug)]
pub struct ConfigKey {
    /// Its spelling in the file.
    pub name: &'static str,
    /// The value that an absent key stands for, as JSON; empty where there is none.
    pub default: &'static str,
    /// What it does, in one or two sentences.
    pub meaning: &'static str,
    /// What values it takes. A null counts as absent for every key.
    pub kind: ValueKind,
    /// Whether its mapping must have it.
    pub is_required: bool,
}

/// What a value is.
#[derive(Debug)]
pub enum ValueKind {
    /// Anything; it is ignored.
    Anything,
    /// Nothing but null: the key is known only to be refused with a remedy.
    Refused,
    /// An empty mapping: anything more is refused.
    EmptyMapping,
    /// True or false.
    Boolean,
    /// False: true is not supported.
    False,
    /// A whole number in this range.
    Integer(fn() -> RangeInclusive<u32>),
    /// A text of this form.
    Text(TextForm),
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// Values of the second kind in place of those of the first.
    Either(&'static [ValueKind]),
    /// A list with so many items of one kind.
    List(RangeInclusive<usize>, &'static ValueKind),
    /// A mapping with keys of the user's own.
    Map(TextForm, &'static ValueKind),
    /// A mapping from names of signals.
    Signals(&'static ValueKind),
    /// A mapping with these keys.
    Section(&'static [&'static ConfigKey]),
}

/// The form of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// Any text that is not empty.
    Any,
    /// `500ms`, `30s`, `5m`, `1h`.
    Duration,
    /// `0000:13:00.0`.
    Address,
    /// Vendor and device id: `1e3e:0003`.
    PciId,
    /// `0x1e3e`, or without `0x`.
    VendorId,
    /// An absolute path.
    AbsolutePath,
    /// A path below `/dev`.
    DeviceNode,
}

/// A key that its mapping need not have.
pub(super) const fn key(
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
    kind: ValueKind,
) -> ConfigKey {
    ConfigKey { name, default, meaning, kind, is_required: false }
}

/// A key with a mapping of known keys.
pub(super) const fn section(
    name: &'static str,
    meaning: &'static str,
    keys: &'static [&'static ConfigKey],
) -> ConfigKey {
    key(name, "", meaning, ValueKind::Section(keys))
}
