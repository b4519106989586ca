//! ix-device-plugin: parses the command line, sets up the log, runs the verb, returns the exit code.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use ix_device_plugin::cli::{self, Cli, Failure, LogArgs, LogFormat};

fn main() -> ExitCode {
    let cli = match Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error),
    };
    if let Some(log) = cli.log() {
        start_log(log, cli.is_quiet());
    }
    let (error, code) = match cli::execute(cli) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => (error, 1),
        Err(Failure::Configuration(error)) => (error, 3),
        Err(Failure::Found(code)) => return ExitCode::from(code),
    };
    // `eprintln!` would panic if standard error is closed.
    drop(writeln!(io::stderr(), "error: {error:#}"));
    ExitCode::from(code)
}

/// Help and version go to standard output, wrong usage to standard error with exit code 2.
fn print_usage(error: &clap::Error) -> ExitCode {
    drop(error.print());
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Log lines go to standard error: standard output belongs to the verbs.
fn start_log(log: &LogArgs, is_quiet: bool) {
    let (ours, others) = match log.verbose {
        0 if is_quiet => (LevelFilter::ERROR, LevelFilter::ERROR),
        0 => (LevelFilter::INFO, LevelFilter::WARN),
        1 => (LevelFilter::DEBUG, LevelFilter::WARN),
        _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    let levels = Targets::new().with_target("ix_device_plugin", ours).with_default(others);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(levels);
    match log.log_format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}
