//! The sockets of a directory, and the directory itself, as a kubelet treats them when it starts.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Makes the directory and what lies above it; one that exists is left as it is.
///
/// # Errors
/// What the kernel says, for example that a part of the path is a file.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

/// Removes every socket directly in `directory` and returns their paths, sorted. Regular files,
/// directories and what cannot be looked at stay.
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

/// True for a socket and for a link to one; false for all else, also for what cannot be looked at.
#[must_use]
pub fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Removes the file; one that is not there counts as removed.
///
/// # Errors
/// What the kernel says, for example that it is a directory.
pub fn remove_file_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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
    fn removing_what_is_not_there_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        remove_file_if_there(&directory.path().join("absent")).unwrap();
        assert!(remove_file_if_there(directory.path()).is_err());
    }
}
