//! Uevents of the kernel, through libudev and netlink.
//!
//! The source is "kernel", not "udev": the kernel's own multicast reaches a pod's network namespace
//! without hostNetwork, while udevd's re-broadcasts stay on the host.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;
use udev::{MonitorBuilder, MonitorSocket};

use super::readiness::readiness;

/// Subsystems that say something of GPUs: the PCI core's, and the driver's own.
const SUBSYSTEMS: [&str; 2] = ["pci", "iluvatar-sys"];

/// An open netlink socket.
pub struct Uevents {
    socket: MonitorSocket,
    ready: AsyncFd<OwnedFd>,
}

/// What matters of a uevent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `bind`, `unbind`, `change`, ...
    pub action: String,
    /// `pci` or `iluvatar-sys`.
    pub subsystem: String,
    /// Path below /sys.
    pub device_path: String,
    /// `1E3E:0002`; PCI functions have it, other devices do not.
    pub pci_id: Option<String>,
}

impl Uevents {
    /// Listens to the kernel.
    ///
    /// # Errors
    /// As `socket` and `bind`: a user namespace or a seccomp profile may forbid netlink.
    pub fn open() -> io::Result<Self> {
        let mut monitor = MonitorBuilder::new_kernel()?;
        for subsystem in SUBSYSTEMS {
            monitor = monitor.match_subsystem(subsystem)?;
        }
        let socket = monitor.listen()?;
        let ready = readiness(&socket)?;
        Ok(Self { socket, ready })
    }

    /// Waits for events and returns all that have come.
    ///
    /// # Errors
    /// The socket is of no more use.
    pub async fn receive(&mut self) -> io::Result<Vec<Uevent>> {
        loop {
            let mut ready = self.ready.readable().await?;
            let events: Vec<_> = self.socket.iter().map(|event| uevent(&event)).collect();
            ready.clear_ready();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

fn uevent(event: &udev::Event) -> Uevent {
    let text =
        |value: Option<&std::ffi::OsStr>| value.map(|value| value.to_string_lossy().into_owned());
    let device = event.device();
    Uevent {
        action: text(device.property_value("ACTION")).unwrap_or_default(),
        subsystem: text(device.subsystem()).unwrap_or_default(),
        device_path: device.devpath().to_string_lossy().into_owned(),
        pci_id: text(device.property_value("PCI_ID")),
    }
}
