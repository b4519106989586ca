//! The plugin manager: finds registration sockets, registers whoever serves them, and keeps connected
//! to their services until the sockets are gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection;
use super::health;
use super::path_client::PathClient;
use super::settings::{DraKubeletSettings, RegistrationFault};
use super::state::{RegisteredDriver, SharedState};
use crate::decide::dra::socket_paths::REGISTRY;
use crate::decide::kubelet::session::SocketIdentity;
use crate::host::{files, kubelet};
use crate::wire::dra_registration::DRA_PLUGIN;
use crate::wire::pluginregistration_v1::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};

const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";
/// Versions of the DRA protocol that this kubelet knows.
const KNOWN_VERSIONS: [&str; 2] = ["v1.DRAPlugin", "v1beta1.DRAPlugin"];

/// What the tasks of one process work with.
#[derive(Clone)]
pub(super) struct DraContext {
    pub(super) settings: DraKubeletSettings,
    pub(super) state: SharedState,
    /// Cuts all connections at the end of the process.
    pub(super) cut: CancellationToken,
}

/// A registration socket that is served by a task.
struct FollowedSocket {
    identity: SocketIdentity,
    _stop: DropGuard,
}

/// Compares sockets with registrations until the task is dropped.
pub(super) async fn run(context: DraContext) {
    let mut sockets: BTreeMap<PathBuf, FollowedSocket> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let found = registration_sockets(&context.settings.root.join(REGISTRY));
        sockets.retain(|path, socket| found.get(path) == Some(&socket.identity));
        for (path, identity) in found {
            sockets.entry(path.clone()).or_insert_with(|| {
                let stop = CancellationToken::new();
                tasks.spawn(follow(context.clone(), path, stop.clone()));
                FollowedSocket { identity, _stop: stop.drop_guard() }
            });
        }
        tokio::select! {
            () = sleep(context.settings.deadlines.reconcile) => {}
            Some(ended) = tasks.join_next() => ended.expect("a task of the kubelet panicked"),
        }
    }
}

/// Names that begin with a dot are ignored.
fn registration_sockets(directory: &Path) -> BTreeMap<PathBuf, SocketIdentity> {
    let listed = files::list_directory(directory).unwrap_or_default().into_iter();
    let visible = listed.filter(|listed| !listed.name.starts_with('.'));
    let paths = visible.map(|listed| directory.join(listed.name));
    paths.filter_map(|path| Some((path.clone(), kubelet::socket_identity(&path)?))).collect()
}

/// Registers, with pauses after failures, then stays connected until `stop`; then deregisters.
async fn follow(context: DraContext, socket: PathBuf, stop: CancellationToken) {
    let registered = stop.run_until_cancelled(register_with_backoff(&context, &socket)).await;
    if let Some(driver) = registered {
        let name = driver.name.clone();
        let connected = connection::keep(context.clone(), socket.clone(), driver);
        stop.run_until_cancelled(connected).await;
        health::forget(&context, &name);
    }
    context.state.send_modify(|state| {
        state.drivers.remove(&socket);
    });
}

async fn register_with_backoff(context: &DraContext, socket: &Path) -> RegisteredDriver {
    loop {
        let earliest = context.state.borrow().backoff.get(socket).map(|(_, at)| *at);
        if let Some(earliest) = earliest {
            sleep_until(earliest).await;
        }
        context.state.send_modify(|state| state.attempts += 1);
        match register(context, socket).await {
            Ok(driver) => {
                context.state.send_modify(|state| {
                    state.registrations += 1;
                    state.backoff.remove(socket);
                });
                return driver;
            }
            Err(error) => context.state.send_modify(|state| {
                state.drivers.remove(socket);
                state.last_error = Some(error);
                let failures = state.backoff.get(socket).map_or(0, |(failures, _)| *failures);
                let wait = backoff(context, failures);
                state.backoff.insert(socket.to_owned(), (failures + 1, Instant::now() + wait));
            }),
        }
    }
}

fn backoff(context: &DraContext, failures: u32) -> Duration {
    let deadlines = &context.settings.deadlines;
    let doubled = deadlines.first_backoff.saturating_mul(1 << failures.min(10));
    doubled.min(deadlines.longest_backoff)
}

async fn register(context: &DraContext, socket: &Path) -> Result<RegisteredDriver, String> {
    let deadlines = context.settings.deadlines;
    let mut fault = None;
    context.state.send_modify(|state| fault = state.faults.pop_front());
    let dialled = timeout(deadlines.dial, PathClient::dial(socket)).await;
    let mut client = flat(dialled, "dial")?;
    if fault == Some(RegistrationFault::GetInfo) {
        return Err("GetInfo: context deadline exceeded".to_owned());
    }
    let info = timeout(deadlines.get_info, client.call(GET_INFO, &InfoRequest {})).await;
    let info: PluginInfo = flat(info, "GetInfo")?;
    let accepted = match &fault {
        Some(RegistrationFault::Refused(why)) => Err(why.clone()),
        _ => accept(context, socket, info),
    };
    if fault == Some(RegistrationFault::Notify) {
        return Err("NotifyRegistrationStatus: transport is closing".to_owned());
    }
    let status = RegistrationStatus {
        plugin_registered: accepted.is_ok(),
        error: accepted.as_ref().err().cloned().unwrap_or_default(),
    };
    let notified = timeout(deadlines.notify, client.call(NOTIFY, &status)).await;
    let _: RegistrationStatusResponse = flat(notified, "NotifyRegistrationStatus")?;
    accepted
}

/// Checks what the plugin is, and adds it.
fn accept(
    context: &DraContext,
    socket: &Path,
    info: PluginInfo,
) -> Result<RegisteredDriver, String> {
    if info.r#type != DRA_PLUGIN {
        return Err(format!("no handler registered for plugin type: {}", info.r#type));
    }
    let is_known = |version: &String| KNOWN_VERSIONS.contains(&version.as_str());
    if !info.supported_versions.iter().any(is_known) {
        let listed = info.supported_versions.join(", ");
        return Err(format!("none of the plugin's versions is supported: {listed}"));
    }
    let mut driver = RegisteredDriver {
        name: info.name,
        endpoint: info.endpoint.into(),
        versions: info.supported_versions,
        order: 0,
        channel: None,
    };
    let mut result = Ok(driver.clone());
    context.state.send_modify(|state| {
        if state.drivers.values().any(|it| it.endpoint == driver.endpoint) {
            result = Err(format!("endpoint {} already registered", driver.endpoint.display()));
            return;
        }
        driver.order = state.attempts;
        state.drivers.insert(socket.to_owned(), driver);
    });
    result
}

fn flat<T>(
    done: Result<std::io::Result<T>, tokio::time::error::Elapsed>,
    what: &str,
) -> Result<T, String> {
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: context deadline exceeded")),
    }
}
