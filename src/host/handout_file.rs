//! The file beside our socket that remembers what was handed out. The kubelet wipes sockets only.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::model::handout::Handouts;
use crate::parse::handouts::{HandoutsError, parse_handouts, write_handouts};

/// What was there.
#[derive(Debug)]
pub enum Remembered {
    /// A good file, or none yet.
    Handouts(Handouts),
    /// A file that cannot be believed, and where it was put aside.
    Damaged(HandoutsError, PathBuf),
}

/// Reads the file; a damaged one is renamed, so that it can be looked at and is not in the way.
///
/// # Errors
/// As `open`, `read` and `rename`; a missing file is an empty one.
pub fn read(path: &Path) -> io::Result<Remembered> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Remembered::Handouts(Handouts::new()));
        }
        other => other?,
    };
    match parse_handouts(&String::from_utf8_lossy(&bytes)) {
        Ok(handouts) => Ok(Remembered::Handouts(handouts)),
        Err(error) => {
            let aside = path.with_extension("damaged");
            fs::rename(path, &aside)?;
            Ok(Remembered::Damaged(error, aside))
        }
    }
}

/// Replaces the file at once: a reader, or a crash at any point, sees the old or the new one whole.
///
/// # Errors
/// As `open`, `write`, `fdatasync` and `rename`; the old file stays.
pub fn write(path: &Path, handouts: &Handouts) -> io::Result<()> {
    let unplaced = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = File::create(&unplaced)?;
    let written = file
        .write_all(write_handouts(handouts).as_bytes())
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&unplaced, path));
    if written.is_err() {
        let _ = fs::remove_file(&unplaced);
    }
    written
}
