//! `run`: the daemon, until SIGTERM or SIGINT.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::output::Failure;
use super::{RunArgs, config};
use crate::app::{self, DaemonSettings, RunError};
use crate::daemon::ixml_source::IxmlSettings;
use crate::decide::node::removed::Retention;
use crate::host::ixml::search_path::LibraryEnv;
use crate::host::other_mode::live_socket;
use crate::host::root::Root;
use crate::model::config::{Config, ServingMode};
use crate::model::ixml::IxmlChoice;
use crate::model::log_event::LogEvent;
use crate::model::rescan::RescanTrigger;
use crate::wire::config_yaml::effective_json;

pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let runtime = runtime()?;
    let signals = runtime.block_on(async { Signals::listen() })?;
    let source = config::source(&args.config);
    let config = source.load().map_err(|error| Failure::Configuration(error.into()))?;
    refuse_other_mode(config.mode, &args.kubelet_dir)?;
    let root = Root::open(&args.machine.root).map_err(anyhow::Error::new)?;
    log_starting(args, source.path(), &config);
    let dra = match config.mode {
        ServingMode::DevicePlugin => None,
        ServingMode::Dra => Some(runtime.block_on(args.dra.settings(&args.kubelet_dir))?),
    };
    let settings = DaemonSettings {
        root: Arc::new(root),
        config,
        config_source: Some(source),
        kubelet_directory: args.kubelet_dir.clone(),
        pod_resources_socket: Some(args.pod_resources_socket.clone()),
        retention: Retention::default(),
        ixml: Some(IxmlSettings::new(IxmlChoice::Off, library_env())),
        http: args.http.http.address(),
        inotify: true,
        uevents: true,
        dra,
    };
    let served = runtime.block_on(serve(settings, signals));
    // A read or write that hangs must not keep the process from ending.
    runtime.shutdown_background();
    served.map_err(|error| match error {
        RunError::Configuration(_) => Failure::Configuration(error.into()),
        RunError::Task(_) => Failure::Failed(error.into()),
    })
}

fn log_starting(args: &RunArgs, config_file: &Path, config: &Config) {
    info!(
        event = LogEvent::Starting.name(),
        version = env!("CARGO_PKG_VERSION"),
        root = %args.machine.root.display(),
        kubelet_dir = %args.kubelet_dir.display(),
        config_file = %config_file.display(),
        config = %effective_json(config),
        "starting"
    );
}

/// Two modes on one node would each allocate GPUs that the other has allocated.
fn refuse_other_mode(mode: ServingMode, plugin_directory: &Path) -> Result<(), Failure> {
    let Some(socket) = live_socket(mode, plugin_directory) else { return Ok(()) };
    let (active, other) = match mode {
        ServingMode::DevicePlugin => ("device-plugin", "dra"),
        ServingMode::Dra => ("dra", "device-plugin"),
    };
    Err(Failure::from(anyhow::anyhow!(
        "mode {other} serves this node, at {}; a node has one mode; stop that pod before this one \
         starts in mode {active}",
        socket.display()
    )))
}

fn library_env() -> LibraryEnv {
    LibraryEnv {
        ld_library_path: std::env::var_os("LD_LIBRARY_PATH"),
        corex_home: std::env::var_os("COREX_HOME").map(Into::into),
    }
}

/// One thread serves all: the work is little and the memory stays small.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

async fn serve(settings: DaemonSettings, signals: Signals) -> Result<(), RunError> {
    let bound = app::build(settings);
    let (triggers, reload) = (bound.triggers.clone(), Arc::clone(&bound.reload));
    let reload = move || {
        reload.notify_one();
        // A full channel already holds a reason to scan.
        let _ = triggers.try_send(RescanTrigger::Request);
    };
    bound.run_until_stopped(signals.asked_to_stop(reload)).await
}

/// Listened to before anything else is done: the first process of a container has no default
/// actions, so that a signal which comes too early would be lost.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; SIGHUP reloads in the meantime.
    async fn asked_to_stop(mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return info!(event = LogEvent::Stopping.name(), "SIGTERM: stopping"),
                _ = self.interrupt.recv() => return info!(event = LogEvent::Stopping.name(), "SIGINT: stopping"),
                _ = self.hangup.recv() => {
                    info!(
                        event = LogEvent::ReloadRequested.name(),
                        "SIGHUP: rescanning the machine and rereading the configuration"
                    );
                    reload();
                }
            }
        }
    }
}
