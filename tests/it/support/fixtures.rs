//! The machines of fixtures/nodes, and what a scan finds on one.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ix_device_plugin::decide::node::state::snapshot_of;
use ix_device_plugin::host::root::Root;
use ix_device_plugin::host::scan::scan;
use ix_device_plugin::host::sysfs::ScanError;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::inventory::Inventory;
use ix_device_plugin::model::sysfs::SysfsScan;
use ix_device_plugin::parse::node_file::parse_node_file;

/// The resource that is offered without configuration.
pub(crate) const GPU: &str = "iluvatar.com/gpu";

/// The text of a shipped machine.
pub(crate) fn node_text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/nodes/{name}.node"));
    fs::read_to_string(path).unwrap()
}

/// The inventory of the machine below `root`.
pub(crate) fn scan_of(root: &Root, config: &Config) -> Result<Inventory, ScanError> {
    let scan = scan(root, &config.discovery)?;
    Ok(Arc::unwrap_or_clone(Arc::clone(&snapshot_of(scan, config).inventory)))
}

/// The inventory of the machine that this `.node` text describes.
pub(crate) fn inventory_of(node: &str, config: &Config) -> Inventory {
    scan_of(&Root::unpack(&parse_node_file(node).unwrap()).unwrap(), config).unwrap()
}

/// What a scan of the machine that this `.node` text describes reads.
pub(crate) fn scan_text(node: &str, config: &Config) -> SysfsScan {
    let root = Root::unpack(&parse_node_file(node).unwrap()).unwrap();
    scan(&root, &config.discovery).unwrap()
}
