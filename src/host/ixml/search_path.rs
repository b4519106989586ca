//! Where libixml is searched for.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::model::ixml::IxmlChoice;

const NAME: &str = "libixml.so";

/// Where `CoreX` is installed by default: `corex` links to the version in use; `iluvatar` is in images
/// of other plugins.
const DEFAULT_DIRECTORIES: [&str; 3] =
    ["/usr/local/corex/lib64", "/usr/local/corex/lib", "/usr/local/iluvatar/lib64"];

/// The environment variables that name directories of libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryEnv {
    /// `LD_LIBRARY_PATH`: directories, separated by colons.
    pub ld_library_path: Option<OsString>,
    /// `COREX_HOME`: where `CoreX` is installed.
    pub corex_home: Option<PathBuf>,
}

impl LibraryEnv {
    fn library_path(&self) -> impl Iterator<Item = PathBuf> {
        // Relative entries are left out; an empty one would mean the working directory.
        let entries = self.ld_library_path.iter().flat_map(|path| std::env::split_paths(path));
        entries.filter(|directory| directory.is_absolute())
    }
}

/// The libraries to try, in order, as arguments of `dlopen`; each once.
#[must_use]
pub fn libraries_to_try(choice: &IxmlChoice, env: &LibraryEnv) -> Vec<PathBuf> {
    match choice {
        IxmlChoice::Off => Vec::new(),
        IxmlChoice::Path(path) => vec![path.clone()],
        IxmlChoice::Auto => {
            let home = env.corex_home.iter().filter(|home| home.is_absolute());
            let homes = home.flat_map(|home| [home.join("lib64"), home.join("lib")]);
            let default = DEFAULT_DIRECTORIES.map(PathBuf::from);
            let directories = env.library_path().chain(homes).chain(default);
            // The bare name last: the loader then searches its own cache.
            once_each(directories.map(|directory| directory.join(NAME)).chain([NAME.into()]))
        }
    }
}

/// The `LD_LIBRARY_PATH` under which these libraries find their dependencies: the present one, then
/// the libraries' own directories. libixml.so needs libixthunk.so beside it and often has no RPATH.
/// None where no directory is known.
#[must_use]
pub fn loader_path(libraries: &[PathBuf], env: &LibraryEnv) -> Option<OsString> {
    let own = libraries.iter().filter(|path| path.is_absolute()).filter_map(|path| path.parent());
    let directories = once_each(env.library_path().chain(own.map(Path::to_owned)));
    // A directory with a colon in its name cannot be an entry.
    let entries = directories.into_iter().filter(|path| !has_colon(path.as_os_str()));
    std::env::join_paths(entries).ok().filter(|path| !path.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn env(ld_library_path: &str, corex_home: &str) -> LibraryEnv {
        LibraryEnv {
            ld_library_path: Some(ld_library_path.into()),
            corex_home: Some(corex_home.into()),
        }
    }

    #[track_caller]
    fn check(choice: &IxmlChoice, env: &LibraryEnv, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(libraries_to_try(choice, env), expected);
    }

    #[test]
    fn auto_tries_the_directories_of_the_environment_before_the_defaults() {
        check(
            &IxmlChoice::Auto,
            &env("/a:/b:/a", "/opt/corex"),
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
    fn auto_tries_no_directory_that_depends_on_the_working_directory() {
        check(
            &IxmlChoice::Auto,
            &env(":.:lib", "corex"),
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
        let env = env("/a", "/opt/corex");
        check(&IxmlChoice::Path("/x/libixml.so.2".into()), &env, &["/x/libixml.so.2"]);
        check(&IxmlChoice::Off, &env, &[]);
    }

    #[test]
    fn dependencies_are_found_beside_the_library() {
        let check = |env: &LibraryEnv, expected: Option<&str>| {
            let libraries = ["/x/libixml.so".into(), "/y:z/libixml.so".into(), NAME.into()];
            assert_eq!(loader_path(&libraries, env), expected.map(OsString::from));
        };
        check(&env("/a::/x", ""), Some("/a:/x"));
        check(&LibraryEnv::default(), Some("/x"));
        assert_eq!(loader_path(&[NAME.into()], &LibraryEnv::default()), None);
    }
}
