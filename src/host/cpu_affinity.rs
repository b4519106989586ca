//! The CPUs next to each chip. Only `topology` shows them, so scans do not read them.

use std::collections::BTreeMap;

use super::files;
use super::root::Root;
use crate::model::board::Chip;
use crate::model::pci::PciAddress;
use crate::parse::attribute;
use crate::parse::sysfs::PCI_DEVICES;

/// The CPU list of each chip as the kernel writes it, `0-15,64-79`: the chip's own
/// `local_cpulist`, or the `cpulist` of its NUMA node. A chip with neither is absent.
#[must_use]
pub fn cpu_affinity(root: &Root, chips: &[&Chip]) -> BTreeMap<PciAddress, String> {
    let lists = chips.iter().filter_map(|chip| Some((chip.address, cpu_list(root, chip)?)));
    lists.collect()
}

fn cpu_list(root: &Root, chip: &Chip) -> Option<String> {
    let of_node = |node| format!("sys/devices/system/node/node{node}/cpulist");
    read(root, &format!("{PCI_DEVICES}/{}/local_cpulist", chip.address))
        .or_else(|| read(root, &of_node(chip.numa_node?)))
}

fn read(root: &Root, path: &str) -> Option<String> {
    let bytes = files::read_attribute(&root.path().join(path)).ok()?;
    let text = attribute::parse_text(&bytes).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::NodeEvidence;
    use crate::model::function::Link;
    use crate::model::machine::{Entry, Machine};
    use crate::model::pci::PciId;

    const CHIP: &str = "0000:13:00.0";

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Option<&str>) {
        let mut machine = Machine::default();
        for (path, text) in files {
            machine.insert(path, Entry::File(text.as_bytes().to_vec()));
        }
        let root = Root::unpack(&machine).unwrap();
        let address = CHIP.parse().unwrap();
        let chip = Chip {
            address,
            id: PciId { vendor: 0x1e3e, device: 2 },
            uuid: None,
            driver: None,
            node: None,
            node_evidence: NodeEvidence::None,
            numa_node: Some(1),
            slot: None,
            link: Link::default(),
            reasons: Vec::new(),
        };
        assert_eq!(cpu_affinity(&root, &[&chip]).get(&address).map(String::as_str), expected);
    }

    #[test]
    fn the_chips_own_list_overrides_that_of_its_numa_node() {
        let own = ("sys/bus/pci/devices/0000:13:00.0/local_cpulist", "0-15\n");
        let of_node = ("sys/devices/system/node/node1/cpulist", "16-31\n");
        check(&[own, of_node], Some("0-15"));
        check(&[of_node], Some("16-31"));
        check(&[(own.0, "\n")], None);
        check(&[], None);
    }
}
