//! What the driver reports to the kubelet about itself.

use std::path::Path;

use super::pluginregistration_v1::PluginInfo;

/// The type of a driver of dynamic resource allocation.
pub const DRA_PLUGIN: &str = "DRAPlugin";

/// The services on the service socket, by their short names. The kubelet takes the first of each kind
/// that it knows, so newer versions are first.
pub const SUPPORTED_VERSIONS: [&str; 3] =
    ["v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"];

/// The answer to GetInfo.
#[must_use]
pub fn plugin_info(driver: &str, service_socket: &Path) -> PluginInfo {
    PluginInfo {
        r#type: DRA_PLUGIN.to_owned(),
        name: driver.to_owned(),
        endpoint: service_socket.display().to_string(),
        supported_versions: SUPPORTED_VERSIONS.map(ToOwned::to_owned).into(),
    }
}
