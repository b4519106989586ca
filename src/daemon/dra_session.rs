//! The driver's registration with the kubelet: carries out what `decide::dra::registration` decides, and
//! reports to it what is observed. Inotify, connections and reports of the kubelet are hints; a poll
//! does the same.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tracing::{debug, info, warn};

use super::dra_registration_service::{DraRegistrationService, KubeletReport};
use super::socket_server::SocketServer;
use super::telemetry::{Telemetry, WatchMethod};
use super::timer::next_tick;
use crate::decide::dra::registration::{
    DraSocket, Handshake, Registration, RegistrationAction, RegistrationObservation, ServerFault,
};
use crate::decide::dra::socket_paths::DriverInstance;
use crate::decide::kubelet::session::{BindOutcome, OwnSocketState};
use crate::host::directory_watch::DirectoryWatch;
use crate::host::kubelet::{self, Peer};
use crate::host::sockets::create_directory;
use crate::model::log_event::LogEvent;
use crate::model::session::Progress;
use crate::wire::dra_registration::plugin_info;
use crate::wire::metrics::dra_meters::DraRegistrationResult;
use crate::wire::pluginregistration_v1::registration_server::RegistrationServer;

/// How often to observe without a hint.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The same while inotify reports every change of both directories.
const WATCHED_INTERVAL: Duration = Duration::from_secs(10);

/// Makes the services of a new service socket; its streams end with the token.
pub type MakeServices = Box<dyn Fn(CancellationToken) -> Router + Send>;

/// Which instance registers, and how.
#[derive(Clone, Debug)]
pub struct DraSessionSettings {
    /// What the sockets are named after.
    pub instance: DriverInstance,
    /// False: the directories are only polled.
    pub inotify: bool,
}

/// Serves both sockets.
pub struct DraSession {
    settings: DraSessionSettings,
    make_services: MakeServices,
    telemetry: Telemetry,
    machine: Registration,
    service: Option<SocketServer>,
    registration: Option<AnnouncedSocket>,
    /// The process that called GetInfo last. Only its connections count.
    kubelet: Option<Peer>,
    last_handshake: Handshake,
    connected: watch::Sender<bool>,
    watches: Option<[DirectoryWatch; 2]>,
    /// Each error is logged once.
    last_error: Option<String>,
    started: Instant,
}

/// The registration socket and what the kubelet reported about it.
struct AnnouncedSocket {
    server: SocketServer,
    reports: watch::Receiver<KubeletReport>,
}

impl DraSession {
    /// A session that serves nothing yet, and whether a kubelet is connected to its service.
    #[must_use]
    pub fn new(
        settings: DraSessionSettings,
        make_services: MakeServices,
        telemetry: Telemetry,
    ) -> (Self, watch::Receiver<bool>) {
        let (connected, is_connected) = watch::channel(false);
        let session = Self {
            settings,
            make_services,
            telemetry,
            machine: Registration::new(u64::from(std::process::id())),
            service: None,
            registration: None,
            kubelet: None,
            last_handshake: Handshake::NoCall,
            connected,
            watches: None,
            last_error: None,
            started: Instant::now(),
        };
        (session, is_connected)
    }

    /// Serves until `stop`, whatever happens to the kubelet. When this returns, both servers have
    /// ended and our sockets are removed.
    pub async fn run(mut self, stop: CancellationToken) {
        self.telemetry.dra.note(|notes| notes.is_used = true);
        while !stop.is_cancelled() {
            let observation = self.observe().await;
            self.publish(observation);
            match self.machine.next(observation, self.started.elapsed()) {
                RegistrationAction::Serve { socket, refusals } => self.serve(socket, refusals),
                RegistrationAction::Close(socket, fault) => {
                    self.log_restart(socket, fault);
                    self.close(socket).await;
                }
                RegistrationAction::Wait { until } => self.wait(until, &stop).await,
            }
        }
        // The registration first, so that the kubelet dials no service that is gone.
        self.close(DraSocket::Registration).await;
        self.close(DraSocket::Service).await;
        self.connected.send_replace(false);
    }

    async fn observe(&mut self) -> RegistrationObservation {
        self.follow_directories();
        let report = self.report();
        self.kubelet = report.kubelet.or(self.kubelet);
        let registration = match &mut self.registration {
            Some(announced) => announced.server.own_socket().await,
            None => at_path(self.settings.instance.registration_socket(0).ok()).await,
        };
        let service = match &mut self.service {
            Some(server) => server.own_socket().await,
            None => at_path(self.settings.instance.service_socket().ok()).await,
        };
        let (server, kubelet) = (self.service.as_ref(), self.kubelet);
        let is_connected = server.zip(kubelet).is_some_and(|(server, it)| server.is_connected(it));
        RegistrationObservation { service, registration, handshake: report.handshake, is_connected }
    }

    fn report(&mut self) -> KubeletReport {
        let reports = self.registration.as_mut().map(|announced| &mut announced.reports);
        reports.map_or_else(KubeletReport::default, |reports| reports.borrow_and_update().clone())
    }

    fn follow_directories(&mut self) {
        if self.watches.is_some() || !self.settings.inotify {
            return;
        }
        let instance = &self.settings.instance;
        let opened = DirectoryWatch::open(&instance.directory())
            .and_then(|service| Ok([service, DirectoryWatch::open(&instance.registry())?]));
        self.telemetry.dra.note(|notes| notes.followed = WatchMethod::of(&opened));
        self.watches = opened.ok();
    }

    fn publish(&mut self, observation: RegistrationObservation) {
        let RegistrationObservation { handshake, is_connected, .. } = observation;
        if std::mem::replace(&mut self.last_handshake, handshake) != handshake {
            self.publish_handshake(handshake);
        }
        let has_changed = self
            .connected
            .send_if_modified(|last| std::mem::replace(last, is_connected) != is_connected);
        if has_changed {
            info!(
                event = LogEvent::KubeletConnection.name(),
                is_connected, "kubelet connection changed"
            );
        }
        let progress = match handshake {
            _ if self.machine.has_yielded() => Progress::Yielded,
            Handshake::Registered => Progress::Streaming,
            _ => Progress::Waiting,
        };
        self.telemetry.dra.note(|notes| {
            notes.last_step = Instant::now();
            notes.registered = notes.registered.filter(|_| handshake == Handshake::Registered);
            (notes.is_connected, notes.progress) = (is_connected, progress);
        });
    }

    fn publish_handshake(&mut self, handshake: Handshake) {
        let registrations = &self.telemetry.dra.meters.registrations;
        match handshake {
            Handshake::NoCall => {}
            Handshake::InfoRead => debug!("the kubelet queried the driver's description"),
            Handshake::Registered => {
                info!(event = LogEvent::Registered.name(), "registered with the kubelet");
                registrations.count(DraRegistrationResult::Accepted);
                self.last_error = None;
                self.telemetry.dra.note(|notes| {
                    (notes.registered, notes.last_error) = (Some(Instant::now()), None);
                });
            }
            Handshake::Refused => {
                registrations.count(DraRegistrationResult::Refused);
                let error = self.report().error.unwrap_or_default();
                self.log_failure("the kubelet refused the registration", &error);
            }
        }
    }

    fn serve(&mut self, socket: DraSocket, refusals: u32) {
        let outcome = match self.start(socket, refusals) {
            Ok(()) => BindOutcome::Bound,
            Err(error) => {
                self.log_failure("cannot listen", &error.to_string());
                BindOutcome::Failed
            }
        };
        self.machine.bound(socket, outcome, self.started.elapsed());
    }

    fn start(&mut self, socket: DraSocket, refusals: u32) -> io::Result<()> {
        let instance = &self.settings.instance;
        let service_socket = instance.service_socket().map_err(io::Error::other)?;
        match socket {
            DraSocket::Service => {
                create_directory(&instance.directory())?;
                let make = |closing| (self.make_services)(closing);
                self.service = Some(named(&service_socket, make)?);
            }
            DraSocket::Registration => {
                let path = instance.registration_socket(refusals).map_err(io::Error::other)?;
                let info = plugin_info(&instance.driver, &service_socket);
                let (service, reports) = DraRegistrationService::new(info);
                let router = |_| Server::builder().add_service(RegistrationServer::new(service));
                let server = named(&path, router)?;
                debug!(socket = %path.display(), "registration socket is in place");
                self.registration = Some(AnnouncedSocket { server, reports });
            }
        }
        Ok(())
    }

    async fn close(&mut self, socket: DraSocket) {
        // The directories are watched anew, since a mount may have replaced them.
        self.watches = None;
        let server = match socket {
            DraSocket::Service => self.service.take(),
            DraSocket::Registration => self.registration.take().map(|announced| announced.server),
        };
        if let Some(server) = server {
            server.close().await;
        }
    }

    async fn wait(&mut self, until: Option<Duration>, stop: &CancellationToken) {
        let is_watched = self.watches.is_some() && self.service.is_some();
        let interval = if is_watched { WATCHED_INTERVAL } else { POLL_INTERVAL };
        let latest = next_tick(self.telemetry.started(), Instant::now(), interval);
        let until = until.map_or(latest, |until| latest.min(self.started + until));
        let is_lost = tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep_until(until) => false,
            result = directories_changed(self.watches.as_ref()) => result.is_err(),
            () = server_changed(self.service.as_mut()) => false,
            () = announced_changed(self.registration.as_mut()) => false,
        };
        if is_lost {
            self.watches = None;
        }
    }

    fn log_restart(&mut self, socket: DraSocket, fault: ServerFault) {
        let reason = fault.sentence();
        self.telemetry.dra.note(|notes| notes.last_error = Some(reason.to_owned()));
        if self.last_error.as_deref() == Some(reason) {
            debug!(?socket, reason, "a server ended; starting it again");
        } else {
            let event = LogEvent::ServerRestarted.name();
            warn!(event, ?socket, reason, "a server ended; starting it again");
            self.last_error = Some(reason.to_owned());
        }
    }

    fn log_failure(&mut self, what: &str, error: &str) {
        let problem = format!("{what}: {error}; trying again");
        if self.last_error.as_ref() == Some(&problem) {
            debug!(error, "{what}; trying again");
        } else {
            warn!(event = LogEvent::RegistrationFailed.name(), error, "{what}; trying again");
        }
        self.last_error = Some(problem.clone());
        self.telemetry.dra.note(|notes| notes.last_error = Some(problem));
    }
}

/// The error names the path.
fn named(
    path: &Path,
    services: impl FnOnce(CancellationToken) -> Router,
) -> io::Result<SocketServer> {
    SocketServer::start(path.to_owned(), services)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// What is at the path of a server that does not run.
async fn at_path(path: Option<PathBuf>) -> OwnSocketState {
    match path.filter(|path| kubelet::socket_identity(path).is_some()) {
        None => OwnSocketState::Missing,
        Some(path) => OwnSocketState::Foreign { alive: kubelet::is_alive(&path).await },
    }
}

async fn directories_changed(watches: Option<&[DirectoryWatch; 2]>) -> io::Result<()> {
    let Some([service, registry]) = watches else { return std::future::pending().await };
    tokio::select! {
        result = service.changed() => result,
        result = registry.changed() => result,
    }
}

async fn server_changed(server: Option<&mut SocketServer>) {
    match server {
        Some(server) => server.changed().await,
        None => std::future::pending().await,
    }
}

/// The end of this server, or a report of the kubelet. Connections alone lead to nothing.
async fn announced_changed(announced: Option<&mut AnnouncedSocket>) {
    let Some(AnnouncedSocket { server, reports }) = announced else {
        return std::future::pending().await;
    };
    tokio::select! {
        Ok(()) = reports.changed() => {}
        () = server.changed() => {}
    }
}
