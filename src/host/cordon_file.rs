//! The file of cordons. Commands change it, one at a time; the daemon follows it.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{self, FileVersion};
use super::state_file::{self, StateFile};
use crate::model::cordon::Cordons;
use crate::parse::cordons::{parse_cordons, write_cordons};
use crate::parse::state_file::StateFileError;

/// The file's name in the kubelet's device plugin directory.
pub const FILE_NAME: &str = "iluvatar-gpu.cordons";

/// Reads the file, unless it still has the version `last`; none then.
///
/// # Errors
/// As `stat`, `open` and `read`.
pub fn read(path: &Path, last: Option<FileVersion>) -> io::Result<Option<StateFile<Cordons>>> {
    state_file::read(path, last, parse_cordons)
}

/// A change of the file.
#[derive(Debug)]
pub struct CordonUpdate<R> {
    /// What the change returned.
    pub result: R,
    /// The cordons now.
    pub cordons: Cordons,
    /// The file before, if it was damaged, and where it was moved.
    pub set_aside: Option<(StateFileError, PathBuf)>,
}

/// Changes the cordons. Others that change them at the same time wait, so no change is lost, and when
/// this returns the change survives a power failure. A damaged file is set aside and counts as empty.
///
/// # Errors
/// As the calls that lock, read and write; the file is then as it was.
pub fn update<R>(
    path: &Path,
    change: impl FnOnce(&mut Cordons) -> R,
) -> io::Result<CordonUpdate<R>> {
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    // Released when it is closed. A lock of the file itself would be lost when it is replaced.
    directory.lock()?;
    let (before, set_aside) = match read(path, None)? {
        Some(StateFile::Valid(_, cordons)) => (cordons, None),
        Some(StateFile::Damaged(error)) => {
            (Cordons::new(), Some((error, state_file::set_aside(path)?)))
        }
        Some(StateFile::Absent) | None => (Cordons::new(), None),
    };
    let mut cordons = before.clone();
    let result = change(&mut cordons);
    if cordons != before {
        if cordons.is_empty() {
            files::remove(path)?;
        } else {
            state_file::write(path, &write_cordons(&cordons))?;
        }
        directory.sync_all()?;
    }
    Ok(CordonUpdate { result, cordons, set_aside })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::cordon::Cordon;
    use crate::model::pci::PciAddress;

    fn chip(bus: u8) -> PciAddress {
        PciAddress { domain: 0, bus, device: 0, function: 0 }
    }

    fn add(path: &Path, bus: u8) -> CordonUpdate<()> {
        let cordon = Cordon { chips: [chip(bus)].into(), reason: None };
        update(path, |cordons| drop(cordons.insert(chip(bus), cordon))).unwrap()
    }

    #[test]
    fn changes_at_the_same_time_lose_no_cordon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        std::thread::scope(|scope| {
            for first in (0..128_u8).step_by(16) {
                let path = &path;
                scope.spawn(move || (first..first + 16).for_each(|bus| drop(add(path, bus))));
            }
        });
        let cordons = parse_cordons(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(cordons.keys().copied().eq((0..128).map(chip)));
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 1, "a lock or a new file is left");
    }

    #[test]
    fn the_last_cordon_takes_the_file_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        add(&path, 1);
        let cleared = update(&path, |cordons| drop(cordons.remove(&chip(1)))).unwrap();
        assert!(cleared.cordons.is_empty() && !path.exists());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_the_change_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        fs::write(&path, "ix-device-plugin cord").unwrap();
        let added = add(&path, 1);
        let (error, aside) = added.set_aside.unwrap();
        assert!(matches!(error, StateFileError::Unknown(_)), "{error}");
        assert_eq!(fs::read_to_string(aside).unwrap(), "ix-device-plugin cord");
        assert_eq!(parse_cordons(&fs::read_to_string(&path).unwrap()).unwrap(), added.cordons);
    }

    #[test]
    fn without_the_kubelets_directory_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent").join(FILE_NAME);
        let error = update(&path, Cordons::clear).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
