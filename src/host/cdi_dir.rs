//! The directory where container runtimes look for CDI specs: our file in it, and those of others.
//!
//! The directory is never made here. Below a mount that is missing it would be our container's
//! own, and no runtime would ever see what is in it.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::NamedTempFile;

use super::files;
use crate::model::cdi::{CdiDirectory, CdiSpec, FILE_NAME, KIND, OtherSpec, Place};
use crate::parse::doctor::cdi_spec::parse_cdi_spec;
use crate::wire::cdi;

/// More than the spec of any node.
const LONGEST_SPEC: u64 = 4 << 20;

/// Not `.json`: runtimes take everything of that name for a spec, finished or not.
const UNFINISHED: (&str, &str) = (".iluvatar.com-gpu.", ".new");

/// A file that this instance wrote, by its inode. It is kept open, so that no other file is given
/// the same number once this one is replaced.
#[derive(Debug)]
pub struct OwnFile(File);

impl OwnFile {
    fn is(&self, there: &Metadata) -> bool {
        let own = self.0.metadata();
        own.is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
    }
}

/// Looks at everything of our kind in `directory`; `own` is what this instance wrote there last.
///
/// # Errors
/// The directory or our own file cannot be read. Others' files that cannot be read or understood
/// are left out: no runtime has names from them either.
pub fn look(directory: &Path, own: Option<&OwnFile>) -> io::Result<CdiDirectory> {
    let names = files::list_directory(directory)?.into_iter().map(|listed| listed.name);
    let others = names.filter(|name| name != FILE_NAME && is_spec(name)).filter_map(|name| {
        let path = directory.join(name);
        let spec = parse_cdi_spec(&read(&path).ok()?).ok()?;
        let names = spec.devices.into_iter().collect();
        (spec.kind == KIND).then_some(OtherSpec { path, names })
    });
    let others = others.collect();
    Ok(CdiDirectory { place: look_at(&directory.join(FILE_NAME), own)?, others })
}

fn is_spec(name: &str) -> bool {
    matches!(Path::new(name).extension().and_then(|it| it.to_str()), Some("json" | "yaml"))
}

fn look_at(path: &Path, own: Option<&OwnFile>) -> io::Result<Place> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Place::Empty),
        other => other?,
    };
    if !metadata.is_file() {
        return Ok(Place::Foreign);
    }
    let own = own.is_some_and(|own| own.is(&metadata));
    Ok(cdi::read_own(&read(path)?).map_or(Place::Foreign, |spec| Place::Ours { spec, own }))
}

/// What is no UTF-8 is no spec of ours; it comes back as a text that is none either.
fn read(path: &Path) -> io::Result<String> {
    let bytes = files::read_start(path, LONGEST_SPEC)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes our file: a runtime sees the old one, or the new one whole. Where `replace` is false,
/// nothing that came there meanwhile is written over.
///
/// # Errors
/// As the calls that make, write and rename files; what was there stays.
pub fn write(directory: &Path, spec: &CdiSpec, replace: bool) -> io::Result<OwnFile> {
    let (prefix, suffix) = UNFINISHED;
    let mut file = tempfile::Builder::new().prefix(prefix).suffix(suffix).tempfile_in(directory)?;
    file.write_all(cdi::spec_json(spec).as_bytes())?;
    // Runtimes need not run as root, and our umask must not decide.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    // The name must not outlive the content in a crash. The directory itself need not be synced:
    // what a crash forgets there, the next start writes.
    file.as_file().sync_data()?;
    let path = directory.join(FILE_NAME);
    let persist = if replace { NamedTempFile::persist } else { NamedTempFile::persist_noclobber };
    Ok(OwnFile(persist(file, path)?))
}

/// Removes our file; what is not there is removed.
///
/// # Errors
/// As `unlink`.
pub fn remove(directory: &Path) -> io::Result<()> {
    files::remove(&directory.join(FILE_NAME))
}

/// Removes our file if it is still the one that this instance wrote; tells whether it was.
///
/// # Errors
/// As `lstat` and `unlink`.
pub fn remove_own(directory: &Path, own: &OwnFile) -> io::Result<bool> {
    let place = look_at(&directory.join(FILE_NAME), Some(own))?;
    let is_own = matches!(place, Place::Ours { own: true, .. });
    if is_own {
        remove(directory)?;
    }
    Ok(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn spec(name: &str) -> CdiSpec {
        let name = name.parse().unwrap();
        CdiSpec { common: Vec::new(), devices: [(name, vec!["/dev/x".to_owned()])].into() }
    }

    fn is_own(directory: &Path, own: &OwnFile) -> bool {
        let place = look(directory, Some(own)).unwrap().place;
        matches!(place, Place::Ours { own: true, .. })
    }

    /// A file system gives a number anew as soon as nobody holds it.
    #[test]
    fn a_file_that_replaced_this_instances_is_never_taken_for_it() {
        let directory = TempDir::new().unwrap();
        let own = write(directory.path(), &spec("0000:13:00.0"), false).unwrap();
        assert!(is_own(directory.path(), &own));
        for _ in 0..20 {
            drop(write(directory.path(), &spec("0000:13:00.0"), true).unwrap());
            assert!(!is_own(directory.path(), &own));
        }
        assert!(!remove_own(directory.path(), &own).unwrap());
        assert_ne!(look(directory.path(), None).unwrap().place, Place::Empty);
    }

    #[test]
    fn a_file_that_came_meanwhile_is_not_written_over_and_nothing_unfinished_stays() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(FILE_NAME), "{}").unwrap();
        let error = write(directory.path(), &spec("0000:13:00.0"), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let there = files::list_directory(directory.path()).unwrap();
        assert_eq!(there.len(), 1);
        assert_eq!(read(&directory.path().join(FILE_NAME)).unwrap(), "{}");
    }
}
