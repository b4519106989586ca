//! The address of the daemon's HTTP server, and the verbs that ask it.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};

use super::output::{Failure, paint, print};
use super::run;
use crate::host::http_client::{HttpResponse, get, reached_at};
use crate::wire::report::status::Status;
use crate::wire::report::status_table::status_table;

/// How long a running plugin may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// An address, or no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpChoice {
    /// No server.
    Off,
    /// This address.
    At(SocketAddr),
}

impl HttpChoice {
    /// The address; none where there is no server.
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for HttpChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            "not an IP address with a port; write for example 0.0.0.0:9476 or [::]:9476, or off"
                .to_owned()
        })
    }
}

/// Where the daemon serves HTTP.
#[derive(Args, Clone, Copy, Debug)]
pub struct ServerArgs {
    /// Address of the HTTP server for /livez, /readyz, /metrics and /status, or `off`. While the
    /// port is taken the plugin works without it and tries again.
    #[arg(long, env = "IX_HTTP", default_value = "0.0.0.0:9476", value_name = "ADDR")]
    pub http: HttpChoice,
}

/// Where a running plugin is asked.
#[derive(Args, Clone, Copy, Debug)]
pub struct ClientArgs {
    /// Address of the running plugin's HTTP server: its own --http.
    #[arg(long, env = "IX_HTTP", default_value = "0.0.0.0:9476", value_name = "ADDR")]
    pub http: HttpChoice,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ProbeVerb {
    /// Exit with 0 if the main loops are making progress, else with 1.
    ///
    /// A missing kubelet or GPU does not count: a restart would not help.
    #[command(after_long_help = "Examples:
  ix-device-plugin probe live")]
    Live(ClientArgs),
    /// Exit with 0 if the kubelet has the list of every resource, else with 1.
    ///
    /// Also 0 if a newer instance of the plugin serves the kubelet.
    #[command(after_long_help = "Examples:
  ix-device-plugin probe ready
  ix-device-plugin probe ready --http 10.0.0.7:9476")]
    Ready(ClientArgs),
}

/// Whom `status` asks, and how it prints.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The running plugin.
    #[command(flatten)]
    pub http: ClientArgs,
    /// `table` for people, `json` for scripts.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: StatusFormat,
}

/// Formats of `status`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "StatusArgs::output explains each")]
pub enum StatusFormat {
    Table,
    Json,
}

/// Prints the plugin's answer if it is positive; otherwise the answer is the error.
pub(super) fn probe(verb: ProbeVerb) -> Result<(), Failure> {
    let (args, path) = match verb {
        ProbeVerb::Live(args) => (args, "/livez"),
        ProbeVerb::Ready(args) => (args, "/readyz"),
    };
    let HttpResponse { code, text } = ask(args, path)?;
    match code {
        200 => print(&text),
        503 => Err(anyhow!("{}", text.trim_end()).into()),
        _ => Err(unexpected(path, code)),
    }
}

pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let HttpResponse { code, text } = ask(args.http, "/status")?;
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

fn ask(args: ClientArgs, path: &str) -> anyhow::Result<HttpResponse> {
    let HttpChoice::At(address) = args.http else {
        return Err(anyhow!(
            "--http (IX_HTTP) is off: there is no server to ask; give the address of the running \
             plugin"
        ));
    };
    Ok(run::runtime()?.block_on(get(reached_at(address), path, ANSWER_TIMEOUT))?)
}
