//! A mapping with known keys. An unknown key is a problem that names the nearest valid one.

use std::collections::HashSet;

use super::cursor::{Cursor, shown};
use super::key::{ConfigKey, ValueKind};
use super::keys;
use super::node::Yaml;

const GIVEN_TWICE: &str = "the key is given twice; remove one of the two";

/// One mapping of the file, its keys checked.
pub(super) struct Section<'a> {
    entries: Vec<(&'a str, Cursor<'a>)>,
}

impl<'a> Section<'a> {
    /// Reads a mapping and notes every key that is not in `keys`; a null is an empty mapping.
    pub(super) fn open(cursor: &Cursor<'a>, keys: &[&ConfigKey]) -> Self {
        let names: Vec<_> = keys.iter().map(|key| key.name).collect();
        let mut entries: Vec<(&str, Cursor)> = Vec::new();
        for (written, at_key, value) in read_entries(cursor) {
            match known_key(written, &names) {
                None => at_key.problem(unknown_key(written, &names)),
                Some(name) if entries.iter().any(|(other, _)| *other == name) => {
                    at_key.problem(GIVEN_TWICE);
                }
                Some(name) => entries.push((name, value)),
            }
        }
        Self { entries }
    }

    /// The value of `key`; a null counts as absent, as in the replaced plugin.
    pub(super) fn find(&self, key: &ConfigKey) -> Option<&Cursor<'a>> {
        self.entries
            .iter()
            .find(|(name, value)| *name == key.name && !value.is_null())
            .map(|(_, value)| value)
    }

    /// The section below `key`, empty where the key is absent or has no section.
    pub(super) fn section(&self, key: &ConfigKey) -> Self {
        match (self.find(key), &key.kind) {
            (Some(value), ValueKind::Section(keys)) => Self::open(value, keys),
            _ => Self { entries: Vec::new() },
        }
    }

    /// The boolean of `key`, false where it is absent.
    pub(super) fn flag(&self, key: &ConfigKey) -> bool {
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
            at_key.problem(GIVEN_TWICE);
            continue;
        }
        entries.push((name, at_key, cursor.below(name, value)));
    }
    entries
}

/// The valid key that is meant.
fn known_key(written: &str, valid: &[&'static str]) -> Option<&'static str> {
    let is_it = |name: &&&'static str| {
        **name == written || keys::ANY_CASE.contains(*name) && name.eq_ignore_ascii_case(written)
    };
    valid.iter().find(is_it).copied()
}

/// The problem of a key that is not one of the valid ones.
pub(super) fn unknown_key(key: &str, valid: &[&str]) -> String {
    if key == "<<" {
        return "merge keys are not supported; write the keys out".to_owned();
    }
    if let Some(nearest) = nearest(key, valid) {
        return format!("unknown key; did you mean `{nearest}`?");
    }
    let home = keys::paths().into_iter().find(|path| path.rsplit('.').next() == Some(key));
    match home {
        Some(home) if home == key => {
            format!("unknown key here; did you mean `{home}` at the top of the file?")
        }
        Some(home) => format!("unknown key here; did you mean `{home}`?"),
        None => format!("unknown key; the keys here are {}", valid.join(", ")),
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
