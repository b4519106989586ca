//! Files that keep state across restarts, beside the sockets. A kubelet that starts removes sockets only.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::files::{self, FileVersion};
use crate::parse::state_file::StateFileError;

/// What is at the file's path.
#[derive(Debug)]
pub enum StateFile<T> {
    /// Nothing.
    Absent,
    /// The state, and the version of the file that holds it.
    Valid(FileVersion, T),
    /// A damaged file; see [`set_aside`].
    Damaged(StateFileError),
}

/// Reads the file, unless it still has the version `last`; none then. Never waits for a writer, should
/// the file be a FIFO.
///
/// # Errors
/// As `stat`, `open` and `read`.
pub fn read<T>(
    path: &Path,
    last: Option<FileVersion>,
    parse: impl FnOnce(&str) -> Result<T, StateFileError>,
) -> io::Result<Option<StateFile<T>>> {
    let (version, bytes) = match read_changed(path, last) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(StateFile::Absent));
        }
        Ok(None) => return Ok(None),
        Ok(Some(read)) => read,
        Err(error) => return Err(error),
    };
    Ok(Some(match parse(&String::from_utf8_lossy(&bytes)) {
        Ok(state) => StateFile::Valid(version, state),
        Err(error) => StateFile::Damaged(error),
    }))
}

fn read_changed(
    path: &Path,
    last: Option<FileVersion>,
) -> io::Result<Option<(FileVersion, Vec<u8>)>> {
    if last.is_some() && last == Some(files::stamp(path)?) {
        return Ok(None);
    }
    let mut file =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    // Of the open file: the path may lead to another one since.
    let version = files::open_version(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some((version, bytes)))
}

/// Renames a damaged file, so that it can be examined and the next write does not replace it.
///
/// # Errors
/// As `rename`.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = aside_of(path);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Where [`set_aside`] puts a file.
#[must_use]
pub fn aside_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".damaged");
    name.into()
}

/// Replaces the file in one step: a reader, or a crash at any point, finds the old or the new one
/// whole, also while another instance writes.
///
/// # Errors
/// As `open`, `write`, `fdatasync` and `rename`; the old file stays.
pub fn write(path: &Path, text: &str) -> io::Result<FileVersion> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let new = |at: &Path| OpenOptions::new().write(true).create_new(true).mode(0o644).open(at);
    // A random name: in containers all instances may have the same process id, and two that wrote
    // to one file would put halves of it in place.
    let name = path.file_stem().unwrap_or_default();
    let mut unplaced =
        tempfile::Builder::new().prefix(name).suffix(".new").make_in(directory, new)?;
    let file = unplaced.as_file_mut();
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    let placed = unplaced.persist(path).map_err(|failed| failed.error)?;
    files::open_version(&placed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::model::allocation::{AllocatedChip, AllocationRecord, AllocationRecords};
    use crate::parse::allocations::{parse_allocations, write_allocations};

    fn read(
        path: &Path,
        last: Option<FileVersion>,
    ) -> io::Result<Option<StateFile<AllocationRecords>>> {
        super::read(path, last, parse_allocations)
    }

    fn write(path: &Path, records: &AllocationRecords) -> io::Result<FileVersion> {
        super::write(path, &write_allocations(records))
    }

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
        let path = directory.path().join("gpu.allocations");
        let written = [records(200, "/dev/iluvatar0"), records(100, "/dev/iluvatar1")];
        write(&path, &written[0]).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let instances = written.each_ref().map(|records| {
                let path = &path;
                scope.spawn(move || (0..100).try_for_each(|_| write(path, records).map(drop)))
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    match read(&path, None).unwrap().unwrap() {
                        StateFile::Valid(_, read) => assert!(written.contains(&read)),
                        other => panic!("not a whole file: {other:?}"),
                    }
                }
            });
            let results = instances.map(|instance| instance.join().unwrap());
            is_over.store(true, Ordering::Relaxed);
            for result in results {
                result.unwrap();
            }
        });
        assert_eq!(names_in(directory.path()), ["gpu.allocations"]);
    }

    #[test]
    fn a_file_that_cannot_be_placed_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.allocations");
        fs::create_dir(&path).unwrap();
        write(&path, &records(1, "/dev/iluvatar0")).unwrap_err();
        assert_eq!(names_in(directory.path()), ["gpu.allocations"]);
    }

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.allocations");
        assert!(matches!(read(&path, None).unwrap(), Some(StateFile::Absent)));
        let version = write(&path, &records(1, "/dev/iluvatar0")).unwrap();
        assert!(read(&path, Some(version)).unwrap().is_none());
        // While it is open, its inode is given to no other file.
        let _held = fs::File::open(&path).unwrap();
        write(&path, &records(1, "/dev/iluvatar1")).unwrap();
        let Some(StateFile::Valid(newer, read_records)) = read(&path, Some(version)).unwrap()
        else {
            panic!("it changed");
        };
        assert_eq!(read_records, records(1, "/dev/iluvatar1"));
        assert!(read(&path, Some(newer)).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path, Some(newer)).unwrap(), Some(StateFile::Absent)));
    }

    #[test]
    fn a_fifo_in_its_place_is_moved_aside_and_does_not_block_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.allocations");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&path, None).unwrap(), Some(StateFile::Damaged(_))));
        set_aside(&path).unwrap();
        assert_eq!(names_in(directory.path()), ["gpu.allocations.damaged"]);
    }
}
