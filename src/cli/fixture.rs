//! `fixture unpack` and `fixture check`: machines as files.

use std::path::Path;

use crate::host::files;
use crate::model::machine::Machine;
use crate::parse::node_file::parse_node_file;
use anyhow::Context as _;

use super::output::{Failure, print};
use super::{Common, config, discover};

pub(super) fn unpack(file: &Path, directory: &Path) -> Result<(), Failure> {
    let machine = read(file)?;
    let made = files::unpack(&machine, directory);
    made.with_context(|| format!("cannot unpack {}", file.display()))?;
    Ok(())
}

pub(super) fn check(common: &Common, file: &Path) -> Result<(), Failure> {
    read(file)?;
    let config = config::load(common)?;
    let inventory = discover::look(file, &config)?.inventory;
    let (boards, chips) = (inventory.boards.len(), inventory.chips().len());
    let (skipped, warnings) = (inventory.skipped.len(), inventory.warnings.len());
    let name = file.display();
    print(&format!(
        "{name}: ok, {boards} boards with {chips} chips, {skipped} functions skipped, \
         {warnings} warnings\n"
    ))
}

fn read(file: &Path) -> anyhow::Result<Machine> {
    let text = files::read_text(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse_node_file(&text).with_context(|| format!("{} is not a machine", file.display()))
}
