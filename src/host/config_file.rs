//! The configuration file, read as it is now, with flags and environment variables over it.

use std::ffi::OsString;
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
    /// Read instead where it exists.
    node_path: Option<PathBuf>,
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
            Some(path) => {
                Self { path: path.to_owned(), node_path: None, must_exist: true, overrides }
            }
            None => Self::optional(Path::new(DEFAULT_PATH), overrides),
        }
    }

    /// The file at `path`; its absence means the defaults.
    #[must_use]
    pub fn optional(path: &Path, overrides: Overrides) -> Self {
        Self { path: path.to_owned(), node_path: None, must_exist: false, overrides }
    }

    /// The same file, or where it exists the one of this node alone: beside it, with `.NODE` behind
    /// its name.
    #[must_use]
    pub fn for_node(self, node: &str) -> Self {
        let mut path = OsString::from(&self.path);
        path.push(format!(".{node}"));
        Self { node_path: Some(path.into()), ..self }
    }

    /// The file that is read now: that of this node, if there is one. The other need not exist.
    #[must_use]
    pub fn path(&self) -> &Path {
        let is_absent = |path: &Path| {
            files::stamp(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        self.node_path.as_deref().filter(|path| !is_absent(path)).unwrap_or(&self.path)
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
        match (files::real_path(self.path()), directory) {
            (Ok(file), Some(directory)) => file.starts_with(directory),
            _ => true,
        }
    }

    /// The version of the file, which changes with it; none where there is no file.
    #[must_use]
    pub fn stamp(&self) -> Option<FileVersion> {
        files::stamp(self.path()).ok()
    }

    /// Reads the file as it is now.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing of a wrong file counts.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_from().1
    }

    /// The same, with the file that was read.
    pub fn load_from(&self) -> (PathBuf, Result<Config, ConfigError>) {
        let mut node_files = self.node_path.iter().map(|path| (path.clone(), read(path)));
        // A wrong file of this node is not passed over, only an absent one.
        let node_file = node_files.find(|(_, text)| !is_absent(text));
        let (path, text) = node_file.unwrap_or_else(|| (self.path.clone(), self.read_common()));
        let config = match text {
            Err(error) => Err(ConfigError::Unreadable(path.clone(), error)),
            Ok(text) => parse_config_with(&text, &self.overrides)
                .map_err(|problems| ConfigError::Wrong(path.clone(), problems)),
        };
        (path, config)
    }

    fn read_common(&self) -> io::Result<String> {
        let text = read(&self.path);
        if is_absent(&text) && !self.must_exist { Ok(String::new()) } else { text }
    }
}

fn is_absent(read: &io::Result<String>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Reads a file that may be in a ConfigMap volume. Such a volume removes the old directory right after
/// it swapped its link: whoever was on the way through the old link finds nothing there, but finds the
/// new file when it reads again.
fn read(path: &Path) -> io::Result<String> {
    let first = files::read_text(path);
    if is_absent(&first) { files::read_text(path) } else { first }
}
