//! The daemon, wired together: the only place that knows all of its tasks.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::daemon::allocation_store::{
    self, AllocationPaths, AllocationStore, AllocationWriter, AllocationsReceiver,
};
use crate::daemon::cdi_writer::{CdiView, CdiWriter};
use crate::daemon::claim_ledger::{HoldersView, LedgerTask};
use crate::daemon::config_watch::ConfigWatch;
use crate::daemon::cordon_watch::CordonWatch;
use crate::daemon::dra_health_stream::DraHealthService;
use crate::daemon::dra_service::{ClaimReader, DraService};
use crate::daemon::dra_session::{DraSession, DraSessionSettings, MakeServices};
use crate::daemon::identities_watch::IdentitiesWatch;
use crate::daemon::inventory_inputs::{
    HealthReport, InputSenders, Ping, PodsReport, input_channels,
};
use crate::daemon::inventory_owner::{ImpossibleConfig, InventoryOwner, SnapshotReceiver};
use crate::daemon::ixml_monitor::IxmlMonitor;
use crate::daemon::ixml_source::IxmlSettings;
use crate::daemon::label_writer::LabelWriter;
use crate::daemon::node_events::NodeEvents;
use crate::daemon::plugin_service::Sources;
use crate::daemon::pod_resources_watch::{PodResourcesSettings, PodResourcesWatch, QueryTriggers};
use crate::daemon::sessions::{Sessions, SessionsView};
use crate::daemon::slice_publisher::{SliceInputs, SlicePublisher};
use crate::daemon::status_service::StatusService;
use crate::daemon::telemetry::Telemetry;
use crate::daemon::uevent_listener::UeventEffects;
use crate::daemon::{health_sampler, http, uevent_listener};
use crate::decide::dra::socket_paths::DriverInstance;
use crate::decide::node::removed::Retention;
use crate::decide::node::state::NodeState;
use crate::host::config_file::ConfigSource;
use crate::host::kube_api::KubeApi;
use crate::host::root::Root;
use crate::model::config::Config;
use crate::model::dra::slice::ServerSupport;
use crate::model::ixml::IxmlState;
use crate::model::log_event::LogEvent;
use crate::model::rescan::RescanTrigger;
use crate::wire::dra_health_v1::dra_resource_health_server as health_v1;
use crate::wire::dra_health_v1alpha1::dra_resource_health_server as health_v1alpha1;
use crate::wire::dra_v1::dra_plugin_server::DraPluginServer;

/// How long the tasks may take to end after `stop`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What the daemon is built from.
#[derive(Debug)]
pub struct DaemonSettings {
    /// The machine to scan.
    pub root: Arc<Root>,
    /// The configuration at the start.
    pub config: Config,
    /// Where to follow it from then on; absent where it does not change.
    pub config_source: Option<ConfigSource>,
    /// The kubelet's device plugin directory.
    pub kubelet_directory: PathBuf,
    /// The PodResources socket of the kubelet; absent where it is not to be used.
    pub pod_resources_socket: Option<PathBuf>,
    /// How long devices that left stay listed.
    pub retention: Retention,
    /// How libixml is queried, if the configuration enables it; absent where it is never used.
    pub ixml: Option<IxmlSettings>,
    /// Where probes and metrics are answered; absent where they are not.
    pub http: Option<SocketAddr>,
    /// False where changes of that directory are only to be polled.
    pub inotify: bool,
    /// False where uevents are not to be received; then only `triggers` and the timer lead to a
    /// scan.
    pub uevents: bool,
    /// What DRA mode needs; absent in device plugin mode.
    pub dra: Option<DraSettings>,
}

/// What DRA mode needs besides.
#[derive(Clone)]
pub struct DraSettings {
    /// What the sockets are named after.
    pub instance: DriverInstance,
    /// The node's name, which is the pool's.
    pub node: String,
    /// Fetches claims from the API server.
    pub claims: ClaimReader,
    /// Where slices and events are written; absent where nothing is published.
    pub api: Option<KubeApi>,
}

impl fmt::Debug for DraSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DraSettings")
            .field("instance", &self.instance)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What DRA mode knows of the kubelet and of claims.
#[derive(Clone, Debug)]
pub struct DraRunning {
    /// Whether a kubelet is connected to the service.
    pub connected: watch::Receiver<bool>,
    /// Which claims hold what.
    pub holders: HoldersView,
}

/// A daemon whose tasks run.
pub struct Running {
    /// What the node offers; none until the first scan that succeeded.
    pub snapshots: SnapshotReceiver,
    /// How far each resource's session is.
    pub sessions: watch::Receiver<SessionsView>,
    /// The CDI names that a container runtime would find.
    pub cdi: CdiView,
    /// What DRA mode knows; none in device plugin mode.
    pub dra: Option<DraRunning>,
    /// The state of libixml; absent where it is never used.
    pub ixml: Option<watch::Receiver<IxmlState>>,
    /// Where probes and metrics are answered now; none while the port is taken.
    pub http: watch::Receiver<Option<SocketAddr>>,
    /// Leads to another scan.
    pub triggers: mpsc::Sender<RescanTrigger>,
    /// Leads to another read of the configuration file.
    pub reload: Arc<Notify>,
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
}

/// Why a daemon ended on its own.
#[derive(Debug, Error)]
pub enum RunError {
    /// The machine makes its configuration impossible.
    #[error(transparent)]
    Configuration(#[from] ImpossibleConfig),
    /// A task ended early; the daemon is no use without it.
    #[error("{0}")]
    Task(String),
}

/// A task that ended, by its name.
type Ended = (&'static str, Result<(), ImpossibleConfig>);

/// Starts every task of the daemon on the present runtime.
#[must_use]
pub fn build(settings: DaemonSettings) -> Running {
    let telemetry = Telemetry::new(Instant::now());
    let (config_sender, config) = watch::channel(Arc::new(settings.config));
    if settings.dra.is_none() {
        telemetry.set_resources(config.borrow().resources.iter().map(|rule| &*rule.name));
    }
    let paths = AllocationPaths::of(&settings.kubelet_directory);
    let (store, writer) = allocation_store::open(paths, telemetry.started());
    let (cordon_watch, cordons) = CordonWatch::open(&settings.kubelet_directory, settings.inotify);
    let (senders, inputs) = input_channels(config.clone(), store.clone(), cordons);
    let InputSenders { triggers, health, pods, pings } = senders;
    let state = NodeState::new(Arc::clone(&config.borrow()), settings.retention);
    let root = settings.root;
    let (owner, snapshots) =
        InventoryOwner::new(Arc::clone(&root), inputs, state, telemetry.clone());
    let (stop, set, inotify) = (CancellationToken::new(), JoinSet::new(), settings.inotify);
    let mut tasks = Tasks { config, snapshots, telemetry, inotify, stop, set };
    let samples = Arc::new(Notify::new());
    if settings.uevents {
        // Before the first scan, which then answers what the listener asks for when it opens.
        let (triggers, samples, health) = (triggers.clone(), Arc::clone(&samples), health.clone());
        tasks.follow_uevents(Arc::clone(&root), UeventEffects { triggers, samples, health });
    }
    tasks.own_inventory(owner);
    let started = tasks.telemetry.started();
    tasks.spawn("cordons", |stop| cordon_watch.run(started, stop));
    let allocations = store.subscribe();
    tasks.watch_pods(settings.pod_resources_socket, settings.retention, allocations, pods);
    tasks.write_labels();
    let ixml = tasks.watch_health(&root, settings.ixml, &samples, health);
    let (sessions, cdi, dra) = tasks.serve(settings.kubelet_directory, settings.dra, store, writer);
    let service = tasks.status_service(&sessions, ixml.as_ref(), pings);
    let http = tasks.serve_http(settings.http, service);
    let reload = Arc::new(Notify::new());
    tasks.follow_config(settings.config_source, config_sender, &reload);
    tasks.follow_identities(triggers.clone());
    let Tasks { snapshots, stop, set, .. } = tasks;
    Running { snapshots, sessions, cdi, dra, ixml, http, triggers, reload, stop, tasks: set }
}

/// The tasks, and what most of them are given.
struct Tasks {
    config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    telemetry: Telemetry,
    inotify: bool,
    stop: CancellationToken,
    set: JoinSet<Ended>,
}

impl Tasks {
    /// A task that ends with `stop`; its name is in the error if it ends early.
    fn spawn<T>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let task = run(self.stop.clone());
        self.set.spawn(async move {
            task.await;
            (name, Ok(()))
        });
    }

    fn own_inventory(&mut self, owner: InventoryOwner) {
        let run = owner.run(self.stop.clone());
        self.set.spawn(async move { ("inventory owner", run.await) });
    }

    fn write_labels(&mut self) {
        let writer = LabelWriter::new(self.config.clone(), self.snapshots.clone());
        self.spawn("label writer", |stop| writer.run(stop));
    }

    /// Without a socket, PodResources counts as unavailable at once.
    fn watch_pods(
        &mut self,
        socket: Option<PathBuf>,
        retention: Retention,
        allocations: AllocationsReceiver,
        pods: watch::Sender<Option<PodsReport>>,
    ) {
        let Some(socket) = socket else {
            pods.send_replace(Some(PodsReport::Unavailable));
            return;
        };
        let settings = PodResourcesSettings { socket, kubelet_start: retention.kubelet_start };
        let (snapshots, config) = (self.snapshots.clone(), self.config.clone());
        let triggers = QueryTriggers { snapshots, allocations, config };
        let watch = PodResourcesWatch::new(settings, triggers, pods, self.telemetry.clone());
        self.spawn("pod resources", |stop| watch.run(stop));
    }

    /// Health samples of /sys and, where enabled, libixml.
    fn watch_health(
        &mut self,
        root: &Arc<Root>,
        ixml: Option<IxmlSettings>,
        requests: &Arc<Notify>,
        reports: mpsc::Sender<HealthReport>,
    ) -> Option<watch::Receiver<IxmlState>> {
        let state = ixml.map(|settings| {
            let following = (self.config.clone(), self.snapshots.clone());
            let is_here = root.is_this_machine();
            let (monitor, state) = IxmlMonitor::new(settings, is_here, following, reports.clone());
            self.spawn("libixml", |stop| monitor.run(stop));
            state
        });
        let (config, snapshots) = (self.config.clone(), self.snapshots.clone());
        let (root, requests) = (Arc::clone(root), Arc::clone(requests));
        let started = self.telemetry.started();
        self.spawn("health sampler", |stop| {
            health_sampler::run(root, started, config, snapshots, requests, reports, stop)
        });
        state
    }

    /// What the kubelet is served, in the one mode of this process, and the CDI spec for both.
    fn serve(
        &mut self,
        directory: PathBuf,
        dra: Option<DraSettings>,
        store: AllocationStore,
        writer: AllocationWriter,
    ) -> (watch::Receiver<SessionsView>, CdiView, Option<DraRunning>) {
        let (cdi_writer, cdi) = CdiWriter::new(self.snapshots.clone(), self.inotify);
        let (sessions, dra) = match dra {
            None => (self.serve_device_plugin(directory, store, writer, cdi.clone()), None),
            Some(dra) => {
                let dra = self.serve_dra(dra, writer, cdi.clone());
                (watch::channel(SessionsView::new()).1, Some(dra))
            }
        };
        self.spawn("CDI writer", |stop| cdi_writer.run(stop));
        (sessions, cdi, dra)
    }

    /// The sessions with the kubelet.
    fn serve_device_plugin(
        &mut self,
        directory: PathBuf,
        store: AllocationStore,
        record_writer: AllocationWriter,
        cdi: CdiView,
    ) -> watch::Receiver<SessionsView> {
        let (snapshots, telemetry) = (self.snapshots.clone(), self.telemetry.clone());
        let sources = Sources { snapshots, store, cdi, telemetry };
        let (sessions, view) = Sessions::new(directory, self.inotify, sources);
        // Allocations made while the last streams close are written too.
        let served = CancellationToken::new();
        let all_served = served.clone();
        self.spawn("sessions", |stop| async move {
            sessions.run(stop).await;
            served.cancel();
        });
        self.spawn("allocation records", |_| record_writer.run(all_served));
        view
    }

    /// The driver's sockets and the prepared claims. Records of the device plugin are kept: its pods
    /// may still hold chips.
    fn serve_dra(
        &mut self,
        dra: DraSettings,
        record_writer: AllocationWriter,
        cdi: CdiView,
    ) -> DraRunning {
        let DraSettings { instance, node, claims, api } = dra;
        let snapshots = self.snapshots.clone();
        let (ledger_task, ledger, holders) =
            LedgerTask::new(instance.directory(), node.clone(), snapshots.clone(), cdi.clone());
        let telemetry = self.telemetry.dra.clone();
        let service = DraService { pool: node.clone(), snapshots, claims, ledger, cdi, telemetry };
        let (support_sender, support) = watch::channel(ServerSupport::default());
        let health = self.health_service(node.clone(), &holders, support);
        let settings = DraSessionSettings { instance, inotify: self.inotify };
        let services = services(service, health);
        let (session, connected) = DraSession::new(settings, services, self.telemetry.clone());
        if let Some(api) = api {
            self.publish(node, api, &holders, &connected, support_sender);
        }
        // Claims whose calls run while the sockets close are recorded too.
        let served = CancellationToken::new();
        let all_served = served.clone();
        self.spawn("DRA session", |stop| async move {
            session.run(stop).await;
            served.cancel();
        });
        self.spawn("prepared claims", |_| ledger_task.run(all_served));
        self.spawn("allocation records", |stop| record_writer.run(stop));
        DraRunning { connected, holders }
    }

    /// Slices and events.
    fn publish(
        &mut self,
        node: String,
        api: KubeApi,
        holders: &HoldersView,
        is_connected: &watch::Receiver<bool>,
        support: watch::Sender<ServerSupport>,
    ) {
        let (snapshots, telemetry) = (self.snapshots.clone(), self.telemetry.dra.clone());
        let events = NodeEvents::new(
            node.clone(),
            api.clone(),
            snapshots.clone(),
            holders.clone(),
            telemetry.clone(),
        );
        let (claims, is_connected) = (holders.clone(), is_connected.clone());
        let inputs = SliceInputs { snapshots, claims, is_connected };
        let publisher = SlicePublisher::new(node, api, inputs, support, telemetry);
        self.spawn("slice publisher", |stop| publisher.run(stop));
        self.spawn("node events", |stop| events.run(stop));
    }

    fn health_service(
        &self,
        pool: String,
        holders: &HoldersView,
        support: watch::Receiver<ServerSupport>,
    ) -> DraHealthService {
        DraHealthService {
            pool,
            snapshots: self.snapshots.clone(),
            holders: holders.clone(),
            support,
            closing: self.stop.clone(),
        }
    }

    fn status_service(
        &self,
        sessions: &watch::Receiver<SessionsView>,
        ixml: Option<&watch::Receiver<IxmlState>>,
        pings: mpsc::Sender<Ping>,
    ) -> StatusService {
        StatusService {
            telemetry: self.telemetry.clone(),
            snapshots: self.snapshots.clone(),
            config: self.config.clone(),
            sessions: sessions.clone(),
            ixml: ixml.cloned(),
            pings,
        }
    }

    /// Returns where it listens; nowhere, without an address.
    fn serve_http(
        &mut self,
        address: Option<SocketAddr>,
        service: StatusService,
    ) -> watch::Receiver<Option<SocketAddr>> {
        let (listening, http) = watch::channel(None);
        if let Some(address) = address {
            self.spawn("http", |stop| http::run(address, Arc::new(service), listening, stop));
        }
        http
    }

    fn follow_config(
        &mut self,
        source: Option<ConfigSource>,
        config: watch::Sender<Arc<Config>>,
        reload: &Arc<Notify>,
    ) {
        let Some(source) = source else { return };
        self.telemetry.config_read(source.path());
        let (snapshots, telemetry) = (self.snapshots.clone(), self.telemetry.clone());
        let requests = Arc::clone(reload);
        let watch = ConfigWatch::new(source, config, snapshots, requests, self.inotify, telemetry);
        self.spawn("configuration", |stop| watch.run(stop));
    }

    fn follow_identities(&mut self, triggers: mpsc::Sender<RescanTrigger>) {
        let watch = IdentitiesWatch::new(self.config.clone(), triggers, self.inotify);
        let started = self.telemetry.started();
        self.spawn("identities", |stop| watch.run(started, stop));
    }

    fn follow_uevents(&mut self, root: Arc<Root>, effects: UeventEffects) {
        let (config, telemetry) = (self.config.clone(), self.telemetry.clone());
        self.spawn("uevent listener", |stop| {
            uevent_listener::run(root, config, effects, telemetry, stop)
        });
    }
}

/// What is served on the service socket.
fn services(service: DraService, health: DraHealthService) -> MakeServices {
    Box::new(move |closing| {
        let health = DraHealthService { closing, ..health.clone() };
        Server::builder()
            .add_service(DraPluginServer::new(service.clone()))
            .add_service(health_v1::DraResourceHealthServer::new(health.clone()))
            .add_service(health_v1alpha1::DraResourceHealthServer::new(health))
    })
}

impl Running {
    /// Runs until `stop` is ready, then ends every task under a deadline, open streams included.
    ///
    /// # Errors
    /// [`RunError`] where a task ended early.
    pub async fn run_until_stopped(
        mut self,
        stop: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let early = tokio::select! {
            () = stop => None,
            Some(task) = self.tasks.join_next() => Some(task),
        };
        self.stop.cancel();
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            warn!(event = LogEvent::TasksAborted.name(), after = ?DRAIN_TIMEOUT, "some tasks did not end in time and are aborted");
            self.tasks.shutdown().await;
        }
        match early {
            None => {
                info!(event = LogEvent::Stopped.name(), "stopped");
                Ok(())
            }
            Some(Ok((_, Err(impossible)))) => Err(impossible.into()),
            Some(Ok((name, Ok(())))) => {
                Err(RunError::Task(format!("the task `{name}` ended early")))
            }
            Some(Err(error)) => Err(RunError::Task(format!("a task failed: {error}"))),
        }
    }
}
