//! `ixml-agent`: the child process that loads libixml. The daemon starts it; by hand it answers
//! a JSON list of addresses: `echo '["0000:13:00.0"]' | ix-device-plugin ixml-agent -- libixml.so`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::output::Failure;
use crate::host::ixml::agent;

pub(super) fn serve(libraries: &[PathBuf]) -> Result<(), Failure> {
    Ok(agent::run(libraries).context("the ixml agent ends")?)
}
