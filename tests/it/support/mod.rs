//! What several tests need: the built binary, machines, the kernel's events, and the two ways to run a
//! plugin: `node_rig` in this process, `process` as the built binary.

pub(crate) mod clock;
pub(crate) mod http;
pub(crate) mod log;

pub(crate) mod binary;
pub(crate) mod plugin_client;
pub(crate) mod proc_status;
pub(crate) mod process;

pub(crate) mod fixtures;
pub(crate) mod machines;
pub(crate) mod random_machines;

pub(crate) mod container;
pub(crate) mod dra_cluster;
pub(crate) mod dra_rig;
pub(crate) mod hang;
pub(crate) mod kernel;
pub(crate) mod mounts;
pub(crate) mod node_rig;
pub(crate) mod plugin;
pub(crate) mod seccomp;
pub(crate) mod test_node;

use std::io::Write as _;

/// Says why a test, or a part of it, checks nothing here; in continuous integration, where everything
/// is installed, that is a failure.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in continuous integration: {reason}");
    // libtest holds back what `eprintln!` prints in a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}
