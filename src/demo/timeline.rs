//! What happened when: lines for people, or objects for scripts, printed as they happen.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::wire::report::paint::Paint;

/// Where lines go, and their format.
pub struct Timeline<'a> {
    out: &'a mut dyn Write,
    format: TimelineFormat,
}

/// The format of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimelineFormat {
    /// For people.
    Text(Paint),
    /// One object per line.
    Json,
}

/// Who does or reports something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The embedded kubelet, and what it sees.
    Kubelet,
    /// The plugin.
    Plugin,
    /// A pod.
    Pod,
    /// The machine, as if somebody handled it.
    Hardware,
    /// Whoever runs the cluster.
    Operator,
    /// The demo itself.
    Story,
}

impl Actor {
    fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::Plugin => "plugin",
            Self::Pod => "pod",
            Self::Hardware => "hardware",
            Self::Operator => "operator",
            Self::Story => "story",
        }
    }
}

impl<'a> Timeline<'a> {
    /// A timeline that prints to `out`.
    pub fn new(out: &'a mut dyn Write, format: TimelineFormat) -> Self {
        Self { out, format }
    }

    /// Prints one line, `at` this time since the story began, with `facts` for scripts.
    ///
    /// # Errors
    /// As `write`.
    pub fn print(
        &mut self,
        at: Duration,
        actor: Actor,
        text: &str,
        facts: &Value,
    ) -> io::Result<()> {
        let line = match self.format {
            TimelineFormat::Text(paint) => text_line(at, actor, text, paint),
            TimelineFormat::Json => json_line(at, actor, text, facts),
        };
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }
}

fn text_line(at: Duration, actor: Actor, text: &str, paint: Paint) -> String {
    let milliseconds = format!("{:>6.1} ms", at.as_secs_f64() * 1000.0);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let who = format!("{:<8}", actor.name());
    let mut line = format!("{}  {}  {first}\n", paint.faint(&milliseconds), paint.heading(&who));
    for more in lines {
        line.push_str(&format!("{:21}{}\n", "", paint.faint(more)));
    }
    line
}

fn json_line(at: Duration, actor: Actor, text: &str, facts: &Value) -> String {
    let milliseconds = (at.as_secs_f64() * 1e5).round() / 1e2;
    let mut line = json!({ "milliseconds": milliseconds, "actor": actor.name(), "text": text });
    if !facts.is_null() {
        line["facts"] = facts.clone();
    }
    format!("{line}\n")
}
