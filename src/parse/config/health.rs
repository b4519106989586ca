//! `health`: how often the chips are looked at, what each signal means, and how long a fault lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cursor::{Cursor, shown};
use super::section::{Section, read_entries};
use crate::model::config::HealthRules;
use crate::model::health::{ReasonCode, Severity};
use crate::model::ixml::IxmlChoice;

const KEYS: [&str; 4] = ["interval", "recovery", "ixml", "signals"];
const SEVERITIES: [(&str, Severity); 3] =
    [("ignore", Severity::Ignore), ("warn", Severity::Warn), ("unhealthy", Severity::Unhealthy)];
/// A look reads a few files of each chip; more often it would cost more than it tells.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn read_health(root: &Section) -> HealthRules {
    let health = root.section("health", &KEYS);
    let default = HealthRules::default();
    let duration = |key: &str, shortest| health.find(key)?.duration(shortest);
    HealthRules {
        interval: duration("interval", SHORTEST_INTERVAL).unwrap_or(default.interval),
        recovery: duration("recovery", Duration::ZERO).unwrap_or(default.recovery),
        ixml: health.find("ixml").and_then(read_ixml).unwrap_or_default(),
        signals: health.find("signals").map(read_signals).unwrap_or_default(),
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
                at_key.problem(super::section::unknown_key(name, &names));
            }
            Some((*code?, value.word(&SEVERITIES)?))
        })
        .collect()
}
