//! The root of a machine to scan: `/`, a directory that holds another machine's tree, or a `.node`
//! file, which is unpacked for as long as the root lives.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::files;
use super::unpacked::UnpackedDirectory;
use crate::model::machine::Machine;
use crate::parse::node_file::{self, NodeFileError};

/// A directory that holds `sys` and `dev`.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Kept so that the directory of an unpacked `.node` file goes away with the root.
    unpacked: Option<UnpackedDirectory>,
}

/// Why a path is no root.
#[derive(Debug, Error)]
pub enum RootError {
    /// Nothing there, or not to be read.
    #[error("cannot read the root {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    /// A file that is no `.node` file.
    #[error("{0} is not a machine: {1}")]
    BadNodeFile(PathBuf, NodeFileError),
    /// No room, no rights.
    #[error("cannot unpack {0}: {1}")]
    CannotUnpack(PathBuf, io::Error),
}

impl Root {
    /// Opens a directory, or unpacks a `.node` file into a temporary one.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let unreadable = |error| RootError::Unreadable(path.to_owned(), error);
        if files::is_directory(path).map_err(unreadable)? {
            return Ok(Self { path: path.to_owned(), unpacked: None });
        }
        let text = files::read_text(path).map_err(unreadable)?;
        let machine = node_file::parse_node_file(&text)
            .map_err(|error| RootError::BadNodeFile(path.to_owned(), error))?;
        Self::unpack(&machine).map_err(|error| RootError::CannotUnpack(path.to_owned(), error))
    }

    /// Makes a machine in a temporary directory.
    ///
    /// # Errors
    /// No room, no rights.
    pub fn unpack(machine: &Machine) -> io::Result<Self> {
        let directory = UnpackedDirectory::new()?;
        files::unpack(machine, directory.path())?;
        Ok(Self { path: directory.path().to_owned(), unpacked: Some(directory) })
    }

    /// The directory that is used as `/`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True for a `.node` file, which holds neither sockets nor processes that run.
    #[must_use]
    pub fn is_unpacked(&self) -> bool {
        self.unpacked.is_some()
    }

    /// True for this machine itself, where only real device nodes count.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        self.path == Path::new("/")
    }
}
