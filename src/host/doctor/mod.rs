//! Reads what `doctor` concludes from, and says what cannot be read from here.

mod hardware;
mod kernel;
mod kubelet;
mod runtimes;
mod view;

use std::path::Path;

use self::view::View;
use super::config_file::ConfigSource;
use super::files;
use super::root::Root;
use crate::model::config::Config;
use crate::model::doctor::facts::{ConfigurationFile, ConfigurationState, Facts};

/// Looks at everything at `root`. `kubelet_directory` is taken as it is; without it, the usual one
/// below the root. Waits for nobody.
#[must_use]
pub fn read_facts(root: &Root, kubelet_directory: Option<&Path>, source: &ConfigSource) -> Facts {
    let view = View::new(root);
    let (configuration, config) = configuration(source);
    let hardware = hardware::hardware(root, &config);
    Facts {
        configuration,
        device_links: hardware::device_links(&view, hardware.as_ref().ok()),
        hardware,
        config,
        kubelet: kubelet::kubelet(&view, kubelet_directory),
        cdi: runtimes::cdi(&view),
        runtimes: runtimes::runtimes(&view),
        uevents: kernel::uevents(&view),
        inotify: kernel::inotify(&view),
    }
}

/// The file, and what is in force: the defaults where the file is wrong.
fn configuration(source: &ConfigSource) -> (ConfigurationFile, Config) {
    let path = source.path().display().to_string();
    let (state, config) = match source.load() {
        Ok(config) if files::exists(source.path()) => (ConfigurationState::Right, config),
        Ok(config) => (ConfigurationState::Absent, config),
        Err(error) => (ConfigurationState::Wrong(error.to_string()), Config::default()),
    };
    (ConfigurationFile { path, state }, config)
}
