//! Whether the other mode serves this node: its sockets, where a process listens at one.

use std::path::{Path, PathBuf};

use super::{files, sockets};
use crate::decide::dra::socket_paths::REGISTRY;
use crate::decide::kubelet::socket_name::PREFIX;
use crate::model::config::ServingMode;
use crate::model::doctor::facts::SocketState;
use crate::model::dra::DRIVER_NAME;

/// The first socket of the other mode at which a process listens. `plugin_directory` is that of
/// device plugins; the one of drivers is beside it.
#[must_use]
pub fn live_socket(mode: ServingMode, plugin_directory: &Path) -> Option<PathBuf> {
    let (directory, prefix) = match mode {
        ServingMode::DevicePlugin => (plugin_directory.parent()?.join(REGISTRY), DRIVER_NAME),
        ServingMode::Dra => (plugin_directory.to_owned(), PREFIX),
    };
    let listed = files::list_directory(&directory).ok()?;
    let ours = listed.into_iter().filter(|listed| listed.name.starts_with(prefix));
    let mut paths = ours.map(|listed| directory.join(listed.name));
    paths.find(|path| sockets::is_socket(path) && sockets::probe(path) == SocketState::Accepts)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_a_socket_of_the_other_mode_at_which_a_process_listens_counts() {
        let root = TempDir::new().unwrap();
        let (plugins, registry) = (root.path().join("device-plugins"), root.path().join(REGISTRY));
        sockets::create_directory(&plugins).unwrap();
        sockets::create_directory(&registry).unwrap();
        let modes = [ServingMode::DevicePlugin, ServingMode::Dra];
        let live = || modes.map(|mode| live_socket(mode, &plugins));
        assert_eq!(live(), [None, None]);
        let _kubelet = UnixListener::bind(plugins.join("kubelet.sock")).unwrap();
        let _other = UnixListener::bind(registry.join("dra.net-reg.sock")).unwrap();
        assert_eq!(live(), [None, None]);
        let plugin = plugins.join("iluvatar-gpu.sock");
        let driver = registry.join("gpu.iluvatar.com-reg.sock");
        let listeners = [&plugin, &driver].map(|path| UnixListener::bind(path).unwrap());
        assert_eq!(live(), [Some(driver), Some(plugin)]);
        drop(listeners);
        assert_eq!(live(), [None, None]);
    }
}
