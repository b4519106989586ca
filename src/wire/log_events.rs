//! The table of log events, as Markdown.

use crate::model::log_event::LogEvent;

/// A row for each event: name, level, meaning.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = "| event | level | meaning |\n| --- | --- | --- |\n".to_owned();
    for event in LogEvent::ALL {
        let (name, level, meaning) = (event.name(), event.level(), event.meaning());
        table.push_str(&format!("| `{name}` | {level} | {meaning} |\n"));
    }
    table
}
