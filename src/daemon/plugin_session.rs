//! One resource's session with the kubelet: carries out what `decide::kubelet::session` decides, and
//! reports to it what is observed. Inotify, streams and outcomes are hints; a poll does the same.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tracing::{debug, info, warn};

use super::plugin_service::{PluginService, Sources, Streams};
use super::telemetry::{ResourceTelemetry, WatchMethod};
use super::timer::next_tick;
use crate::decide::kubelet::session::{
    Action, BindOutcome, Observation, OwnSocketState, RestartReason, Session, SocketIdentity,
};
use crate::decide::kubelet::session_log::{SessionLog, Visibility};
use crate::host::abortable_stream::AbortableStream;
use crate::host::accept::accept_with_backoff;
use crate::host::authority_stream::NormalisedStream;
use crate::host::directory_watch::DirectoryWatch;
use crate::host::kubelet::{self, KUBELET_SOCKET, Peer, PlacedSocket, RegisterError};
use crate::model::config::StartVerification;
use crate::model::log_event::LogEvent;
use crate::model::session::{Progress, RegisterOutcome};
use crate::wire::device_plugin::register_request;
use crate::wire::v1beta1::device_plugin_server::DevicePluginServer;

/// How often to observe without a hint.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The same while the kubelet has the list and inotify reports every change of the directory: a
/// stream or a server that ends is a hint of its own, so nothing depends on this interval.
const WATCHED_INTERVAL: Duration = Duration::from_secs(10);
/// How long a server may take to end its streams before its connections are cut.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// What a session serves, and where.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The kubelet's device plugin directory.
    pub directory: PathBuf,
    /// File name of our socket in it.
    pub socket_name: String,
    /// For example `iluvatar.com/gpu`.
    pub resource: String,
    /// The kubelet learns it at registration alone.
    pub verification: StartVerification,
    /// False: the directory is only polled.
    pub inotify: bool,
}

/// Serves and registers until `stop`, whatever happens to the kubelet. When this returns, the server
/// and its streams have ended and the socket is removed.
pub async fn run(
    settings: SessionSettings,
    sources: Sources,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) {
    let seed = u64::from(std::process::id());
    let mut driver = Driver {
        machine: Session::new(seed),
        telemetry: sources.telemetry.resource(&settings.resource),
        settings,
        sources,
        progress,
        server: None,
        registering: JoinSet::new(),
        watch: None,
        last_observation: None,
        kubelet_peer: None,
        log: SessionLog::default(),
        started: Instant::now(),
    };
    driver.telemetry.note(|notes| notes.followed = WatchMethod::Polls);
    while !stop.is_cancelled() {
        let observation = driver.observe().await;
        driver.advance(observation, &stop).await;
    }
    driver.close().await;
    driver.progress.send_replace(Progress::Waiting);
}

struct Driver {
    settings: SessionSettings,
    sources: Sources,
    progress: watch::Sender<Progress>,
    telemetry: ResourceTelemetry,
    machine: Session,
    server: Option<RunningServer>,
    /// At most one call.
    registering: JoinSet<Result<Peer, RegisterError>>,
    watch: Option<DirectoryWatch>,
    last_observation: Option<Observation>,
    /// The process that accepted our last registration. Only its streams count.
    kubelet_peer: Option<Peer>,
    log: SessionLog,
    started: Instant,
}

struct RunningServer {
    identity: SocketIdentity,
    streams: watch::Receiver<Streams>,
    closing: CancellationToken,
    task: JoinSet<Result<(), tonic::transport::Error>>,
    /// Cuts the connections that clients still hold when the server has ended.
    severed: DropGuard,
}

impl Driver {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn own_path(&self) -> PathBuf {
        self.settings.directory.join(&self.settings.socket_name)
    }

    async fn observe(&mut self) -> Observation {
        if self.watch.is_none() && self.settings.inotify {
            let opened = DirectoryWatch::open(&self.settings.directory);
            self.telemetry.note(|notes| notes.followed = WatchMethod::of(&opened));
            self.watch = opened.ok();
        }
        // The kubelet's socket first: a kubelet removes our socket before it makes its own, so after
        // a new one is observed, ours is observed to be missing.
        let kubelet = kubelet::socket_identity(&self.settings.directory.join(KUBELET_SOCKET));
        let own_socket = self.own_socket().await;
        let (streams, lost_stream) = self.streams();
        Observation { own_socket, kubelet, streams, lost_stream }
    }

    async fn own_socket(&mut self) -> OwnSocketState {
        let path = self.own_path();
        match (kubelet::socket_identity(&path), &mut self.server) {
            (None, _) => OwnSocketState::Missing,
            // A server that ended by itself has left a dead socket.
            (Some(seen), Some(server)) if seen == server.identity => {
                match server.task.try_join_next() {
                    None if !server.task.is_empty() => OwnSocketState::Ours,
                    _ => OwnSocketState::Foreign { alive: false },
                }
            }
            (Some(_), _) => OwnSocketState::Foreign { alive: kubelet::is_alive(&path).await },
        }
    }

    /// How many streams of the kubelet are open, and whether one has ended.
    fn streams(&self) -> (usize, bool) {
        let Some(server) = &self.server else { return (0, false) };
        let streams = server.streams.borrow();
        (streams.open_of(self.kubelet_peer), streams.has_ended_of(self.kubelet_peer))
    }

    async fn advance(&mut self, observation: Observation, stop: &CancellationToken) {
        let next = self.machine.next(observation, self.now());
        self.publish_progress();
        self.publish_observation(observation);
        match next {
            Action::Bind => {
                let outcome = self.bind();
                self.machine.bound(outcome, self.now());
            }
            Action::Register { timeout } => self.register(timeout),
            Action::Close(reason) => {
                self.log_restart(reason);
                self.close().await;
            }
            Action::Wait { until } => self.wait(until, stop).await,
        }
    }

    fn publish_observation(&mut self, observation: Observation) {
        let last = self.last_observation.replace(observation);
        let is_new = last.is_none_or(|last| last.kubelet != observation.kubelet);
        self.telemetry
            .meters
            .open_streams
            .set(i64::try_from(observation.streams).unwrap_or(i64::MAX));
        self.telemetry.note(|notes| {
            notes.last_step = Instant::now();
            // A killed kubelet leaves its socket behind: only a call shows that it is away.
            if is_new {
                notes.has_kubelet = observation.kubelet.is_some();
            }
        });
    }

    fn publish_progress(&mut self) {
        let progress = match &self.machine {
            machine if machine.is_streaming() => Progress::Streaming,
            machine if machine.has_yielded() => Progress::Yielded,
            _ => Progress::Waiting,
        };
        let has_changed = self.progress.send_if_modified(|last| {
            let has_changed = *last != progress;
            *last = progress;
            has_changed
        });
        if has_changed && progress == Progress::Streaming {
            let visibility = self.log.streaming(self.now());
            self.log_success(visibility, LogEvent::ListReceived, "the kubelet has the list");
            self.telemetry.has_list();
            self.telemetry.note(|notes| notes.last_error = None);
        }
    }

    fn bind(&mut self) -> BindOutcome {
        let path = self.own_path();
        match kubelet::place_socket(&path) {
            Ok(socket) => {
                self.server = Some(self.start_server(socket));
                BindOutcome::Bound
            }
            Err(error) => {
                self.log_failure(
                    LogEvent::ListenFailed,
                    "cannot listen",
                    &format!("{}: {error}", path.display()),
                );
                BindOutcome::Failed
            }
        }
    }

    fn start_server(&self, socket: PlacedSocket) -> RunningServer {
        let (closing, severed) = (CancellationToken::new(), CancellationToken::new());
        let resource = self.settings.resource.clone();
        let (service, streams) =
            PluginService::new(resource, self.sources.clone(), closing.clone());
        let cut = severed.clone();
        let accepted = accept_with_backoff(UnixListenerStream::new(socket.listener));
        let incoming = accepted.map(move |accepted| {
            accepted.map(|stream| NormalisedStream::new(AbortableStream::new(stream, &cut)))
        });
        let serving = Server::builder()
            .add_service(DevicePluginServer::new(service))
            .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let mut task = JoinSet::new();
        task.spawn(serving);
        RunningServer {
            identity: socket.identity,
            streams,
            closing,
            task,
            severed: severed.drop_guard(),
        }
    }

    fn register(&mut self, timeout: Duration) {
        let directory = self.settings.directory.clone();
        let SessionSettings { socket_name, resource, verification, .. } = &self.settings;
        let request = register_request(socket_name, resource, *verification);
        self.registering.abort_all();
        self.registering.detach_all();
        self.registering
            .spawn(async move { kubelet::register(&directory, request, timeout).await });
    }

    fn registered(&mut self, result: Result<Peer, RegisterError>) {
        match result {
            Ok(peer) => {
                self.kubelet_peer = Some(peer);
                let visibility = self.log.registered();
                self.log_success(visibility, LogEvent::Registered, "registered with the kubelet");
                self.record_outcome(RegisterOutcome::Accepted, true);
            }
            Err(error) => {
                let error_text = error.to_string();
                self.log_failure(LogEvent::RegistrationFailed, "cannot register", &error_text);
                self.record_outcome(error.outcome(), !error.is_absent());
            }
        }
    }

    fn record_outcome(&mut self, outcome: RegisterOutcome, has_kubelet: bool) {
        self.machine.registered(outcome, self.now());
        self.telemetry.meters.registrations.count(outcome);
        self.telemetry.note(|notes| {
            notes.has_kubelet = has_kubelet;
            notes.is_registered = outcome == RegisterOutcome::Accepted;
            if notes.is_registered {
                notes.last_error = None;
            }
        });
    }

    /// How long to wait for a hint. Only inotify and streams give hints: the end of a newer
    /// instance that has our place, for example, does not.
    fn longest_wait(&self) -> Duration {
        let is_reported = self.watch.is_some() && self.machine.is_streaming();
        if is_reported { WATCHED_INTERVAL } else { POLL_INTERVAL }
    }

    async fn wait(&mut self, until: Option<Duration>, stop: &CancellationToken) {
        let latest =
            next_tick(self.sources.telemetry.started(), Instant::now(), self.longest_wait());
        let until = until.map_or(latest, |until| latest.min(self.started + until));
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(until) => {}
            result = DirectoryWatch::changed_or_never(self.watch.as_ref()) => {
                if result.is_err() {
                    self.watch = None;
                }
            }
            () = server_changed(self.server.as_mut()) => {}
            Some(ended) = self.registering.join_next() => {
                // A cancelled call has no result.
                if let Ok(result) = ended {
                    self.registered(result);
                }
            }
        }
    }

    fn log_restart(&mut self, reason: RestartReason) {
        let (resource, reason) = (&self.settings.resource, reason.sentence());
        self.telemetry.note(|notes| notes.last_error = Some(reason.to_owned()));
        if self.log.restarted(self.started.elapsed()) == Visibility::Warn {
            let event = LogEvent::SessionRestarted.name();
            warn!(event, resource, reason, "session ended; starting it again");
        } else {
            debug!(resource, reason, "session ended; starting it again");
        }
    }

    fn log_success(&self, visibility: Visibility, event: LogEvent, what: &str) {
        let event = event.name();
        let resource = &self.settings.resource;
        if visibility == Visibility::Info {
            info!(event, resource, "{what}");
        } else {
            debug!(event, resource, "{what}");
        }
    }

    fn log_failure(&mut self, event: LogEvent, what: &str, error: &str) {
        let event = event.name();
        let resource = &self.settings.resource;
        let problem = format!("{what}: {error}; trying again");
        self.telemetry.note(|notes| notes.last_error = Some(problem));
        if self.log.failed(error) == Visibility::Warn {
            warn!(event, resource, error, "{what}; trying again");
        } else {
            debug!(event, resource, error, "{what}; trying again");
        }
    }

    /// Ends the server: first its streams, then its connections. Removes its socket, but not
    /// another instance's. The directory is watched anew, since a mount may have replaced it.
    async fn close(&mut self) {
        self.registering.shutdown().await;
        self.kubelet_peer = None;
        self.watch = None;
        self.telemetry.meters.open_streams.set(0);
        self.telemetry.note(|notes| notes.is_registered = false);
        let Some(server) = self.server.take() else { return };
        let identity = server.identity;
        server.close().await;
        kubelet::remove_socket(&self.own_path(), identity);
    }
}

impl RunningServer {
    /// When this returns, nobody has a stream or a connection of this server.
    async fn close(self) {
        let Self { closing, mut task, severed, mut streams, .. } = self;
        closing.cancel();
        if tokio::time::timeout(CLOSE_TIMEOUT, task.join_next()).await.is_err() {
            task.shutdown().await;
        }
        drop(severed);
        // Each connection holds a sender, in a task of its own that ends once it is cut.
        let ended = async { while streams.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
    }
}

/// Waits until a stream opens or ends, or the server ends; never returns where there is no server.
async fn server_changed(server: Option<&mut RunningServer>) {
    let Some(RunningServer { streams, task, .. }) = server else {
        return std::future::pending().await;
    };
    tokio::select! {
        Ok(()) = streams.changed() => {}
        Some(_) = task.join_next() => {}
        else => std::future::pending().await,
    }
}
