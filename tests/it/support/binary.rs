//! The built binary, run as a user runs it, without anything from the caller's environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A command that runs the binary; relative paths start at the top of the repository.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ix-device-plugin"));
    command.env_clear().env("TMPDIR", std::env::temp_dir()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary with these arguments until it ends.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, &[])
}

/// Runs the binary with these arguments and variables until it ends.
pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let output = binary().args(arguments).envs(variables.iter().copied()).output();
    ran(&output.expect("the binary was built for this test"))
}

pub(crate) fn ran(output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("we print text");
    Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// The standard output of a run that went well.
#[track_caller]
pub(crate) fn stdout_of(arguments: &[&str]) -> String {
    let Ran { code, stdout, stderr } = run(arguments);
    assert_eq!((code, &*stderr), (Some(0), ""), "{arguments:?}");
    stdout
}

/// Files of this extension in a directory of the repository, as relative paths, sorted; never none.
pub(crate) fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pattern = top.join(directory).join(format!("*.{extension}"));
    let found = glob::glob(pattern.to_str().expect("the path is text")).expect("a good pattern");
    let relative = |path: PathBuf| path.strip_prefix(top).expect("below the top").to_owned();
    let files: Vec<_> = found.map(|path| relative(path.expect("readable"))).collect();
    assert!(!files.is_empty(), "{directory} has no .{extension} file");
    files
}
