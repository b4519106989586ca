//! Where to search for libixml, and how long to wait for it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::ixml::IxmlChoice;

const NAME: &str = "libixml.so";

/// Where `CoreX` installs itself: `corex` links to the version in use; `iluvatar` is in images of
/// other plugins.
const USUAL_DIRECTORIES: [&str; 3] =
    ["/usr/local/corex/lib64", "/usr/local/corex/lib", "/usr/local/iluvatar/lib64"];

/// Library directories of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryPlaces {
    /// `LD_LIBRARY_PATH`: directories, separated by colons.
    pub ld_library_path: Option<OsString>,
    /// `COREX_HOME`: where `CoreX` is installed.
    pub corex_home: Option<PathBuf>,
}

impl LibraryPlaces {
    fn library_path(&self) -> impl Iterator<Item = PathBuf> {
        // What is relative is left out: an empty entry would mean the working directory.
        let entries = self.ld_library_path.iter().flat_map(|path| std::env::split_paths(path));
        entries.filter(|directory| directory.is_absolute())
    }
}

/// The libraries to try, in order, as the dynamic loader takes them; each once.
#[must_use]
pub fn libraries_to_try(choice: &IxmlChoice, places: &LibraryPlaces) -> Vec<PathBuf> {
    match choice {
        IxmlChoice::Off => Vec::new(),
        IxmlChoice::Path(path) => vec![path.clone()],
        IxmlChoice::Auto => {
            let home = places.corex_home.iter().filter(|home| home.is_absolute());
            let homes = home.flat_map(|home| [home.join("lib64"), home.join("lib")]);
            let usual = USUAL_DIRECTORIES.map(PathBuf::from);
            let directories = places.library_path().chain(homes).chain(usual);
            // The bare name last: then the loader searches its own cache.
            once_each(directories.map(|directory| directory.join(NAME)).chain([NAME.into()]))
        }
    }
}

/// The `LD_LIBRARY_PATH` under which these libraries find their dependencies: what it is already,
/// then the directories that they are in themselves. An installation has libixthunk.so beside
/// libixml.so, and seldom a path in it to find that. None where none is needed.
#[must_use]
pub fn loader_path(libraries: &[PathBuf], places: &LibraryPlaces) -> Option<OsString> {
    let own = libraries.iter().filter(|path| path.is_absolute()).filter_map(|path| path.parent());
    let directories = once_each(places.library_path().chain(own.map(Path::to_owned)));
    // A directory with a colon in its name cannot be listed; the loader searches without it.
    let listable = directories.into_iter().filter(|path| !has_colon(path.as_os_str()));
    std::env::join_paths(listable).ok().filter(|path| !path.is_empty())
}

fn has_colon(text: &OsStr) -> bool {
    text.as_encoded_bytes().contains(&b':')
}

fn once_each(paths: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    for path in paths {
        if !kept.contains(&path) {
            kept.push(path);
        }
    }
    kept
}

/// How long to wait for a library that does not answer, and before it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After so long without a reply the agent is killed.
    pub give_up_after: Duration,
    /// The pause after the first failure in a row; it doubles with each.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    /// A library may take seconds to wake a machine with sixteen chips, so giving up comes late.
    fn default() -> Self {
        Self {
            give_up_after: Duration::from_secs(30),
            first_pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(300),
        }
    }
}

impl RetryPolicy {
    /// The pause after the `failures`-th failure in a row, counted from 1.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.first_pause.saturating_mul(1 << doublings).min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(ld_library_path: &str, corex_home: &str) -> LibraryPlaces {
        LibraryPlaces {
            ld_library_path: Some(ld_library_path.into()),
            corex_home: Some(corex_home.into()),
        }
    }

    #[track_caller]
    fn check(choice: &IxmlChoice, places: &LibraryPlaces, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(libraries_to_try(choice, places), expected);
    }

    #[test]
    fn auto_tries_what_the_environment_names_before_the_usual_places() {
        check(
            &IxmlChoice::Auto,
            &places("/a:/b:/a", "/opt/corex"),
            &[
                "/a/libixml.so",
                "/b/libixml.so",
                "/opt/corex/lib64/libixml.so",
                "/opt/corex/lib/libixml.so",
                "/usr/local/corex/lib64/libixml.so",
                "/usr/local/corex/lib/libixml.so",
                "/usr/local/iluvatar/lib64/libixml.so",
                "libixml.so",
            ],
        );
    }

    #[test]
    fn auto_tries_no_place_that_depends_on_the_working_directory() {
        check(
            &IxmlChoice::Auto,
            &places(":.:lib", "corex"),
            &[
                "/usr/local/corex/lib64/libixml.so",
                "/usr/local/corex/lib/libixml.so",
                "/usr/local/iluvatar/lib64/libixml.so",
                "libixml.so",
            ],
        );
    }

    #[test]
    fn a_path_is_tried_alone_and_off_tries_nothing() {
        let places = places("/a", "/opt/corex");
        check(&IxmlChoice::Path("/x/libixml.so.2".into()), &places, &["/x/libixml.so.2"]);
        check(&IxmlChoice::Off, &places, &[]);
    }

    #[test]
    fn dependencies_are_found_beside_the_library() {
        let check = |places: &LibraryPlaces, expected: Option<&str>| {
            let libraries = ["/x/libixml.so".into(), "/y:z/libixml.so".into(), NAME.into()];
            assert_eq!(loader_path(&libraries, places), expected.map(OsString::from));
        };
        check(&places("/a::/x", ""), Some("/a:/x"));
        check(&LibraryPlaces::default(), Some("/x"));
        assert_eq!(loader_path(&[NAME.into()], &LibraryPlaces::default()), None);
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses = [1, 2, 3, 7, u32::MAX].map(|failures| RetryPolicy::default().pause(failures));
        assert_eq!(pauses, [5, 10, 20, 300, 300].map(Duration::from_secs));
    }
}
