//! A temporary directory for the machine of a `.node` file. It goes away with its owner; one whose
//! process was killed is removed by the next process that makes one.
//!
//! Whoever uses a directory holds a lock on it, which the kernel releases with the process, however
//! it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg, OFlag};
use tempfile::TempDir;

use super::files;

/// How the names of these directories begin.
const PREFIX: &str = "ix-device-plugin-machine-";

/// A directory that is this process's own.
#[derive(Debug)]
pub struct UnpackedDirectory {
    // Dropped in this order: the lock outlives the directory.
    directory: TempDir,
    _lock: Flock<File>,
}

impl UnpackedDirectory {
    /// Makes an empty directory below the system's temporary one, and removes abandoned ones.
    ///
    /// # Errors
    /// No room, no rights.
    pub fn new() -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            // Another process may take it for abandoned before it is locked, or even opened.
            match lock(directory.path(), FlockArg::LockShared) {
                Ok(lock) if files::exists(directory.path()) => {
                    return Ok(Self { directory, _lock: lock });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn lock(directory: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(open(directory)?, how).map_err(|(_, errno)| errno.into())
}

fn open(directory: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    File::options().read(true).custom_flags(flags.bits()).open(directory)
}

/// Removes what nobody uses. What cannot be removed is left: it is in nobody's way.
fn remove_abandoned(parent: &Path) {
    let entries = files::list_directory(parent).unwrap_or_default();
    let named =
        entries.iter().filter(|listed| listed.is_directory && listed.name.starts_with(PREFIX));
    for path in named.map(|listed| parent.join(&listed.name)) {
        if let Ok(_unused) = lock(&path, FlockArg::LockExclusiveNonblock) {
            let _ = files::remove(&path);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes directories by itself")]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_behind_is_removed_and_what_is_in_use_is_not() {
        let parent = TempDir::new().unwrap();
        let abandoned = parent.path().join(format!("{PREFIX}a")).join("sys/bus");
        std::fs::create_dir_all(&abandoned).unwrap();
        let foreign = parent.path().join("systemd-private");
        std::fs::create_dir_all(&foreign).unwrap();
        let first = UnpackedDirectory::new_in(parent.path()).unwrap();
        assert!(!abandoned.exists() && foreign.exists());

        let second = UnpackedDirectory::new_in(parent.path()).unwrap();
        assert!(first.path().exists() && second.path().exists());
        drop(first);
        drop(second);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
