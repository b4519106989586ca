//! The plugin that runs, asked over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use super::block_on;
use crate::host::http_client::{get, reached_at};
use crate::model::doctor::facts::{Observed, RootKind, RunningDriver, Unavailable};
use crate::wire::report::dra_status::running_driver;

/// How long the plugin may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The driver of the plugin that serves HTTP at this address. Where the root is a file, no plugin
/// belongs to it.
pub(super) fn driver(
    root: RootKind,
    address: Option<SocketAddr>,
) -> Observed<Option<RunningDriver>> {
    let unavailable = |why: &str| Unavailable(format!("the running plugin was not asked: {why}"));
    if root == RootKind::NodeFile {
        return Err(unavailable("a .node file has none"));
    }
    let address = reached_at(address.ok_or_else(|| unavailable("--http is off"))?);
    let answer = block_on(get(address, "/status", ANSWER_TIMEOUT));
    let answer = answer.map_err(|error| unavailable(&error.to_string()))?;
    let answer = answer.map_err(|error| Unavailable(error.to_string()))?;
    running_driver(&answer.text).map_err(|error| {
        Unavailable(format!("{address} does not answer with the status of a plugin: {error}"))
    })
}
