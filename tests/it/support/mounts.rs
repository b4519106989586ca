//! Commands with mounts of their own, which nobody else sees.

use std::process::Command;

use super::skip;

/// `unshare` with these arguments, which give the command that follows a mount namespace. Where that
/// is forbidden, the test is skipped.
pub(crate) fn unshared<'a>(ways: &[&'a [&'a str]]) -> Option<Command> {
    let command = |way: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(way);
        command
    };
    let probe = ["mount", "-t", "tmpfs", "none", "/mnt"];
    let can = |way: &&&[&str]| {
        command(way).args(probe).output().is_ok_and(|output| output.status.success())
    };
    let way = ways.iter().find(can);
    if way.is_none() {
        skip("mount namespaces are forbidden here");
    }
    way.map(|way| command(way))
}
