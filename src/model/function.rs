//! PCI functions as the kernel describes them, before anything is concluded.

use super::device::DeviceNode;
use super::pci::{PciAddress, PciId, RootBus};

/// Any PCI function of the machine, as far as the shape of the tree needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its own address.
    pub address: PciAddress,
    /// The bridges above it, the root port first; empty right on a root bus.
    pub ports: Vec<PciAddress>,
    /// The root bus it hangs under; absent where the path shows none.
    pub root_bus: Option<RootBus>,
    /// Whether other functions can be below it.
    pub kind: FunctionKind,
}

/// Whether other functions can hang below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// A port: other functions hang below it, or its class is a bridge.
    Bridge,
    /// Its class is not a bridge.
    Endpoint,
    /// Far from every chip, so its class was not read.
    Unread,
}

/// A function that carries Iluvatar's vendor id and is not a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipFunction {
    /// Address and place in the tree.
    pub function: Function,
    /// Vendor and device id.
    pub id: PciId,
    /// Basename of the `driver` link; absent while unbound.
    pub driver: Option<String>,
    /// The physical function, where `physfn` makes this one an SR-IOV virtual function.
    pub virtual_of: Option<PciAddress>,
    /// False once the configuration space is empty or reads all ones; true where it could not be read at all.
    pub answers: bool,
    /// From `numa_node`, its own or the nearest port's above; absent where all are -1.
    pub numa_node: Option<u32>,
    /// PCIe link to the port above.
    pub link: Link,
    /// Nodes found below the function's own directory.
    pub child_nodes: Vec<DeviceNode>,
    /// Its model in the host's hardware database; absent without udev's database or an entry.
    pub udev_model: Option<String>,
    /// Attributes with invalid values, one sentence each.
    pub oddities: Vec<String>,
}

/// State of a PCIe link. Source: `Documentation/ABI/testing/sysfs-bus-pci`, `current_link_speed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// As the kernel writes it: `16.0 GT/s PCIe`.
    pub speed: Option<String>,
    /// Lanes in use.
    pub width: Option<u32>,
    /// The most both ends support.
    pub max_speed: Option<String>,
    /// The most both ends support.
    pub max_width: Option<u32>,
}

impl Link {
    /// True where both sides are known and less than the maximum is in use.
    #[must_use]
    pub fn is_below_maximum(&self) -> bool {
        let narrower = matches!((self.width, self.max_width), (Some(now), Some(max)) if now < max);
        let slower = matches!((&self.speed, &self.max_speed), (Some(now), Some(max))
            if gigatransfers(now) < gigatransfers(max));
        narrower || slower
    }
}

/// `16.0 GT/s PCIe` as tenths of a gigatransfer a second; unreadable text counts as equal to all.
fn gigatransfers(text: &str) -> Option<u32> {
    let number = text.split_whitespace().next()?;
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    Some(whole.parse::<u32>().ok()?.checked_mul(10)? + tenth.get(..1)?.parse::<u32>().ok()?)
}
