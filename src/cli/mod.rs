//! The command line: what can be typed, and what each verb does with it.

mod args;
mod config;
mod cordon;
mod demo;
mod discover;
mod doctor;
mod dra;
mod explain;
mod explain_claim;
mod fixture;
mod generate;
mod http;
mod ixml_agent;
mod output;
mod run;
mod verb_first;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::demo::story::Story;

pub use self::args::{
    ConfigArgs, FileArgs, LogArgs, LogFormat, MachineArgs, OverrideArgs, OverrideParser,
};
pub use self::cordon::{CordonArgs, CordonFileArgs, UncordonArgs};
pub use self::doctor::{DoctorArgs, DoctorFormat};
pub use self::dra::DraArgs;
pub use self::explain::{AllocationArgs, ExplainFormat, ExplainVerb, Ids};
pub use self::explain_claim::ClaimArgs;
pub use self::http::{ClientArgs, HttpChoice, ProbeVerb, ServerArgs, StatusArgs, StatusFormat};
pub use self::output::Failure;

/// Kubernetes device plugin for Iluvatar CoreX GPUs.
///
/// Without a command it does what `run` does, with the options of `run`. Options may come before or
/// after the command.
#[derive(Debug, Parser)]
#[command(name = "ix-device-plugin", version)]
#[command(override_usage = "ix-device-plugin [COMMAND] [OPTIONS]")]
#[command(after_help = "Exit codes: 0 success, 1 failure, 2 usage, 3 configuration. \
                        `doctor --help` lists its own.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// What the arguments ask for; the first is the program.
    ///
    /// # Errors
    /// As clap: a request for help or the version, or wrong usage.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let command = Self::command();
        let arguments = verb_first::verb_first(&command, arguments);
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// The log of a verb that has one.
    #[must_use]
    pub fn log(&self) -> Option<&LogArgs> {
        match &self.verb {
            Verb::Run(args) => Some(&args.log),
            Verb::Demo(args) => Some(&args.log),
            _ => None,
        }
    }

    /// True for verbs that print what happens by themselves: their log has only errors without `-v`.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !matches!(self.verb, Verb::Run(_))
    }
}

/// Settings of the daemon.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The kubelet's directory for device plugin sockets.
    #[arg(
        long,
        env = "IX_KUBELET_DIR",
        default_value = "/var/lib/kubelet/device-plugins",
        value_name = "DIR"
    )]
    pub kubelet_dir: PathBuf,
    /// The kubelet's pod resources socket, which names the pods that hold devices. Optional: without
    /// it, a removed GPU stays listed as unhealthy for five minutes instead of until it is released.
    #[arg(
        long,
        env = "IX_POD_RESOURCES_SOCKET",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock",
        value_name = "PATH"
    )]
    pub pod_resources_socket: PathBuf,
    /// DRA mode.
    #[command(flatten)]
    pub dra: DraArgs,
    /// The HTTP server.
    #[command(flatten)]
    pub http: ServerArgs,
    /// The machine that is served.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Everything it can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Offer the GPUs of this node to the kubelet until stopped (the default).
    ///
    /// SIGHUP rescans the machine and rereads the configuration. SIGTERM and SIGINT stop it.
    #[command(after_long_help = "Examples:
  ix-device-plugin
  ix-device-plugin run --http 127.0.0.1:9476 --log-format json
  ix-device-plugin run --config my.yaml --splitboard -v")]
    Run(RunArgs),
    /// Ask a running plugin whether it is live or ready, for exec probes.
    #[command(
        subcommand,
        after_long_help = "Examples:
  ix-device-plugin probe live
  ix-device-plugin probe ready"
    )]
    Probe(ProbeVerb),
    /// Show the sessions, devices and sources of a running plugin.
    #[command(after_long_help = "Examples:
  ix-device-plugin status
  ix-device-plugin status -o json --http 10.0.0.7:9476")]
    Status(StatusArgs),
    /// Keep a board or chip from new pods; pods that have it keep it.
    ///
    /// The device is Unhealthy with the reason Cordoned within a second, also after restarts and
    /// reboots, until it is uncordoned. `status` shows which pods still hold it. Works in the pod and
    /// on the node, whether the plugin runs or not.
    #[command(after_long_help = "Examples:
  ix-device-plugin cordon 0000:13:00.0 --reason RMA-1234
  ix-device-plugin cordon --list")]
    Cordon(CordonArgs),
    /// Make a cordoned board or chip available to new pods again.
    #[command(after_long_help = "Examples:
  ix-device-plugin uncordon 0000:13:00.0")]
    Uncordon(UncordonArgs),
    /// Show the boards and chips of a machine, and the devices that the kubelet would get.
    ///
    /// Each conclusion comes with its evidence: why chips count as one board, how a device node was
    /// found. PCI functions that are skipped are listed with the reason.
    #[command(after_long_help = "Examples:
  ix-device-plugin discover
  ix-device-plugin discover -o tree --root fixtures/nodes/bi-v150-x8.node
  ix-device-plugin discover -o json --splitboard")]
    Discover(DiscoverArgs),
    /// Check this node, and print what is wrong and what to do.
    ///
    /// Works on this machine and, with --root, on the mounted root of another one or on a .node
    /// file. Checks that cannot run there are reported as skipped.
    #[command(after_long_help = doctor::after_help())]
    Doctor(DoctorArgs),
    /// Show the distance between the chips, in the words of `ixsmi topo -m`.
    #[command(after_long_help = "Examples:
  ix-device-plugin topology
  ix-device-plugin topology -o json --root fixtures/nodes/bi-v150-x8.node")]
    Topology(TopologyArgs),
    /// Write this machine to a .node file, for a bug report or a test.
    ///
    /// The file has the chips, the ports above them and whatever else decides what is a board, and
    /// nothing more. Others pass it to --root and see the same machine.
    #[command(after_long_help = "Examples:
  ix-device-plugin snapshot
  ix-device-plugin snapshot -o my.node")]
    Snapshot(SnapshotArgs),
    /// Work with .node files: machines as text.
    #[command(
        subcommand,
        after_long_help = "The format:
  # a comment
  [sys/devices/pci0000:14/0000:14:01.0/0000:15:00.0]   a directory, for the lines below it
  vendor = 0x1e3e                                      a file with this text and a newline
  uevent = \"DRIVER=iluvatar\\nPCI_ID=1E3E:0002\\n\"       a file with exactly this text
  config = hex:3e1e0200                                a file with these bytes
  driver -> ../../../../bus/pci/drivers/iluvatar       a symbolic link
  [dev]
  iluvatar3 : c 508:3                                  a character device"
    )]
    Fixture(FixtureVerb),
    /// Work with configuration files.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Explain what the plugin answers to the kubelet.
    #[command(subcommand)]
    Explain(ExplainVerb),
    /// Run the plugin against an embedded kubelet on a shipped machine; needs no GPU and no cluster.
    #[command(after_long_help = "Examples:
  ix-device-plugin demo
  ix-device-plugin demo --story restart -o json
  ix-device-plugin demo --node fixtures/nodes/mr-v100-x4.node --story pods")]
    Demo(DemoArgs),
    /// Print shell completions.
    #[command(after_long_help = "Examples:
  ix-device-plugin completions bash
  ix-device-plugin completions fish")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages, one a verb. `make man` calls it.
    #[command(hide = true)]
    Man {
        /// Existing directory for the pages.
        directory: PathBuf,
    },
    /// Load libixml and answer the daemon, which starts this as a child.
    #[command(hide = true)]
    IxmlAgent {
        /// Libraries to try, in order.
        #[arg(last = true)]
        libraries: Vec<PathBuf>,
    },
}

/// What `discover` reads, and how it prints.
#[derive(Args, Debug)]
pub struct DiscoverArgs {
    /// `table` and `tree` for people, `json` and `yaml` for scripts, `dot` for Graphviz, `udev`
    /// for rules that link /dev/iluvatar-by-path/board-ADDRESS-chipN.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: DiscoverFormat,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Formats of `discover`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "DiscoverArgs::output explains each")]
pub enum DiscoverFormat {
    Table,
    Tree,
    Json,
    Yaml,
    Dot,
    Udev,
}

/// What `topology` reads, and how it prints.
#[derive(Args, Debug)]
pub struct TopologyArgs {
    /// `table` for people, `json` for scripts.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: TopologyFormat,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration file.
    #[command(flatten)]
    pub file: FileArgs,
}

/// Formats of `topology`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "TopologyArgs::output explains each")]
pub enum TopologyFormat {
    Table,
    Json,
}

/// What `snapshot` reads and writes.
#[derive(Args, Debug)]
pub struct SnapshotArgs {
    /// File to write. Default: standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration file.
    #[command(flatten)]
    pub file: FileArgs,
}

/// Work with .node files.
#[derive(Debug, Subcommand)]
pub enum FixtureVerb {
    /// Create the files of a machine below a directory; device nodes become regular files.
    #[command(after_long_help = "Examples:
  ix-device-plugin fixture unpack fixtures/nodes/bi-v150-x8.node my-machine")]
    Unpack {
        /// The .node file.
        file: PathBuf,
        /// Where to create them; created if missing.
        directory: PathBuf,
    },
    /// Check that a file is a .node file, and count what discovery finds in it.
    #[command(after_long_help = "Examples:
  ix-device-plugin fixture check fixtures/nodes/bi-v150-x8.node")]
    Check {
        /// The .node file.
        file: PathBuf,
        /// The configuration file.
        #[command(flatten)]
        config: FileArgs,
    },
}

/// Work with configuration files.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, and it is read once")]
pub enum ConfigVerb {
    /// Print every problem of a file, or `ok` and the effective configuration with its defaults.
    #[command(after_long_help = "Examples:
  ix-device-plugin config check fixtures/configs/good/annotated.yaml
  ix-device-plugin config check fixtures/configs/good/boards.yaml --splitboard")]
    Check {
        /// The configuration file.
        file: PathBuf,
        /// What overrides it.
        #[command(flatten)]
        overrides: OverrideArgs,
    },
    /// Print the JSON Schema of the configuration file, for editors.
    #[command(after_long_help = "Examples:
  ix-device-plugin config schema")]
    Schema,
}

/// What `demo` plays.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// A .node file. Default: a shipped machine with 16 chips.
    #[arg(long, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Which part to play.
    #[arg(long, default_value = "all", value_name = "NAME")]
    pub story: Story,
    /// `text` for people, `json` for scripts: one object a line.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: DemoFormat,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Formats of `demo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "DemoArgs::output explains each")]
pub enum DemoFormat {
    Text,
    Json,
}

/// Does what was asked.
///
/// # Errors
/// [`Failure`], which knows its exit code.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Probe(verb) => http::probe(verb),
        Verb::Status(args) => http::status(&args),
        Verb::Cordon(args) => cordon::cordon(args),
        Verb::Uncordon(args) => cordon::uncordon(&args),
        Verb::Discover(args) => discover::discover(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Topology(args) => discover::topology(&args),
        Verb::Snapshot(args) => discover::snapshot(&args),
        Verb::Fixture(FixtureVerb::Unpack { file, directory }) => {
            fixture::unpack(&file, &directory)
        }
        Verb::Fixture(FixtureVerb::Check { file, config }) => fixture::check(&config, &file),
        Verb::Config(ConfigVerb::Check { file, overrides }) => config::check(&file, &overrides),
        Verb::Config(ConfigVerb::Schema) => config::schema(),
        Verb::Explain(ExplainVerb::Allocation(args)) => explain::allocation(&args),
        Verb::Explain(ExplainVerb::Claim(args)) => explain_claim::claim(&args),
        Verb::Demo(args) => demo::demo(&args),
        Verb::Completions { shell } => generate::completions(shell),
        Verb::Man { directory } => generate::man_pages(&directory),
        Verb::IxmlAgent { libraries } => ixml_agent::serve(&libraries),
    }
}
