//! Seccomp profiles that take a source of events away from the plugin.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What a process cannot open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forbidden {
    /// A netlink socket: `EPERM`, as under a strict profile.
    Netlink,
    /// An inotify instance: `EMFILE`, as where the user's limit is used up.
    Inotify,
}

/// Runs the command under a profile that forbids this.
pub(crate) fn forbid(command: &mut Command, forbidden: Forbidden) {
    #[expect(unsafe_code, reason = "a filter is set between fork and exec")]
    // SAFETY: the closure makes two system calls and touches nothing that the parent may hold.
    unsafe {
        command.pre_exec(move || match forbidden {
            Forbidden::Netlink => install(&mut without_netlink()),
            Forbidden::Inotify => install(&mut without_inotify()),
        })
    };
}

#[expect(clippy::cast_possible_truncation, reason = "codes are small")]
const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[expect(clippy::cast_possible_truncation, reason = "codes are small")]
const fn skip_unless_equal(k: u32, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ) as u16, jt: 0, jf, k }
}

const fn refuse(errno: i32) -> libc::sock_filter {
    statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const ALLOW: libc::sock_filter = statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW);

/// As struct `seccomp_data`: the call's number is at 0, the first argument's lower half at 16.
#[expect(clippy::cast_possible_truncation, reason = "system calls have small numbers")]
fn without_netlink() -> [libc::sock_filter; 6] {
    [
        statement(LOAD, 0),
        skip_unless_equal(libc::SYS_socket as u32, 3),
        statement(LOAD, 16),
        skip_unless_equal(libc::AF_NETLINK as u32, 1),
        refuse(libc::EPERM),
        ALLOW,
    ]
}

#[expect(clippy::cast_possible_truncation, reason = "system calls have small numbers")]
fn without_inotify() -> [libc::sock_filter; 4] {
    let is_inotify = skip_unless_equal(libc::SYS_inotify_init1 as u32, 1);
    [statement(LOAD, 0), is_inotify, refuse(libc::EMFILE), ALLOW]
}

#[expect(clippy::cast_possible_truncation, reason = "a filter is short")]
fn install(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    #[expect(unsafe_code, reason = "prctl is a C function")]
    // SAFETY: `program` and the filter behind it outlive the calls, which only read them.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if set { Ok(()) } else { Err(io::Error::last_os_error()) }
}
