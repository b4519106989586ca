//! The configuration that a verb works with: file, flags and environment together.

use std::path::Path;

use anyhow::anyhow;

use super::output::{Failure, print};
use super::{Common, OverrideArgs};
use crate::host::config_file::ConfigSource;
use crate::model::config::Config;
use crate::parse::config::Overrides;
use crate::parse::env_bool::parse_env_bool;
use crate::wire::config_yaml::effective_yaml;

/// Where the command line says that the configuration is.
pub(super) fn source(common: &Common) -> Result<ConfigSource, Failure> {
    source_at(common, common.config.as_deref())
}

/// The configuration of a verb that only looks.
pub(super) fn load(common: &Common) -> Result<Config, Failure> {
    source(common)?.load().map_err(|error| Failure::Configuration(error.into()))
}

pub(super) fn check(common: &Common, file: &Path) -> Result<(), Failure> {
    let config = source_at(common, Some(file))?.load();
    let config = config.map_err(|error| Failure::Configuration(error.into()))?;
    print(&format!("ok\n{}", effective_yaml(&config)))
}

fn source_at(common: &Common, path: Option<&Path>) -> Result<ConfigSource, Failure> {
    let overrides = overrides(&common.overrides).map_err(Failure::Configuration)?;
    Ok(ConfigSource::new(path, overrides))
}

fn overrides(args: &OverrideArgs) -> anyhow::Result<Overrides> {
    let boolean = |name: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| parse_env_bool(text).map_err(|error| anyhow!("{name}: {error}")))
            .transpose()
    };
    Ok(Overrides {
        resource_name: args.resource_name.clone(),
        split_board: boolean("--splitboard (SPLIT_BOARD)", &args.splitboard)?,
        use_volcano: boolean("--usevolcano (USE_VOLCANO)", &args.usevolcano)?,
        reset_gpu: boolean("--reset_gpu (RESET_GPU)", &args.reset_gpu)?,
    })
}
