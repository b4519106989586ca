//! A place in the tree: knows its path, reads one value as one type, and notes what is wrong
//! there. Reading goes on after a problem, so that all are found in one pass.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::Override;
use super::node::{Position, Yaml, YamlNode, find_position};
use super::problem::{ConfigProblems, Problem};
use crate::model::pci::{PciAddress, PciId};
use crate::parse::duration::parse_duration;

/// To find a node the text is read again; together not more than this many bytes. A file of
/// ordinary size gets a line for thousands of problems, one of 1 MiB for sixteen.
const LOOKUP_BYTES: usize = 16 << 20;

/// Longer values are cut in messages.
const SHOWN: usize = 80;

/// One file under reading: its text, and what was found wrong so far.
pub(super) struct Reading<'a> {
    text: &'a str,
    problems: RefCell<Vec<UnplacedProblem>>,
    override_problems: RefCell<Vec<String>>,
    lookup_bytes: Cell<usize>,
}

/// A problem whose line has not been searched for yet.
struct UnplacedProblem {
    path: String,
    node: Option<usize>,
    message: String,
}

impl<'a> Reading<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
            override_problems: RefCell::default(),
            lookup_bytes: Cell::new(LOOKUP_BYTES),
        }
    }

    fn position(&self, node: usize) -> Option<Position> {
        let left = self.lookup_bytes.get().checked_sub(self.text.len())?;
        self.lookup_bytes.set(left);
        find_position(self.text, node)
    }

    /// Notes what is wrong with a flag or an environment variable, for example
    /// `USE_VOLCANO=true: …`.
    pub(super) fn override_problem(&self, given: &Override, message: impl fmt::Display) {
        let Override { name, text } = given;
        self.override_problems.borrow_mut().push(format!("{name}={}: {message}", shown(text)));
    }

    fn note(&self, path: String, node: Option<usize>, message: String) {
        self.problems.borrow_mut().push(UnplacedProblem { path, node, message });
    }

    /// The end of reading: `value` if nothing was wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigProblems> {
        let (mut problems, overrides) = (self.problems.take(), self.override_problems.take());
        if problems.is_empty() && overrides.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(|finding| finding.node);
        let problems = problems.into_iter().map(|finding| Problem {
            path: finding.path,
            line: finding.node.and_then(|node| Some(self.position(node)?.line)),
            message: finding.message,
        });
        Err(ConfigProblems::new(problems.collect(), overrides))
    }
}

/// One value and its path.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    reading: &'a Reading<'a>,
    node: &'a YamlNode,
    path: String,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(reading: &'a Reading<'a>, node: &'a YamlNode) -> Self {
        Self { reading, node, path: String::new() }
    }

    /// The value of `key`.
    pub(super) fn below(&self, key: &str, node: &'a YamlNode) -> Self {
        let plain = !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let path = match (plain, self.path.as_str()) {
            (true, "") => shown(key),
            (true, path) => format!("{path}.{}", shown(key)),
            (false, path) => format!("{path}[\"{}\"]", shown(key)),
        };
        Self { node, path, ..*self }
    }

    /// A key without a name of its own, for example a list; it has the path of its mapping.
    pub(super) fn odd_key(&self, node: &'a YamlNode) -> Self {
        Self { node, path: self.path.clone(), ..*self }
    }

    pub(super) fn yaml(&self) -> &'a Yaml {
        &self.node.yaml
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.yaml == Yaml::Null
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.yaml(), Yaml::List(_))
    }

    pub(super) fn is_empty_list(&self) -> bool {
        matches!(self.yaml(), Yaml::List(items) if items.is_empty())
    }

    pub(super) fn is_empty_mapping(&self) -> bool {
        matches!(self.yaml(), Yaml::Mapping(entries) if entries.is_empty())
    }

    /// The scalar as it is spelt in the file, where that can be found.
    pub(super) fn spelling(&self) -> Option<String> {
        self.reading.position(self.node.number)?.raw
    }

    /// How much was found wrong up to now, in the whole file.
    pub(super) fn problems_so_far(&self) -> usize {
        self.reading.problems.borrow().len()
    }

    pub(super) fn problem(&self, message: impl Into<String>) {
        let node = Some(self.node.number);
        self.reading.note(self.path.clone(), node, message.into());
    }

    /// Notes that this is not what was expected, for example `a list`.
    pub(super) fn mismatch(&self, expected: &str) {
        self.problem(match self.yaml() {
            Yaml::Tagged(tag) => {
                format!("the tag `!{}` is not supported; remove it", shown(tag))
            }
            yaml => format!("{} is not {expected}", described(yaml)),
        });
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.yaml() {
            Yaml::Bool(value) => return Some(*value),
            Yaml::Text(text) => match meant_boolean(text) {
                Some(meant) => self.problem(format!(
                    "`{text}` is text, not a boolean; write {meant} without quotes"
                )),
                None => self.mismatch("a boolean; write true or false"),
            },
            _ => self.mismatch("a boolean; write true or false"),
        }
        None
    }

    pub(super) fn integer(&self) -> Option<i128> {
        match self.yaml() {
            Yaml::Integer(value) => return Some(*value),
            Yaml::Text(text) if text.parse::<i64>().is_ok() => {
                self.problem(format!("`{text}` is text, not a number; write it without quotes"));
            }
            _ => self.mismatch("a whole number"),
        }
        None
    }

    /// Not empty, without control characters, no white space around it.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.yaml() {
            Yaml::Text(text) if text.trim().is_empty() => {
                self.problem("the text is empty; remove the key or give it a value");
            }
            Yaml::Text(text) if text.chars().any(char::is_control) => {
                let text = shown(text);
                self.problem(format!("`{text}` has control characters; remove them"));
            }
            Yaml::Text(text) if text.trim() != text => {
                let text = shown(text);
                self.problem(format!("`{text}` begins or ends with a space; remove it"));
            }
            Yaml::Text(text) => return Some(text),
            Yaml::Bool(_) | Yaml::Integer(_) | Yaml::Float(_) => {
                self.mismatch("text; put it in quotes");
            }
            _ => self.mismatch("text"),
        }
        None
    }

    /// `off`, or what tools that follow YAML 1.1 make of it when they rewrite a file.
    pub(super) fn is_off(&self) -> bool {
        match self.yaml() {
            Yaml::Bool(yes) => !yes,
            Yaml::Text(text) => text == "off",
            _ => false,
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = match self.yaml() {
            Yaml::Bool(yes) => yes.to_string(),
            _ => self.text()?.to_owned(),
        };
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("`{}` is not known; write {}", shown(&text), words.join(" or "));
            self.problem(message);
        }
        found.map(|(_, value)| *value)
    }

    /// A duration that is at least `shortest`.
    pub(super) fn duration(&self, shortest: Duration) -> Option<Duration> {
        if let Yaml::Integer(number) = self.yaml() {
            self.problem(format!("`{number}` has no unit; write {number}s, or ms, m, h"));
            return None;
        }
        match parse_duration(self.text()?) {
            Ok(duration) if duration >= shortest => Some(duration),
            Ok(_) => {
                self.problem(format!("shorter than {shortest:?}; write that or more"));
                None
            }
            Err(error) => {
                self.problem(error.to_string());
                None
            }
        }
    }

    /// The items of a list; none, and noted, where it is something else.
    pub(super) fn items(&self) -> Vec<Self> {
        let Yaml::List(nodes) = self.yaml() else {
            self.mismatch("a list");
            return Vec::new();
        };
        let item = |(index, node)| Self { path: format!("{}[{index}]", self.path), node, ..*self };
        nodes.iter().enumerate().map(item).collect()
    }

    /// A list of distinct values, each read by `read`.
    pub(super) fn distinct<T: Ord + Clone>(&self, read: impl Fn(&Self) -> Option<T>) -> Vec<T> {
        let mut seen = BTreeSet::new();
        let mut values = Vec::new();
        for item in self.items() {
            let Some(value) = read(&item) else { continue };
            if seen.insert(value.clone()) {
                values.push(value);
            } else {
                let value = described(item.yaml());
                item.problem(format!("{value} is in the list twice; remove one of the two"));
            }
        }
        values
    }

    /// An absolute path without `.` and `..`; notes what is none.
    pub(super) fn absolute_path(&self, expected: &str) -> Option<PathBuf> {
        let path = self.text()?;
        let is_plain = |name: &str| !matches!(name, "" | "." | "..");
        if path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain)) {
            return Some(PathBuf::from(path));
        }
        self.mismatch(expected);
        None
    }

    /// A PCI address; notes what is none.
    pub(super) fn address(&self) -> Option<PciAddress> {
        self.parsed("a PCI address such as `0000:13:00.0`")
    }

    /// A vendor and device id; notes what is none.
    pub(super) fn pci_id(&self) -> Option<PciId> {
        self.parsed("a PCI vendor and device id such as `1e3e:0002`")
    }

    fn parsed<T: FromStr>(&self, expected: &str) -> Option<T> {
        let value = self.text()?.parse().ok();
        if value.is_none() {
            self.mismatch(expected);
        }
        value
    }
}

fn meant_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A value as a message names it.
pub(super) fn described(yaml: &Yaml) -> String {
    match yaml {
        Yaml::Null => "nothing".to_owned(),
        Yaml::Bool(value) => format!("`{value}`"),
        Yaml::Integer(value) => format!("`{value}`"),
        Yaml::Float(value) => format!("`{value:?}`"),
        Yaml::Text(text) => format!("`{}`", shown(text)),
        Yaml::List(_) => "a list".to_owned(),
        Yaml::Mapping(_) => "a mapping".to_owned(),
        Yaml::Tagged(tag) => format!("a value with the tag `!{}`", shown(tag)),
    }
}

/// A user's text on one line and of bounded length.
pub(super) fn shown(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(SHOWN)
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line
}
