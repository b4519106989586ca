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
