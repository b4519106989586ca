//! The chips' UUIDs, as the file of `discovery.identities` last had them.

use std::collections::BTreeMap;

use crate::model::config::{Config, ServingMode, VisibleDevices};
use crate::model::health::{Reason, ReasonCode};
use crate::model::identity::{ChipUuid, Identities, IdentitiesReading};
use crate::model::pci::PciAddress;
use crate::model::warning::{Subject, Warning, WarningCode};

/// So many bad lines are in the warning; a file that is no CSV at all would fill the log.
const SHOWN_LINES: usize = 3;

/// The UUIDs that are known, and what is wrong with the file.
///
/// A file that is missing or refused changes no UUID: a chip keeps its name for life, so the last
/// good file is as true as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownUuids {
    uuids: BTreeMap<PciAddress, ChipUuid>,
    warning: Option<Warning>,
}

impl KnownUuids {
    /// The UUIDs of one reading.
    #[must_use]
    pub fn of(reading: Option<IdentitiesReading>) -> Self {
        let mut known = Self::default();
        known.read(reading);
        known
    }

    /// The file was read again; none where the configuration names no file.
    pub fn read(&mut self, reading: Option<IdentitiesReading>) {
        let Some(IdentitiesReading { path, result }) = reading else {
            *self = Self::default();
            return;
        };
        let problem = match result {
            Ok(Identities { uuids, bad_lines }) => {
                self.uuids = uuids;
                listed(&bad_lines)
            }
            Err(error) if self.uuids.is_empty() => Some(error),
            Err(error) => Some(format!("{error}; keeping the UUIDs that it had")),
        };
        self.warning = problem.map(|problem| Warning {
            code: WarningCode::IdentitiesFile,
            subject: Subject::Node,
            detail: format!("{}: {problem}", path.display()),
        });
    }

    /// The UUID of a chip.
    #[must_use]
    pub fn get(&self, chip: PciAddress) -> Option<&ChipUuid> {
        self.uuids.get(&chip)
    }

    /// What is wrong with the file.
    #[must_use]
    pub fn warning(&self) -> Option<&Warning> {
        self.warning.as_ref()
    }

    /// The reason against a chip whose UUID containers need and that is not known. Containers of
    /// claims do not get UUIDs.
    #[must_use]
    pub fn unknown(&self, chip: PciAddress, config: &Config) -> Option<Reason> {
        let is_needed = config.mode == ServingMode::DevicePlugin
            && config.container.visible_devices == VisibleDevices::Uuids;
        (is_needed && !self.uuids.contains_key(&chip)).then(|| Reason {
            code: ReasonCode::UuidUnknown,
            detail: format!("the file of discovery.identities has no UUID of {chip}"),
        })
    }
}

fn listed(bad_lines: &[String]) -> Option<String> {
    let shown = bad_lines.get(..SHOWN_LINES).unwrap_or(bad_lines).join("; ");
    match bad_lines.len() {
        0 => None,
        count if count > SHOWN_LINES => Some(format!("{shown}; and {} more", count - SHOWN_LINES)),
        _ => Some(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::scan_builder::at;

    fn reading(result: Result<Identities, &str>) -> IdentitiesReading {
        IdentitiesReading { path: "/ids.csv".into(), result: result.map_err(str::to_owned) }
    }

    fn file(chip: &str, bad_lines: &[&str]) -> Identities {
        let uuid = "GPU-5020332b-19bd-52dd-9a9c-00496701884f".parse().unwrap();
        let bad_lines = bad_lines.iter().map(|line| (*line).to_owned()).collect();
        Identities { uuids: [(at(chip), uuid)].into(), bad_lines }
    }

    fn warning(known: &KnownUuids) -> &str {
        known.warning().map_or("", |warning| &warning.detail)
    }

    #[test]
    fn a_file_that_goes_away_or_is_refused_costs_no_uuid() {
        let mut known = KnownUuids::of(Some(reading(Err("no such file"))));
        assert_eq!(warning(&known), "/ids.csv: no such file");
        known.read(Some(reading(Ok(file("13:00.0", &[])))));
        assert_eq!((warning(&known), known.get(at("13:00.0")).is_some()), ("", true));
        known.read(Some(reading(Err("no such file"))));
        assert_eq!(warning(&known), "/ids.csv: no such file; keeping the UUIDs that it had");
        assert!(known.get(at("13:00.0")).is_some());
        known.read(Some(reading(Ok(file("16:00.0", &[])))));
        assert_eq!((warning(&known), known.get(at("13:00.0"))), ("", None));
        known.read(None);
        assert_eq!(known, KnownUuids::default());
    }

    #[test]
    fn the_warning_has_the_first_bad_lines() {
        let known = KnownUuids::of(Some(reading(Ok(file("13:00.0", &["line 2: a", "line 3: b"])))));
        assert_eq!(warning(&known), "/ids.csv: line 2: a; line 3: b");
        let known = KnownUuids::of(Some(reading(Ok(file("13:00.0", &["a", "b", "c", "d", "e"])))));
        assert_eq!(warning(&known), "/ids.csv: a; b; c; and 2 more");
    }

    #[test]
    fn a_uuid_is_missed_only_where_containers_are_to_get_it() {
        let known = KnownUuids::of(Some(reading(Ok(file("13:00.0", &[])))));
        let missed = |chip, mode, visible_devices| {
            let mut config = Config { mode, ..Config::default() };
            config.container.visible_devices = visible_devices;
            known.unknown(at(chip), &config).map(|reason| reason.detail)
        };
        let plugin = ServingMode::DevicePlugin;
        let sentence = "the file of discovery.identities has no UUID of 0000:16:00.0";
        assert_eq!(missed("16:00.0", plugin, VisibleDevices::Uuids).as_deref(), Some(sentence));
        assert_eq!(missed("13:00.0", plugin, VisibleDevices::Uuids), None);
        assert_eq!(missed("16:00.0", plugin, VisibleDevices::Addresses), None);
        assert_eq!(missed("16:00.0", ServingMode::Dra, VisibleDevices::Uuids), None);
    }
}
