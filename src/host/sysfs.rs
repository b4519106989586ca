//! Scans a machine: reads from /sys and /dev what discovery needs, and nothing else.
//!
//! One attribute costs some 30 µs on a small virtual machine, so the links of
//! /sys/bus/pci/devices, which show the whole tree, come first; they decide what else is read.

use std::collections::BTreeSet;
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
use crate::parse::sysfs::{FunctionPlaces, PCI_DEVICES, chip_minor, function_place, udev_record};

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
    Discovery,
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

/// What was read of a machine.
#[derive(Debug)]
pub struct Capture {
    /// Everything.
    pub machine: Machine,
    /// Where each listed function is.
    pub places: FunctionPlaces,
}

/// Reads the machine at `root`.
///
/// # Errors
/// [`ScanError`] where a directory that everything hangs on cannot be read.
pub fn capture(root: &Root, rules: &DiscoveryRules, detail: Detail) -> Result<Capture, ScanError> {
    let mut reader = Reader { root, rules, detail, machine: Machine::default() };
    let places = reader.functions()?;
    let chips = reader.chips(&places);
    reader.neighbours(&places, &chips);
    if detail == Detail::Snapshot {
        reader.keep_relatives(&places, &chips);
    }
    reader.slots()?;
    reader.class_devices()?;
    reader.device_nodes()?;
    reader.modules();
    if detail == Detail::Snapshot {
        reader.numa_nodes()?;
    }
    Ok(Capture { machine: reader.machine, places })
}

/// Whether the kernel lists this function now. It takes a function off the list before it reports
/// that the function left (`device_del` in drivers/base/core.c).
#[must_use]
pub fn is_listed(root: &Root, function: PciAddress) -> bool {
    let link = root.path().join(PCI_DEVICES).join(function.to_string());
    files::exists(&link)
}

struct Reader<'a> {
    root: &'a Root,
    rules: &'a DiscoveryRules,
    detail: Detail,
    machine: Machine,
}

impl Reader<'_> {
    fn real(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn list(&self, path: &str, remedy: &'static str) -> Result<Vec<Listed>, ScanError> {
        let real = self.real(path);
        files::list_directory(&real).map_err(|error| ScanError { path: real, error, remedy })
    }

    /// One attribute, read once. What is not there is left out: the function may be leaving.
    fn attribute(&mut self, path: &str) {
        if self.machine.get(path).is_some() {
            return;
        }
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

    fn functions(&mut self) -> Result<FunctionPlaces, ScanError> {
        let listed = self.list(PCI_DEVICES, "; is /sys mounted here?")?;
        self.machine.insert(PCI_DEVICES, Entry::Directory);
        let mut functions = FunctionPlaces::new();
        for Listed { name, .. } in listed {
            let Ok(address) = name.parse::<PciAddress>() else { continue };
            let listed = format!("{PCI_DEVICES}/{name}");
            self.link(&listed);
            self.machine.insert(&listed, Entry::Directory);
            functions.insert(address, function_place(&self.machine, address));
        }
        Ok(functions)
    }

    /// Reads the vendor of every function that is no port of another, and everything of the chips.
    fn chips(&mut self, functions: &FunctionPlaces) -> BTreeSet<PciAddress> {
        let ports: BTreeSet<_> = functions.values().flat_map(|place| &place.ports).collect();
        let mut chips = BTreeSet::new();
        for (address, place) in functions.iter().filter(|(address, _)| !ports.contains(address)) {
            if matches!(self.machine.get(&place.path), Some(Entry::Link(_))) {
                // It leads elsewhere; the scan finds nothing below it and reports that.
                continue;
            }
            self.attribute(&format!("{}/vendor", place.path));
            if self.is_wanted(&place.path) {
                chips.insert(*address);
                self.chip(&place.path);
                // For the model's name alone.
                self.attribute(&udev_record(*address));
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
        self.attributes(path, OF_CHIPS);
        self.link(&format!("{path}/driver"));
        self.link(&format!("{path}/physfn"));
        if self.detail == Detail::Snapshot {
            self.attributes(path, OF_CHIPS_FOR_PEOPLE);
            self.link(&format!("{path}/subsystem"));
        }
        self.child_nodes(path, 2);
    }

    /// Directories with a `dev` file, `depth` levels deep. A directory that cannot be listed shows
    /// none; the chip is then reported without a node.
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
    fn neighbours(&mut self, functions: &FunctionPlaces, chips: &BTreeSet<PciAddress>) {
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
    fn keep_relatives(&mut self, functions: &FunctionPlaces, chips: &BTreeSet<PciAddress>) {
        let above_chips = ports_of(functions, chips);
        // Functions that could not be classified stay in the copy.
        let unclassified = self.unclassified(functions);
        let above_unclassified = ports_of(functions, &unclassified);
        for (address, place) in functions {
            if chips.contains(address) || unclassified.contains(address) {
                continue;
            }
            let is_above = above_chips.contains(address) || above_unclassified.contains(address);
            if is_above || place.ports.iter().any(|port| above_chips.contains(port)) {
                self.attributes(&place.path, OF_OTHERS_FOR_PEOPLE);
                self.link(&format!("{}/driver", place.path));
                self.link(&format!("{}/subsystem", place.path));
            } else {
                self.machine.remove(&format!("{PCI_DEVICES}/{address}"));
                self.machine.remove(&place.path);
            }
        }
    }

    /// Functions that may be chips, by their vendor.
    fn unclassified(&self, functions: &FunctionPlaces) -> BTreeSet<PciAddress> {
        let ports = ports_of(functions, &functions.keys().copied().collect());
        let others = functions.iter().filter(|(address, _)| !ports.contains(address));
        let unclear =
            others.filter(|(_, place)| match self.machine.get(&format!("{}/vendor", place.path)) {
                Some(Entry::File(bytes)) => attribute::parse_id(bytes).is_err(),
                _ => true,
            });
        unclear.map(|(address, _)| *address).collect()
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
    /// are then reported without nodes.
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

fn ports_of(functions: &FunctionPlaces, chips: &BTreeSet<PciAddress>) -> BTreeSet<PciAddress> {
    let places = chips.iter().filter_map(|chip| functions.get(chip));
    places.flat_map(|place| place.ports.iter().copied()).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests make the trees that are read")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;
    use crate::decide::node::state::snapshot_of;
    use crate::host::files::unpack;
    use crate::host::scan::scan;
    use crate::model::config::Config;
    use crate::model::inventory::Inventory;
    use crate::model::machine::DeviceNumber;
    use crate::model::warning::WarningCode;

    const CHIP: &str = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0";
    const OTHER: &str = "sys/devices/pci0000:00/0000:00:02.0/0000:02:00.0";

    /// A directory tree with the chips 01:00.0 and 02:00.0, each below a root port of its own, and
    /// the nodes /dev/iluvatar0 and /dev/iluvatar1.
    struct Tree(TempDir);

    impl Tree {
        fn new() -> Self {
            let mut machine = Machine::default();
            for (number, chip) in [CHIP, OTHER].iter().enumerate() {
                let (port, _) = chip.rsplit_once('/').unwrap();
                add_function(&mut machine, port, "0x8086", "0x060400");
                add_function(&mut machine, chip, "0x1e3e", "0x120000");
                machine.insert(&format!("{chip}/device"), Entry::File(b"0x0002\n".to_vec()));
                let driver = "../../../../bus/pci/drivers/iluvatar".to_owned();
                machine.insert(&format!("{chip}/driver"), Entry::Link(driver));
                let number = DeviceNumber { major: 508, minor: u32::try_from(number).unwrap() };
                let node = format!("dev/iluvatar{}", number.minor);
                machine.insert(&node, Entry::CharDevice(number));
            }
            machine.insert("sys/bus/pci/drivers/iluvatar", Entry::Directory);
            let directory = TempDir::new().unwrap();
            unpack(&machine, directory.path()).unwrap();
            Self(directory)
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// Makes a file hold these bytes; its directory too, where it is not there.
        fn with(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
            self
        }

        fn with_link(self, path: &str, target: &str) -> Self {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
            self
        }

        /// A directory where an attribute is expected: it can be opened and not be read, as an
        /// attribute whose driver fails.
        fn with_directory(self, path: &str) -> Self {
            let path = self.path(path);
            let _ = fs::remove_file(&path);
            fs::create_dir_all(path).unwrap();
            self
        }

        fn without(self, path: &str) -> Self {
            let path = self.path(path);
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
            self
        }

        fn inventory(&self) -> Result<Arc<Inventory>, ScanError> {
            self.inventory_under(&Config::default())
        }

        fn inventory_under(&self, config: &Config) -> Result<Arc<Inventory>, ScanError> {
            let root = Root::open(self.0.path()).unwrap();
            let scan = scan(&root, &config.discovery)?;
            Ok(Arc::clone(&snapshot_of(scan, config).inventory))
        }

        /// Warnings and skipped functions of chip 01:00.0; the other chip must be as ever.
        #[track_caller]
        fn problems(&self) -> Vec<String> {
            let inventory = self.inventory().unwrap();
            let other = inventory.chips().into_iter().find(|chip| chip.address.bus == 2);
            assert!(other.is_some(), "the other chip is hidden");
            let skipped = inventory.skipped.iter();
            let skipped = skipped.map(|skipped| format!("{}: {}", skipped.address, skipped.reason));
            let odd = inventory.warnings.iter();
            let odd = odd.filter(|warning| warning.code != WarningCode::InferredDeviceNode);
            odd.map(ToString::to_string).chain(skipped).collect()
        }
    }

    fn add_function(machine: &mut Machine, directory: &str, vendor: &str, class: &str) {
        let address = directory.rsplit('/').next().unwrap();
        for (name, value) in [("vendor", vendor), ("class", class), ("numa_node", "-1")] {
            let bytes = format!("{value}\n").into_bytes();
            machine.insert(&format!("{directory}/{name}"), Entry::File(bytes));
        }
        let target = format!("../../../devices/{}", &directory["sys/devices/".len()..]);
        machine.insert(&format!("{PCI_DEVICES}/{address}"), Entry::Link(target));
    }

    #[test]
    fn a_whole_tree_is_read_without_a_problem() {
        assert_eq!(Tree::new().problems(), Vec::<String>::new());
    }

    #[test]
    fn a_bus_that_cannot_be_listed_is_an_error_that_names_it() {
        let bus = "sys/bus/pci/devices";
        let tree = Tree::new().without(bus);
        let shown = tree.path(bus).display().to_string();
        assert_eq!(
            tree.inventory().unwrap_err().to_string(),
            format!(
                "cannot read {shown}: No such file or directory (os error 2); is /sys mounted here?"
            )
        );
        let tree = tree.with(bus, "");
        let shown = tree.path(bus).display().to_string();
        assert_eq!(
            tree.inventory().unwrap_err().to_string(),
            format!("cannot read {shown}: Not a directory (os error 20); is /sys mounted here?")
        );
    }

    #[test]
    fn a_dev_that_cannot_be_listed_is_an_error_and_a_missing_one_is_none() {
        let tree = Tree::new().without("dev").with("dev", "");
        let shown = tree.path("dev").display().to_string();
        assert_eq!(
            tree.inventory().unwrap_err().to_string(),
            format!("cannot read {shown}: Not a directory (os error 20)")
        );
        let inventory = tree.without("dev").inventory().unwrap();
        assert_eq!(inventory.boards[0].reasons[0].code.name(), "DeviceNodeUnknown");
    }

    #[test]
    fn a_function_that_left_between_listing_and_reading_is_skipped() {
        let gone = "0000:01:00.0: not readable: vendor is not there; the function may have left during the scan";
        assert_eq!(Tree::new().without(CHIP).problems(), [gone]);
        assert_eq!(Tree::new().without(&format!("{CHIP}/vendor")).problems(), [gone]);
        let class = "0000:01:00.0: not readable: class is not there; the function may have left during the scan";
        assert_eq!(Tree::new().without(&format!("{CHIP}/class")).problems(), [class]);
    }

    #[test]
    fn a_link_to_another_functions_directory_makes_no_second_chip() {
        let listed = format!("{PCI_DEVICES}/0000:01:00.0");
        let target = format!("../../../../{OTHER}");
        let tree = Tree::new().without(&listed).with_link(&listed, &target);
        let gone = "0000:01:00.0: not readable: vendor is not there; the function may have left during the scan";
        assert_eq!(tree.problems(), [gone]);
    }

    #[test]
    fn a_link_out_of_the_root_is_not_followed() {
        let listed = format!("{PCI_DEVICES}/0000:01:00.0");
        let elsewhere = Tree::new();
        let target = elsewhere.path(CHIP).display().to_string();
        let tree = Tree::new().without(&listed).with_link(&listed, &target);
        let gone = "0000:01:00.0: not readable: vendor is not there; the function may have left during the scan";
        assert_eq!(tree.problems(), [gone]);
    }

    #[track_caller]
    fn check(name: &str, bytes: impl AsRef<[u8]>, expected: &str) {
        let tree = Tree::new().with(&format!("{CHIP}/{name}"), bytes);
        assert_eq!(tree.problems(), [format!("0000:01:00.0: {expected}")]);
    }

    #[test]
    fn a_vendor_that_makes_no_sense_costs_its_function_and_no_other() {
        check("vendor", "", "not readable: vendor is empty");
        check("vendor", "0x", "not readable: vendor `0x` is not an id such as 0x1e3e");
        check("vendor", "0x1e3e0\n", "not readable: vendor `0x1e3e0` is not an id of 16 bits");
        check("vendor", [0xff, 0xfe, 0], "not readable: vendor is not text");
        let huge = "not readable: vendor could not be read: longer than 8192 bytes";
        check("vendor", vec![b'0'; 8193], huge);
        check("class", "", "not readable: class is empty");
        check("device", "0002", "not readable: device `0002` is not an id such as 0x1e3e");
    }

    #[test]
    fn an_attribute_that_a_chip_can_do_without_costs_itself_only() {
        check("numa_node", "\n", "numa_node is empty");
        check("numa_node", "zero", "numa_node `zero` is not a NUMA node number");
        check("current_link_speed", [0xc3, 0x28], "current_link_speed is not text");
        check("max_link_width", "x16", "max_link_width `x16` is not a number of lanes");
        let tree = Tree::new().with(&format!("{CHIP}/numa_node"), vec![b'1'; 100_000]);
        let huge = "0000:01:00.0: numa_node could not be read: longer than 8192 bytes";
        assert_eq!(tree.problems(), [huge]);
        assert_eq!(tree.inventory().unwrap().boards.len(), 2);
    }

    #[test]
    fn an_attribute_that_cannot_be_read_is_named_with_the_cause() {
        let vendor = Tree::new().with_directory(&format!("{CHIP}/vendor")).problems();
        let expected =
            "0000:01:00.0: not readable: vendor could not be read: Is a directory (os error 21)";
        assert_eq!(vendor, [expected]);
        let speed = Tree::new().with_directory(&format!("{CHIP}/max_link_speed")).problems();
        let expected =
            "0000:01:00.0: max_link_speed could not be read: Is a directory (os error 21)";
        assert_eq!(speed, [expected]);
    }

    #[test]
    fn a_fifo_in_place_of_an_attribute_does_not_hang_the_scan() {
        let tree = Tree::new();
        for path in [format!("{CHIP}/vendor"), "dev/iluvatar7".to_owned()] {
            let path = tree.path(&path);
            let _ = fs::remove_file(&path);
            mkfifo(&path, Mode::S_IRWXU).unwrap();
        }
        assert_eq!(tree.problems(), ["0000:01:00.0: not readable: vendor is empty"]);
    }

    #[test]
    fn a_configuration_space_of_all_ones_or_without_a_byte_is_a_chip_that_left_the_bus() {
        for config in [&[0xff; 64][..], &[]] {
            let tree = Tree::new().with(&format!("{CHIP}/config"), config);
            let board = &tree.inventory().unwrap().boards[0];
            assert_eq!(board.reasons[0].code.name(), "ConfigSpaceUnreadable", "{config:?}");
        }
        let refused = Tree::new().with_directory(&format!("{CHIP}/config"));
        assert!(refused.inventory().unwrap().boards[0].reasons.is_empty());
    }

    #[track_caller]
    fn check_numa_node(tree: &Tree, expected: Option<u32>) {
        assert_eq!(tree.inventory().unwrap().boards[0].chips[0].numa_node, expected);
    }

    #[test]
    fn a_numa_node_of_minus_one_is_looked_for_in_the_ports_above() {
        let own = format!("{CHIP}/numa_node");
        let port = "sys/devices/pci0000:00/0000:00:01.0/numa_node";
        check_numa_node(&Tree::new(), None);
        check_numa_node(&Tree::new().with(port, "1\n"), Some(1));
        check_numa_node(&Tree::new().without(&own).with(port, "1\n"), Some(1));
        check_numa_node(&Tree::new().with(&own, "0\n").with(port, "1\n"), Some(0));
    }

    #[test]
    fn a_model_that_is_not_known_is_called_what_the_udev_database_calls_it() {
        let chip = format!("{CHIP}/device");
        let record = "run/udev/data/+pci:0000:01:00.0";
        let tree = Tree::new().with(&chip, "0x0003\n").with(record, "E:ID_MODEL_FROM_DATABASE=X\n");
        assert_eq!(tree.inventory().unwrap().boards[0].model, "X");
        assert_eq!(tree.problems(), Vec::<String>::new());
        let tree = tree.with_directory(record);
        assert_eq!(tree.inventory().unwrap().boards[0].model, "unknown");
    }

    #[test]
    fn a_domain_of_more_than_16_bits_is_kept() {
        let chip = "sys/devices/pci10000:e0/10000:e0:01.0/10000:e1:00.0";
        let listed = format!("{PCI_DEVICES}/10000:e1:00.0");
        let tree = Tree::new()
            .with(&format!("{chip}/vendor"), "0x1e3e")
            .with(&format!("{chip}/device"), "0x0002")
            .with(&format!("{chip}/class"), "0x120000")
            .with_link(&listed, &format!("../../../../{chip}"));
        let inventory = tree.inventory().unwrap();
        assert_eq!(inventory.boards[2].address.to_string(), "10000:e1:00.0");
    }

    #[test]
    fn a_bridge_of_the_vendors_is_no_chip() {
        let tree = Tree::new().with(&format!("{CHIP}/class"), "0x060400");
        assert_eq!(tree.problems(), Vec::<String>::new());
        assert_eq!(tree.inventory().unwrap().boards.len(), 1);
    }

    #[test]
    fn a_child_with_a_device_number_is_the_chips_node() {
        let tree = Tree::new()
            .with(&format!("{CHIP}/iluvatar-sys/iluvatar1/dev"), "508:1\n")
            .with(&format!("{OTHER}/iluvatar-sys/first/dev"), "508:0\n")
            .with(&format!("{OTHER}/iluvatar-sys/first/uevent"), "DEVNAME=iluvatar0\n");
        let inventory = tree.inventory().unwrap();
        let nodes: Vec<_> = inventory
            .chips()
            .iter()
            .map(|chip| format!("{} {}", chip.node.as_ref().unwrap().path, chip.node_evidence))
            .collect();
        assert_eq!(nodes, ["/dev/iluvatar1 sysfs", "/dev/iluvatar0 sysfs"]);
    }

    #[test]
    fn a_class_device_leads_to_its_chip_by_path_or_by_link() {
        let virtual_one = "sys/devices/virtual/iluvatar-sys/iluvatar1";
        let tree = Tree::new()
            .with(&format!("{virtual_one}/dev"), "508:1\n")
            .with_link(&format!("{virtual_one}/device"), &format!("../../../../../{CHIP}"))
            .with_link("sys/class/iluvatar-sys/iluvatar1", &format!("../../../{virtual_one}"))
            .with(&format!("{OTHER}/deep/er/iluvatar0/dev"), "508:0\n")
            .with_link(
                "sys/class/iluvatar-sys/iluvatar0",
                &format!("../../../{OTHER}/deep/er/iluvatar0"),
            );
        let inventory = tree.inventory().unwrap();
        let nodes: Vec<_> = inventory
            .chips()
            .iter()
            .map(|chip| format!("{} {}", chip.node.as_ref().unwrap().path, chip.node_evidence))
            .collect();
        assert_eq!(nodes, ["/dev/iluvatar1 class", "/dev/iluvatar0 class"]);
    }

    #[test]
    fn names_in_dev_that_only_resemble_a_chips_are_no_nodes() {
        let tree = Tree::new()
            .with("dev/iluvatar", "c 508:9\n")
            .with("dev/iluvatarx", "c 508:9\n")
            .with("dev/iluvatar2.bak", "c 508:2\n")
            .with("dev/iluvatar3", "not a node\n");
        assert!(tree.inventory().unwrap().boards.iter().all(|board| board.reasons.is_empty()));
    }

    #[test]
    fn other_vendors_and_drivers_count_where_they_are_configured() {
        let mut config = Config::default();
        config.discovery.vendor_ids = vec![0x8086];
        assert_eq!(Tree::new().inventory_under(&config).unwrap().boards, []);
        let mut config = Config::default();
        config.discovery.drivers = vec!["bi_driver".to_owned()];
        let inventory = Tree::new().inventory_under(&config).unwrap();
        let reasons: Vec<_> =
            inventory.skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
        assert_eq!(reasons, ["bound to iluvatar, which is not in discovery.drivers"; 2]);
    }

    #[test]
    fn a_snapshot_leaves_out_what_has_nothing_to_do_with_the_chips() {
        let far = "sys/devices/pci0000:80/0000:80:01.0";
        let beside = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.1";
        let tree = Tree::new()
            .with(&format!("{far}/vendor"), "0x8086")
            .with_link(&format!("{PCI_DEVICES}/0000:80:01.0"), &format!("../../../../{far}"))
            .with(&format!("{beside}/vendor"), "0x8086")
            .with_link(&format!("{PCI_DEVICES}/0000:01:00.1"), &format!("../../../../{beside}"));
        let root = Root::open(tree.0.path()).unwrap();
        let rules = DiscoveryRules::default();
        let snapshot = capture(&root, &rules, Detail::Snapshot).unwrap().machine;
        assert!(snapshot.get(&format!("{beside}/vendor")).is_some());
        assert!(snapshot.get(far).is_none());
        assert!(snapshot.get(&format!("{PCI_DEVICES}/0000:80:01.0")).is_none());
    }
}
