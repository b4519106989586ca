//! One resource's session with the kubelet: does what `decide::kubelet::session` says, and tells it what is
//! seen. Inotify, streams and answers are hints to look; a look at intervals is the truth.

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
pub use crate::decide::kubelet::probes::Progress;
use crate::decide::kubelet::session::{
    Action, Observation, OwnSocket, Reason, RegisterOutcome, Session, SocketIdentity,
};
use crate::host::abortable_stream::AbortableStream;
use crate::host::accept::accept_with_backoff;
use crate::host::authority_stream::NormalisedStream;
use crate::host::directory_watch::DirectoryWatch;
use crate::host::kubelet::{self, KUBELET_SOCKET, Peer, PlacedSocket, RegisterError};
use crate::wire::device_plugin::register_request;
use crate::wire::v1beta1::device_plugin_server::DevicePluginServer;

/// How often to look when nothing is heard.
const LOOK: Duration = Duration::from_millis(500);
/// How long an ending server may take to end its streams by itself.
const CLOSING: Duration = Duration::from_millis(250);

/// What a session is for.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The kubelet's device plugin directory.
    pub directory: PathBuf,
    /// File name of our socket in it.
    pub socket_name: String,
    /// For example `iluvatar.com/gpu`.
    pub resource: String,
    /// False where changes of the directory are only to be polled.
    pub inotify: bool,
}

/// Serves and registers until `stop`, whatever happens to the kubelet.
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
        last_sight: None,
        kubelet_peer: None,
        last_complaint: String::new(),
        is_quiet: false,
        started: Instant::now(),
    };
    driver.telemetry.note(|notes| notes.followed = WatchMethod::Polls);
    while !stop.is_cancelled() {
        let observation = driver.look().await;
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
    last_sight: Option<Observation>,
    /// Who answered our last registration; streams of other processes are no sign of the kubelet.
    kubelet_peer: Option<Peer>,
    /// So that a failure that repeats is said once.
    last_complaint: String,
    /// Whether the present session goes the way of many before it, which were said.
    is_quiet: bool,
    started: Instant,
}

struct RunningServer {
    identity: SocketIdentity,
    streams: watch::Receiver<Streams>,
    closing: CancellationToken,
    task: JoinSet<Result<(), tonic::transport::Error>>,
    /// Cuts the connections that a client still holds when the server is gone.
    severed: DropGuard,
}

impl Driver {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn own_path(&self) -> PathBuf {
        self.settings.directory.join(&self.settings.socket_name)
    }

    async fn look(&mut self) -> Observation {
        if self.watch.is_none() && self.settings.inotify {
            let opened = DirectoryWatch::open(&self.settings.directory);
            self.telemetry.note(|notes| notes.followed = WatchMethod::of(&opened));
            self.watch = opened.ok();
        }
        // The kubelet's first: it removes ours before it makes its own, so whoever sees a new one
        // sees next that ours is gone.
        let kubelet = kubelet::socket_identity(&self.settings.directory.join(KUBELET_SOCKET));
        let own_socket = self.own_socket().await;
        let (streams, lost_stream) = self.streams();
        Observation { own_socket, kubelet, streams, lost_stream }
    }

    async fn own_socket(&mut self) -> OwnSocket {
        let path = self.own_path();
        match (kubelet::socket_identity(&path), &mut self.server) {
            (None, _) => OwnSocket::Missing,
            // A server that ended by itself has left a dead socket.
            (Some(seen), Some(server)) if seen == server.identity => {
                match server.task.try_join_next() {
                    None if !server.task.is_empty() => OwnSocket::Ours,
                    _ => OwnSocket::Foreign { alive: false },
                }
            }
            (Some(_), _) => OwnSocket::Foreign { alive: kubelet::is_alive(&path).await },
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
        self.report();
        self.tell(observation);
        match next {
            Action::Bind => {
                let bound = self.serve();
                self.machine.bound(bound, self.now());
            }
            Action::Register { patience } => self.register(patience),
            Action::Close(reason) => {
                self.say_why(reason);
                self.close().await;
            }
            Action::Wait { until } => self.wait(until, stop).await,
        }
    }

    /// A kubelet that was killed leaves its socket behind; `registered` notes that nobody is there.
    fn tell(&mut self, observation: Observation) {
        let last = self.last_sight.replace(observation);
        let is_new = last.is_none_or(|last| last.kubelet != observation.kubelet);
        self.telemetry
            .meters
            .open_streams
            .set(i64::try_from(observation.streams).unwrap_or(i64::MAX));
        self.telemetry.note(|notes| {
            notes.turned = Instant::now();
            if is_new {
                notes.has_kubelet = observation.kubelet.is_some();
            }
        });
    }

    fn report(&self) {
        let progress = match &self.machine {
            machine if machine.is_streaming() => Progress::Streaming,
            machine if machine.has_yielded() => Progress::Yielded,
            _ => Progress::Waiting,
        };
        let changed = self.progress.send_if_modified(|last| {
            let changed = *last != progress;
            *last = progress;
            changed
        });
        if changed && progress == Progress::Streaming {
            self.say("the kubelet has our list");
            self.telemetry.has_list();
            self.telemetry.note(|notes| notes.trouble = None);
        }
    }

    fn serve(&mut self) -> bool {
        match kubelet::place_socket(&self.own_path()) {
            Ok(socket) => {
                self.server = Some(self.start_server(socket));
                true
            }
            Err(error) => {
                let path = self.own_path().display().to_string();
                self.complain(&format!("cannot listen on {path}: {error}; trying again"));
                false
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

    fn register(&mut self, patience: Duration) {
        let directory = self.settings.directory.clone();
        let request = register_request(&self.settings.socket_name, &self.settings.resource);
        self.registering.abort_all();
        self.registering.detach_all();
        self.registering
            .spawn(async move { kubelet::register(&directory, request, patience).await });
    }

    fn registered(&mut self, answer: Result<Peer, RegisterError>) {
        match answer {
            Ok(peer) => {
                self.last_complaint.clear();
                self.kubelet_peer = Some(peer);
                self.say("registered with the kubelet");
                self.answered(RegisterOutcome::Accepted, true);
            }
            Err(error) => {
                self.complain(&format!("cannot register: {error}; trying again"));
                let answer = match error {
                    RegisterError::TimedOut(_) => RegisterOutcome::TimedOut,
                    RegisterError::Connect(..) | RegisterError::Refused(_) => {
                        RegisterOutcome::Refused
                    }
                };
                self.answered(answer, !error.is_absent());
            }
        }
    }

    fn answered(&mut self, answer: RegisterOutcome, has_kubelet: bool) {
        self.machine.registered(answer, self.now());
        self.telemetry.meters.registrations.count(answer);
        self.telemetry.note(|notes| {
            notes.has_kubelet = has_kubelet;
            notes.is_registered = answer == RegisterOutcome::Accepted;
            if notes.is_registered {
                notes.trouble = None;
            }
        });
    }

    async fn wait(&mut self, until: Option<Duration>, stop: &CancellationToken) {
        let latest = self.now() + LOOK;
        let until = self.started + until.unwrap_or(latest).min(latest);
        let streams = self.server.as_mut().map(|server| &mut server.streams);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(until) => {}
            result = DirectoryWatch::changed_or_never(self.watch.as_ref()) => {
                if result.is_err() {
                    self.watch = None;
                }
            }
            () = stream_changed(streams) => {}
            Some(answer) = self.registering.join_next() => {
                // A call that was given up is no answer.
                if let Ok(answer) = answer {
                    self.registered(answer);
                }
            }
        }
    }

    fn say_why(&mut self, reason: Reason) {
        self.is_quiet = !self.machine.is_worth_saying(self.now());
        let (resource, why) = (&self.settings.resource, reason.sentence());
        self.telemetry.note(|notes| notes.trouble = Some(why.to_owned()));
        if self.is_quiet {
            debug!(resource, "starting the session again: {why}");
        } else {
            warn!(resource, "starting the session again: {why}");
        }
    }

    fn say(&self, progress: &str) {
        let resource = &self.settings.resource;
        if self.is_quiet {
            debug!(resource, "{progress}");
        } else {
            info!(resource, "{progress}");
        }
    }

    fn complain(&mut self, complaint: &str) {
        if self.last_complaint == complaint {
            debug!(resource = self.settings.resource, "{complaint}");
        } else {
            warn!(resource = self.settings.resource, "{complaint}");
            self.telemetry.note(|notes| notes.trouble = Some(complaint.to_owned()));
            complaint.clone_into(&mut self.last_complaint);
        }
    }

    /// Ends the server: first its streams, then whatever connection is still open. Takes its socket
    /// away, unless another instance's stands there. The directory is watched anew: another one may
    /// have been put in its place, as a mount does without a word.
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
        if tokio::time::timeout(CLOSING, task.join_next()).await.is_err() {
            task.shutdown().await;
        }
        drop(severed);
        // Each connection holds a sender, in a task of its own that ends once it is cut.
        let ended = async { while streams.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(CLOSING, ended).await;
    }
}

async fn stream_changed(streams: Option<&mut watch::Receiver<Streams>>) {
    if let Some(streams) = streams
        && streams.changed().await.is_ok()
    {
        return;
    }
    // The sender lives in the server; where it is gone, the look at intervals will tell.
    std::future::pending::<()>().await;
}
