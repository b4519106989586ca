//! `fixture unpack` and `fixture check`: machines as files.

use std::path::Path;

use crate::host::files;
use crate::model::machine::Machine;
use crate::parse::node_file::parse_node_file;
use crate::wire::counted::counted;
use anyhow::Context as _;

use super::output::{Failure, print};
use super::{FileArgs, config, discover};

pub(super) fn unpack(file: &Path, directory: &Path) -> Result<(), Failure> {
    let machine = read(file)?;
    let unpacked = files::unpack(&machine, directory);
    unpacked.with_context(|| format!("cannot unpack {}", file.display()))?;
    Ok(())
}

pub(super) fn check(args: &FileArgs, file: &Path) -> Result<(), Failure> {
    read(file)?;
    let config = config::load_file(args)?;
    let snapshot = discover::snapshot_at(file, &config)?;
    let inventory = &snapshot.inventory;
    let counts = [
        counted(inventory.boards.len(), "board"),
        counted(inventory.chips().len(), "chip"),
        counted(inventory.skipped.len(), "skipped function"),
        counted(snapshot.warnings.len(), "warning"),
    ];
    print(&format!("{}: ok: {}\n", file.display(), counts.join(", ")))
}

fn read(file: &Path) -> anyhow::Result<Machine> {
    let text = files::read_text(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse_node_file(&text).with_context(|| format!("{} is not a machine", file.display()))
}
