//! Chips, driver, nodes, and the nodes' links in /dev/char.

use std::collections::BTreeMap;

use super::root::below;
use crate::host::files;
use crate::host::identities::read_identities;
use crate::host::root::Root;
use crate::host::scan::scan;
use crate::model::config::Config;
use crate::model::device::DeviceNode;
use crate::model::doctor::facts::{DeviceLink, DeviceLinks, HardwareFacts};

/// What discovery reads, and what only `doctor` asks for.
pub(super) fn hardware(root: &Root, config: &Config) -> Result<HardwareFacts, String> {
    let rules = &config.discovery;
    let scan = scan(root, rules).map_err(|it| it.to_string())?;
    let is_loaded = |driver: &&String| {
        let places = ["sys/module", "sys/bus/pci/drivers"];
        places.iter().any(|place| files::exists(&below(root, place).join(driver)))
    };
    let numa_nodes = files::matching(root.path(), "sys/devices/system/node/node[0-9]*");
    Ok(HardwareFacts {
        modules: rules.drivers.iter().filter(is_loaded).cloned().collect(),
        numa_nodes: numa_nodes.map_or(0, |nodes| nodes.len()),
        node_modes: node_modes(root, &scan.device_nodes),
        scan,
        identities: read_identities(rules),
    })
}

/// Of real nodes alone: what stands for one below another root has the mode of its unpacker.
fn node_modes(root: &Root, nodes: &[DeviceNode]) -> BTreeMap<String, u32> {
    let mode = |node: &DeviceNode| {
        let path = below(root, node.path.trim_start_matches('/'));
        files::char_device(&path).ok()??;
        Some((node.path.clone(), files::mode(&path).ok()?))
    };
    nodes.iter().filter_map(mode).collect()
}

pub(super) fn device_links(root: &Root, nodes: &[DeviceNode]) -> DeviceLinks {
    let directory = below(root, "dev/char");
    let link = |node: &DeviceNode| {
        let is_there = files::exists(&directory.join(node.number?.to_string()));
        Some(DeviceLink { node: node.clone(), is_there })
    };
    DeviceLinks {
        has_directory: files::exists(&directory),
        links: nodes.iter().filter_map(link).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::machine::Machine;

    #[test]
    fn only_real_nodes_have_a_mode() {
        let null = [DeviceNode { path: "/dev/null".to_owned(), number: None }];
        let here = Root::open(Path::new("/")).unwrap();
        assert_eq!(node_modes(&here, &null)["/dev/null"] & 0o006, 0o006);
        let elsewhere = Root::unpack(&Machine::default()).unwrap();
        assert_eq!(node_modes(&elsewhere, &null), BTreeMap::new());
    }
}
