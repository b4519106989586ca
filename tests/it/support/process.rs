//! The built binary as a process of its own, asked over HTTP and by its JSON log.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use ix_device_plugin::model::log_event::LogEvent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::watch;

use super::clock::{eventually, soon};
use super::http;
use super::proc_status;

/// A running plugin; dropping it is `kill -9`.
pub(crate) struct PluginProcess {
    child: Child,
    log: watch::Receiver<Vec<Value>>,
}

impl PluginProcess {
    /// Runs a command that logs JSON to standard error, as `NodeRig::command` does.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // What is no event, such as a panic, is text.
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                sender.send_modify(|log: &mut Vec<Value>| log.push(event));
            }
        });
        Self { child, log }
    }

    /// Waits until the log has so many events with these fields, and returns the last of them.
    pub(crate) async fn events(
        &self,
        what: &str,
        count: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let nth = |log: &Vec<Value>| log.iter().filter(|it| wanted(it)).nth(count - 1).cloned();
        let mut log = self.log.clone();
        let logged = soon(what, log.wait_for(|log| nth(log).is_some())).await;
        let logged = logged.map(|log| nth(&log).unwrap());
        logged.unwrap_or_else(|_| panic!("it ended without {what}: {:#?}", self.log()))
    }

    /// Waits for a log event with these fields.
    pub(crate) async fn event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.events(what, 1, wanted).await
    }

    /// Waits for the first warning.
    pub(crate) async fn warning(&self) -> Value {
        self.event("a warning", |event| event["level"] == "WARN").await
    }

    /// Every event so far that is worse than `INFO`.
    pub(crate) fn warnings(&self) -> Vec<Value> {
        let is_one = |event: &&Value| !["DEBUG", "INFO"].map(Value::from).contains(&event["level"]);
        self.log().iter().filter(is_one).cloned().collect()
    }

    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.borrow().clone()
    }

    /// Where it answers over HTTP.
    pub(crate) async fn address(&self) -> SocketAddr {
        let has_bound = |event: &Value| event["event"] == LogEvent::HttpListening.name();
        let event = self.event("an address", has_bound).await;
        event["address"].as_str().unwrap().parse().unwrap()
    }

    /// Waits until a page contains `wanted`.
    pub(crate) async fn shows(&self, page: &str, wanted: &str) {
        http::shows(self.address().await, page, wanted).await;
    }

    /// Waits until the document of `/status` is as `wanted`.
    pub(crate) async fn until_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        http::until_status(self.address().await, what, wanted).await;
    }

    /// The sum of a metric's series with these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> u64 {
        http::metric(self.address().await, name, labels).await
    }

    /// Waits until that sum is at least so much.
    pub(crate) async fn counts(&self, name: &str, labels: &str, at_least: u64) {
        let address = self.address().await;
        let is_reached =
            async || (http::metric(address, name, labels).await >= at_least).then_some(());
        eventually(&format!("{at_least} of {name}{{{labels}}}"), is_reached).await;
    }

    /// Scans that ended, well or not.
    pub(crate) async fn scans(&self) -> u64 {
        self.metric(SCANS, "").await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// The exit code, once it has ended and its log is complete.
    pub(crate) async fn ends(&mut self) -> Option<i32> {
        let mut log = self.log.clone();
        soon("its end", async { while log.changed().await.is_ok() {} }).await;
        self.child.wait().unwrap().code()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// A file of its directory in /proc.
    pub(crate) fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap()
    }

    /// Memory in KiB: `VmRSS`, or `RssAnon`, which leaves out the pages of files, for those come and
    /// go as the kernel has room.
    pub(crate) fn memory(&self, kind: &str) -> u64 {
        proc_status::memory(self.child.id(), kind)
    }
}

/// The metric that counts scans that ended.
pub(crate) const SCANS: &str = "rescan_duration_seconds_count";

impl Drop for PluginProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
