//! Chips, driver, nodes, and the nodes' links in /dev/char.

use std::collections::BTreeMap;

use super::view::View;
use crate::decide::machine::observe;
use crate::host::files;
use crate::host::root::Root;
use crate::host::sysfs::{self, Detail};
use crate::model::config::Config;
use crate::model::device::DeviceNode;
use crate::model::doctor::facts::{DeviceLink, Hardware, Observed, Unavailable};
use crate::parse::sysfs::parse_sysfs_scan;

/// As discovery looks, together with what only `doctor` asks.
pub(super) fn hardware(root: &Root, config: &Config) -> Result<Hardware, String> {
    let rules = &config.discovery;
    let machine = sysfs::capture(root, rules, Detail::Discovery).map_err(|it| it.to_string())?;
    let survey = parse_sysfs_scan(&machine, rules);
    let inventory = observe::facts(&survey, config);
    let is_loaded = |driver: &&String| {
        let places = ["sys/module", "sys/bus/pci/drivers"];
        places.iter().any(|place| files::exists(&root.path().join(place).join(driver)))
    };
    let numa_nodes = files::matching(root.path(), "sys/devices/system/node/node[0-9]*");
    Ok(Hardware {
        modules: rules.drivers.iter().filter(is_loaded).cloned().collect(),
        numa_nodes: numa_nodes.map_or(0, |nodes| nodes.len()),
        node_modes: node_modes(root, &survey.device_nodes),
        survey,
        inventory,
    })
}

/// Of real nodes alone: what stands for one below another root has the mode of its unpacker.
fn node_modes(root: &Root, nodes: &[DeviceNode]) -> BTreeMap<String, u32> {
    let mode = |node: &DeviceNode| {
        let path = root.path().join(node.path.trim_start_matches('/'));
        files::char_device(&path).ok()??;
        Some((node.path.clone(), files::mode(&path).ok()?))
    };
    nodes.iter().filter_map(mode).collect()
}

pub(super) fn device_links(
    view: &View<'_>,
    hardware: Option<&Hardware>,
) -> Observed<Vec<DeviceLink>> {
    let hardware = hardware.ok_or_else(|| Unavailable("/sys could not be read".to_owned()))?;
    let directory = "dev/char";
    if !view.exists(directory) {
        view.shows("dev")?;
        if !view.root.is_this_machine() {
            return Err(view.lacks(directory));
        }
    }
    let link = |node: &DeviceNode| {
        let number = node.number?;
        let is_there = view.exists(&format!("{directory}/{number}"));
        Some(DeviceLink { node: node.clone(), is_there })
    };
    Ok(hardware.survey.device_nodes.iter().filter_map(link).collect())
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
