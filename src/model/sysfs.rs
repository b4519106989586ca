//! What the kernel shows of a node, parsed; nothing is decided yet.

use std::collections::BTreeMap;

use super::device::DeviceNode;
use super::function::{ChipFunction, Function};
use super::inventory::Skipped;
use super::machine::DeviceNumber;
use super::pci::{PciAddress, SlotAddress};

/// Everything that discovery uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SysfsScan {
    /// Non-bridge functions of a wanted vendor, virtual and foreign-driven ones included,
    /// ascending by address.
    pub chips: Vec<ChipFunction>,
    /// Every PCI function that was listed, ascending by address.
    pub functions: Vec<Function>,
    /// Physical slots: the device each names, and the slot's name.
    pub slots: BTreeMap<SlotAddress, String>,
    /// `iluvatarN` devices of any class.
    pub class_devices: Vec<ClassDevice>,
    /// Every chip node and control node in /dev, ascending by path.
    pub device_nodes: Vec<DeviceNode>,
    /// `/sys/module/<driver>/version`.
    pub driver_version: Option<String>,
    /// Functions that could not be read.
    pub unreadable: Vec<Skipped>,
}

impl SysfsScan {
    /// Whether the kernel announces the device node of this chip, so that no other chip's node is
    /// inferred from how many there are.
    #[must_use]
    pub fn announces_node_of(&self, chip: PciAddress) -> bool {
        let mut chips = self.chips.iter().filter(|other| other.function.address == chip);
        self.class_devices.iter().any(|device| device.chip == Some(chip))
            || chips.any(|chip| !chip.child_nodes.is_empty())
    }

    /// Takes out a chip that left, with its class devices.
    pub fn remove_chip(&mut self, chip: PciAddress) {
        self.chips.retain(|other| other.function.address != chip);
        self.functions.retain(|function| function.address != chip);
        self.class_devices.retain(|device| device.chip != Some(chip));
    }
}

/// A device of a class in /sys/class that is named as the driver names its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassDevice {
    /// `iluvatar0`.
    pub name: String,
    /// From its `dev` file.
    pub number: Option<DeviceNumber>,
    /// The PCI function its path or `device` link leads to.
    pub chip: Option<PciAddress>,
}
