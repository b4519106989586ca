//! Groups of flags. A verb takes the groups that it uses and no others, so its help lists only what
//! has an effect.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{StringValueParser, TypedValueParser, ValueParserFactory};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, Args, Command, Error, ValueEnum};

use crate::parse::config::{Override, Overrides};

/// The machine that is read.
#[derive(Args, Debug)]
pub struct MachineArgs {
    /// Machine to read: `/`, a directory with its `sys` and `dev`, or a .node file.
    #[arg(long, env = "IX_ROOT", default_value = "/", value_name = "PATH")]
    pub root: PathBuf,
}

/// The configuration file.
#[derive(Args, Debug)]
pub struct FileArgs {
    /// Configuration file. Default: /ixconfig/ix-config if it exists; a file that you name must
    /// exist. If FILE.NODE exists beside it, it is read instead on that node, whose name is `NODE_NAME`
    /// or else the host name.
    #[arg(long, env = "IX_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The configuration file, and what overrides it.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The file.
    #[command(flatten)]
    pub file: FileArgs,
    /// What overrides it.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// Flags and environment variables that override the configuration file. They have the names of
/// the replaced plugin.
#[derive(Args, Debug)]
pub struct OverrideArgs {
    /// How GPUs are offered: `device-plugin` or `dra`. Overrides `mode` of the file.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Override>,
    /// Resource name. Overrides `resourceName` of the file.
    #[arg(long, value_name = "NAME")]
    pub resource_name: Option<Override>,
    /// Offer each chip of a board as a device of its own: true or false. Overrides
    /// `flags.splitboard` of the file.
    #[arg(long, env = "SPLIT_BOARD", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub splitboard: Option<Override>,
    /// Not supported; an error when true.
    #[arg(long, env = "USE_VOLCANO", value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub usevolcano: Option<Override>,
    /// Not supported; an error when true.
    #[arg(long = "reset_gpu", env = "RESET_GPU", value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reset_gpu: Option<Override>,
}

impl OverrideArgs {
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            mode: self.mode.clone(),
            resource_name: self.resource_name.clone(),
            split_board: self.splitboard.clone(),
            use_volcano: self.usevolcano.clone(),
            reset_gpu: self.reset_gpu.clone(),
        }
    }
}

/// The log of a verb that runs the daemon.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// Format of log lines, which go to standard error.
    #[arg(long, env = "IX_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Log more: -v adds each event, scan and request; -vv adds everything else.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Formats of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl ValueParserFactory for Override {
    type Parser = OverrideParser;

    fn value_parser() -> Self::Parser {
        OverrideParser
    }
}

/// Reads the text of a flag or variable and keeps which of the two it was, so that an error can
/// name it.
#[derive(Clone, Debug)]
pub struct OverrideParser;

impl TypedValueParser for OverrideParser {
    type Value = Override;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, _: &OsStr) -> Result<Override, Error> {
        // clap calls `parse_ref_`, which knows the source.
        Err(Error::new(ErrorKind::InvalidValue))
    }

    fn parse_ref_(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<Override, Error> {
        let text = StringValueParser::new().parse_ref(command, arg, value)?;
        let variable = arg
            .filter(|_| source == ValueSource::EnvVariable)
            .and_then(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()));
        let flag = || format!("--{}", arg.and_then(Arg::get_long).unwrap_or_default());
        Ok(Override { name: variable.unwrap_or_else(flag), text })
    }
}
