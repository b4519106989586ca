//! The file beside our socket that remembers what was handed out. The kubelet wipes sockets only.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::model::allocation::AllocationRecords;
use crate::parse::allocations::{AllocationRecordsError, parse_allocations, write_allocations};

/// What was there.
#[derive(Debug)]
pub enum Remembered {
    /// A good file, or none yet.
    AllocationRecords(AllocationRecords),
    /// A file that cannot be believed, and where it was put aside.
    Damaged(AllocationRecordsError, PathBuf),
}

/// Reads the file; a damaged one is renamed, so that it can be looked at and is not in the way.
/// Never waits for a writer, should it turn out to be a FIFO.
///
/// # Errors
/// As `open`, `read` and `rename`; a missing file is an empty one.
pub fn read(path: &Path) -> io::Result<Remembered> {
    let bytes = match read_bytes(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Remembered::AllocationRecords(AllocationRecords::new()));
        }
        other => other?,
    };
    match parse_allocations(&String::from_utf8_lossy(&bytes)) {
        Ok(records) => Ok(Remembered::AllocationRecords(records)),
        Err(error) => {
            let aside = path.with_extension("damaged");
            fs::rename(path, &aside)?;
            Ok(Remembered::Damaged(error, aside))
        }
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces the file at once: a reader, or a crash at any point, sees the old or the new one whole,
/// also while another instance writes.
///
/// # Errors
/// As `open`, `write`, `fdatasync` and `rename`; the old file stays.
pub fn write(path: &Path, records: &AllocationRecords) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let new = |at: &Path| OpenOptions::new().write(true).create_new(true).mode(0o644).open(at);
    // A random name: in containers all instances may have the same process id, and two that wrote
    // to one file would put halves of it in place.
    let name = path.file_stem().unwrap_or_default();
    let mut unplaced =
        tempfile::Builder::new().prefix(name).suffix(".new").make_in(directory, new)?;
    let file = unplaced.as_file_mut();
    file.write_all(write_allocations(records).as_bytes())?;
    file.sync_data()?;
    unplaced.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::model::allocation::{AllocatedChip, AllocationRecord};

    /// So many devices, all with nodes of this name.
    fn records(count: u8, node: &str) -> AllocationRecords {
        let devices = (0..count).map(|bus| {
            let id = format!("0000:{bus:02x}:00.0").parse().unwrap();
            let (address, chip) = (format!("0000:{bus:02x}:00.0"), "1e3e:0002".parse().unwrap());
            let (address, node) = (address.parse().unwrap(), Some(node.to_owned()));
            (id, AllocationRecord { chips: vec![AllocatedChip { address, id: chip, node }] })
        });
        AllocationRecords::from([("iluvatar.com/gpu".to_owned(), devices.collect())])
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn instances_of_the_same_process_id_never_put_half_a_file_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.handouts");
        let written = [records(200, "/dev/iluvatar0"), records(100, "/dev/iluvatar1")];
        write(&path, &written[0]).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let instances = written.each_ref().map(|records| {
                let path = &path;
                scope.spawn(move || (0..100).try_for_each(|_| write(path, records)))
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    match read(&path).unwrap() {
                        Remembered::AllocationRecords(read) => assert!(written.contains(&read)),
                        Remembered::Damaged(error, _) => panic!("half a file: {error}"),
                    }
                }
            });
            let results = instances.map(|instance| instance.join().unwrap());
            is_over.store(true, Ordering::Relaxed);
            for result in results {
                result.unwrap();
            }
        });
        assert_eq!(names_in(directory.path()), ["gpu.handouts"]);
    }

    #[test]
    fn a_file_that_cannot_be_placed_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.handouts");
        fs::create_dir(&path).unwrap();
        write(&path, &records(1, "/dev/iluvatar0")).unwrap_err();
        assert_eq!(names_in(directory.path()), ["gpu.handouts"]);
    }

    #[test]
    fn a_fifo_in_its_place_is_set_aside_and_does_not_hold_up_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.handouts");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&path).unwrap(), Remembered::Damaged(..)));
        assert_eq!(names_in(directory.path()), ["gpu.damaged"]);
    }
}
