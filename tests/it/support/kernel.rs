//! Uevents from the real kernel, in a network namespace that nobody else lives in.
//!
//! Root of the user namespace that owns a network namespace may send a uevent to the kernel, which
//! broadcasts it there as its own (Linux 4.18 and later). No machine is disturbed.

use std::any::type_name_of_val;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Output};

use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::pci::PciAddress;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::skip;

/// Set where a test runs inside.
const INSIDE: &str = "IX_TEST_INSIDE";

/// Runs `body` in a new user and network namespace: the test starts its own binary again there, and
/// only there `body` runs. Where that is forbidden, the test is skipped.
pub(crate) fn in_a_network_of_its_own<F: AsyncFnOnce()>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        raise_loopback();
        return on_a_runtime(body());
    }
    let probe = inside("true").output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        let why = probe.map_or_else(|error| error.to_string(), |output| text(&output));
        return skip(&format!("network namespaces are forbidden here: {why}"));
    }
    let name = test_name(type_name_of_val(&body));
    let this = std::env::current_exe().expect("the test runs");
    let mut again = inside(this.to_str().expect("the path is text"));
    let again = again.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = again.output().expect("unshare was there just now");
    let text = text(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{name} inside:\n{text}");
}

/// Runs `body` with the runtime that the daemon has too.
pub(crate) fn on_a_runtime(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(body);
}

/// A new network namespace has a loopback interface that is down, and the plugin's HTTP needs it.
pub(crate) fn raise_loopback() {
    let up = libc::c_short::try_from(libc::IFF_UP).expect("it fits");
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.expect("sockets are there");
    #[expect(unsafe_code, reason = "ioctl is a C function")]
    // SAFETY: all-zero bytes are an `ifreq`, and the calls read and write nothing else.
    let is_up = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
            *place = libc::c_char::try_from(byte).expect("ASCII");
        }
        request.ifr_ifru.ifru_flags = up;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) == 0
    };
    assert!(is_up, "loopback stays down: {}", std::io::Error::last_os_error());
}

fn inside(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--", program]);
    command
}

/// `it::hotplug::a_sentence::{{closure}}` is the closure of `hotplug::a_sentence`.
fn test_name(closure: &str) -> String {
    let path = closure.split("::{{closure}}").next().unwrap_or(closure);
    path.split_once("::").map_or(path, |(_, path)| path).to_owned()
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Sends uevents through the kernel.
pub(crate) struct Kernel {
    socket: OwnedFd,
}

/// As linux/netlink.h: a request that wants an answer, of the first type that is not reserved.
const REQUEST_AND_ACK: u16 = 0x1 | 0x4;
const FIRST_TYPE: u16 = 0x10;
/// `nlmsghdr`.
const HEADER: usize = 16;

impl Kernel {
    pub(crate) fn open() -> Self {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        );
        Self { socket: socket.expect("netlink is there in a namespace of our own") }
    }

    /// One uevent; returns when the kernel has given it to all who listen.
    pub(crate) fn send(&self, action: &str, device_path: &str, keys: &[(&str, &str)]) {
        let mut text = format!("{action}@{device_path}\0ACTION={action}\0DEVPATH={device_path}\0");
        for (key, value) in keys {
            text.push_str(&format!("{key}={value}\0"));
        }
        self.send_bytes(text.as_bytes());
    }

    pub(crate) fn send_bytes(&self, payload: &[u8]) {
        let length = u32::try_from(HEADER + payload.len()).expect("short");
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(FIRST_TYPE.to_ne_bytes());
        message.extend(REQUEST_AND_ACK.to_ne_bytes());
        // No sequence number, no port: the kernel is told who sends.
        message.extend([0; 8]);
        message.extend(payload);
        let (socket, kernel) = (self.socket.as_raw_fd(), NetlinkAddr::new(0, 0));
        sendto(socket, &message, &kernel, MsgFlags::empty()).expect("the kernel takes it");
        let mut answer = [0; 512];
        let length = recv(socket, &mut answer, MsgFlags::empty()).expect("the kernel answers");
        assert!(length >= HEADER + 4, "{length} bytes are no answer");
        let error = i32::from_ne_bytes(answer[HEADER..HEADER + 4].try_into().expect("four bytes"));
        // ESRCH: nobody listens yet.
        assert!([0, -3].contains(&error), "the kernel refused the event: {error}");
    }

    /// An event of a PCI function; `id` as `1E3E:0003`.
    pub(crate) fn pci(&self, action: &str, device_path: &str, id: &str) {
        self.send(action, device_path, &[("SUBSYSTEM", "pci"), ("PCI_ID", id)]);
    }

    /// An event of a network card.
    pub(crate) fn other_vendor(&self) {
        self.pci("change", "/devices/pci0000:00/0000:00:1f.6", "8086:15B7");
    }
}

/// A board's chips as uevents name them.
pub(crate) struct Chips(Vec<Named>);

struct Named {
    device_path: String,
    id: String,
    node: String,
}

impl Chips {
    /// Of a board that is there, on the machine below `root`.
    pub(crate) fn of(board: &Board, root: &Path) -> Self {
        let sys = root.join("sys").canonicalize().expect("the machine has a sysfs");
        let named = |address: PciAddress| {
            let listed = sys.join(format!("bus/pci/devices/{address}"));
            let directory = listed.canonicalize().expect("the chip is there");
            let path = directory.strip_prefix(&sys).expect("it is below /sys").display();
            format!("/{path}")
        };
        let chips = board.chips.iter().map(|chip| Named {
            device_path: named(chip.address),
            id: chip.id.to_string().to_uppercase(),
            node: chip
                .node
                .as_ref()
                .map_or_else(String::new, |node| node.path.trim_start_matches("/dev/").to_owned()),
        });
        Self(chips.collect())
    }

    /// What the kernel says when a board leaves.
    pub(crate) fn left(&self, kernel: &Kernel) {
        for chip in &self.0 {
            chip.class_device(kernel, "remove");
            kernel.pci("unbind", &chip.device_path, &chip.id);
        }
        for chip in &self.0 {
            kernel.pci("remove", &chip.device_path, &chip.id);
        }
    }

    /// What the kernel says when a board comes.
    pub(crate) fn came(&self, kernel: &Kernel) {
        for chip in &self.0 {
            kernel.pci("add", &chip.device_path, &chip.id);
        }
        for chip in &self.0 {
            chip.class_device(kernel, "add");
            kernel.pci("bind", &chip.device_path, &chip.id);
        }
    }

    /// What the kernel says of error recovery of the first chip (drivers/pci/pci-driver.c,
    /// `pci_uevent_ers`).
    pub(crate) fn error_event(&self, kernel: &Kernel, event: &str) {
        let Named { device_path, id, .. } = &self.0[0];
        let is_online = if event == "SUCCESSFUL_RECOVERY" { "1" } else { "0" };
        let keys = [("ERROR_EVENT", event), ("DEVICE_ONLINE", is_online)];
        let keys = [&[("SUBSYSTEM", "pci"), ("PCI_ID", id)], &keys[..]].concat();
        kernel.send("change", device_path, &keys);
    }

    /// An event of the first chip that says nothing but that something changed.
    pub(crate) fn changed(&self, kernel: &Kernel) {
        kernel.pci("change", &self.0[0].device_path, &self.0[0].id);
    }

    /// What the driver's own class says, and nobody else.
    pub(crate) fn class_devices(&self, kernel: &Kernel, action: &str) {
        self.0.iter().for_each(|chip| chip.class_device(kernel, action));
    }
}

impl Named {
    fn class_device(&self, kernel: &Kernel, action: &str) {
        let path = format!("{}/iluvatar-sys/{}", self.device_path, self.node);
        kernel.send(action, &path, &[("SUBSYSTEM", "iluvatar-sys"), ("DEVNAME", &self.node)]);
    }
}
