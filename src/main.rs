//! ix-device-plugin: parses the command line, sets up the log, runs the verb, names the exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use ix_device_plugin::cli::{self, Cli, Common, Failure, LogFormat};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.common, cli.is_quiet());
    let (error, code) = match cli::execute(cli) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => (error, 1),
        Err(Failure::Configuration(error)) => (error, 3),
        Err(Failure::Found(code)) => return ExitCode::from(code),
    };
    eprintln!("error: {error:#}");
    ExitCode::from(code)
}

/// Log lines go to standard error: standard output belongs to the verbs.
fn start_log(common: &Common, is_quiet: bool) {
    let (ours, others) = match common.verbose {
        0 if is_quiet => (LevelFilter::ERROR, LevelFilter::ERROR),
        0 => (LevelFilter::INFO, LevelFilter::WARN),
        1 => (LevelFilter::DEBUG, LevelFilter::WARN),
        _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    let levels = Targets::new().with_target("ix_device_plugin", ours).with_default(others);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(levels);
    match common.log_format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}
