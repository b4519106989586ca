//! The sockets of a directory, and the directory itself, as a kubelet treats them when it starts.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};

use crate::model::doctor::facts::SocketState;

/// Makes the directory and what lies above it; one that exists is left as it is.
///
/// # Errors
/// The error of the kernel, for example that a part of the path is a file.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

/// Removes every socket directly in `directory` and returns their paths, sorted. Regular files,
/// directories and what cannot be read stay.
///
/// # Errors
/// The directory cannot be listed, or a socket cannot be removed.
pub fn remove_sockets_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if is_socket(&path) {
            fs::remove_file(&path)?;
            removed.push(path);
        }
    }
    removed.sort();
    Ok(removed)
}

/// True for a socket and for a link to one; false for all else, also for what cannot be read.
#[must_use]
pub fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Removes the file; one that is not there counts as removed.
///
/// # Errors
/// The error of the kernel, for example that it is a directory.
pub fn remove_file_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a process accepts connections at `path`. Never waits: a peer whose queue is full is one
/// that is there.
#[must_use]
pub fn probe(path: &Path) -> SocketState {
    match connect(path) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => SocketState::Accepts,
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => SocketState::Refuses,
        Err(errno) => SocketState::Unclear(io::Error::from(errno).to_string()),
    }
}

fn connect(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let _listening = UnixListener::bind(at("live.sock")).unwrap();
        drop(UnixListener::bind(at("stale.sock")).unwrap());
        fs::write(at("checkpoint"), "kept").unwrap();
        fs::create_dir(at("directory.sock")).unwrap();

        let removed = remove_sockets_in(directory.path()).unwrap();

        assert_eq!(removed, [at("live.sock"), at("stale.sock")]);
        assert!(at("checkpoint").exists() && at("directory.sock").exists());
    }

    #[test]
    fn a_socket_accepts_refuses_or_cannot_be_tried() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let _listening = UnixListener::bind(at("live.sock")).unwrap();
        drop(UnixListener::bind(at("stale.sock")).unwrap());
        assert_eq!(probe(&at("live.sock")), SocketState::Accepts);
        assert_eq!(probe(&at("stale.sock")), SocketState::Refuses);
        let long = at(&"x".repeat(200));
        assert!(matches!(probe(&long), SocketState::Unclear(_)));
    }

    #[test]
    fn removing_what_is_not_there_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        remove_file_if_there(&directory.path().join("absent")).unwrap();
        assert!(remove_file_if_there(directory.path()).is_err());
    }
}
