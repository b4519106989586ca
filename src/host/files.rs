//! Files, as whole values: read, written, listed.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use crate::model::machine::{DeviceNumber, Entry, Machine};

/// Longest attribute that is read; the kernel's own are at most a page, a configuration space
/// 4096 bytes.
const LONGEST_ATTRIBUTE: u64 = 8192;

/// The smallest page of any kernel. A read of an attribute that gives less was all of it
/// (Documentation/filesystems/sysfs.rst: the first read fills the buffer, a page).
pub(super) const PAGE: usize = 4096;

/// Reads a small file. Never waits for a writer, should it turn out to be a FIFO.
///
/// # Errors
/// As `open` and `read`, and `FileTooLarge` above 8192 bytes.
pub fn read_attribute(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_attribute(path)?.take(LONGEST_ATTRIBUTE + 1);
    let mut first = [0; PAGE];
    let length = read_once(&mut file, &mut first)?;
    let mut bytes = first[..length].to_vec();
    if length == PAGE {
        file.read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LONGEST_ATTRIBUTE {
        let message = format!("longer than {LONGEST_ATTRIBUTE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn read_once(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads the first bytes of a file, at most `length`.
///
/// # Errors
/// As `open` and `read`.
pub fn read_start(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_attribute(path)?.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// True where something is at `path`; a link counts by itself.
#[must_use]
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Opens a small file for reading. Never waits for a writer, should it turn out to be a FIFO.
///
/// # Errors
/// As `open`.
pub(super) fn open_attribute(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

/// Names in a directory, sorted; what is no UTF-8 is no name that the kernel makes, and left out.
///
/// # Errors
/// As `opendir` and `readdir`.
pub fn list_directory(path: &Path) -> io::Result<Vec<Listed>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(Listed { is_directory: entry.file_type()?.is_dir(), name });
        }
    }
    names.sort();
    Ok(names)
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Without the directory.
    pub name: String,
    /// False for a link to a directory.
    pub is_directory: bool,
}

/// Where a symbolic link points, verbatim.
///
/// # Errors
/// As `readlink`, and `InvalidData` where the target is not UTF-8.
pub fn read_link(path: &Path) -> io::Result<String> {
    utf8_target(fs::read_link(path)?.into_os_string())
}

/// Opens a directory, so that what is in it can be named without its path (`openat(2)`, `O_PATH`).
///
/// # Errors
/// As `open`; `ENOTDIR` where it is no directory.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

/// Where the symbolic link of this name in an open directory points, verbatim. A directory that was
/// removed since has no links.
///
/// # Errors
/// As `readlinkat`, and `InvalidData` where the target is not UTF-8.
pub fn read_link_in(directory: &File, name: &str) -> io::Result<String> {
    utf8_target(nix::fcntl::readlinkat(directory, name)?)
}

fn utf8_target(target: OsString) -> io::Result<String> {
    let not_utf8 = || io::Error::new(io::ErrorKind::InvalidData, "the link's target is not UTF-8");
    target.into_string().map_err(|_| not_utf8())
}

/// The number of the character device at `path`; none for anything else that is there.
///
/// # Errors
/// As `lstat`.
pub fn char_device(path: &Path) -> io::Result<Option<DeviceNumber>> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(metadata.file_type().is_char_device().then(|| device_number(metadata.rdev())))
}

/// Permission bits, without those of the type; a link is not followed.
///
/// # Errors
/// As `lstat`.
pub fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::symlink_metadata(path)?.mode() & 0o7777)
}

fn device_number(rdev: u64) -> DeviceNumber {
    // Linux has 12 bits of major and 20 of minor; neither is cut.
    let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
    DeviceNumber { major: number(major(rdev)), minor: number(minor(rdev)) }
}

/// Shows whether a file is still the one it was, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    file: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

/// The stamp of the file at `path`, links followed.
///
/// # Errors
/// As `stat`.
pub fn stamp(path: &Path) -> io::Result<FileVersion> {
    Ok(version(&fs::metadata(path)?))
}

/// The version of an open file.
///
/// # Errors
/// As `fstat`.
pub fn open_version(file: &File) -> io::Result<FileVersion> {
    Ok(version(&file.metadata()?))
}

fn version(is: &Metadata) -> FileVersion {
    let (file, changed) = ((is.dev(), is.ino()), (is.ctime(), is.ctime_nsec()));
    FileVersion { file, length: is.len(), changed }
}

/// Reads a text file.
///
/// # Errors
/// As `read`, and `InvalidData` where it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// Writes a file anew.
///
/// # Errors
/// As `open` and `write`.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// The path without any link in it.
///
/// # Errors
/// As `realpath`.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// Whether `path` names a directory, links followed.
///
/// # Errors
/// As `stat`.
pub fn is_directory(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.is_dir())
}

/// Makes everything of `machine` below `directory`, which is made if it is not there. Device nodes
/// become ordinary files that hold `c MAJOR:MINOR`.
///
/// # Errors
/// The first path that could not be made; nothing that is there already is replaced.
pub fn unpack(machine: &Machine, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (path, entry) in machine.iter() {
        let path = directory.join(path);
        unpack_entry(&path, entry).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

/// Makes one entry again at `path`, in place of what is there.
///
/// # Errors
/// As the calls that make it.
pub fn replace(path: &Path, entry: &Entry) -> io::Result<()> {
    remove(path)?;
    unpack_entry(path, entry)
}

/// Removes a file, a link, or a directory with all that is in it; what is not there is removed.
///
/// # Errors
/// As `unlink` and `rmdir`.
pub fn remove(path: &Path) -> io::Result<()> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unpack_entry(path: &Path, entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Directory => fs::create_dir_all(path),
        Entry::File(bytes) => write_new(path, bytes),
        Entry::Link(target) => std::os::unix::fs::symlink(target, path),
        Entry::CharDevice(number) => write_new(path, format!("c {number}\n").as_bytes()),
        Entry::Unreadable(_) => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create_new(path)?.write_all(bytes)
}

/// Paths that a glob pattern below `root` matches, sorted. A directory that is not there matches
/// nothing.
///
/// # Errors
/// A directory that is there and cannot be read.
pub fn matching(root: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let root = glob::Pattern::escape(&root.to_string_lossy());
    let paths = glob::glob(&format!("{}/{pattern}", root.trim_end_matches('/')))
        .map_err(io::Error::other)?;
    paths.map(|path| path.map_err(io::Error::from)).collect()
}
