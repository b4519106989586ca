//! The directory where container runtimes find CDI specs: our file in it, and those of others.
//!
//! The directory is never created here. Below a missing mount it would belong to our container only,
//! and no runtime would ever see its content.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::files;
use super::own_file::{self, Existing, OwnFile};
use crate::model::cdi::{CdiDirectory, CdiKind, CdiSpec, OtherSpec, SpecFile, SpecWriter};
use crate::parse::doctor::cdi_spec::parse_cdi_spec;
use crate::wire::cdi;

/// Larger than the spec of any node, in bytes.
const SPEC_SIZE_LIMIT: u64 = 4 << 20;

/// Reads every spec of a kind in `directory`; `own` is what this instance wrote there last.
///
/// # Errors
/// The directory or our own file cannot be read. Other files that cannot be read or parsed are left
/// out: no runtime has names from them either.
pub fn read_directory(
    directory: &Path,
    kind: CdiKind,
    own: Option<&OwnFile>,
) -> io::Result<CdiDirectory> {
    let own_name = kind.file_name();
    let names = files::list_directory(directory)?.into_iter().map(|listed| listed.name);
    let others = names.filter(|name| name != own_name && is_spec(name)).filter_map(|name| {
        let path = directory.join(name);
        let spec = parse_cdi_spec(&read(&path).ok()?).ok()?;
        let names = spec.devices.into_iter().collect();
        (spec.kind == kind.name()).then_some(OtherSpec { path, names })
    });
    let others = others.collect();
    Ok(CdiDirectory { spec_file: read_spec_file(&directory.join(own_name), own)?, others })
}

fn is_spec(name: &str) -> bool {
    matches!(Path::new(name).extension().and_then(|it| it.to_str()), Some("json" | "yaml"))
}

fn read_spec_file(path: &Path, own: Option<&OwnFile>) -> io::Result<SpecFile> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SpecFile::Absent),
        other => other?,
    };
    if !metadata.is_file() {
        return Ok(SpecFile::Foreign);
    }
    let is_own = own.is_some_and(|own| own.is_same(&metadata));
    let writer = if is_own { SpecWriter::ThisInstance } else { SpecWriter::AnotherInstance };
    let spec = cdi::parse_own_spec(&read(path)?);
    Ok(spec.map_or(SpecFile::Foreign, |spec| SpecFile::Ours { spec, writer }))
}

/// A file that is not UTF-8 is not a spec of ours, and neither is the text that this returns for it.
fn read(path: &Path) -> io::Result<String> {
    let bytes = files::read_start(path, SPEC_SIZE_LIMIT)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes our file in one step: a runtime sees the old or the new one whole.
///
/// # Errors
/// As [`own_file::write`].
pub fn write(directory: &Path, spec: &CdiSpec, existing: Existing) -> io::Result<OwnFile> {
    // Until it is complete its name does not end in `.json`: runtimes read every file of that name.
    own_file::write(directory, spec.kind.file_name(), cdi::spec_json(spec).as_bytes(), existing)
}

/// Removes our file; succeeds where there is none.
///
/// # Errors
/// As `unlink`.
pub fn remove(directory: &Path, kind: CdiKind) -> io::Result<()> {
    files::remove(&directory.join(kind.file_name()))
}

/// Removes our file if it is still the one that this instance wrote; returns whether it was.
///
/// # Errors
/// As `lstat` and `unlink`.
pub fn remove_own(directory: &Path, kind: CdiKind, own: &OwnFile) -> io::Result<bool> {
    let found = read_spec_file(&directory.join(kind.file_name()), Some(own))?;
    let is_own = matches!(found, SpecFile::Ours { writer: SpecWriter::ThisInstance, .. });
    if is_own {
        remove(directory, kind)?;
    }
    Ok(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const KIND: CdiKind = CdiKind::DevicePlugin;

    fn spec(name: &str) -> CdiSpec {
        let name = name.parse().unwrap();
        CdiSpec { devices: [(name, vec!["/dev/x".to_owned()])].into(), ..CdiSpec::default() }
    }

    fn is_own(directory: &Path, own: &OwnFile) -> bool {
        let found = read_directory(directory, KIND, Some(own)).unwrap().spec_file;
        matches!(found, SpecFile::Ours { writer: SpecWriter::ThisInstance, .. })
    }

    /// A file system reuses an inode number as soon as nobody holds the file.
    #[test]
    fn a_file_that_replaced_this_instances_is_never_mistaken_for_it() {
        let directory = TempDir::new().unwrap();
        let own = write(directory.path(), &spec("0000:13:00.0"), Existing::Refuse).unwrap();
        assert!(is_own(directory.path(), &own));
        for _ in 0..20 {
            drop(write(directory.path(), &spec("0000:13:00.0"), Existing::Replace).unwrap());
            assert!(!is_own(directory.path(), &own));
        }
        assert!(!remove_own(directory.path(), KIND, &own).unwrap());
        assert_ne!(
            read_directory(directory.path(), KIND, None).unwrap().spec_file,
            SpecFile::Absent
        );
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_not_replaced_and_no_unfinished_file_stays() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(KIND.file_name()), "{}").unwrap();
        let error = write(directory.path(), &spec("0000:13:00.0"), Existing::Refuse).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let listed = files::list_directory(directory.path()).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(read(&directory.path().join(KIND.file_name())).unwrap(), "{}");
    }
}
