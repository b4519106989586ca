//! `mode` and `dra`: whether GPUs are offered by dynamic resource allocation, and as what.

use std::collections::BTreeSet;

use super::Overrides;
use super::cursor::{Cursor, Reading, shown};
use super::keys::{self, DRA_DEVICES_WORDS, DRA_FALLBACK_WORDS, MODE_WORDS, dra};
use super::resources::ResourceDefaults;
use super::section::Section;
use crate::model::config::{DraOffer, DraRules, Granularity, ServingMode};
use crate::model::health::ReasonCode;

/// The mode. The file's is read even where it is overridden.
pub(super) fn read_mode(root: &Section, overrides: &Overrides, reading: &Reading) -> ServingMode {
    let in_file = root.find(&keys::MODE).and_then(|mode| mode.word(&MODE_WORDS));
    let given = overrides.mode.as_ref().and_then(|given| {
        let found = MODE_WORDS.iter().find(|(word, _)| *word == given.text);
        if found.is_none() {
            reading.override_problem(given, "not a mode; write device-plugin or dra");
        }
        found.map(|(_, mode)| *mode)
    });
    given.or(in_file).unwrap_or_default()
}

/// What is left out follows from `flags` and `sharing`, in DRA mode.
pub(super) fn read_dra(root: &Section, mode: ServingMode, defaults: &ResourceDefaults) -> DraRules {
    let section = root.section(&keys::DRA);
    let is_dra = mode == ServingMode::Dra;
    let granularity = if is_dra { defaults.granularity } else { Granularity::Board };
    let word = section.find(&dra::DEVICES).and_then(|devices| devices.word(&DRA_DEVICES_WORDS));
    let fallback = section.find(&dra::FALLBACK).and_then(|it| it.word(&DRA_FALLBACK_WORDS));
    let devices = word.unwrap_or(match granularity {
        Granularity::Board => DraOffer::Board,
        Granularity::Chip => DraOffer::Chip,
    });
    DraRules {
        devices,
        fallback: fallback.unwrap_or(granularity),
        slots: read_slots(&section, devices, Some(defaults).filter(|_| is_dra)),
        evict: section.find(&dra::EVICT).map(read_evict).unwrap_or_default(),
        events: section.find(&dra::EVENTS).and_then(Cursor::boolean).unwrap_or(true),
    }
}

/// Replicas of the file count, unless boards and chips are both offered.
fn read_slots(
    section: &Section,
    devices: DraOffer,
    defaults: Option<&ResourceDefaults>,
) -> Option<u32> {
    let both = devices == DraOffer::Both;
    let Some(cursor) = section.find(&dra::SLOTS) else {
        let sharing = defaults?.sharing.sharing(None).filter(|_| !both);
        return sharing.map(|sharing| sharing.replicas);
    };
    let slots = super::sharing::read_replicas(cursor)?;
    if both {
        cursor.problem(
            "devices are not shared where `devices` is both; remove it, or write board or chip \
             there",
        );
        return None;
    }
    Some(slots)
}

fn read_evict(cursor: &Cursor) -> BTreeSet<ReasonCode> {
    let codes = cursor.distinct(|item| {
        let name = item.text()?;
        let code = ReasonCode::ALL.iter().copied().find(|code| code.name() == name);
        if code.is_none() {
            let message =
                format!("`{}` is not a reason; `health.signals` has the same names", shown(name));
            item.problem(message);
        }
        code
    });
    codes.into_iter().collect()
}
