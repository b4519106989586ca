//! `demo`: the story on standard output.

use std::path::Path;

use anyhow::Context as _;

use super::output::{Failure, StandardOutput, paint};
use super::{DemoArgs, DemoFormat, config, run};
use crate::demo::story::{self, SHIPPED};
use crate::demo::timeline::{Timeline, TimelineFormat};
use crate::host::files;
use crate::model::machine::Machine;
use crate::parse::node_file::parse_node_file;

pub(super) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    let machine = machine(args.node.as_deref())?;
    let directory = tempfile::Builder::new().prefix("ix-kubelet-").tempdir();
    let directory = directory.context("cannot make a directory for the kubelet")?;
    let format = match args.output {
        DemoFormat::Text => TimelineFormat::Text(paint()),
        DemoFormat::Json => TimelineFormat::Json,
    };
    let mut stdout = StandardOutput::lock();
    let timeline = Timeline::new(&mut stdout, format);
    let story = story::play(args.story, machine, config, directory.path(), timeline);
    let played = run::runtime()?.block_on(story);
    if stdout.is_closed() { Ok(()) } else { Ok(played?) }
}

fn machine(node: Option<&Path>) -> anyhow::Result<Machine> {
    let Some(path) = node else {
        return parse_node_file(SHIPPED).context("the shipped machine is broken");
    };
    let text = files::read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_node_file(&text).with_context(|| format!("{} is not a machine", path.display()))
}
