//! Looks at a machine: reads from /sys and /dev what discovery needs, and nothing else.
//!
//! One attribute costs some 30 µs on a small virtual machine, so the links of
//! /sys/bus/pci/devices, which tell the whole tree, come first; they say what else is worth
//! reading.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::files::{self, Listed};
use super::root::Root;
use crate::model::config::DiscoveryRules;
use crate::model::machine::{Entry, Machine, resolve_link};
use crate::model::pci::PciAddress;
use crate::parse::attribute;
use crate::parse::node_file::parse_char_device;
use crate::parse::survey::{PCI_DEVICES, chip_minor};

/// A directory that must be read for any conclusion to hold, and cannot be. Never "no GPUs".
#[derive(Debug, Error)]
#[error("cannot read {path}: {error}{remedy}")]
pub struct ScanError {
    path: PathBuf,
    error: io::Error,
    remedy: &'static str,
}

/// How much is read of what matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What discovery and health conclude from.
    Judgement,
    /// Also what helps a person, and a reader of the copy, to understand the machine; functions
    /// that have nothing to do with the chips are left out.
    Snapshot,
}

const OF_CHIPS: &[&str] = &[
    "vendor",
    "class",
    "device",
    "numa_node",
    "config",
    "current_link_speed",
    "current_link_width",
    "max_link_speed",
    "max_link_width",
];
const OF_CHIPS_FOR_PEOPLE: &[&str] = &[
    "subsystem_vendor",
    "subsystem_device",
    "revision",
    "irq",
    "uevent",
    "local_cpulist",
    "aer_dev_correctable",
    "aer_dev_fatal",
    "aer_dev_nonfatal",
];
const OF_OTHERS_FOR_PEOPLE: &[&str] = &["vendor", "device", "class", "numa_node", "uevent"];

/// Directories of a PCI function that never hold a device node's directory.
const WITHOUT_NODES: &[&str] = &["power", "link", "msi_irqs"];

/// Reads the machine at `root`.
///
/// # Errors
/// [`ScanError`] where a directory that everything hangs on cannot be read.
pub fn capture(root: &Root, rules: &DiscoveryRules, detail: Detail) -> Result<Machine, ScanError> {
    let mut capture = Capture { root, rules, detail, machine: Machine::default() };
    let functions = capture.functions()?;
    let chips = capture.chips(&functions);
    capture.neighbours(&functions, &chips);
    if detail == Detail::Snapshot {
        capture.keep_relatives(&functions, &chips);
    }
    capture.slots()?;
    capture.class_devices()?;
    capture.device_nodes()?;
    capture.modules();
    if detail == Detail::Snapshot {
        capture.numa_nodes()?;
    }
    Ok(capture.machine)
}

/// A listed function: its directory and the ports above it.
struct Place {
    path: String,
    ports: Vec<PciAddress>,
}

type Functions = BTreeMap<PciAddress, Place>;

struct Capture<'a> {
    root: &'a Root,
    rules: &'a DiscoveryRules,
    detail: Detail,
    machine: Machine,
}

impl Capture<'_> {
    fn real(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn list(&self, path: &str, remedy: &'static str) -> Result<Vec<Listed>, ScanError> {
        let real = self.real(path);
        files::list_directory(&real).map_err(|error| ScanError { path: real, error, remedy })
    }

    /// One attribute. What is not there is left out: the function may be leaving.
    fn attribute(&mut self, path: &str) {
        match files::read_attribute(&self.real(path)) {
            Ok(bytes) => self.machine.insert(path, Entry::File(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.machine.insert(path, Entry::Unreadable(error.to_string())),
        }
    }

    fn attributes(&mut self, directory: &str, names: &[&str]) {
        for name in names {
            self.attribute(&format!("{directory}/{name}"));
        }
    }

    /// A symbolic link; anything else at `path` is left out.
    fn link(&mut self, path: &str) -> Option<String> {
        let target = files::read_link(&self.real(path)).ok()?;
        let resolved = resolve_link(path, &target);
        self.machine.insert(path, Entry::Link(target));
        resolved
    }

    fn functions(&mut self) -> Result<Functions, ScanError> {
        let listed = self.list(PCI_DEVICES, "; is /sys mounted here?")?;
        self.machine.insert(PCI_DEVICES, Entry::Directory);
        let mut functions = Functions::new();
        for Listed { name, .. } in listed {
            let Ok(address) = name.parse::<PciAddress>() else { continue };
            let listed = format!("{PCI_DEVICES}/{name}");
            let path = self.link(&listed).unwrap_or_else(|| {
                self.machine.insert(&listed, Entry::Directory);
                listed
            });
            let above = path.split('/').filter_map(|part| part.parse().ok());
            let ports = above.filter(|port| *port != address).collect();
            functions.insert(address, Place { path, ports });
        }
        Ok(functions)
    }

    /// Reads the vendor of every function that is no port of another, and everything of the chips.
    fn chips(&mut self, functions: &Functions) -> BTreeSet<PciAddress> {
        let ports: BTreeSet<_> = functions.values().flat_map(|place| &place.ports).collect();
        let mut chips = BTreeSet::new();
        for (address, place) in functions.iter().filter(|(address, _)| !ports.contains(address)) {
            self.attribute(&format!("{}/vendor", place.path));
            if self.is_wanted(&place.path) {
                chips.insert(*address);
                self.chip(&place.path);
            }
        }
        chips
    }

    fn is_wanted(&self, path: &str) -> bool {
        match self.machine.get(&format!("{path}/vendor")) {
            Some(Entry::File(bytes)) => attribute::parse_id(bytes)
                .is_ok_and(|vendor| self.rules.vendor_ids.contains(&vendor)),
            _ => false,
        }
    }

    fn chip(&mut self, path: &str) {
        self.attributes(path, &OF_CHIPS[1..]);
        self.link(&format!("{path}/driver"));
        self.link(&format!("{path}/physfn"));
        if self.detail == Detail::Snapshot {
            self.attributes(path, OF_CHIPS_FOR_PEOPLE);
            self.link(&format!("{path}/subsystem"));
        }
        self.child_nodes(path, 2);
    }

    /// Directories with a `dev` file, `depth` levels deep. A directory that cannot be listed shows
    /// none; the chip then lacks a node and says so.
    fn child_nodes(&mut self, path: &str, depth: usize) {
        let listed = files::list_directory(&self.real(path)).unwrap_or_default();
        for Listed { name, .. } in listed.into_iter().filter(|listed| listed.is_directory) {
            if WITHOUT_NODES.contains(&&*name) || name.parse::<PciAddress>().is_ok() {
                continue;
            }
            let below = format!("{path}/{name}");
            self.attribute(&format!("{below}/dev"));
            if self.machine.get(&format!("{below}/dev")).is_some() {
                self.attribute(&format!("{below}/uevent"));
            } else if depth > 1 {
                self.child_nodes(&below, depth - 1);
            }
        }
    }

    /// What else hangs below the chips' ports, and the ports' NUMA nodes where a chip has none.
    fn neighbours(&mut self, functions: &Functions, chips: &BTreeSet<PciAddress>) {
        let above_chips = ports_of(functions, chips);
        for (address, place) in functions {
            let is_neighbour = place.ports.iter().any(|port| above_chips.contains(port));
            if is_neighbour && !chips.contains(address) && !above_chips.contains(address) {
                self.attribute(&format!("{}/class", place.path));
            }
        }
        for chip in chips {
            let place = &functions[chip];
            if !self.has_numa_node(&place.path) {
                for port in place.ports.iter().filter_map(|port| functions.get(port)) {
                    self.attribute(&format!("{}/numa_node", port.path));
                }
            }
        }
    }

    fn has_numa_node(&self, path: &str) -> bool {
        match self.machine.get(&format!("{path}/numa_node")) {
            Some(Entry::File(bytes)) => {
                attribute::parse_numa_node(bytes).is_ok_and(|node| node.is_some())
            }
            _ => false,
        }
    }

    /// Drops every function that is no chip, no port above one and no neighbour below those ports,
    /// and reads more of those that stay.
    fn keep_relatives(&mut self, functions: &Functions, chips: &BTreeSet<PciAddress>) {
        let above_chips = ports_of(functions, chips);
        for (address, place) in functions {
            let below = place.ports.iter().any(|port| above_chips.contains(port));
            if chips.contains(address) {
                continue;
            }
            if below || above_chips.contains(address) {
                self.attributes(&place.path, OF_OTHERS_FOR_PEOPLE);
                self.link(&format!("{}/driver", place.path));
                self.link(&format!("{}/subsystem", place.path));
            } else {
                self.machine.remove(&format!("{PCI_DEVICES}/{address}"));
                self.machine.remove(&place.path);
            }
        }
    }

    fn glob(&self, pattern: &str) -> Result<Vec<String>, ScanError> {
        let found = files::matching(self.root.path(), pattern).map_err(|error| ScanError {
            path: self.real(pattern),
            error,
            remedy: "",
        })?;
        let below =
            |path: PathBuf| Some(path.strip_prefix(self.root.path()).ok()?.to_str()?.to_owned());
        Ok(found.into_iter().filter_map(below).collect())
    }

    fn slots(&mut self) -> Result<(), ScanError> {
        for path in self.glob("sys/bus/pci/slots/*/address")? {
            self.attribute(&path);
        }
        Ok(())
    }

    fn class_devices(&mut self) -> Result<(), ScanError> {
        for link in self.glob("sys/class/*/iluvatar[0-9]*")? {
            let Some(path) = self.link(&link) else { continue };
            self.attributes(&path, &["dev", "uevent"]);
            self.link(&format!("{path}/device"));
        }
        Ok(())
    }

    /// The chips' nodes by name, control nodes by path. A root without /dev has no nodes; the chips
    /// then say so.
    fn device_nodes(&mut self) -> Result<(), ScanError> {
        let listed = match self.list("dev", "") {
            Ok(listed) => listed,
            Err(error) if error.error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.machine.insert("dev", Entry::Directory);
        for Listed { name, .. } in listed {
            if chip_minor(&name).is_some() {
                self.device_node(&format!("dev/{name}"));
            }
        }
        let rules = self.rules;
        for path in &rules.control_nodes {
            self.device_node(path.trim_start_matches('/'));
        }
        Ok(())
    }

    fn device_node(&mut self, path: &str) {
        let real = self.real(path);
        let unpacked = |path: &Path| {
            let bytes = files::read_attribute(path).ok()?;
            parse_char_device(std::str::from_utf8(&bytes).ok()?)
        };
        let number = match files::char_device(&real) {
            Ok(Some(number)) => Some(number),
            Ok(None) if !self.root.is_this_machine() => unpacked(&real),
            _ => None,
        };
        if let Some(number) = number {
            self.machine.insert(path, Entry::CharDevice(number));
        }
    }

    fn modules(&mut self) {
        let rules = self.rules;
        for driver in &rules.drivers {
            self.attribute(&format!("sys/module/{driver}/version"));
            if self.detail == Detail::Snapshot {
                self.attribute(&format!("sys/module/{driver}/srcversion"));
            }
        }
    }

    fn numa_nodes(&mut self) -> Result<(), ScanError> {
        for path in self.glob("sys/devices/system/node/node[0-9]*/cpulist")? {
            self.attribute(&path);
        }
        Ok(())
    }
}

fn ports_of(functions: &Functions, chips: &BTreeSet<PciAddress>) -> BTreeSet<PciAddress> {
    let places = chips.iter().filter_map(|chip| functions.get(chip));
    places.flat_map(|place| place.ports.iter().copied()).collect()
}
