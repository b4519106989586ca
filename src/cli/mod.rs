//! The command line: what can be typed, and what each verb does with it.

mod config;
mod demo;
mod discover;
mod doctor;
mod explain;
mod fixture;
mod http;
mod ixml_agent;
mod output;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::demo::story::Story;

pub use self::doctor::{DoctorArgs, DoctorFormat};
pub use self::explain::{AllocationArgs, ExplainFormat, ExplainVerb, Ids};
pub use self::http::{HttpArgs, HttpChoice, ProbeVerb, StatusArgs, StatusFormat};
pub use self::output::Failure;

/// Kubernetes device plugin for Iluvatar CoreX GPUs.
///
/// Without a verb it runs as the DaemonSet does: it finds the GPUs of this node in /sys, offers
/// them to the kubelet as iluvatar.com/gpu and stays. The other verbs only look.
#[derive(Debug, Parser)]
#[command(name = "ix-device-plugin", version, arg_required_else_help = false)]
#[command(after_help = "Exit codes: 0 well, 1 failed, 2 usage, 3 configuration; doctor has more.")]
pub struct Cli {
    /// What every verb understands.
    #[command(flatten)]
    pub common: Common,
    /// The settings of `run`, which is also what happens without a verb.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

impl Cli {
    /// True for verbs whose own output tells the story; `-v` adds the log to it.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !matches!(self.verb, None | Some(Verb::Run(_)))
    }
}

/// What every verb understands.
#[derive(Args, Debug)]
pub struct Common {
    /// Machine to look at: `/`, a directory with its `sys` and `dev`, or a .node file.
    #[arg(long, global = true, env = "IX_ROOT", default_value = "/", value_name = "PATH")]
    pub root: PathBuf,
    /// Configuration file. At its default place it may be absent; one that you name must be there.
    #[arg(long, global = true, env = "IX_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How log lines look; they go to standard error.
    #[arg(
        long,
        global = true,
        env = "IX_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    /// More log: -v for each event, scan and request, -vv for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Keys of the configuration that can be set from outside.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// Flags and environment variables that go before the configuration file, as in the plugin that
/// this one replaces.
#[derive(Args, Debug)]
pub struct OverrideArgs {
    /// Name of the resource, instead of the file's resourceName.
    #[arg(long, global = true, value_name = "NAME")]
    pub resource_name: Option<String>,
    /// Offer each chip of a board by itself: true or false, instead of the file's flags.splitboard.
    #[arg(long, global = true, env = "SPLIT_BOARD", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub splitboard: Option<String>,
    /// Not supported; refused when true.
    #[arg(long, global = true, env = "USE_VOLCANO", value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub usevolcano: Option<String>,
    /// Not supported; refused when true.
    #[arg(long = "reset_gpu", global = true, env = "RESET_GPU", value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reset_gpu: Option<String>,
}

/// Settings of the daemon.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Where the kubelet listens for plugins and finds their sockets.
    #[arg(
        long,
        env = "IX_KUBELET_DIR",
        default_value = "/var/lib/kubelet/device-plugins",
        value_name = "DIR"
    )]
    pub kubelet_dir: PathBuf,
    /// Where the kubelet tells which pods hold which devices. It need not be there: GPUs that are
    /// pulled out then stay listed as unhealthy for five minutes, instead of until they are free.
    #[arg(
        long,
        env = "IX_POD_RESOURCES_SOCKET",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock",
        value_name = "PATH"
    )]
    pub pod_resources_socket: PathBuf,
    /// Where probes, metrics and status are answered.
    #[command(flatten)]
    pub http: HttpArgs,
}

/// Everything it can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve the kubelet of this node until told to stop (the default).
    Run(RunArgs),
    /// Ask a running plugin whether it is well, for exec probes: exit code 0 if it is, else 1.
    #[command(subcommand)]
    Probe(ProbeVerb),
    /// Show how a running plugin stands: sessions, devices and why they are unhealthy, sources.
    Status(StatusArgs),
    /// Show the boards and chips of a machine, and what a kubelet would be told.
    ///
    /// Every conclusion names its evidence: why chips count as one board, how a node was found.
    /// What is left alone is listed with the reason.
    Discover(DiscoverArgs),
    /// Check this node and say in plain sentences what is wrong and what to do.
    ///
    /// Works on this machine and, with --root, on the mounted root of another one or on a .node
    /// file. Checks that cannot run are reported as skipped.
    #[command(after_long_help = doctor::exit_statuses())]
    Doctor(DoctorArgs),
    /// Show how far apart the chips are, in the words of `ixsmi topo -m`.
    Topology(TopologyArgs),
    /// Write this machine as a .node file: chips, the ports above them and what else judges boards.
    ///
    /// The file is what a bug report needs: `--root FILE` shows anyone what you see.
    Snapshot(SnapshotArgs),
    /// Work with .node files.
    #[command(subcommand)]
    Fixture(FixtureVerb),
    /// Work with configuration files.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Say why the plugin answers as it does.
    #[command(subcommand)]
    Explain(ExplainVerb),
    /// Run the plugin against a kubelet of its own on a shipped machine: no GPU, no cluster needed.
    Demo(DemoArgs),
    /// Load libixml and answer what the daemon asks of it; the daemon starts this by itself.
    #[command(hide = true)]
    IxmlAgent {
        /// Libraries to try, in order.
        #[arg(last = true)]
        libraries: Vec<PathBuf>,
    },
}

/// How `discover` prints.
#[derive(Args, Debug)]
pub struct DiscoverArgs {
    /// `table` and `tree` for people, `json` and `yaml` for scripts, `dot` for Graphviz, `udev`
    /// for rules that link /dev/iluvatar-by-path/board-ADDRESS-chipN.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: DiscoverFormat,
}

/// Formats of `discover`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "DiscoverArgs::output says what each is for")]
pub enum DiscoverFormat {
    Table,
    Tree,
    Json,
    Yaml,
    Dot,
    Udev,
}

/// How `topology` prints.
#[derive(Args, Debug)]
pub struct TopologyArgs {
    /// `table` for people, `json` for scripts.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: TopologyFormat,
}

/// Formats of `topology`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "TopologyArgs::output says what each is for")]
pub enum TopologyFormat {
    Table,
    Json,
}

/// Where `snapshot` writes.
#[derive(Args, Debug)]
pub struct SnapshotArgs {
    /// File to write; standard output if absent.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Work with .node files.
#[derive(Debug, Subcommand)]
pub enum FixtureVerb {
    /// Make the machine's files below DIR; device nodes become ordinary files.
    Unpack {
        /// The .node file.
        file: PathBuf,
        /// Made if it is not there.
        directory: PathBuf,
    },
    /// Say whether a file is a machine, and what discovery finds on it.
    Check {
        /// The .node file.
        file: PathBuf,
    },
}

/// Work with configuration files.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every problem of a file, or "ok" and the configuration that it means.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
}

/// What `demo` plays.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Machine to play on; a shipped one with 16 chips if absent.
    #[arg(long, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Which part to play.
    #[arg(long, default_value = "all", value_name = "NAME")]
    pub story: Story,
    /// `text` for people, `json` for scripts: one object a line.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: DemoFormat,
}

/// Formats of `demo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "DemoArgs::output says what each is for")]
pub enum DemoFormat {
    Text,
    Json,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Does what was asked.
///
/// # Errors
/// [`Failure`], which knows its exit code.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    let common = &cli.common;
    match cli.verb {
        None => run::run(common, &cli.run),
        Some(Verb::Run(args)) => run::run(common, &args),
        Some(Verb::Probe(verb)) => http::probe(verb),
        Some(Verb::Status(args)) => http::status(&args),
        Some(Verb::Discover(args)) => discover::discover(common, args.output),
        Some(Verb::Doctor(args)) => doctor::doctor(common, &args),
        Some(Verb::Topology(args)) => discover::topology(common, args.output),
        Some(Verb::Snapshot(args)) => discover::snapshot(common, args.output.as_deref()),
        Some(Verb::Fixture(FixtureVerb::Unpack { file, directory })) => {
            fixture::unpack(&file, &directory)
        }
        Some(Verb::Fixture(FixtureVerb::Check { file })) => fixture::check(common, &file),
        Some(Verb::Config(ConfigVerb::Check { file })) => config::check(common, &file),
        Some(Verb::Explain(ExplainVerb::Allocation(args))) => explain::allocation(common, &args),
        Some(Verb::Demo(args)) => demo::demo(common, &args),
        Some(Verb::IxmlAgent { libraries }) => ixml_agent::serve(&libraries),
    }
}
