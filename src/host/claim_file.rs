//! The file of prepared claims, in the driver's directory. Two instances share it during a rolling
//! update, so it is read, changed and written under a lock.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::state_file::{self, StateFile};
use crate::model::dra::claim::ClaimRecords;
use crate::parse::claim_records::{parse_claim_records, write_claim_records};
use crate::parse::state_file::StateFileError;

/// Name of the file.
pub const CLAIM_FILE: &str = "prepared-claims";

/// The file while this process has its lock.
#[derive(Debug)]
pub struct LockedClaimFile {
    path: PathBuf,
    /// Another file than the one that is replaced.
    _lock: Flock<File>,
}

/// What is at the file's path.
#[derive(Debug)]
pub enum ClaimFile {
    /// Nothing.
    Absent,
    /// Prepared claims.
    Valid(ClaimRecords),
    /// A damaged file, and where it was moved.
    Damaged(StateFileError, PathBuf),
}

impl LockedClaimFile {
    /// Waits for the lock of the file in `directory`, which is made where it is missing. The lock ends
    /// with the value, and with the process.
    ///
    /// # Errors
    /// As `mkdir`, `open` and `flock`.
    pub fn lock(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join(CLAIM_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_extension("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        Ok(Self { path, _lock: lock })
    }

    /// Reads the file. A damaged one is renamed, so that it can be examined and the next write does not
    /// replace it. Never waits for a writer, should the file be a FIFO.
    ///
    /// # Errors
    /// As `open`, `read` and `rename`.
    pub fn read(&self) -> io::Result<ClaimFile> {
        Ok(match state_file::read(&self.path, None, parse_claim_records)? {
            None | Some(StateFile::Absent) => ClaimFile::Absent,
            Some(StateFile::Valid(_, records)) => ClaimFile::Valid(records),
            Some(StateFile::Damaged(error)) => {
                ClaimFile::Damaged(error, state_file::set_aside(&self.path)?)
            }
        })
    }

    /// Replaces the file in one step: a reader finds the old or the new one whole. It is not synced to
    /// the disk: no claim is prepared any more once the machine has lost power.
    ///
    /// # Errors
    /// As `open`, `write` and `rename`; the old file stays.
    pub fn write(&self, records: &ClaimRecords) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let mut unplaced = tempfile::Builder::new().prefix(".claims").tempfile_in(directory)?;
        unplaced.write_all(write_claim_records(records).as_bytes())?;
        unplaced.persist(&self.path).map_err(|failed| failed.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::model::dra::claim::{ClaimHolding, ClaimRef};

    fn records(uid: &str) -> ClaimRecords {
        let claim = ClaimRef { namespace: "default".to_owned(), name: "one".to_owned() };
        [(uid.to_owned(), ClaimHolding { claim, devices: Vec::new() })].into()
    }

    #[test]
    fn what_was_written_is_read_and_a_damaged_file_is_kept_aside() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("plugins/driver");
        let file = LockedClaimFile::lock(&directory).unwrap();
        assert!(matches!(file.read().unwrap(), ClaimFile::Absent));
        file.write(&records("u1")).unwrap();
        let ClaimFile::Valid(read) = file.read().unwrap() else { panic!("it is not valid") };
        assert_eq!(read, records("u1"));
        fs::write(directory.join(CLAIM_FILE), "half a fi").unwrap();
        let ClaimFile::Damaged(_, aside) = file.read().unwrap() else { panic!("it is valid") };
        assert_eq!(fs::read_to_string(aside).unwrap(), "half a fi");
        assert!(matches!(file.read().unwrap(), ClaimFile::Absent));
    }

    #[test]
    fn a_second_instance_waits_until_the_first_has_written() {
        let root = tempfile::tempdir().unwrap();
        let first = LockedClaimFile::lock(root.path()).unwrap();
        let (sender, receiver) = mpsc::channel();
        let directory = root.path().to_owned();
        let second = thread::spawn(move || {
            let file = LockedClaimFile::lock(&directory).unwrap();
            sender.send(matches!(file.read().unwrap(), ClaimFile::Valid(_))).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        first.write(&records("u1")).unwrap();
        drop(first);
        assert!(receiver.recv().unwrap());
        second.join().unwrap();
    }
}
