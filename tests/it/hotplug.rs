//! Boards that come and go: the real kernel's uevents, the real libudev, the built daemon. The list
//! at the kubelet follows.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use ix_device_plugin::host::kubelet::channel_over;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use ix_device_plugin::wire::v1beta1::{AllocateRequest, ContainerAllocateRequest};
use nix::sys::signal::Signal;
use tokio::net::UnixStream;

use crate::support::kernel::{Kernel, in_a_network_of_its_own, on_a_runtime};
use crate::support::plugged_node::{Daemon, GPU, HINT, LOOKED, PluggedNode, QUIET};

const X4: &str = "mr-v100-x4";
const X8: &str = "bi-v150-x8";

/// What the plugin itself answers, whatever the kubelet would do.
async fn allocate(node: &PluggedNode, board: &Board) -> Result<(), tonic::Status> {
    let socket = node.kubelet_directory().join("iluvatar-gpu.sock");
    let stream = UnixStream::connect(socket).await.expect("the plugin serves");
    let mut client = DevicePluginClient::new(channel_over(stream).await.expect("it answers"));
    let container = ContainerAllocateRequest { devices_ids: vec![board.address.to_string()] };
    client.allocate(AllocateRequest { container_requests: vec![container] }).await.map(drop)
}

#[test]
fn a_removed_board_can_no_longer_be_allocated_as_soon_as_its_uevent_came() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack(X8, QUIET).await, Kernel::open());
        let _daemon = node.daemon().await;
        let board = &node.boards[3];
        allocate(&node, board).await.expect("it is there");

        node.machine.unplug(board).unwrap();
        node.chips(board).left(&kernel);

        node.sees_board(board, false).await;
        let refusal = allocate(&node, board).await.unwrap_err();
        let id = board.address;
        let gone = format!(
            "{GPU}: there is no device `{id}`; it may have been removed since the last list"
        );
        let unhealthy = format!("{GPU}: device {id} is unhealthy: ");
        let message = refusal.message();
        assert!(message == gone || message.starts_with(&unhealthy), "{message}");
        allocate(&node, &node.boards[2]).await.expect("the others stay");
    });
}

#[test]
fn an_added_board_is_listed_as_soon_as_its_uevent_came() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack(X8, QUIET).await, Kernel::open());
        let board = &node.boards[7];
        node.machine.unplug(board).unwrap();
        let _daemon = Daemon::start(&mut node.command());
        node.sees("the others", |healthy| healthy.len() == node.boards.len() - 1).await;

        node.machine.replug(board).unwrap();
        node.chips(board).came(&kernel);

        node.sees_board(board, true).await;
        allocate(&node, board).await.expect("it is there");
    });
}

#[test]
fn a_board_whose_node_comes_after_its_events_is_looked_at_again_until_it_is_there() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack(X4, QUIET).await, Kernel::open());
        let daemon = node.daemon().await;
        let board = &node.boards[0];
        let path = board.chips[0].node.as_ref().expect("it has one").path.clone();
        let path = node.root().join(path.trim_start_matches('/'));
        let text = std::fs::read(&path).unwrap();

        std::fs::remove_file(&path).unwrap();
        node.chips(board).came(&kernel);
        node.sees_board(board, false).await;
        let looks = daemon.looks();
        daemon.said(LOOKED, looks + 2).await;
        std::fs::write(&path, text).unwrap();

        node.sees_board(board, true).await;
    });
}

#[test]
fn events_of_other_vendors_lead_to_no_look() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack(X4, QUIET).await, Kernel::open());
        let daemon = node.daemon().await;
        let hints = daemon.count(HINT);
        for _ in 0..200 {
            kernel.other_vendor();
            kernel.send("add", "/devices/virtual/net/veth0", &[("SUBSYSTEM", "net")]);
        }
        // Events come in their order: once the last one is answered, so are those before it.
        node.machine.unplug(&node.boards[0]).unwrap();
        node.chips(&node.boards[0]).class_devices(&kernel, "remove");
        node.sees_board(&node.boards[0], false).await;
        assert_eq!(daemon.count(HINT), hints + 1, "{}", daemon.log());
    });
}

#[test]
fn an_event_of_the_drivers_own_class_counts() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack(X4, QUIET).await, Kernel::open());
        let _daemon = node.daemon().await;
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        node.chips(board).class_devices(&kernel, "remove");
        node.sees_board(board, false).await;
        node.machine.replug(board).unwrap();
        node.chips(board).class_devices(&kernel, "add");
        node.sees_board(board, true).await;
    });
}

#[test]
fn an_event_that_nobody_understands_does_not_end_the_listening() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (PluggedNode::unpack(X4, QUIET).await, Kernel::open());
        let daemon = node.daemon().await;
        for bytes in [&b"\0"[..], b"add@/devices/x\0", b"add@/devices/x\0ACTION=add\0", &[0xff; 40]]
        {
            kernel.send_bytes(bytes);
        }
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        node.chips(board).left(&kernel);
        node.sees_board(board, false).await;
        assert_eq!(daemon.count("no uevents from the kernel"), 0, "{}", daemon.log());
    });
}

#[test]
fn without_netlink_the_machine_is_looked_at_at_intervals_and_that_is_said() {
    on_a_runtime(async {
        let node = PluggedNode::unpack(X4, QUIET).await;
        let mut command = node.command();
        forbid_netlink(&mut command);
        let daemon = Daemon::start(&mut command);
        daemon.said("no uevents from the kernel; looking at intervals instead", 1).await;
        node.sees("every board", |healthy| healthy.len() == node.boards.len()).await;
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        node.sees_board(board, false).await;
        assert_eq!(daemon.count("no uevents from the kernel"), 1, "{}", daemon.log());
    });
}

#[test]
fn sighup_leads_to_a_look() {
    on_a_runtime(async {
        let node = PluggedNode::unpack(X4, QUIET).await;
        let daemon = node.daemon().await;
        let board = &node.boards[1];
        node.machine.unplug(board).unwrap();
        daemon.signal(Signal::SIGHUP);
        node.sees_board(board, false).await;
    });
}

/// A seccomp profile under which a netlink socket cannot be opened.
fn forbid_netlink(command: &mut Command) {
    #[expect(unsafe_code, reason = "a filter is set between fork and exec")]
    // SAFETY: the closure makes two system calls and touches nothing that the parent may hold.
    unsafe {
        command.pre_exec(install_filter)
    };
}

#[expect(clippy::cast_possible_truncation, reason = "system calls have small numbers")]
fn install_filter() -> io::Result<()> {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
    }
    const fn skip_unless_equal(k: u32, jf: u8) -> libc::sock_filter {
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ) as u16, jt: 0, jf, k }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    // As struct seccomp_data: the call's number is at 0, the first argument's lower half at 16.
    let mut filter = [
        statement(LOAD, 0),
        skip_unless_equal(libc::SYS_socket as u32, 3),
        statement(LOAD, 16),
        skip_unless_equal(libc::AF_NETLINK as u32, 1),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    #[expect(unsafe_code, reason = "prctl is a C function")]
    // SAFETY: `program` and the filter behind it outlive the calls, which only read them.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if set { Ok(()) } else { Err(io::Error::last_os_error()) }
}
