//! The configuration file, from YAML to what is meant. Strict: what is not understood is a
//! problem, all problems are found at once, and nothing is half applied. [`keys`] is the table of
//! all keys.

pub mod key;
pub mod keys;
mod problem;

mod node;
mod text;

mod cursor;
mod section;

mod resource_name;

mod boards;
mod cdi;
mod discovery;
mod flags;
mod health;
mod labels;
mod pod_resources;
mod sharing;

mod resources;

mod dra;

pub use problem::{ConfigProblems, Problem};

use cursor::{Cursor, Reading};
use node::{SyntaxError, Yaml, YamlNode};
use resources::ResourceDefaults;
use section::Section;

use crate::model::config::Config;

/// What flags and environment variables set in place of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--mode`, for `mode`.
    pub mode: Option<Override>,
    /// `--resource-name`, for `resourceName`.
    pub resource_name: Option<Override>,
    /// `--splitboard` or `SPLIT_BOARD`, for `flags.splitboard`.
    pub split_board: Option<Override>,
    /// `--usevolcano` or `USE_VOLCANO`, for `flags.usevolcano`; true is refused.
    pub use_volcano: Option<Override>,
    /// `--reset_gpu` or `RESET_GPU`, for `flags.reset_gpu`; true is refused.
    pub reset_gpu: Option<Override>,
}

/// A flag or an environment variable and its value. An empty one counts as absent where a boolean
/// is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// As the user knows it: `--splitboard` or `SPLIT_BOARD`.
    pub name: String,
    /// As it was given.
    pub text: String,
}

/// The meaning of a configuration file; an empty one means the default.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_config(text: &str) -> Result<Config, ConfigProblems> {
    parse_config_with(text, &Overrides::default())
}

/// The meaning of a configuration file where flags and environment variables override it.
///
/// # Errors
/// Everything that is wrong with the file and with the overrides.
pub fn parse_config_with(text: &str, overrides: &Overrides) -> Result<Config, ConfigProblems> {
    // Editors on Windows write it, and positions would be off by one.
    let text = text.trim_start_matches('\u{feff}');
    let tree =
        text::check_text(text).and_then(|()| node::parse_tree(text)).map_err(syntax_problem)?;
    let reading = Reading::new(text);
    let config = read_config(&reading, &tree, overrides);
    reading.finish(config)
}

/// After a syntax error nothing else can be checked.
fn syntax_problem(error: SyntaxError) -> ConfigProblems {
    let problem = Problem { path: String::new(), line: error.line, message: error.message };
    ConfigProblems::new(vec![problem], Vec::new())
}

fn read_config(reading: &Reading, tree: &YamlNode, overrides: &Overrides) -> Config {
    let cursor = Cursor::root(reading, tree);
    if is_manifest(&tree.yaml) {
        cursor.problem(
            "this is a Kubernetes manifest; the configuration is the text under its `data`",
        );
        return Config::default();
    }
    let root = Section::open(&cursor, &keys::CONFIG);
    let mode = dra::read_mode(&root, overrides, reading);
    let discovery = discovery::read_discovery(&root);
    let defaults = ResourceDefaults {
        granularity: flags::read_flags(&root, overrides, reading),
        sharing: sharing::read_sharing(&root),
    };
    Config {
        mode,
        resources: resources::read_resources(&root, overrides, &defaults, reading),
        boards: boards::read_boards(&root),
        container: discovery::read_container(&root, &discovery),
        discovery,
        health: health::read_health(&root),
        cdi: cdi::read_cdi(&root),
        dra: dra::read_dra(&root, mode, &defaults),
        pod_resources: pod_resources::read_pod_resources(&root),
        labels: labels::read_labels(&root),
    }
}

/// A whole `ConfigMap` where its content belongs: the most likely slip of all.
fn is_manifest(yaml: &Yaml) -> bool {
    let Yaml::Mapping(entries) = yaml else {
        return false;
    };
    let has = |name: &str| {
        entries.iter().any(|(key, _)| matches!(&key.yaml, Yaml::Text(text) if text == name))
    };
    has("kind") && has("apiVersion")
}
