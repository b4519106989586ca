//! A mapping with known keys. An unknown key is a problem that names the nearest valid one.

use std::collections::HashSet;

use super::cursor::{Cursor, shown};
use super::node::Yaml;

/// Keys that are looked for at the wrong height, and where they belong.
const HOMES: [&str; 22] = [
    "boards.chipsPerBoard",
    "boards.models",
    "boards.pairing",
    "boards.pairs",
    "cdi.deviceSpecs",
    "cdi.enabled",
    "cdi.specDir",
    "container.visibleDevices",
    "discovery.controlNodes",
    "discovery.drivers",
    "discovery.rescan",
    "discovery.vendorIds",
    "flags.splitboard",
    "health.interval",
    "health.recovery",
    "health.signals",
    "resourceName",
    "sharing.timeSlicing",
    "sharing.timeSlicing.failRequestsGreaterThanOne",
    "sharing.timeSlicing.policy",
    "sharing.timeSlicing.renameByDefault",
    "sharing.timeSlicing.replicas",
];

/// One mapping of the file, its keys checked.
pub(super) struct Section<'a> {
    entries: Vec<(&'a str, Cursor<'a>)>,
}

impl<'a> Section<'a> {
    /// Reads a mapping and notes every key that is not in `keys`; a null is an empty mapping.
    pub(super) fn open(cursor: &Cursor<'a>, keys: &[&str]) -> Self {
        let mut entries = read_entries(cursor);
        entries.retain(|(key, at_key, _)| {
            let known = keys.contains(key);
            if !known {
                at_key.problem(unknown_key(key, keys));
            }
            known
        });
        Self { entries: entries.into_iter().map(|(key, _, value)| (key, value)).collect() }
    }

    /// The value of `key`; a null counts as absent, as in the replaced plugin.
    pub(super) fn find(&self, key: &str) -> Option<&Cursor<'a>> {
        self.entries
            .iter()
            .find(|(name, value)| *name == key && !value.is_null())
            .map(|(_, value)| value)
    }

    /// The section below `key`, empty where the key is absent.
    pub(super) fn section(&self, key: &str, keys: &[&str]) -> Self {
        self.find(key).map_or(Self { entries: Vec::new() }, |value| Self::open(value, keys))
    }

    /// The boolean of `key`, false where it is absent.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.find(key).and_then(Cursor::boolean).unwrap_or(false)
    }
}

/// A mapping with keys of the user's own: each key, a cursor at the key, one at its value.
pub(super) fn read_entries<'a>(cursor: &Cursor<'a>) -> Vec<(&'a str, Cursor<'a>, Cursor<'a>)> {
    let Yaml::Mapping(nodes) = cursor.yaml() else {
        if !cursor.is_null() {
            cursor.mismatch("a mapping of keys to values");
        }
        return Vec::new();
    };
    let mut entries: Vec<(&str, Cursor, Cursor)> = Vec::new();
    let mut seen = HashSet::new();
    for (key, value) in nodes {
        let Yaml::Text(name) = &key.yaml else {
            cursor.odd_key(key).mismatch("text, as a key must be; put the key in quotes");
            continue;
        };
        let at_key = cursor.below(name, key);
        if !seen.insert(name) {
            at_key.problem("the key is given twice; remove one of the two");
            continue;
        }
        entries.push((name, at_key, cursor.below(name, value)));
    }
    entries
}

pub(super) fn unknown_key(key: &str, keys: &[&str]) -> String {
    if key == "<<" {
        return "merge keys are not supported; write the keys out".to_owned();
    }
    if let Some(nearest) = nearest(key, keys) {
        return format!("unknown key; did you mean `{nearest}`?");
    }
    let home = HOMES.iter().find(|home| home.rsplit('.').next() == Some(key));
    match home {
        Some(home) => format!("unknown key here; did you mean `{home}`?"),
        None => format!("unknown key; the keys here are {}", keys.join(", ")),
    }
}

/// The valid key that differs least, if it differs in at most a third of its letters.
///
/// Case, `_` and `-` do not count: most slips are `splitBoard` and `reset-gpu`.
fn nearest<'k>(key: &str, keys: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(&shown(key));
    keys.iter()
        .map(|valid| (strsim::osa_distance(&wanted, &plain(valid)), *valid))
        .filter(|(distance, valid)| *distance <= (valid.len() / 3).max(1))
        .min()
        .map(|(_, valid)| valid)
}
