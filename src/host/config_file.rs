//! The configuration file, read as it is now, with flags and environment variables over it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::files::{self, FileVersion};
use crate::model::config::Config;
use crate::parse::config::{ConfigProblems, Overrides, parse_config_with};

/// Where the ConfigMap `ix-config` is mounted. Its absence means the defaults.
pub const DEFAULT_PATH: &str = "/ixconfig/ix-config";

/// A place to read the configuration from, again and again.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    path: PathBuf,
    must_exist: bool,
    overrides: Overrides,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It was named and does not exist, or cannot be read.
    #[error("cannot read the configuration {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    /// Every problem at once, of the file and of what overrides it.
    #[error("{}", .1.of_file(.0.display()))]
    Wrong(PathBuf, ConfigProblems),
}

impl ConfigSource {
    /// The file at `path`, which must exist; or the one at the default path, which need not.
    #[must_use]
    pub fn new(path: Option<&Path>, overrides: Overrides) -> Self {
        match path {
            Some(path) => Self { path: path.to_owned(), must_exist: true, overrides },
            None => Self::optional(Path::new(DEFAULT_PATH), overrides),
        }
    }

    /// The file at `path`; its absence means the defaults.
    #[must_use]
    pub fn optional(path: &Path, overrides: Overrides) -> Self {
        Self { path: path.to_owned(), must_exist: false, overrides }
    }

    /// The file that is read; it need not exist.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the file: what a ConfigMap volume changes when it swaps its link.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Whether the file that is read, links followed, is in that directory or below it; true where
    /// there is no file. Then no version of it comes without a change of the directory, unless
    /// somebody writes below it, which the kubelet never does.
    #[must_use]
    pub fn is_within_directory(&self) -> bool {
        let directory = self.directory().and_then(|directory| files::real_path(directory).ok());
        match (files::real_path(&self.path), directory) {
            (Ok(file), Some(directory)) => file.starts_with(directory),
            _ => true,
        }
    }

    /// The version of the file, which changes with it; none where there is no file.
    #[must_use]
    pub fn stamp(&self) -> Option<FileVersion> {
        files::stamp(&self.path).ok()
    }

    /// Reads the file as it is now.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing of a wrong file counts.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let text =
            self.read().map_err(|error| ConfigError::Unreadable(self.path.clone(), error))?;
        parse_config_with(&text, &self.overrides)
            .map_err(|problems| ConfigError::Wrong(self.path.clone(), problems))
    }

    fn read(&self) -> io::Result<String> {
        let is_absent = |read: &io::Result<_>| {
            read.as_ref().is_err_and(|error: &io::Error| error.kind() == ErrorKind::NotFound)
        };
        let mut read = files::read_text(&self.path);
        if is_absent(&read) {
            // A ConfigMap volume removes the old directory right after it swapped its link: whoever
            // was on the way through the old link finds nothing there, but finds the new file now.
            read = files::read_text(&self.path);
        }
        if is_absent(&read) && !self.must_exist { Ok(String::new()) } else { read }
    }
}
