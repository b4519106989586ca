//! What lies below each PCI port.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::function::{Function, FunctionKind};
use crate::model::pci::PciAddress;
use crate::model::sysfs::SysfsScan;

/// What lies below each port, collected once for the whole machine.
pub(super) struct Ports<'a> {
    endpoints: BTreeMap<PciAddress, Vec<&'a Function>>,
    bridges_right_below: BTreeMap<PciAddress, usize>,
}

impl<'a> Ports<'a> {
    pub(super) fn of(scan: &'a SysfsScan) -> Self {
        let virtual_chips = scan.chips.iter().filter(|chip| chip.virtual_of.is_some());
        let virtual_chips: BTreeSet<_> = virtual_chips.map(|chip| chip.function.address).collect();
        let mut ports = Self { endpoints: BTreeMap::new(), bridges_right_below: BTreeMap::new() };
        for function in &scan.functions {
            match function.kind {
                FunctionKind::Endpoint if !virtual_chips.contains(&function.address) => {
                    for port in &function.ports {
                        ports.endpoints.entry(*port).or_default().push(function);
                    }
                }
                FunctionKind::Bridge => {
                    if let Some(port) = function.ports.last() {
                        *ports.bridges_right_below.entry(*port).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        ports
    }

    /// Every physical endpoint anywhere below a port, ascending.
    pub(super) fn endpoints_below(&self, port: PciAddress) -> &[&'a Function] {
        self.endpoints.get(&port).map_or(&[], Vec::as_slice)
    }

    /// A switch's upstream port is the bridge that has several bridges right below it.
    pub(super) fn is_switch(&self, port: PciAddress) -> bool {
        self.bridges_right_below.get(&port).is_some_and(|bridges| *bridges > 1)
    }
}
