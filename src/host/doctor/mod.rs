//! Reads the facts that `doctor` concludes from.

mod hardware;
mod kernel;
mod kubelet;
mod plugin;
mod root;
mod runtimes;

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::config_file::ConfigSource;
use super::files;
use super::root::Root;
use crate::model::config::Config;
use crate::model::doctor::facts::{ConfigurationFile, ConfigurationState, NodeFacts};

/// Waits for an answer, on a runtime that only this call has.
fn block_on<T>(answer: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(answer))
}

/// Reads everything at `root`. `kubelet_directory` is taken as it is; without it, the usual one
/// below the root. Waits for no other processes but the kubelet and the plugin that serves HTTP at
/// `plugin`, and for each of them two seconds at most.
#[must_use]
pub fn read_facts(
    root: &Root,
    kubelet_directory: Option<&Path>,
    source: &ConfigSource,
    plugin: Option<SocketAddr>,
) -> NodeFacts {
    let (configuration, config) = configuration(source);
    let hardware = hardware::hardware(root, &config);
    let nodes = hardware.as_ref().map_or(&[][..], |hardware| &hardware.scan.device_nodes);
    let root_facts = root::root(root);
    NodeFacts {
        driver: plugin::driver(root_facts.kind, plugin),
        root: root_facts,
        configuration,
        device_links: hardware::device_links(root, nodes),
        hardware,
        config,
        kubelet: kubelet::kubelet(root, kubelet_directory),
        cdi: runtimes::cdi(root),
        runtimes: runtimes::runtimes(root),
        toolkit_directories: runtimes::toolkit_directories(root),
        uevents: kernel::uevents(root),
        inotify: kernel::inotify(root),
    }
}

/// The file and the active configuration: the defaults where the file is invalid.
fn configuration(source: &ConfigSource) -> (ConfigurationFile, Config) {
    let path = source.path().display().to_string();
    let (state, config) = match source.load() {
        Ok(config) if files::exists(source.path()) => (ConfigurationState::Valid, config),
        Ok(config) => (ConfigurationState::Absent, config),
        Err(error) => (ConfigurationState::Invalid(error.to_string()), Config::default()),
    };
    (ConfigurationFile { path, state }, config)
}
