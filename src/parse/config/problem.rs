//! What is wrong with a configuration: all of it at once, for people to read.

use std::fmt;

/// More than this many are counted, not printed, to bound the log.
const PRINT_LIMIT: usize = 100;

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a path of keys: `flags.splitboard`, `resources[0].name`; empty for the file as a
    /// whole.
    pub path: String,
    /// Line of the file, counted from 1, where it is known.
    pub line: Option<usize>,
    /// The value, the rule and the remedy; one line.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with one configuration; at least one thing.
///
/// [`Self::of_file`] prints it with the name of the file. Without it, the problems of the file come
/// first: their number, then each on a line of its own; then those of flags and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems {
    /// Those of the file, ordered by line, then path; what has no line comes last.
    pub problems: Vec<Problem>,
    /// Those of flags and environment variables; each begins with its name.
    pub overrides: Vec<String>,
}

impl ConfigProblems {
    pub(super) fn new(mut problems: Vec<Problem>, overrides: Vec<String>) -> Self {
        problems.sort_by(|a, b| {
            let place = |problem: &Problem| problem.line.unwrap_or(usize::MAX);
            (place(a), &a.path, &a.message).cmp(&(place(b), &b.path, &b.message))
        });
        Self { problems, overrides }
    }

    /// The message for people. The file is named only where something in it is wrong.
    #[must_use]
    pub fn of_file(&self, file: impl fmt::Display) -> String {
        if self.problems.is_empty() { self.to_string() } else { format!("{file} has {self}") }
    }

    fn write_file_problems(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("1 problem")?,
            count => write!(f, "{count} problems")?,
        }
        for problem in self.problems.iter().take(PRINT_LIMIT) {
            write!(f, "\n  {problem}")?;
        }
        match self.problems.len().saturating_sub(PRINT_LIMIT) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.problems.is_empty() {
            self.write_file_problems(f)?;
        }
        for (index, problem) in self.overrides.iter().enumerate() {
            let is_first = index == 0 && self.problems.is_empty();
            write!(f, "{}{problem}", if is_first { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigProblems {}
