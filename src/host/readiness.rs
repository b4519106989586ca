//! Waiting until a file descriptor of another library can be read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A second descriptor for the same open file, registered for reading with the runtime. The first
/// one stays with its owner, who does the reading.
///
/// # Errors
/// As `dup` and `epoll_ctl`.
pub(super) fn readiness(file: &impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = file.as_fd().try_clone_to_owned()?;
    #[expect(unsafe_code, reason = "tokio cannot see from a type that it owns its descriptor")]
    // SAFETY: an OwnedFd is open for as long as it lives, always names the same descriptor, and the
    // AsyncFd is its only owner.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(registered?)
}
