//! Where the daemon answers over HTTP, and the verbs that ask it there.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};

use super::output::{Failure, paint, print};
use super::run;
use crate::host::http_client::{Answer, get, reached_at};
use crate::wire::report::status::Status;
use crate::wire::report::status_table::status_table;

/// How long a running plugin may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpChoice {
    /// Not at all.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for HttpChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            "an IP address with a port is wanted, for example 0.0.0.0:9476 or [::]:9476, or off"
                .to_owned()
        })
    }
}

/// Where the plugin answers.
#[derive(Args, Clone, Copy, Debug)]
pub struct HttpArgs {
    /// Where the plugin answers /livez, /readyz, /metrics and /status: an address with a port, or
    /// `off`. A port that is taken is tried again, and keeps nothing else from working.
    #[arg(long, env = "IX_HTTP", default_value = "0.0.0.0:9476", value_name = "ADDR")]
    pub http: HttpChoice,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ProbeVerb {
    /// Whether the plugin's own loops come round; it is not for a kubelet or GPU that is away.
    Live(HttpArgs),
    /// Whether the kubelet has the list of every resource, or there is no kubelet.
    Ready(HttpArgs),
}

/// What `status` shows.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Where the plugin answers.
    #[command(flatten)]
    pub http: HttpArgs,
    /// `table` for people, `json` for scripts.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: StatusFormat,
}

/// Formats of `status`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "StatusArgs::output says what each is for")]
pub enum StatusFormat {
    Table,
    Json,
}

/// What the plugin says goes to standard output if all is well, and is the error if not.
pub(super) fn probe(verb: ProbeVerb) -> Result<(), Failure> {
    let (args, path) = match verb {
        ProbeVerb::Live(args) => (args, "/livez"),
        ProbeVerb::Ready(args) => (args, "/readyz"),
    };
    let Answer { code, text } = ask(args, path)?;
    match code {
        200 => print(&text),
        503 => Err(anyhow!("{}", text.trim_end()).into()),
        _ => Err(unexpected(path, code)),
    }
}

pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let Answer { code, text } = ask(args.http, "/status")?;
    if code != 200 {
        return Err(unexpected("/status", code));
    }
    match args.output {
        StatusFormat::Json => print(&text),
        StatusFormat::Table => {
            let status: Status =
                serde_json::from_str(&text).context("this is not the status of a plugin")?;
            print(&status_table(&status, paint()))
        }
    }
}

fn unexpected(path: &str, code: u16) -> Failure {
    anyhow!("{path} was answered with HTTP status {code}; is this the plugin's address?").into()
}

fn ask(args: HttpArgs, path: &str) -> anyhow::Result<Answer> {
    let HttpChoice::At(address) = args.http else {
        return Err(anyhow!("--http (IX_HTTP) is off, so there is nobody to ask"));
    };
    Ok(run::runtime()?.block_on(get(reached_at(address), path, PATIENCE))?)
}
