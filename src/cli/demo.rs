//! `demo`: the story on standard output.

use std::path::Path;

use anyhow::Context as _;

use super::output::{Failure, paint};
use super::{Common, DemoArgs, DemoFormat, config, run};
use crate::demo::story::{self, SHIPPED};
use crate::demo::timeline::{Look, Timeline};
use crate::host::files;
use crate::model::machine::Machine;
use crate::parse::node_file::parse_node_file;

pub(super) fn demo(common: &Common, args: &DemoArgs) -> Result<(), Failure> {
    let config = config::load(common)?;
    let machine = machine(args.node.as_deref())?;
    let directory = tempfile::Builder::new().prefix("ix-kubelet-").tempdir();
    let directory = directory.context("cannot make a directory for the kubelet")?;
    let look = match args.output {
        DemoFormat::Text => Look::Text(paint()),
        DemoFormat::Json => Look::Json,
    };
    let mut stdout = std::io::stdout().lock();
    let timeline = Timeline::new(&mut stdout, look);
    let story = story::play(args.story, machine, config, directory.path(), timeline);
    Ok(run::runtime()?.block_on(story)?)
}

fn machine(node: Option<&Path>) -> anyhow::Result<Machine> {
    let Some(path) = node else {
        return parse_node_file(SHIPPED).context("the shipped machine is broken");
    };
    let text = files::read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_node_file(&text).with_context(|| format!("{} is not a machine", path.display()))
}
