//! The `.node` format: one machine as text. Reads and writes it; never touches a file.
//!
//! ```text
//! # comments start a line, blank lines are ignored
//! [sys/devices/pci0000:14/0000:14:01.0/0000:15:00.0]
//! vendor = 0x1e3e
//! uevent = "DRIVER=iluvatar\nPCI_ID=1E3E:0002\n"
//! config = hex:3e1e0200
//! driver -> ../../../../bus/pci/drivers/iluvatar
//! [dev]
//! iluvatar3 : c 508:3
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use thiserror::Error;

use crate::model::machine::{DeviceNumber, Entry, Machine};

/// What is wrong with a `.node` text, and in which line (counted from 1).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct NodeFileError {
    /// Counted from 1.
    pub line: usize,
    /// The value, the rule and the way out.
    pub problem: NodeFileProblem,
}

/// The rules of the format, as they are broken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each message explains its variant")]
pub enum NodeFileProblem {
    #[error("a directory is written `[PATH]`; the `]` is missing")]
    UnclosedDirectory,
    #[error("`{0}` is not a path below the root; write it without `/` in front and without `..`")]
    BadPath(String),
    #[error("`{0}` is before the first `[PATH]`; put it below a directory")]
    NoDirectory(String),
    #[error("`{0}` is not an entry; write NAME = TEXT, NAME -> TARGET or NAME : c MAJOR:MINOR")]
    NotAnEntry(String),
    #[error("`{0}` is not a file name; it must not hold `/` and not be `.` or `..`")]
    BadName(String),
    #[error("`{0}` is a duplicate of line {1}; list each path once")]
    Twice(String, usize),
    #[error("`{0}` is below `{1}`, which is not a directory according to line {2}")]
    BelowFile(String, String, usize),
    #[error("the text opens with `\"` and does not close; end it with `\"`")]
    UnclosedText,
    #[error("`\\{0}` is no escape; use \\n, \\t, \\\", \\\\ or \\xNN")]
    BadEscape(String),
    #[error("`{0}` is not pairs of hexadecimal digits")]
    BadHex(String),
    #[error("`{0}` is not a character device; write c MAJOR:MINOR, for example c 508:3")]
    BadDevice(String),
    #[error("a link needs a target")]
    NoTarget,
}

/// Reads a machine.
///
/// # Errors
/// The first line that breaks a rule of the format.
pub fn parse_node_file(text: &str) -> Result<Machine, NodeFileError> {
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        reader
            .read_line(line.trim(), line_number)
            .map_err(|problem| NodeFileError { line: line_number, problem })?;
    }
    reader.finish()
}

#[derive(Default)]
struct Reader<'a> {
    directory: Option<&'a str>,
    machine: Machine,
    /// The line in which each path was written.
    lines: BTreeMap<String, usize>,
}

impl<'a> Reader<'a> {
    fn read_line(&mut self, line: &'a str, number: usize) -> Result<(), NodeFileProblem> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix('[') {
            let path = rest.strip_suffix(']').ok_or(NodeFileProblem::UnclosedDirectory)?;
            check_path(path)?;
            self.directory = Some(path);
            return self.add(path.to_owned(), Entry::Directory, number);
        }
        let (name, entry) = parse_entry(line)?;
        let directory =
            self.directory.ok_or_else(|| NodeFileProblem::NoDirectory(shorten(line)))?;
        self.add(format!("{directory}/{name}"), entry, number)
    }

    fn add(&mut self, path: String, entry: Entry, number: usize) -> Result<(), NodeFileProblem> {
        if let Some(first) = self.lines.get(&path) {
            return Err(NodeFileProblem::Twice(path, *first));
        }
        self.machine.insert(&path, entry);
        self.lines.insert(path, number);
        Ok(())
    }

    /// Nothing may be below what is not a directory; checked once the whole text is read.
    fn finish(self) -> Result<Machine, NodeFileError> {
        for (path, line) in &self.lines {
            for (cut, _) in path.match_indices('/') {
                let above = &path[..cut];
                let Some(above_line) = self.lines.get(above) else {
                    continue;
                };
                if self.machine.get(above) != Some(&Entry::Directory) {
                    let problem =
                        NodeFileProblem::BelowFile(path.clone(), above.to_owned(), *above_line);
                    return Err(NodeFileError { line: *line.max(above_line), problem });
                }
            }
        }
        Ok(self.machine)
    }
}

fn check_path(path: &str) -> Result<(), NodeFileProblem> {
    let valid = path.split('/').all(is_name);
    if valid { Ok(()) } else { Err(NodeFileProblem::BadPath(shorten(path))) }
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0', '\n'])
}

fn parse_entry(line: &str) -> Result<(&str, Entry), NodeFileProblem> {
    let not_an_entry = || NodeFileProblem::NotAnEntry(shorten(line));
    let (name, rest) = line.split_once(char::is_whitespace).ok_or_else(not_an_entry)?;
    let rest = rest.trim_start();
    let (sign, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let entry = match sign {
        "=" => Entry::File(parse_content(value.trim())?),
        "->" if value.trim().is_empty() => return Err(NodeFileProblem::NoTarget),
        "->" => Entry::Link(value.trim().to_owned()),
        ":" => Entry::CharDevice(
            parse_char_device(value)
                .ok_or_else(|| NodeFileProblem::BadDevice(shorten(value.trim())))?,
        ),
        _ => return Err(not_an_entry()),
    };
    if is_name(name) { Ok((name, entry)) } else { Err(NodeFileProblem::BadName(shorten(name))) }
}

fn parse_content(value: &str) -> Result<Vec<u8>, NodeFileProblem> {
    if let Some(quoted) = value.strip_prefix('"') {
        return unquote(quoted);
    }
    if let Some(digits) = value.strip_prefix("hex:") {
        return unhex(digits).ok_or_else(|| NodeFileProblem::BadHex(shorten(digits)));
    }
    Ok(format!("{value}\n").into_bytes())
}

fn unquote(text: &str) -> Result<Vec<u8>, NodeFileProblem> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    loop {
        match chars.next().ok_or(NodeFileProblem::UnclosedText)? {
            '"' if chars.as_str().is_empty() => return Ok(bytes),
            '"' => return Err(NodeFileProblem::UnclosedText),
            '\\' => bytes.push(unescape(&mut chars)?),
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn unescape(chars: &mut std::str::Chars<'_>) -> Result<u8, NodeFileProblem> {
    let escape = chars.next().ok_or(NodeFileProblem::UnclosedText)?;
    match escape {
        'n' => Ok(b'\n'),
        't' => Ok(b'\t'),
        '\\' => Ok(b'\\'),
        '"' => Ok(b'"'),
        'x' => {
            let digits: String = chars.by_ref().take(2).collect();
            let byte = unhex(&digits).filter(|bytes| bytes.len() == 1).map(|bytes| bytes[0]);
            byte.ok_or_else(|| NodeFileProblem::BadEscape(format!("x{digits}")))
        }
        other => Err(NodeFileProblem::BadEscape(other.to_string())),
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(hex_digit(pair[0])? * 16 + hex_digit(pair[1])?)).collect()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// `c 508:3`; also what an unpacked node holds as an ordinary file.
#[must_use]
pub fn parse_char_device(text: &str) -> Option<DeviceNumber> {
    let number = text.trim().strip_prefix("c ")?;
    super::attribute::parse_device_number(number.as_bytes()).ok()
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain("...".chars()).collect()
}

/// Writes a machine so that [`parse_node_file`] reads it back. What the format cannot express (an
/// unreadable entry, white space in a file name) becomes a comment; what was read through a link
/// stands where the link leads, or nowhere.
#[must_use]
pub fn write_node_file(machine: &Machine) -> String {
    let mut text = String::new();
    for (path, entry) in machine.iter() {
        let is_directory = *entry == Entry::Directory && !is_below_file(machine, path);
        if is_directory && needs_heading(machine, path) {
            if !text.is_empty() {
                text.push('\n');
            }
            write_directory(&mut text, machine, path);
        }
    }
    text
}

fn is_below_file(machine: &Machine, path: &str) -> bool {
    let mut above = path.match_indices('/').map(|(cut, _)| &path[..cut]);
    above.any(|above| machine.get(above).is_some_and(|entry| *entry != Entry::Directory))
}

/// A directory that only leads to deeper ones needs no entry of its own.
fn needs_heading(machine: &Machine, path: &str) -> bool {
    let mut children = machine.children(path).peekable();
    children.peek().is_none() || children.any(|(_, entry)| *entry != Entry::Directory)
}

fn write_directory(text: &mut String, machine: &Machine, path: &str) {
    let _ = writeln!(text, "[{path}]");
    for (name, entry) in machine.children(path) {
        let writable = !name.contains(char::is_whitespace) && !name.starts_with(['#', '[']);
        let _ = match entry {
            Entry::Directory => Ok(()),
            Entry::Unreadable(why) => {
                writeln!(text, "# {} unreadable: {why:?}", name.escape_debug())
            }
            _ if !writable => writeln!(text, "# {name:?} left out: no name for this format"),
            Entry::File(bytes) => write_content(text, name, bytes),
            Entry::Link(target) => writeln!(text, "{name} -> {target}"),
            Entry::CharDevice(number) => writeln!(text, "{name} : c {number}"),
        };
    }
}

fn write_content(text: &mut String, name: &str, bytes: &[u8]) -> std::fmt::Result {
    if let Some(plain) = plain_text(bytes) {
        return writeln!(text, "{name} = {plain}");
    }
    if let Ok(content) = std::str::from_utf8(bytes)
        && content.chars().all(|char| !char.is_control() || matches!(char, '\n' | '\t'))
    {
        return writeln!(text, "{name} = \"{}\"", quote(content));
    }
    write!(text, "{name} = hex:")?;
    bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))?;
    writeln!(text)
}

/// The text that the unquoted form would read back as exactly these bytes.
fn plain_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes.strip_suffix(b"\n")?).ok()?;
    let plain = text == text.trim()
        && !text.contains(char::is_control)
        && !text.starts_with('"')
        && !text.starts_with("hex:");
    plain.then_some(text)
}

fn quote(content: &str) -> String {
    content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_entry_is_read() {
        let machine = parse_node_file(
            "# a machine\n\n[sys/a]\nv = 0x1e3e\nempty =\nu = \"A=1\\nB=\\\"\\\\\\x07\\t\"\n\
             c = hex:3e1E\nd -> ../b\n[dev]\niluvatar3 : c 508:3\n[proc]\n",
        )
        .unwrap();
        let file = |bytes: &[u8]| Some(Entry::File(bytes.to_vec()));
        assert_eq!(machine.get("sys/a/v").cloned(), file(b"0x1e3e\n"));
        assert_eq!(machine.get("sys/a/empty").cloned(), file(b"\n"));
        assert_eq!(machine.get("sys/a/u").cloned(), file(b"A=1\nB=\"\\\x07\t"));
        assert_eq!(machine.get("sys/a/c").cloned(), file(&[0x3e, 0x1e]));
        assert_eq!(machine.get("sys/a/d"), Some(&Entry::Link("../b".to_owned())));
        let number = DeviceNumber { major: 508, minor: 3 };
        assert_eq!(machine.get("dev/iluvatar3"), Some(&Entry::CharDevice(number)));
        assert_eq!(machine.get("proc"), Some(&Entry::Directory));
    }

    #[test]
    fn an_entry_that_could_not_be_read_is_kept_as_a_comment() {
        let mut machine = Machine::default();
        machine.insert("sys/a", Entry::Unreadable("Permission denied".to_owned()));
        machine.insert("sys/b c", Entry::File(vec![]));
        let text = write_node_file(&machine);
        let expected = "[sys]\n# a unreadable: \"Permission denied\"\n\
                        # \"b c\" left out: no name for this format\n";
        assert_eq!(text, expected);
        assert!(parse_node_file(&text).is_ok());
    }

    #[test]
    fn what_lies_below_a_link_is_left_out() {
        let mut machine = Machine::default();
        machine.insert("a/b/c/d", Entry::File(vec![]));
        machine.insert("a/b", Entry::Link("../e".to_owned()));
        assert_eq!(write_node_file(&machine), "[a]\nb -> ../e\n");
    }

    fn entries() -> impl Strategy<Value = Entry> {
        prop_oneof![
            Just(Entry::Directory),
            any::<Vec<u8>>().prop_map(Entry::File),
            "[ -~]{0,20}\n?".prop_map(|text| Entry::File(text.into_bytes())),
            "[a-z./]{1,12}".prop_map(Entry::Link),
            (any::<u32>(), any::<u32>())
                .prop_map(|(major, minor)| Entry::CharDevice(DeviceNumber { major, minor })),
        ]
    }

    /// Files live in directories `dN`, never below one another.
    fn machines() -> impl Strategy<Value = Machine> {
        let path = "d[0-3](/d[0-3]){0,2}/f[a-z:.=\"-]{0,6}";
        proptest::collection::vec((path, entries()), 0..12).prop_map(|entries| {
            let mut machine = Machine::default();
            for (path, entry) in entries {
                machine.insert(&path, entry);
            }
            machine
        })
    }

    fn line() -> impl Strategy<Value = String> {
        let name = "[a-c:#\\[\\]\"é=.]{1,3}";
        let value = prop_oneof![
            "\\PC{0,8}",
            "\"([a ]|\\\\n|\\\\x[0-9a-f]{2}|\\\\\"){0,5}\"",
            "hex:([0-9a-f]{2}){0,4}",
            "c [0-9]{1,4}:[0-9]{1,4}",
        ];
        let sign = prop_oneof![Just("="), Just("->"), Just(":"), Just("= \t")];
        prop_oneof![
            3 => (name, sign, value).prop_map(|(name, sign, value)| format!("{name} {sign} {value}")),
            2 => "\\[[a-c \\]]{1,2}(/[a-c]{1,2}){0,2}\\]".prop_map(String::from),
            1 => "(#\\PC{0,6}|)".prop_map(String::from),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(machine in machines()) {
            prop_assert_eq!(parse_node_file(&write_node_file(&machine)).unwrap(), machine);
        }

        /// The property of the fuzz target `node_file`, over texts that often are machines.
        #[test]
        fn what_was_read_reads_back_as_it_was_written(lines in proptest::collection::vec(line(), 0..12)) {
            if let Ok(machine) = parse_node_file(&lines.join("\n")) {
                prop_assert_eq!(parse_node_file(&write_node_file(&machine)).unwrap(), machine);
            }
        }

        #[test]
        fn no_text_panics(text in "(\\PC|\n|\\[|\\]| = | -> | : c |\"|hex:){0,80}") {
            let _ = parse_node_file(&text);
        }
    }
}
