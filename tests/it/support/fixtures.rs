//! The machines of fixtures/nodes, and what a scan finds on one.

use std::fs;
use std::path::Path;

use ix_device_plugin::host::root::Root;
use ix_device_plugin::host::scan::scan;
use ix_device_plugin::host::sysfs::ScanError;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::inventory::Inventory;
use ix_device_plugin::parse::node_file::parse_node_file;

/// The resource that is offered without configuration.
pub(crate) const GPU: &str = "iluvatar.com/gpu";

/// The text of a shipped machine.
pub(crate) fn node_text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/nodes/{name}.node"));
    fs::read_to_string(path).unwrap()
}

/// The inventory of the machine below `root`: the only call of `scan` in the tests.
pub(crate) fn scan_of(root: &Root, config: &Config) -> Result<Inventory, ScanError> {
    Ok(scan(root, config)?.inventory)
}

/// The inventory of the machine that this `.node` text describes.
pub(crate) fn inventory_of(node: &str, config: &Config) -> Inventory {
    scan_of(&Root::unpack(&parse_node_file(node).unwrap()).unwrap(), config).unwrap()
}
