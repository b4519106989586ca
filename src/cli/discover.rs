//! `discover`, `topology` and `snapshot`: verbs that read a machine and change nothing.

use std::path::Path;
use std::sync::Arc;

use crate::decide::node::snapshot::NodeSnapshot;
use crate::decide::node::state::snapshot_with;
use crate::host::cpu_affinity::cpu_affinity;
use crate::host::files;
use crate::host::identities::read_identities;
use crate::host::root::Root;
use crate::host::scan::scan;
use crate::host::sysfs::{self, Detail};
use crate::model::config::Config;
use crate::model::sysfs::SysfsScan;
use crate::parse::node_file::write_node_file;
use crate::parse::sysfs::PCI_DEVICES;
use crate::wire::report::{
    DiscoveryReport, ScannedBus, TopologyReport, document, dot, matrix, table, tree, udev, yaml,
};
use anyhow::Context as _;

use super::config;
use super::output::{Failure, json, paint, print};
use super::{
    DiscoverArgs, DiscoverFormat, MachineArgs, SnapshotArgs, TopologyArgs, TopologyFormat,
};

pub(super) fn discover(args: &DiscoverArgs) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    with_report(&args.machine, &config, |report| match args.output {
        DiscoverFormat::Table => Ok(table::table(report, paint())),
        DiscoverFormat::Tree => Ok(tree::tree(report, paint())),
        DiscoverFormat::Json => json(&document::discovery(report)),
        DiscoverFormat::Yaml => {
            yaml::yaml(&document::discovery(report)).context("cannot write the report as YAML")
        }
        DiscoverFormat::Dot => Ok(dot::dot(report)),
        DiscoverFormat::Udev => Ok(udev::udev(report)),
    })
}

pub(super) fn topology(args: &TopologyArgs) -> Result<(), Failure> {
    let config = config::load_file(&args.file)?;
    let root = Root::open(&args.machine.root).map_err(anyhow::Error::new)?;
    with_report(&args.machine, &config, |report| {
        let cpu_affinity = &cpu_affinity(&root, &report.snapshot.inventory.chips());
        let report = TopologyReport { discovery: *report, cpu_affinity };
        match args.output {
            TopologyFormat::Table => Ok(matrix::matrix(&report, paint())),
            TopologyFormat::Json => json(&document::topology(&report)),
        }
    })
}

/// Scans the machine and prints it as `format` lays it out.
fn with_report(
    machine: &MachineArgs,
    config: &Config,
    format: impl Fn(&DiscoveryReport<'_>) -> anyhow::Result<String>,
) -> Result<(), Failure> {
    let scan = scan_at(&machine.root, config)?;
    let scanned = ScannedBus {
        directory: machine.root.join(PCI_DEVICES).display().to_string(),
        functions: scan.functions.len(),
        vendor_ids: config.discovery.vendor_ids.clone(),
    };
    let snapshot = snapshot_with(scan, read_identities(&config.discovery), config);
    print(&format(&DiscoveryReport { snapshot: &snapshot, scanned: &scanned })?)
}

pub(super) fn snapshot(args: &SnapshotArgs) -> Result<(), Failure> {
    let config = config::load_file(&args.file)?;
    let root = Root::open(&args.machine.root).map_err(anyhow::Error::new)?;
    let captured =
        sysfs::capture(&root, &config.discovery, Detail::Snapshot).map_err(anyhow::Error::new)?;
    let text = write_node_file(&captured.machine);
    match &args.output {
        None => print(&text),
        Some(path) => files::write(path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
            .map_err(Failure::from),
    }
}

/// The machine at `root` as one scan shows it.
pub(super) fn snapshot_at(root: &Path, config: &Config) -> anyhow::Result<Arc<NodeSnapshot>> {
    let scan = scan_at(root, config)?;
    Ok(snapshot_with(scan, read_identities(&config.discovery), config))
}

fn scan_at(root: &Path, config: &Config) -> anyhow::Result<SysfsScan> {
    let root = Root::open(root)?;
    Ok(scan(&root, &config.discovery)?)
}
