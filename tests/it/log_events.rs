//! The field `event` of the log: every line has one, and every one is logged.

use ix_device_plugin::model::log_event::LogEvent;

use crate::architecture::sources;

/// What the log macros of the daemon are given, from `info` up.
fn lines() -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for source in sources() {
        let is_demo = source.path.starts_with("src/demo");
        for level in ["info", "warn", "error"] {
            let call = format!("{level}!(");
            let calls = source.code.split(&call).skip(1).filter(|_| !is_demo);
            lines.extend(calls.map(|rest| (level, rest.split(";\n").next().unwrap().to_owned())));
        }
    }
    assert!(lines.len() > 40, "the log's lines were not found");
    lines
}

#[test]
fn every_line_from_info_up_has_an_event() {
    for (level, line) in lines() {
        let first = line.trim_start();
        assert!(first.starts_with("event"), "{level}!({line}");
    }
}

#[test]
fn every_event_is_logged_somewhere_at_its_level() {
    let code: String = sources().into_iter().map(|source| source.code).collect();
    for event in LogEvent::ALL {
        assert!(code.contains(&format!("LogEvent::{}", event.name())), "{}", event.name());
        let own = format!("event = LogEvent::{}.name()", event.name());
        for (level, line) in lines().iter().filter(|(_, line)| line.trim_start().starts_with(&own))
        {
            assert_eq!(*level, event.level(), "{line}");
        }
    }
}
