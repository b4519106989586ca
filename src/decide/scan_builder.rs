//! Builds small scans for tests.

use std::collections::BTreeMap;

use crate::model::device::DeviceNode;
use crate::model::function::{ChipFunction, Function, FunctionKind, Link};
use crate::model::machine::DeviceNumber;
use crate::model::pci::{PciAddress, PciId, RootBus};
use crate::model::sysfs::{ClassDevice, SysfsScan};

/// MR-V100: known to have one chip.
pub(in crate::decide) const SINGLE: u16 = 2;
/// An unknown device id: no chip count unless a test sets one.
pub(in crate::decide) const UNKNOWN: u16 = 3;

/// An address; without a domain it is in domain 0.
pub(in crate::decide) fn at(text: &str) -> PciAddress {
    let wide =
        if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
    wide.parse().expect("an address")
}

/// A scan that grows chip by chip. Paths name the ports from the root bus down to the function,
/// with blanks between.
#[derive(Default)]
pub(in crate::decide) struct ScanBuilder {
    functions: BTreeMap<PciAddress, Function>,
    scan: SysfsScan,
}

impl ScanBuilder {
    /// A chip that is bound, answers, and has no node.
    pub(in crate::decide) fn chip(mut self, path: &str, device: u16) -> Self {
        let function = self.function(path, FunctionKind::Endpoint);
        self.scan.chips.push(ChipFunction {
            function,
            id: PciId { vendor: 0x1e3e, device },
            driver: Some("iluvatar".to_owned()),
            virtual_of: None,
            answers: true,
            numa_node: None,
            link: Link::default(),
            child_nodes: Vec::new(),
            udev_model: None,
            oddities: Vec::new(),
        });
        self
    }

    /// A function of another vendor.
    pub(in crate::decide) fn other(mut self, path: &str) -> Self {
        self.function(path, FunctionKind::Endpoint);
        self
    }

    /// A port with nothing below it.
    pub(in crate::decide) fn port(mut self, path: &str) -> Self {
        self.function(path, FunctionKind::Bridge);
        self
    }

    /// Two chips as on a BI-V150: a switch whose upstream port is on bus `up`, and below it a bridge
    /// of its own for each chip. The chips are on the buses `up` + 4 and `up` + 7.
    pub(in crate::decide) fn dual_board(self, above: &str, up: u8, device: u16) -> Self {
        let bus = |offset| up + offset;
        let lower = format!(
            "{above} {:02x}:00.0 {:02x}:00.0 {:02x}:00.0 {:02x}:00.0 {:02x}:00.0",
            bus(0),
            bus(1),
            bus(2),
            bus(3),
            bus(4)
        );
        let upper = format!(
            "{above} {:02x}:00.0 {:02x}:01.0 {:02x}:00.0 {:02x}:00.0 {:02x}:00.0",
            bus(0),
            bus(1),
            bus(5),
            bus(6),
            bus(7)
        );
        self.chip(lower.trim(), device).chip(upper.trim(), device)
    }

    pub(in crate::decide) fn slot(mut self, name: &str, address: &str) -> Self {
        self.scan.slots.insert(at(address).slot_address(), name.to_owned());
        self
    }

    /// A node in /dev.
    pub(in crate::decide) fn node(mut self, path: &str, minor: u32) -> Self {
        self.scan.device_nodes.push(node(path, minor));
        self.scan.device_nodes.sort();
        self
    }

    pub(in crate::decide) fn class_device(
        mut self,
        name: &str,
        minor: u32,
        chip: Option<&str>,
    ) -> Self {
        self.scan.class_devices.push(ClassDevice {
            name: name.to_owned(),
            number: Some(DeviceNumber { major: 508, minor }),
            chip: chip.map(at),
        });
        self
    }

    /// Changes the chip that was added last.
    pub(in crate::decide) fn with(mut self, change: impl FnOnce(&mut ChipFunction)) -> Self {
        change(self.scan.chips.last_mut().expect("a chip was added"));
        self
    }

    pub(in crate::decide) fn scan(mut self) -> SysfsScan {
        self.scan.functions = self.functions.into_values().collect();
        self.scan.chips.sort_by_key(|chip| chip.function.address);
        self.scan
    }

    fn function(&mut self, path: &str, kind: FunctionKind) -> Function {
        let path: Vec<_> = path.split_whitespace().map(at).collect();
        let root_bus = RootBus { domain: path[0].domain, bus: path[0].bus };
        for (depth, address) in path.iter().enumerate() {
            let is_last = depth + 1 == path.len();
            self.functions.entry(*address).or_insert_with(|| Function {
                address: *address,
                ports: path[..depth].to_vec(),
                root_bus: Some(root_bus),
                kind: if is_last { kind } else { FunctionKind::Bridge },
            });
        }
        self.functions[&path[path.len() - 1]].clone()
    }
}

pub(in crate::decide) fn node(path: &str, minor: u32) -> DeviceNode {
    DeviceNode { path: path.to_owned(), number: Some(DeviceNumber { major: 508, minor }) }
}
