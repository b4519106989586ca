//! A small file that is read again and again, and stays open in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use super::files;

/// A file by its path, open after the first read.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    open: Option<File>,
}

impl KeptFile {
    /// The file at `path`, not open yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Reads the beginning of the file as it is now; returns how many bytes of `buffer` it filled. A
    /// file that was replaced is opened anew: an attribute of a device that was removed fails with
    /// `ENODEV` (fs/kernfs/file.c), and a file without a name has no links.
    ///
    /// # Errors
    /// As `open` and `pread`.
    pub fn read_start(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(file) = &self.open
            && file.metadata().is_ok_and(|file| file.nlink() > 0)
            && let Ok(length) = file.read_at(buffer, 0)
        {
            return Ok(length);
        }
        self.close();
        let file = files::open_attribute(&self.path)?;
        let length = file.read_at(buffer, 0)?;
        self.open = Some(file);
        Ok(length)
    }

    /// Closes it; the next read opens it again.
    pub fn close(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests make the files that are read")]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(file: &mut KeptFile, expected: &str) {
        let mut buffer = [0; 16];
        let length = file.read_start(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
    }

    #[test]
    fn it_reads_what_the_file_holds_now_whether_it_was_written_replaced_or_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("counter");
        let mut file = KeptFile::new(path.clone());
        assert_eq!(file.read_start(&mut [0; 4]).unwrap_err().kind(), io::ErrorKind::NotFound);
        for text in ["1", "20", ""] {
            fs::write(&path, text).unwrap();
            check(&mut file, text);
            check(&mut file, text);
        }
        let other = directory.path().join("other");
        fs::write(&other, "3").unwrap();
        fs::rename(&other, &path).unwrap();
        check(&mut file, "3");
        fs::remove_file(&path).unwrap();
        assert_eq!(file.read_start(&mut [0; 4]).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "a very long text, of which the beginning is read").unwrap();
        check(&mut file, "a very long text");
    }
}
