//! `doctor`: checks a node and prints what to do.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::http::ClientArgs;
use super::output::{Failure, json, paint, print};
use super::{ConfigArgs, MachineArgs, config};
use crate::decide::doctor::diagnose;
use crate::host::doctor::read_facts;
use crate::host::root::Root;
use crate::model::doctor::check::Check;
use crate::model::doctor::finding::exit_status;
use crate::wire::report::doctor::{document, table};

/// What `doctor` reads, and how it prints.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// The kubelet's directory for device plugin sockets. Default: /var/lib/kubelet/device-plugins
    /// below the root.
    #[arg(long, env = "IX_KUBELET_DIR", value_name = "DIR")]
    pub kubelet_dir: Option<PathBuf>,
    /// `table` for people, `json` for scripts.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: DoctorFormat,
    /// The plugin that runs on the node.
    #[command(flatten)]
    pub http: ClientArgs,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Formats of `doctor`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "DoctorArgs::output explains each")]
pub enum DoctorFormat {
    Table,
    Json,
}

pub(super) fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let source = config::source(&args.config);
    let root = Root::open(&args.machine.root).map_err(anyhow::Error::new)?;
    let plugin = args.http.http.address();
    let report = diagnose(&read_facts(&root, args.kubelet_dir.as_deref(), &source, plugin));
    print(&match args.output {
        DoctorFormat::Table => table(&report, paint()),
        DoctorFormat::Json => json(&document(&report))?,
    })?;
    match exit_status(&report) {
        0 => Ok(()),
        status => Err(Failure::Found(status)),
    }
}

/// The end of the help text: examples, and each check with its exit code.
pub(super) fn after_help() -> String {
    let mut text = "Examples:
  ix-device-plugin doctor
  ix-device-plugin doctor -o json --root fixtures/doctor/all-well.node

Exit codes: 0 if no check failed or warned; otherwise the code of the first failure, or of the
first warning if nothing failed:

"
    .to_owned();
    for check in Check::ALL {
        let (status, question) = (check.exit_status(), check.question());
        text.push_str(&format!("  {status}  {:<19}{question}\n", check.name()));
    }
    text.push_str("\n1, 2 and 3 are those of every command: doctor could not run.");
    text
}
