//! What a check concludes, in sentences.

use std::fmt;

use super::check::Check;

/// How grave a finding is, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As it should be.
    Ok,
    /// The check cannot run here.
    Skipped,
    /// Worth knowing.
    Note,
    /// Works, but not as it should, or not for long.
    Warning,
    /// GPUs cannot be used because of it.
    Failure,
}

impl Level {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How grave it is.
    pub level: Level,
    /// Names the thing, its value and the rule.
    pub sentence: String,
    /// What to do, where something can be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(sentence: impl Into<String>) -> Self {
        Self { level: Level::Ok, sentence: sentence.into(), remedy: None }
    }

    /// The check, or a part of it, cannot run here; the sentence has the reason.
    #[must_use]
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { level: Level::Skipped, sentence: why.into(), remedy: None }
    }

    /// Worth knowing.
    #[must_use]
    pub fn note(sentence: impl Into<String>) -> Self {
        Self { level: Level::Note, sentence: sentence.into(), remedy: None }
    }

    /// Not as it should be, and what to do.
    #[must_use]
    pub fn warning(sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::note(sentence).at(Level::Warning).with_remedy(remedy)
    }

    /// Broken, and what to do.
    #[must_use]
    pub fn failure(sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::note(sentence).at(Level::Failure).with_remedy(remedy)
    }

    /// The same, with a remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same, as grave as this.
    #[must_use]
    pub fn at(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}

/// A check and its findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which check.
    pub check: Check,
    /// At least one.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// True where no part of the check could run.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        self.findings.iter().all(|finding| finding.level == Level::Skipped)
    }

    /// As grave as its gravest finding.
    #[must_use]
    pub fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// The exit status of a report: 0 without warnings and failures; otherwise that of the first check
/// that failed or, without failures, of the first check with a warning.
#[must_use]
pub fn exit_status(report: &[Diagnosis]) -> u8 {
    deciding(report).map_or(0, Check::exit_status)
}

/// The check that decides the exit status; none without warnings and failures.
#[must_use]
pub fn deciding(report: &[Diagnosis]) -> Option<Check> {
    let first = |level| report.iter().find(|diagnosis| diagnosis.level() == level);
    Some(first(Level::Failure).or_else(|| first(Level::Warning))?.check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(levels: &[Level], expected: u8) {
        let report: Vec<_> = Check::ALL
            .iter()
            .zip(levels)
            .map(|(check, level)| Diagnosis {
                check: *check,
                findings: vec![Finding::ok("x"), Finding::ok("y").at(*level)],
            })
            .collect();
        assert_eq!(exit_status(&report), expected);
    }

    #[test]
    fn notes_and_skipped_checks_are_no_reason_to_fail() {
        check(&[Level::Ok, Level::Skipped, Level::Note], 0);
    }

    #[test]
    fn the_first_failure_decides_and_without_one_the_first_warning() {
        check(&[Level::Note, Level::Warning, Level::Warning], 11);
        check(&[Level::Warning, Level::Ok, Level::Failure, Level::Failure], 12);
    }
}
