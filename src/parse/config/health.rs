//! `health`: how often chips are sampled, the severity of each signal, how long a fault lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cursor::{Cursor, shown};
use super::key::ConfigKey;
use super::keys::{self, SEVERITY_WORDS, SHORTEST_INTERVAL};
use super::section::{Section, read_entries, unknown_key};
use crate::model::config::HealthRules;
use crate::model::health::{ReasonCode, Severity};
use crate::model::ixml::IxmlChoice;

pub(super) fn read_health(root: &Section) -> HealthRules {
    let health = root.section(&keys::HEALTH);
    let default = HealthRules::default();
    let duration = |key: &ConfigKey, shortest| health.find(key)?.duration(shortest);
    HealthRules {
        interval: duration(&keys::health::INTERVAL, SHORTEST_INTERVAL).unwrap_or(default.interval),
        recovery: duration(&keys::health::RECOVERY, Duration::ZERO).unwrap_or(default.recovery),
        ixml: health.find(&keys::health::IXML).and_then(read_ixml).unwrap_or_default(),
        signals: health.find(&keys::health::SIGNALS).map(read_signals).unwrap_or_default(),
    }
}

fn read_ixml(cursor: &Cursor) -> Option<IxmlChoice> {
    if cursor.is_off() {
        return Some(IxmlChoice::Off);
    }
    match cursor.text()? {
        "auto" => Some(IxmlChoice::Auto),
        path if path.starts_with('/') => Some(IxmlChoice::Path(path.into())),
        other => {
            let message =
                format!("`{}` is not known; write auto, off or an absolute path", shown(other));
            cursor.problem(message);
            None
        }
    }
}

fn read_signals(cursor: &Cursor) -> BTreeMap<ReasonCode, Severity> {
    let entries = read_entries(cursor).into_iter();
    entries
        .filter_map(|(name, at_key, value)| {
            let code = ReasonCode::ALL.iter().find(|code| code.name() == name);
            if code.is_none() {
                let names: Vec<_> = ReasonCode::ALL.iter().map(|code| code.name()).collect();
                at_key.problem(unknown_key(name, &names));
            }
            Some((*code?, value.word(&SEVERITY_WORDS)?))
        })
        .collect()
}
