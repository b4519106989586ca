//! The law of the house, read from the source as text: a file uses floors below its own, never
//! above; nouns need nothing but the standard library and serde; functions and files stay short.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the ground up. `demo` plays the daemon as `app` wires it, so it stands above `app`.
const FLOORS: [&str; 9] =
    ["model", "parse", "decide", "wire", "host", "daemon", "app", "demo", "cli"];

const LONGEST_FUNCTION: usize = 40;
const LONGEST_FILE: usize = 500;

/// A source file below `src/`.
pub(crate) struct Source {
    /// Relative to the top of the repository.
    pub path: PathBuf,
    /// Up to its tests, comments blanked.
    pub code: String,
}

pub(crate) fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = glob::glob(top.join("src/**/*.rs").to_str().expect("text")).expect("good pattern");
    let sources: Vec<_> = found
        .map(|path| path.expect("readable"))
        .filter(|path| !path.iter().any(|part| part == "tests"))
        .map(|path| Source {
            code: code_of(&std::fs::read_to_string(&path).expect("source is text")),
            path: path.strip_prefix(top).expect("below the top").to_owned(),
        })
        .collect();
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

/// The text before the tests, without line comments.
fn code_of(text: &str) -> String {
    let (code, _) = text.split_once("\nmod tests {").unwrap_or((text, ""));
    let blanked = |line: &str| {
        let is_comment = line.trim_start().starts_with("//");
        if is_comment { "\n".to_owned() } else { format!("{line}\n") }
    };
    code.lines().map(blanked).collect()
}

impl Source {
    /// The floor; none for `lib.rs` and `main.rs`, which stand above all.
    fn floor(&self) -> Option<usize> {
        let part = self.path.iter().nth(1)?.to_str()?;
        let name = part.strip_suffix(".rs").unwrap_or(part);
        FLOORS.iter().position(|floor| *floor == name)
    }
}

/// The first name after each `crate::`, also of those in braces: `crate::{a::b, c}` gives a and c.
fn crate_names(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || char == '_') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(names_of_group(group)),
            None => names.extend(first_name(rest)),
        }
    }
    names
}

/// The first name of each member of a `use` group that was opened already.
fn names_of_group(text: &str) -> Vec<String> {
    let (mut depth, mut starts, mut names) = (1, true, Vec::new());
    for (at, char) in text.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => starts = true,
            _ if starts && !char.is_whitespace() => {
                names.extend(first_name(&text[at..]));
                starts = false;
            }
            _ => {}
        }
    }
    names
}

fn first_name(text: &str) -> Option<String> {
    let name: String =
        text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Paths that climb out of a floor by `super::`, by how deep the file lies in it.
fn climbs_out(source: &Source) -> bool {
    let folders = source.path.iter().count().saturating_sub(2);
    let is_module_root = source.path.ends_with("mod.rs");
    let deepest = if is_module_root { folders - 1 } else { folders };
    let too_many = "super::".repeat(deepest + 1);
    source.code.contains(&too_many)
}

/// Each function and how many lines it has, by the indentation that rustfmt gives.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = code.lines().collect();
    let mut functions = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let (name, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        let is_function = name.split_whitespace().any(|word| word == "fn");
        if !is_function || line.ends_with(['}', ';']) {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[number..].iter().position(|line| *line == end);
        functions.extend(length.map(|length| (name.to_owned(), length + 1)));
    }
    functions
}

#[test]
fn a_file_uses_floors_below_its_own_and_never_above() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some(own) = source.floor() else { continue };
        for name in crate_names(&source.code) {
            match FLOORS.iter().position(|floor| *floor == name) {
                Some(used) if used <= own => {}
                Some(_) => broken.push(format!("{} uses {name}", source.path.display())),
                None => broken.push(format!("{}: no floor `{name}`", source.path.display())),
            }
        }
        if climbs_out(&source) {
            broken.push(format!("{} climbs out of its floor by super::", source.path.display()));
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_folder_and_file_of_the_source_is_a_floor() {
    let others: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.floor().is_none())
        .map(|source| source.path.display().to_string())
        .collect();
    assert_eq!(others, ["src/lib.rs", "src/main.rs"]);
}

#[test]
fn the_nouns_need_nothing_but_the_standard_library_and_serde() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n[").unwrap();
    let crates: Vec<_> = dependencies
        .lines()
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect();
    assert!(crates.iter().any(|name| name == "serde_json"));
    for source in sources().iter().filter(|source| source.path.starts_with("src/model")) {
        for name in crates.iter().filter(|name| *name != "serde") {
            let used = source.code.contains(&format!("{name}::"));
            assert!(!used, "{} uses {name}", source.path.display());
        }
    }
}

#[test]
fn functions_and_files_stay_short() {
    let mut long = Vec::new();
    for Source { path, code } in sources() {
        let path = path.display();
        let length = code.trim_end().lines().count();
        if length > LONGEST_FILE {
            long.push(format!("{path} has {length} lines"));
        }
        let functions =
            functions(&code).into_iter().filter(|(_, length)| *length > LONGEST_FUNCTION);
        long.extend(functions.map(|(name, length)| format!("{path}: {name} has {length} lines")));
    }
    assert_eq!(long, Vec::<String>::new());
}

/// Clippy holds the same by path (`disallowed-methods`); this holds it by name, so that an alias
/// or a new function of `std::fs` is not a way around.
#[test]
fn only_the_host_floor_names_the_file_system() {
    let is_door = |path: &Path| path.starts_with("src/host");
    let inside: Vec<_> = sources()
        .into_iter()
        .filter(|source| !is_door(&source.path))
        .filter(|source| source.code.contains("std::fs") || source.code.contains("tokio::fs"))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_eq!(inside, Vec::<String>::new());
}

#[test]
fn the_law_reads_paths_and_groups() {
    let code =
        "use crate::{model::{a, b}, parse};\nfn f() { crate::wire::x(); my_crate::host() }\n";
    let names: Vec<_> = crate_names(code).into_iter().collect();
    assert_eq!(names, ["model", "parse", "wire"]);
    let code = "impl A {\n    fn a() {\n        if x {\n        }\n    }\n}\nfn b(\n) {\n}\n";
    let lengths: Vec<_> = functions(code).into_iter().map(|(_, length)| length).collect();
    assert_eq!(lengths, [4, 3]);
}
