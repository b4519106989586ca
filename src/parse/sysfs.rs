//! A captured machine to a scan: which chips, slots, class devices and nodes the kernel shows.
//!
//! One odd attribute costs that attribute, one unreadable function costs that function; neither
//! hides the others, and both are reported.

use std::collections::{BTreeMap, BTreeSet};

use super::attribute::{self, AttributeError};
use crate::model::config::DiscoveryRules;
use crate::model::device::DeviceNode;
use crate::model::function::{ChipFunction, Function, FunctionKind, Link};
use crate::model::inventory::{SkipReason, Skipped};
use crate::model::machine::{DeviceNumber, Entry, Machine};
use crate::model::pci::{PciAddress, PciId, RootBus, SlotAddress};
use crate::model::sysfs::{ClassDevice, SysfsScan};

/// Where the kernel lists PCI functions, relative to the root.
pub const PCI_DEVICES: &str = "sys/bus/pci/devices";

/// Where a listed function is in the PCI tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionPlace {
    /// Its directory.
    pub path: String,
    /// The bridges above it, the root port first.
    pub ports: Vec<PciAddress>,
    /// The root bus that it hangs under; none where the path shows none.
    pub root_bus: Option<RootBus>,
}

/// The place of each listed function.
pub type FunctionPlaces = BTreeMap<PciAddress, FunctionPlace>;

/// The place of every function of [`PCI_DEVICES`].
#[must_use]
pub fn function_places(machine: &Machine) -> FunctionPlaces {
    let addresses = machine.children(PCI_DEVICES).filter_map(|(name, _)| name.parse().ok());
    addresses.map(|address| (address, function_place(machine, address))).collect()
}

/// The place of one function, as its link shows it.
#[must_use]
pub fn function_place(machine: &Machine, address: PciAddress) -> FunctionPlace {
    let path = function_path(machine, address);
    let passed = path.split('/').filter_map(|part| part.parse::<PciAddress>().ok());
    let ports = passed.filter(|port| *port != address).collect();
    let root_bus = path.split('/').find_map(|part| part.parse().ok());
    FunctionPlace { path, ports, root_bus }
}

/// The directory of a function: where its link leads, or the listed directory itself. A link to a
/// directory of another name is not followed: one function must not count as two.
#[must_use]
pub fn function_path(machine: &Machine, address: PciAddress) -> String {
    let listed = format!("{PCI_DEVICES}/{address}");
    let own = format!("/{address}");
    machine.resolve(&listed).filter(|path| path.ends_with(&own)).unwrap_or(listed)
}

/// Reads what a machine holds.
#[must_use]
pub fn parse_sysfs_scan(machine: &Machine, rules: &DiscoveryRules) -> SysfsScan {
    parse_sysfs_scan_at(machine, &function_places(machine), rules)
}

/// The same where the places of its functions are known already.
#[must_use]
pub fn parse_sysfs_scan_at(
    machine: &Machine,
    places: &FunctionPlaces,
    rules: &DiscoveryRules,
) -> SysfsScan {
    let mut scan = SysfsScan {
        functions: parse_functions(machine, places),
        slots: parse_slots(machine),
        class_devices: parse_class_devices(machine),
        device_nodes: parse_device_nodes(machine, rules),
        driver_version: parse_driver_version(machine, rules),
        ..SysfsScan::default()
    };
    for (function, place) in scan.functions.iter().zip(places.values()) {
        match parse_chip(machine, function, &place.path, rules) {
            Ok(Some(chip)) => scan.chips.push(chip),
            Ok(None) => {}
            Err(reason) => {
                let reason = SkipReason::Unreadable(reason);
                scan.unreadable.push(Skipped { address: function.address, reason });
            }
        }
    }
    scan
}

/// Every function with its place in the tree, ascending by address as `places` is.
fn parse_functions(machine: &Machine, places: &FunctionPlaces) -> Vec<Function> {
    let ports: BTreeSet<_> = places.values().flat_map(|place| &place.ports).collect();
    let kind = |address: &PciAddress, place: &FunctionPlace| {
        let is_port = ports.contains(address);
        if is_port { FunctionKind::Bridge } else { parse_kind(machine, &place.path) }
    };
    let function = |(address, place): (&PciAddress, &FunctionPlace)| Function {
        address: *address,
        ports: place.ports.clone(),
        root_bus: place.root_bus,
        kind: kind(address, place),
    };
    places.iter().map(function).collect()
}

fn parse_kind(machine: &Machine, path: &str) -> FunctionKind {
    match read(machine, path, "class", attribute::parse_class) {
        Ok(Some(class)) if class.is_bridge() => FunctionKind::Bridge,
        Ok(None) => FunctionKind::Unread,
        // A class that cannot be read must not make a neighbour invisible.
        _ => FunctionKind::Endpoint,
    }
}

/// One attribute; `Ok(None)` where the capture does not have it.
fn read<T>(
    machine: &Machine,
    directory: &str,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<T, AttributeError>,
) -> Result<Option<T>, String> {
    match machine.get(&format!("{directory}/{name}")) {
        Some(Entry::File(bytes)) => {
            parse(bytes).map(Some).map_err(|error| format!("{name} {error}"))
        }
        Some(Entry::Unreadable(why)) => Err(format!("{name} could not be read: {why}")),
        Some(_) => Err(format!("{name} is not a file")),
        None => Ok(None),
    }
}

/// An attribute that a function must have to be classified.
fn require<T>(
    machine: &Machine,
    directory: &str,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<T, AttributeError>,
) -> Result<T, String> {
    read(machine, directory, name, parse)?
        .ok_or_else(|| format!("{name} is not there; the function may have left during the scan"))
}

/// The function as a chip; `Ok(None)` for other vendors and for bridges; `Err` is the reason to skip.
fn parse_chip(
    machine: &Machine,
    function: &Function,
    path: &str,
    rules: &DiscoveryRules,
) -> Result<Option<ChipFunction>, String> {
    if function.kind == FunctionKind::Bridge {
        return Ok(None);
    }
    let vendor = require(machine, path, "vendor", attribute::parse_id)?;
    if !rules.vendor_ids.contains(&vendor) {
        return Ok(None);
    }
    require(machine, path, "class", attribute::parse_class)?;
    let device = require(machine, path, "device", attribute::parse_id)?;
    let mut chip = ChipFunction {
        function: function.clone(),
        id: PciId { vendor, device },
        driver: driver(machine, path),
        virtual_of: physical_function(machine, path),
        answers: true,
        numa_node: None,
        link: Link::default(),
        child_nodes: child_nodes(machine, path),
        udev_model: udev_model(machine, function.address),
        oddities: Vec::new(),
    };
    read_details(machine, path, &mut chip);
    Ok(Some(chip))
}

/// The attributes that a chip can do without; each that does not make sense becomes an oddity.
fn read_details(machine: &Machine, path: &str, chip: &mut ChipFunction) {
    let mut oddities = Vec::new();
    let answers = |bytes: &[u8]| Ok(attribute::config_space_answers(bytes));
    // An unprivileged reader may be refused the configuration space; that shows nothing about the chip.
    chip.answers = read(machine, path, "config", answers).ok().flatten().unwrap_or(true);
    let mut note = |result: Result<(), String>| oddities.extend(result.err());
    let link = &mut chip.link;
    note(detail(machine, path, "current_link_speed", attribute::parse_link_speed, &mut link.speed));
    note(detail(machine, path, "current_link_width", attribute::parse_link_width, &mut link.width));
    note(detail(machine, path, "max_link_speed", attribute::parse_link_speed, &mut link.max_speed));
    note(detail(machine, path, "max_link_width", attribute::parse_link_width, &mut link.max_width));
    note(numa_node(machine, path).map(|node| chip.numa_node = node));
    chip.oddities = oddities;
}

fn detail<T>(
    machine: &Machine,
    path: &str,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<Option<T>, AttributeError>,
    target: &mut Option<T>,
) -> Result<(), String> {
    *target = read(machine, path, name, parse)?.flatten();
    Ok(())
}

/// The function's own NUMA node or, where that is -1 or absent, the nearest port's above it.
fn numa_node(machine: &Machine, path: &str) -> Result<Option<u32>, String> {
    let mut directory = path;
    loop {
        let node = read(machine, directory, "numa_node", attribute::parse_numa_node)?.flatten();
        match directory.rsplit_once('/') {
            Some((parent, _)) if node.is_none() => directory = parent,
            _ => return Ok(node),
        }
    }
}

fn driver(machine: &Machine, path: &str) -> Option<String> {
    let target = machine.resolve(&format!("{path}/driver"))?;
    Some(target.rsplit('/').next().unwrap_or_default().to_owned())
}

/// Where udev keeps its data of a PCI function (systemd, `sd_device_get_device_id`).
#[must_use]
pub fn udev_record(address: PciAddress) -> String {
    format!("run/udev/data/+pci:{address}")
}

fn udev_model(machine: &Machine, address: PciAddress) -> Option<String> {
    match machine.get(&udev_record(address))? {
        Entry::File(bytes) => attribute::udev_model(bytes).map(str::to_owned),
        _ => None,
    }
}

/// The function that `physfn` points at: it makes this one an SR-IOV virtual function.
fn physical_function(machine: &Machine, path: &str) -> Option<PciAddress> {
    let target = machine.resolve(&format!("{path}/physfn"))?;
    target.rsplit('/').next()?.parse().ok()
}

/// Device nodes named by directories one or two levels below the function's own.
fn child_nodes(machine: &Machine, path: &str) -> Vec<DeviceNode> {
    let below = machine.descendants(path).filter_map(|(below, _)| {
        let directory = below.strip_suffix("/dev")?;
        let is_pci = directory.split('/').any(|part| part.parse::<PciAddress>().is_ok());
        (directory.split('/').count() <= 2 && !is_pci).then(|| format!("{path}/{directory}"))
    });
    below.filter_map(|directory| named_node(machine, &directory)).collect()
}

/// The node that a directory with a `dev` file names: DEVNAME of its uevent, or its own name.
fn named_node(machine: &Machine, directory: &str) -> Option<DeviceNode> {
    let number = device_number(machine, directory)?;
    let own_name = directory.rsplit('/').next()?;
    let name = match machine.get(&format!("{directory}/uevent")) {
        Some(Entry::File(bytes)) => attribute::uevent_value(bytes, "DEVNAME").unwrap_or(own_name),
        _ => own_name,
    };
    let path = format!("/dev/{}", name.trim().trim_start_matches("/dev/"));
    Some(DeviceNode { path, number: Some(number) })
}

fn device_number(machine: &Machine, directory: &str) -> Option<DeviceNumber> {
    read(machine, directory, "dev", attribute::parse_device_number).ok().flatten()
}

fn parse_slots(machine: &Machine) -> BTreeMap<SlotAddress, String> {
    machine
        .descendants("sys/bus/pci/slots")
        .filter_map(|(path, entry)| {
            let name = path.strip_suffix("/address")?;
            let Entry::File(bytes) = entry else {
                return None;
            };
            Some((attribute::parse_text(bytes).ok()?.parse().ok()?, name.to_owned()))
        })
        .collect()
}

/// Links `/sys/class/CLASS/iluvatarN`.
fn parse_class_devices(machine: &Machine) -> Vec<ClassDevice> {
    machine
        .descendants("sys/class")
        .filter_map(|(below, _)| {
            let (_, name) = below.split_once('/').filter(|(_, name)| chip_minor(name).is_some())?;
            let path = machine.resolve(&format!("sys/class/{below}"))?;
            let device = machine.resolve(&format!("{path}/device"));
            Some(ClassDevice {
                name: name.to_owned(),
                number: device_number(machine, &path),
                chip: last_address(&path).or_else(|| last_address(&device?)),
            })
        })
        .collect()
}

/// The deepest PCI function that a path passes.
fn last_address(path: &str) -> Option<PciAddress> {
    path.split('/').rev().find_map(|part| part.parse().ok())
}

/// The number in `iluvatar3`; none for any other name.
#[must_use]
pub fn chip_minor(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("iluvatar")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn parse_device_nodes(machine: &Machine, rules: &DiscoveryRules) -> Vec<DeviceNode> {
    machine
        .descendants("dev")
        .filter_map(|(below, entry)| {
            let path = format!("/dev/{below}");
            let wanted = chip_minor(below).is_some() || rules.control_nodes.contains(&path);
            match entry {
                Entry::CharDevice(number) if wanted => {
                    Some(DeviceNode { path, number: Some(*number) })
                }
                _ => None,
            }
        })
        .collect()
}

fn parse_driver_version(machine: &Machine, rules: &DiscoveryRules) -> Option<String> {
    rules.drivers.iter().find_map(|driver| {
        let directory = format!("sys/module/{driver}");
        read(machine, &directory, "version", |bytes| {
            attribute::parse_text(bytes).map(ToOwned::to_owned)
        })
        .ok()
        .flatten()
    })
}
