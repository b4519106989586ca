//! What is wrong with a configuration: all of it at once, for people to read.

use std::fmt;

/// More than this many are counted, not printed: nobody reads on, and logs are not endless.
const PRINTED: usize = 100;

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a path of keys: `flags.splitboard`, `resources[0].name`; the name of the flag
    /// for what came by the command line; empty for the file as a whole.
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
/// Ordered by line, then path; what has no line comes last. Printed over several lines, of which
/// the first is the number: the caller puts the file's name before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblems {
    /// All of them.
    pub problems: Vec<Problem>,
}

impl ConfigProblems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            let place = |problem: &Problem| problem.line.unwrap_or(usize::MAX);
            (place(a), &a.path, &a.message).cmp(&(place(b), &b.path, &b.message))
        });
        Self { problems }
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("1 problem")?,
            count => write!(f, "{count} problems")?,
        }
        for problem in self.problems.iter().take(PRINTED) {
            write!(f, "\n  {problem}")?;
        }
        match self.problems.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for ConfigProblems {}
