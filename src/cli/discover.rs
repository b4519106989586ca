//! `discover`, `topology` and `snapshot`: verbs that read a machine and change nothing.

use std::path::Path;

use crate::decide::node::advertise::advertise;
use crate::host::files;
use crate::host::root::Root;
use crate::host::scan::{Scan, scan};
use crate::host::sysfs::{self, Detail};
use crate::model::config::Config;
use crate::parse::node_file::write_node_file;
use crate::parse::sysfs::PCI_DEVICES;
use crate::wire::report::{Findings, LookedAt, document, dot, matrix, table, tree, udev, yaml};
use anyhow::Context as _;

use super::config;
use super::output::{Failure, json, paint, print};
use super::{
    DiscoverArgs, DiscoverFormat, MachineArgs, SnapshotArgs, TopologyArgs, TopologyFormat,
};

pub(super) fn discover(args: &DiscoverArgs) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    with_findings(&args.machine, &config, |findings| match args.output {
        DiscoverFormat::Table => Ok(table::table(findings, paint())),
        DiscoverFormat::Tree => Ok(tree::tree(findings, paint())),
        DiscoverFormat::Json => json(&document::discovery(findings)),
        DiscoverFormat::Yaml => {
            yaml::yaml(&document::discovery(findings)).context("cannot write the findings as YAML")
        }
        DiscoverFormat::Dot => Ok(dot::dot(findings)),
        DiscoverFormat::Udev => Ok(udev::udev(findings)),
    })
}

pub(super) fn topology(args: &TopologyArgs) -> Result<(), Failure> {
    let config = config::load_file(&args.file)?;
    with_findings(&args.machine, &config, |findings| match args.output {
        TopologyFormat::Table => Ok(matrix::matrix(findings, paint())),
        TopologyFormat::Json => json(&document::topology(findings.inventory)),
    })
}

/// Scans the machine and prints what `shown` makes of it.
fn with_findings(
    machine: &MachineArgs,
    config: &Config,
    shown: impl Fn(&Findings<'_>) -> anyhow::Result<String>,
) -> Result<(), Failure> {
    let Scan { inventory, functions_seen, .. } = scan_at(&machine.root, config)?;
    let resources = advertise(&inventory, &config.resources);
    let looked_at = LookedAt {
        directory: machine.root.join(PCI_DEVICES).display().to_string(),
        functions: functions_seen,
        vendor_ids: config.discovery.vendor_ids.clone(),
    };
    let findings = Findings { inventory: &inventory, resources: &resources, looked_at: &looked_at };
    print(&shown(&findings)?)
}

pub(super) fn snapshot(args: &SnapshotArgs) -> Result<(), Failure> {
    let config = config::load_file(&args.file)?;
    let root = Root::open(&args.machine.root).map_err(anyhow::Error::new)?;
    let machine =
        sysfs::capture(&root, &config.discovery, Detail::Snapshot).map_err(anyhow::Error::new)?;
    let text = write_node_file(&machine);
    match &args.output {
        None => print(&text),
        Some(path) => files::write(path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
            .map_err(Failure::from),
    }
}

/// One scan of the machine at `root`.
pub(super) fn scan_at(root: &Path, config: &Config) -> anyhow::Result<Scan> {
    let root = Root::open(root)?;
    Ok(scan(&root, config)?)
}
