//! A file in a directory that other programs read and that another instance of this program may
//! write too.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::NamedTempFile;

use super::files;

/// A file that this instance wrote, known by its inode. It is kept open, so that no other file gets
/// the same inode once this one is replaced.
#[derive(Debug)]
pub struct OwnFile(File);

/// Whether a file that is there already may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It may.
    Replace,
    /// It may not: that is an error.
    Refuse,
}

impl OwnFile {
    /// Whether `file` is this one.
    #[must_use]
    pub fn is_same(&self, file: &Metadata) -> bool {
        let own = self.0.metadata();
        own.is_ok_and(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
    }

    /// Whether it is the file at `path`.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| self.is_same(&found))
    }
}

/// Writes the file `name` in one step: a reader sees the old or the new one whole. Until it is
/// complete it has another name, which begins with a dot.
///
/// # Errors
/// As the calls that create, write and rename files; an old file stays.
pub fn write(
    directory: &Path,
    name: &str,
    content: &[u8],
    existing: Existing,
) -> io::Result<OwnFile> {
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    // Errors of `tempfile_in` would name the random path, so that none would be the same as the last.
    let mut file =
        builder.prefix(&prefix).suffix(".new").make_in(directory, |path| File::create_new(path))?;
    file.write_all(content)?;
    // Readers need not run as root, and our umask must not decide.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    // After a crash the name must not lead to an empty file. The directory itself need not be synced:
    // the next start writes a file that was lost.
    file.as_file().sync_data()?;
    let persist = match existing {
        Existing::Replace => NamedTempFile::persist,
        Existing::Refuse => NamedTempFile::persist_noclobber,
    };
    let placed = persist(file, directory.join(name)).map_err(|failed| failed.error)?;
    Ok(OwnFile(placed))
}

/// Removes the file `name` if it is still the one that this instance wrote; returns whether it was.
///
/// # Errors
/// As `lstat` and `unlink`.
pub fn remove(directory: &Path, name: &str, own: &OwnFile) -> io::Result<bool> {
    let path = directory.join(name);
    match fs::symlink_metadata(&path) {
        Ok(found) if own.is_same(&found) => files::remove(&path).map(|()| true),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(false),
    }
}
