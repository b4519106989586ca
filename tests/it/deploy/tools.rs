//! helm, kubectl and promtool, as `.ci/test-tools` puts them into target/tools.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::binary::{Ran, ran};
use crate::support::skip;

/// A program of target/tools.
pub(crate) struct Tool(PathBuf);

impl Tool {
    /// Without the program its tests are skipped.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let program = top().join("target/tools").join(name);
        if program.exists() {
            return Some(Self(program));
        }
        skip(&format!("no {name}: `make test-tools` fetches it"));
        None
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Runs it at the top of the repository, without anything from the caller's environment.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&self.command(arguments).output().expect("the program was just there"))
    }

    /// The same, and the program reads this from its standard input.
    pub(crate) fn fed(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program was just there");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it reads all");
        drop(stdin);
        ran(&child.wait_with_output().expect("it is our child"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        // Helm looks for its own files below the home directory.
        command.env_clear().env("HOME", top().join("target/tools")).current_dir(top());
        command.args(arguments);
        command
    }

    /// The standard output of a run that went well.
    #[track_caller]
    pub(crate) fn stdout(&self, arguments: &[&str]) -> String {
        let Ran { code, stdout, stderr } = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {stdout}{stderr}");
        stdout
    }
}

/// The top of the repository.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text of the repository.
#[track_caller]
pub(crate) fn text_of(path: impl AsRef<Path>) -> String {
    let path = top().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
