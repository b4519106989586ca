//! The daemon, wired together: the only place that knows all of its tasks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::daemon::allocation_store::{self, AllocationPaths};
use crate::daemon::cdi_writer::{CdiView, CdiWriter};
use crate::daemon::config_watch::ConfigWatch;
use crate::daemon::inventory_owner::{
    HealthReport, Inputs, InventoryOwner, Ping, SnapshotReceiver, Trigger,
};
use crate::daemon::ixml_monitor::IxmlMonitor;
use crate::daemon::ixml_source::IxmlSettings;
use crate::daemon::plugin_service::Sources;
use crate::daemon::pod_resources_watch::PodResourcesWatch;
use crate::daemon::sessions::{Sessions, SessionsView};
use crate::daemon::status_service::StatusService;
use crate::daemon::telemetry::Telemetry;
use crate::daemon::{health_sampler, http, uevent_listener};
use crate::decide::node::removed::Retention;
use crate::host::config_file::ConfigSource;
use crate::host::root::Root;
use crate::model::config::Config;
use crate::model::ixml::IxmlState;

/// How long the tasks may take to end after `stop`.
const DRAIN: Duration = Duration::from_secs(2);

/// Reasons to look again that may wait; one is as good as many.
const WAITING_TRIGGERS: usize = 16;

/// Questions whether the owner lives that may wait.
const WAITING_PINGS: usize = 16;

/// What the daemon is built from.
#[derive(Debug)]
pub struct Settings {
    /// The machine to look at.
    pub root: Arc<Root>,
    /// The configuration in force at the start.
    pub config: Config,
    /// Where to follow it from then on; absent where it does not change.
    pub config_source: Option<ConfigSource>,
    /// The kubelet's device plugin directory.
    pub kubelet_directory: PathBuf,
    /// Where the kubelet tells who holds which devices; absent where it is not to be asked.
    pub pod_resources_socket: Option<PathBuf>,
    /// How long devices that left stay listed.
    pub retention: Retention,
    /// How libixml is asked, if the configuration wants it; absent where it is never asked.
    pub ixml: Option<IxmlSettings>,
    /// Where probes and metrics are answered; absent where they are not.
    pub http: Option<SocketAddr>,
    /// False where changes of that directory are only to be polled.
    pub inotify: bool,
    /// False where the kernel's uevents are not to be followed; then only `triggers` and the timer
    /// lead to a look.
    pub uevents: bool,
}

/// A daemon whose tasks run.
pub struct Running {
    /// What the node offers; none until the first scan that succeeded.
    pub snapshots: SnapshotReceiver,
    /// How far each resource's session is.
    pub sessions: watch::Receiver<SessionsView>,
    /// The CDI names that a container runtime would find.
    pub cdi: CdiView,
    /// What libixml says; absent where it is never asked.
    pub ixml: Option<watch::Receiver<IxmlState>>,
    /// Where probes and metrics are answered now; none while the port is taken.
    pub http: watch::Receiver<Option<SocketAddr>>,
    /// Leads to another look.
    pub triggers: mpsc::Sender<Trigger>,
    /// Leads to another look at the configuration file.
    pub reload: Arc<Notify>,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
}

/// Starts every task of the daemon on the present runtime.
#[must_use]
pub fn build(settings: Settings) -> Running {
    let Settings { root, config_source, kubelet_directory, retention, inotify, .. } = settings;
    let (config, in_force) = watch::channel(Arc::new(settings.config));
    let telemetry = Telemetry::new(Instant::now());
    telemetry.keep_resources(in_force.borrow().resources.iter().map(|rule| &*rule.name));
    let (triggers, receiver) = mpsc::channel(WAITING_TRIGGERS);
    let (looks, seen) = mpsc::channel(1);
    let (pings, asked) = mpsc::channel(WAITING_PINGS);
    let inputs = Inputs { config: in_force.clone(), triggers: receiver, looks: seen };
    let time = (telemetry.started(), retention);
    let (owner, snapshots) = InventoryOwner::new(Arc::clone(&root), inputs, time);
    let owner = owner.telling(telemetry.clone(), asked);
    let (stop, set) = (CancellationToken::new(), JoinSet::new());
    let mut tasks = Tasks { config: in_force, snapshots, telemetry, inotify, stop, set };
    tasks.own_inventory(owner, settings.pod_resources_socket);
    let ixml = tasks.watch_health(root, settings.ixml, looks);
    let (sessions, cdi) = tasks.serve(kubelet_directory);
    let config_file = config_source.as_ref().map(|source| source.path().to_owned());
    let desk = tasks.status_service(config_file, &sessions, ixml.as_ref(), pings);
    let http = tasks.answer_http(settings.http, desk);
    let reload = Arc::new(Notify::new());
    tasks.follow_config(config_source, config, &reload);
    if settings.uevents {
        tasks.follow_uevents(&triggers);
    }
    let Tasks { snapshots, stop, set, .. } = tasks;
    Running { snapshots, sessions, cdi, ixml, http, triggers, reload, stop, tasks: set }
}

/// The tasks, and what most of them are given.
struct Tasks {
    config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    telemetry: Telemetry,
    inotify: bool,
    stop: CancellationToken,
    set: JoinSet<&'static str>,
}

impl Tasks {
    /// A task that ends with `stop`; its name is for whoever reads that it ended early.
    fn spawn<T>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.set.spawn(named(name, run(self.stop.clone())));
    }

    /// The inventory's owner, and who tells it which pod holds what.
    fn own_inventory(&mut self, mut owner: InventoryOwner, pod_resources: Option<PathBuf>) {
        if let Some(socket) = pod_resources {
            let began = self.telemetry.started();
            let (watch, answers) = PodResourcesWatch::new(socket, began, self.snapshots.clone());
            owner = owner.hearing(answers);
            let watch = watch.telling(self.telemetry.clone());
            self.spawn("holders", |stop| watch.run(stop));
        }
        self.spawn("inventory owner", |stop| owner.run(stop));
    }

    /// Looks at /sys and, where that is wanted, questions to libixml.
    fn watch_health(
        &mut self,
        root: Arc<Root>,
        ixml: Option<IxmlSettings>,
        looks: mpsc::Sender<HealthReport>,
    ) -> Option<watch::Receiver<IxmlState>> {
        let state = ixml.map(|settings| {
            let following = (self.config.clone(), self.snapshots.clone());
            let is_here = root.is_this_machine();
            let (monitor, state) = IxmlMonitor::new(settings, is_here, following, looks.clone());
            self.spawn("libixml", |stop| monitor.run(stop));
            state
        });
        let (config, snapshots) = (self.config.clone(), self.snapshots.clone());
        self.spawn("health monitor", |stop| {
            health_sampler::run(root, config, snapshots, looks, stop)
        });
        state
    }

    /// Everything that a kubelet and a container runtime are told.
    fn serve(&mut self, directory: PathBuf) -> (watch::Receiver<SessionsView>, CdiView) {
        let paths = AllocationPaths::of(&directory);
        let (store, record_writer) = allocation_store::open(paths, self.telemetry.started());
        let (writer, cdi) = CdiWriter::new(self.snapshots.clone(), self.inotify);
        let (snapshots, telemetry) = (self.snapshots.clone(), self.telemetry.clone());
        let sources = Sources { snapshots, store, cdi: cdi.clone(), telemetry };
        let (sessions, view) = Sessions::new(directory, self.inotify, sources);
        // Allocations made while the last streams close are written too.
        let served = CancellationToken::new();
        let all_served = served.clone();
        self.spawn("sessions", |stop| async move {
            sessions.run(stop).await;
            served.cancel();
        });
        self.spawn("allocation records", |_| record_writer.run(all_served));
        self.spawn("CDI writer", |stop| writer.run(stop));
        (view, cdi)
    }

    fn status_service(
        &self,
        config_file: Option<PathBuf>,
        sessions: &watch::Receiver<SessionsView>,
        ixml: Option<&watch::Receiver<IxmlState>>,
        pings: mpsc::Sender<Ping>,
    ) -> StatusService {
        StatusService {
            telemetry: self.telemetry.clone(),
            snapshots: self.snapshots.clone(),
            config: self.config.clone(),
            config_file,
            sessions: sessions.clone(),
            ixml: ixml.cloned(),
            pings,
        }
    }

    /// Tells where it answers; nowhere, without an address.
    fn answer_http(
        &mut self,
        address: Option<SocketAddr>,
        desk: StatusService,
    ) -> watch::Receiver<Option<SocketAddr>> {
        let (answering, http) = watch::channel(None);
        if let Some(address) = address {
            self.spawn("http", |stop| http::run(address, Arc::new(desk), answering, stop));
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
        let snapshots = self.snapshots.clone();
        let follow = ConfigWatch::new(source, config, snapshots, Arc::clone(reload), self.inotify);
        let follow = follow.telling(self.telemetry.clone());
        self.spawn("configuration", |stop| follow.run(stop));
    }

    fn follow_uevents(&mut self, triggers: &mpsc::Sender<Trigger>) {
        let (config, telemetry) = (self.config.clone(), self.telemetry.clone());
        let triggers = triggers.clone();
        self.spawn("uevent pump", |stop| uevent_listener::run(config, triggers, telemetry, stop));
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

impl Running {
    /// Runs until `stop` is ready, then ends every task under a deadline, open streams included.
    ///
    /// # Errors
    /// A task that ended early, by its name: the daemon is no use without it.
    pub async fn run_until_stopped(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let early = tokio::select! {
            () = stop => None,
            Some(task) = self.tasks.join_next() => Some(task),
        };
        self.stop.cancel();
        let drained =
            tokio::time::timeout(DRAIN, async { while self.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            warn!(after = ?DRAIN, "some tasks did not end in time; they are cut off");
            self.tasks.shutdown().await;
        }
        match early {
            None => {
                info!("stopped");
                Ok(())
            }
            Some(Ok(name)) => Err(anyhow!("the task `{name}` ended early")),
            Some(Err(error)) => Err(anyhow!("a task failed: {error}")),
        }
    }
}
