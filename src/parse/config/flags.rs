//! `flags`, each of which a flag or environment variable may override.

use super::cursor::{Cursor, Reading};
use super::key::ConfigKey;
use super::keys;
use super::section::Section;
use super::{Override, Overrides};
use crate::model::config::Granularity;
use crate::parse::env_bool::parse_env_bool;

/// Refuses what is not supported; returns what a device is.
pub(super) fn read_flags(root: &Section, overrides: &Overrides, reading: &Reading) -> Granularity {
    let flags = Flags { section: root.section(&keys::FLAGS), reading };
    let split = flags.value(&keys::flags::SPLITBOARD, overrides.split_board.as_ref());
    let volcano = overrides.use_volcano.as_ref();
    flags.refuse(&keys::flags::USEVOLCANO, volcano, "Volcano mode is not supported");
    let reset = overrides.reset_gpu.as_ref();
    flags.refuse(&keys::flags::RESET_GPU, reset, "resetting a GPU before use is not supported");
    granularity(split)
}

struct Flags<'r, 'a> {
    section: Section<'a>,
    reading: &'r Reading<'a>,
}

impl Flags<'_, '_> {
    /// The value of a flag. The file's is read even where it is overridden: a value that is not a
    /// boolean is a problem all the same.
    fn value(&self, key: &ConfigKey, given: Option<&Override>) -> bool {
        let in_file = self.section.flag(key);
        self.given(given).unwrap_or(in_file)
    }

    /// The value that overrides the file's; an empty one does not.
    fn given(&self, given: Option<&Override>) -> Option<bool> {
        let given = given.filter(|given| !given.text.is_empty())?;
        parse_env_bool(&given.text)
            .map_err(|error| self.reading.override_problem(given, error.to_string()))
            .ok()
    }

    /// Notes a flag that is true, at the place that decides.
    fn refuse(&self, key: &ConfigKey, given: Option<&Override>, why: &str) {
        let in_file = self.section.find(key).filter(|cursor| cursor.boolean() == Some(true));
        match (self.given(given).zip(given), in_file) {
            (Some((true, given)), _) => {
                self.reading.override_problem(given, format!("{why}; unset it"));
            }
            (None, Some(cursor)) => cursor.problem(format!("{why}; set it to false")),
            _ => {}
        }
    }
}

/// `splitboard` of one resource, or `default` where it is not set.
pub(super) fn read_granularity(cursor: Option<&Cursor>, default: Granularity) -> Granularity {
    cursor.and_then(Cursor::boolean).map_or(default, granularity)
}

fn granularity(split: bool) -> Granularity {
    if split { Granularity::Chip } else { Granularity::Board }
}
