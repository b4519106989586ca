//! Uevents of the kernel, through libudev and netlink.
//!
//! The source is "kernel", not "udev": the kernel's own multicast reaches a pod's network namespace
//! without hostNetwork, while udevd's re-broadcasts stay on the host.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::unix::AsyncFd;
use udev::{MonitorBuilder, MonitorSocket};

use super::readiness::readiness;

/// Subsystems that concern GPUs: the PCI core's, and the driver's own.
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
    /// `ERROR_EVENT`, as the kernel spells it, where it recovers the function from an error. Its
    /// `DEVICE_ONLINE` adds nothing: 1 with `SUCCESSFUL_RECOVERY`, 0 with the others.
    pub error_event: Option<String>,
}

/// What came since the last call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// In the order in which the kernel sent them.
    pub events: Vec<Uevent>,
    /// True where the kernel dropped events, because they came faster than they were read.
    pub overflow: bool,
    /// How many events libudev did not understand.
    pub malformed: usize,
}

impl Received {
    fn count(&self) -> usize {
        self.events.len() + self.malformed
    }
}

/// Room for some ten thousand events. The kernel counts twice the bytes for its own bookkeeping.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Most events that one call returns: a millisecond's work, so that the caller can do other things
/// in a storm.
const AT_ONCE: usize = 128;

impl Uevents {
    /// Opens a socket that receives the kernel's uevents.
    ///
    /// # Errors
    /// As `socket` and `bind`: a user namespace or a seccomp profile may forbid netlink.
    pub fn open() -> io::Result<Self> {
        let mut monitor = MonitorBuilder::new_kernel()?;
        for subsystem in SUBSYSTEMS {
            monitor = monitor.match_subsystem(subsystem)?;
        }
        let socket = monitor.listen()?;
        enlarge_buffer(&socket);
        let ready = readiness(&socket)?;
        Ok(Self { socket, ready })
    }

    /// Whether [`Uevents::open`] would work, without a runtime.
    ///
    /// # Errors
    /// As [`Uevents::open`].
    pub fn probe() -> io::Result<()> {
        MonitorBuilder::new_kernel()?.listen().map(drop)
    }

    /// Waits for events and returns all that have come.
    ///
    /// # Errors
    /// The socket is of no more use.
    pub async fn receive(&mut self) -> io::Result<Received> {
        loop {
            let mut ready = self.ready.readable().await?;
            let (received, is_empty) = drain(&self.socket)?;
            if is_empty {
                ready.clear_ready();
            }
            if received.overflow || received.count() > 0 {
                return Ok(received);
            }
        }
    }
}

/// Beyond the system's limit with CAP_NET_ADMIN, up to it without: a smaller buffer overflows
/// sooner, and an overflow is answered by a scan.
fn enlarge_buffer(socket: &MonitorSocket) {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
}

/// Reads until nothing is left. libudev returns no event for a failed read and leaves the reason in
/// `errno`: `EAGAIN` where nothing is left, `ENOBUFS` where events were dropped, `EINVAL` for an
/// event that makes no sense, which it has taken off the socket all the same.
///
/// A storm is read in pieces, so that it neither fills the memory nor keeps the thread.
fn drain(socket: &MonitorSocket) -> io::Result<(Received, bool)> {
    let mut received = Received::default();
    while received.count() < AT_ONCE {
        Errno::clear();
        match socket.iter().next() {
            Some(event) => received.events.push(uevent(&event)),
            None => match Errno::last() {
                Errno::ENOBUFS => received.overflow = true,
                Errno::EINTR => {}
                Errno::EINVAL => received.malformed += 1,
                Errno::UnknownErrno | Errno::EAGAIN => return Ok((received, true)),
                errno => return Err(errno.into()),
            },
        }
    }
    Ok((received, false))
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
        error_event: text(device.property_value("ERROR_EVENT")),
    }
}
