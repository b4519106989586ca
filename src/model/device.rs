//! What the kubelet counts and what a container opens.

use std::fmt;

use super::config::Sharing;
use super::health::{Health, Reason, ReasonCode};
use super::machine::DeviceNumber;
use super::pci::PciAddress;
use super::serde_text::serde_as_text;

/// The kubelet's name for one allocatable device.
///
/// The address of a chip, or of a board's lowest chip, in the kernel's spelling; a time-slicing
/// replica adds `::` and its index. At most 63 characters, as api.proto requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The chip, or the board's lowest chip.
    pub address: PciAddress,
    /// Index of the replica, where the device is shared.
    pub replica: Option<u32>,
}

impl DeviceId {
    /// The id of a device that is not shared.
    #[must_use]
    pub fn whole(address: PciAddress) -> Self {
        Self { address, replica: None }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replica {
            None => self.address.fmt(f),
            Some(index) => write!(f, "{}::{index}", self.address),
        }
    }
}

impl std::str::FromStr for DeviceId {
    type Err = super::pci::PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((address, index)) = text.split_once("::") else {
            return Ok(Self::whole(text.parse()?));
        };
        let replica = index.parse().ok().filter(|replica: &u32| replica.to_string() == index);
        match replica {
            Some(replica) => Ok(Self { address: address.parse()?, replica: Some(replica) }),
            // Not an index at all: report the text as a whole, by the rule of an address.
            None => Err(text.parse::<PciAddress>().expect_err("`::` is in no PCI address")),
        }
    }
}

serde_as_text!(DeviceId);

/// A character device node of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNode {
    /// Absolute path on the host, for example `/dev/iluvatar3`, whatever root was scanned.
    pub path: String,
    /// Major and minor number, where the node or the kernel shows them.
    pub number: Option<DeviceNumber>,
}

/// Why a node counts as a chip's; the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeEvidence {
    /// In sysfs, a directory below the chip's own has a `dev` file.
    Sysfs,
    /// A class device leads to the chip.
    Class,
    /// There are as many nodes as chips, and they are paired in order: a guess.
    Inferred,
    /// Nothing shows the chip's node.
    None,
}

impl fmt::Display for NodeEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sysfs => "sysfs",
            Self::Class => "class",
            Self::Inferred => "inferred",
            Self::None => "none",
        })
    }
}

/// One resource as the kubelet receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// For example `iluvatar.com/gpu`.
    pub name: String,
    /// Absent where devices are not shared.
    pub sharing: Option<Sharing>,
    /// By id, ascending.
    pub devices: Vec<Device>,
}

impl Resource {
    /// Every id in the kubelet's list, with its device: one for each device, or for each
    /// replica where devices are shared.
    pub fn listed(&self) -> impl Iterator<Item = (DeviceId, &Device)> {
        let replicas = self.sharing.map(|sharing| sharing.replicas);
        self.devices.iter().flat_map(move |device| {
            let address = device.id.address;
            let ids = (0..replicas.unwrap_or(1))
                .map(move |index| DeviceId { address, replica: replicas.map(|_| index) });
            ids.map(move |id| (id, device))
        })
    }

    /// Whether the kubelet gets the same list of both: ids, health and NUMA nodes are all that it sees.
    #[must_use]
    pub fn is_listed_like(&self, other: &Self) -> bool {
        let replicas = |resource: &Self| resource.sharing.map(|sharing| sharing.replicas);
        let is_same = |(one, other): (&Device, &Device)| {
            (one.id, one.health, &one.numa_nodes) == (other.id, other.health, &other.numa_nodes)
        };
        replicas(self) == replicas(other)
            && self.devices.len() == other.devices.len()
            && self.devices.iter().zip(&other.devices).all(is_same)
    }

    /// Ids of healthy devices, in the order of the list.
    pub fn healthy_ids(&self) -> impl Iterator<Item = DeviceId> {
        let healthy = self.listed().filter(|(_, device)| device.health == Health::Healthy);
        healthy.map(|(id, _)| id)
    }

    /// The device that an id names, if this resource has it.
    #[must_use]
    pub fn find(&self, id: DeviceId) -> Option<&Device> {
        let devices = &self.devices;
        let index = devices.binary_search_by_key(&id.address, |device| device.id.address).ok()?;
        self.lists(id).then(|| &devices[index])
    }

    /// Whether ids of this form are listed: a replica's index must be one of the resource's, and a
    /// device that is not shared has none.
    #[must_use]
    pub fn lists(&self, id: DeviceId) -> bool {
        match (id.replica, self.sharing) {
            (None, None) => true,
            (Some(index), Some(sharing)) => index < sharing.replicas,
            _ => false,
        }
    }
}

/// One allocatable device: a board, or a chip where boards are split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The id without replica.
    pub id: DeviceId,
    /// Its chips, ascending; more than one where the device is a board.
    pub chips: Vec<PciAddress>,
    /// The nodes of its chips, in the chips' order.
    pub nodes: Vec<DeviceNode>,
    /// The health in the kubelet's list.
    pub health: Health,
    /// Why it is unhealthy; empty for a healthy device.
    pub reasons: Vec<Reason>,
    /// Whether a reason waits for the kubelet to report which pod holds it, within milliseconds.
    pub awaits_kubelet: bool,
    /// NUMA nodes of its chips, ascending; empty where none is known.
    pub numa_nodes: Vec<u32>,
}

impl Device {
    /// Whether its hardware left and it is listed only because a pod holds it, or may.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.reasons.iter().any(|reason| reason.code == ReasonCode::Removed)
    }

    /// Whether a pod holds its chips under another id or through a claim, or may.
    #[must_use]
    pub fn is_withheld(&self) -> bool {
        self.reasons
            .iter()
            .any(|reason| matches!(reason.code, ReasonCode::HeldByPod | ReasonCode::HeldByClaim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_reads_back_as_it_was_written() {
        for text in ["0000:13:00.0", "0000:13:00.0::0", "10000:e1:00.0::15"] {
            assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), text);
        }
        for text in ["", "0000:13:00.0::", "0000:13:00.0::+1", "0000:13:00.0::01", "::1"] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_device_id_fits_the_kubelets_63_characters() {
        let address = PciAddress { domain: u32::MAX, bus: 255, device: 31, function: 7 };
        let id = DeviceId { address, replica: Some(u32::MAX) };
        assert!(id.to_string().len() <= 63);
    }
}
