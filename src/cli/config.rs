//! The configuration that a verb works with: file, flags and environment together.

use std::path::Path;

use super::args::{ConfigArgs, FileArgs, OverrideArgs};
use super::output::{Failure, json, print};
use crate::host::config_file::ConfigSource;
use crate::host::files;
use crate::model::config::Config;
use crate::parse::config::{Override, Overrides};
use crate::wire::config_schema::config_schema;
use crate::wire::config_yaml::effective_yaml;

/// Where the configuration is, by the command line.
pub(super) fn source(args: &ConfigArgs) -> ConfigSource {
    source_of(&args.file, args.overrides.overrides())
}

fn source_of(args: &FileArgs, overrides: Overrides) -> ConfigSource {
    let source = ConfigSource::new(args.config.as_deref(), overrides);
    match node_name() {
        Some(node) => source.for_node(&node),
        None => source,
    }
}

/// The node's name: `NODE_NAME`, which the manifests set, else the host name, as the kubelet takes it.
fn node_name() -> Option<String> {
    let set = std::env::var_os("NODE_NAME").and_then(|name| name.into_string().ok());
    let host = || files::read_text(Path::new("/proc/sys/kernel/hostname")).ok();
    let host = || host().map(|name| name.trim().to_lowercase());
    let name = set.filter(|name| !name.is_empty()).or_else(host)?;
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    name.bytes().all(is_valid).then_some(name)
}

/// The configuration with its overrides.
pub(super) fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    load_from(&source(args))
}

/// The configuration with its overrides, as it is in DRA mode.
pub(super) fn load_for_dra(args: &ConfigArgs) -> Result<Config, Failure> {
    let mode = Override { name: "--mode".to_owned(), text: "dra".to_owned() };
    let overrides = Overrides { mode: Some(mode), ..args.overrides.overrides() };
    load_from(&ConfigSource::new(args.file.config.as_deref(), overrides))
}

/// The configuration of a verb for which the overrides make no difference.
pub(super) fn load_file(args: &FileArgs) -> Result<Config, Failure> {
    load_from(&source_of(args, Overrides::default()))
}

pub(super) fn check(file: &Path, overrides: &OverrideArgs) -> Result<(), Failure> {
    let config = load_from(&ConfigSource::new(Some(file), overrides.overrides()))?;
    print(&format!("ok\n{}", effective_yaml(&config)))
}

pub(super) fn schema() -> Result<(), Failure> {
    print(&json(&config_schema())?)
}

fn load_from(source: &ConfigSource) -> Result<Config, Failure> {
    source.load().map_err(|error| Failure::Configuration(error.into()))
}
