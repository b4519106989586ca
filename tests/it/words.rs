//! The words of the source: one name for each type, and none of the words that were replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::architecture::{Source, sources};

/// What is checked for retired words, below the top of the repository.
const CHECKED: [&str; 5] =
    ["src/**/*.rs", "README.md", "CHANGELOG.md", "deploy/**/*", "udev-rules/*"];

/// Retired phrases, in lower case, each with its replacement.
const RETIRED: [(&str, &str); 25] = [
    ("in force", "active"),
    ("hand out", "allocate"),
    ("hands out", "allocates"),
    ("handed out", "allocated"),
    ("handout", "allocation"),
    ("front desk", "status service"),
    ("crew", "tasks"),
    ("not to be had", "unavailable"),
    ("goes before", "overrides"),
    ("for ever", "without limit"),
    ("suspected", "ignored"),
    ("looks at", "scans, samples or reads"),
    ("short look", "health sample"),
    ("the kubelet tells", "the kubelet reports"),
    ("the source tells", "the source works"),
    ("is told", "receives"),
    ("are told", "receive"),
    ("by now", "since"),
    ("aloud", "in the log"),
    ("comes round", "makes progress"),
    ("survey", "scan"),
    ("trouble", "error"),
    ("had their say", "are applied"),
    ("given to two", "allocated to two"),
    ("out of turn", "not requested"),
];

/// Where a name is declared.
struct Declaration {
    path: PathBuf,
    is_private: bool,
}

/// The types that a file declares. Associated types, which are indented, have no name of their own.
fn declared_types(code: &str) -> Vec<(String, bool)> {
    let mut types = Vec::new();
    for line in code.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_public = words.first().is_some_and(|word| word.starts_with("pub"));
        let Some(at) = words.iter().take(4).position(|word| is_type_keyword(word)) else {
            continue;
        };
        let is_associated = words[at] == "type" && line.starts_with(' ');
        let is_declaration = words[..at].iter().all(|word| is_visibility(word));
        if is_declaration && !is_associated {
            types.extend(words.get(at + 1).map(|name| (leading_name(name), !is_public)));
        }
    }
    types
}

fn is_type_keyword(word: &str) -> bool {
    ["struct", "enum", "union", "trait", "type"].contains(&word)
}

/// `pub`, `pub(super)`, and the parts of `pub(in crate::decide)`.
fn is_visibility(word: &str) -> bool {
    word.starts_with("pub") || word.ends_with(')')
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

/// Names that are declared in two files and not private to both.
fn shared_names(sources: &[Source]) -> Vec<String> {
    let mut names: BTreeMap<String, Vec<Declaration>> = BTreeMap::new();
    for Source { path, code } in sources {
        for (name, is_private) in declared_types(code) {
            let declaration = Declaration { path: path.clone(), is_private };
            names.entry(name).or_default().push(declaration);
        }
    }
    names.retain(|_, found| found.len() > 1 && !found.iter().all(|it| it.is_private));
    let shown = |(name, found): (String, Vec<Declaration>)| {
        let paths: Vec<_> = found.iter().map(|it| it.path.display().to_string()).collect();
        format!("{name} is declared in {}", paths.join(" and "))
    };
    names.into_iter().map(shown).collect()
}

/// Whether `phrase` occurs in `text` with no letter right before or after it.
fn has_phrase(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        !before.is_some_and(char::is_alphabetic) && !after.is_some_and(char::is_alphabetic)
    })
}

/// A line for each retired phrase in `text`, with its replacement. A phrase may span a line break.
fn retired_words(name: &str, text: &str) -> Vec<String> {
    let words = text.split_whitespace().filter(|word| !["//", "///", "//!", "#"].contains(word));
    let text = words.collect::<Vec<_>>().join(" ").to_lowercase();
    let found = RETIRED.iter().filter(|(phrase, _)| has_phrase(&text, phrase));
    found.map(|(phrase, instead)| format!("{name}: write `{instead}`, not `{phrase}`")).collect()
}

#[test]
fn no_two_types_share_a_name_unless_both_are_private_to_their_file() {
    assert_eq!(shared_names(&sources()), Vec::<String>::new());
}

#[test]
fn retired_words_do_not_come_back() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for pattern in CHECKED {
        let paths = glob::glob(top.join(pattern).to_str().unwrap()).unwrap();
        for path in paths.map(Result::unwrap).filter(|path| path.is_file()) {
            let name = path.strip_prefix(top).unwrap().display().to_string();
            found.extend(retired_words(&name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_check_of_names_reads_declarations() {
    let code = "pub struct A;\npub(in crate::decide) enum B<'a> {\nstruct C(u8);\n    type Err = A;\n\
                type D = u8;\nlet text = \"a struct E\";\n";
    let types = declared_types(code);
    let expected = [("A", false), ("B", false), ("C", true), ("D", true)];
    assert_eq!(types, expected.map(|(name, is_private)| (name.to_owned(), is_private)));
}

#[test]
fn the_check_of_words_reads_whole_words_across_lines() {
    let found = retired_words("a.rs", "/// It is not in\n/// force. Enforced handouts.\n");
    assert_eq!(found, ["a.rs: write `active`, not `in force`"]);
}
