//! The configuration that a verb works with: file, flags and environment together.

use std::path::Path;

use super::args::{ConfigArgs, FileArgs, OverrideArgs};
use super::output::{Failure, json, print};
use crate::host::config_file::ConfigSource;
use crate::model::config::Config;
use crate::parse::config::Overrides;
use crate::wire::config_schema::config_schema;
use crate::wire::config_yaml::effective_yaml;

/// Where the configuration is, by the command line.
pub(super) fn source(args: &ConfigArgs) -> ConfigSource {
    ConfigSource::new(args.file.config.as_deref(), args.overrides.overrides())
}

/// The configuration with its overrides.
pub(super) fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    load_from(&source(args))
}

/// The configuration of a verb for which the overrides make no difference.
pub(super) fn load_file(args: &FileArgs) -> Result<Config, Failure> {
    load_from(&ConfigSource::new(args.config.as_deref(), Overrides::default()))
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
