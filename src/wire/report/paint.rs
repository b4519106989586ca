//! Colour, on a terminal only.

use crate::model::doctor::finding::Level;
use crate::model::health::Health;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// ANSI colours.
    Colour,
    /// Plain text.
    Plain,
}

impl Paint {
    /// Green for healthy, red for unhealthy.
    #[must_use]
    pub fn health(self, health: Health, text: &str) -> String {
        match health {
            Health::Healthy => self.wrap("32", text),
            Health::Unhealthy => self.wrap("31", text),
        }
    }

    /// Green for ok, yellow for a warning, red for a failure.
    #[must_use]
    pub fn level(self, level: Level, text: &str) -> String {
        match level {
            Level::Ok => self.wrap("32", text),
            Level::Skipped | Level::Note => text.to_owned(),
            Level::Warning => self.wrap("33", text),
            Level::Failure => self.wrap("31", text),
        }
    }

    /// A heading.
    #[must_use]
    pub fn heading(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Something that needs attention.
    #[must_use]
    pub fn warning(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Something of lesser weight.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}
