//! The daemon, wired together: the only place that knows all of its tasks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::daemon::cdi_writer::{CdiView, CdiWriter};
use crate::daemon::config_watch::ConfigWatch;
use crate::daemon::handout_ledger::{self, FILE_NAME};
use crate::daemon::holders_watch::HoldersWatch;
use crate::daemon::inventory_owner::{Inputs, InventoryOwner, Offers, Trigger};
use crate::daemon::ixml_monitor::IxmlMonitor;
use crate::daemon::ixml_source::IxmlSettings;
use crate::daemon::plugin_service::Sources;
use crate::daemon::sessions::{Sessions, SessionsView};
use crate::daemon::{health_monitor, uevent_pump};
use crate::decide::removal::Stay;
use crate::host::config_file::ConfigSource;
use crate::host::root::Root;
use crate::model::config::Config;
use crate::model::ixml::IxmlState;

/// How long the tasks may take to end after `stop`.
const DRAIN: Duration = Duration::from_secs(2);

/// Reasons to look again that may wait; one is as good as many.
const WAITING_TRIGGERS: usize = 16;

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
    pub stay: Stay,
    /// How libixml is asked, if the configuration wants it; absent where it is never asked.
    pub ixml: Option<IxmlSettings>,
    /// False where changes of that directory are only to be polled.
    pub inotify: bool,
    /// False where the kernel's uevents are not to be followed; then only `triggers` and the timer
    /// lead to a look.
    pub uevents: bool,
}

/// A daemon whose tasks run.
pub struct Bound {
    /// What the node offers; none until the first scan that succeeded.
    pub offers: Offers,
    /// How far each resource's session is.
    pub sessions: watch::Receiver<SessionsView>,
    /// The CDI names that a container runtime would find.
    pub cdi: CdiView,
    /// What libixml says; absent where it is never asked.
    pub ixml: Option<watch::Receiver<IxmlState>>,
    /// Leads to another look.
    pub triggers: mpsc::Sender<Trigger>,
    /// Leads to another look at the configuration file.
    pub reload: Arc<Notify>,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
}

/// Starts every task of the daemon on the present runtime.
#[must_use]
pub fn build(settings: Settings) -> Bound {
    let Settings { root, config, config_source, kubelet_directory, inotify, uevents, .. } =
        settings;
    let (stop, reload) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (config, in_force) = watch::channel(Arc::new(config));
    let (triggers, receiver) = mpsc::channel(WAITING_TRIGGERS);
    let (looks, seen) = mpsc::channel(1);
    let inputs = Inputs { config: in_force.clone(), triggers: receiver, looks: seen };
    let time = (Instant::now(), settings.stay);
    let (mut owner, offers) = InventoryOwner::new(Arc::clone(&root), inputs, time);
    let (ledger, keeper) = handout_ledger::open(kubelet_directory.join(FILE_NAME));
    let (writer, cdi) = CdiWriter::new(offers.clone(), inotify);
    let sources = Sources { offers: offers.clone(), ledger, cdi: cdi.clone() };
    let (sessions, view) = Sessions::new(kubelet_directory, inotify, sources);
    let mut tasks = JoinSet::new();
    if let Some(socket) = settings.pod_resources_socket {
        let (watch, answers) = HoldersWatch::new(socket, time.0, offers.clone());
        owner = owner.hearing(answers);
        tasks.spawn(named("holders", watch.run(stop.clone())));
    }
    tasks.spawn(named("inventory owner", owner.run(stop.clone())));
    let ixml = settings.ixml.map(|settings| {
        let following = (in_force.clone(), offers.clone());
        let (monitor, state) =
            IxmlMonitor::new(settings, root.is_this_machine(), following, looks.clone());
        tasks.spawn(named("libixml", monitor.run(stop.clone())));
        state
    });
    let monitor = health_monitor::run(root, in_force.clone(), offers.clone(), looks, stop.clone());
    tasks.spawn(named("health monitor", monitor));
    tasks.spawn(named("sessions", sessions.run(stop.clone())));
    tasks.spawn(named("handout ledger", keeper.run(stop.clone())));
    tasks.spawn(named("CDI writer", writer.run(stop.clone())));
    if let Some(source) = config_source {
        let follow = ConfigWatch::new(source, config, offers.clone(), Arc::clone(&reload), inotify);
        tasks.spawn(named("configuration", follow.run(stop.clone())));
    }
    if uevents {
        let pump = uevent_pump::run(in_force, triggers.clone(), stop.clone());
        tasks.spawn(named("uevent pump", pump));
    }
    Bound { offers, sessions: view, cdi, ixml, triggers, reload, stop, tasks }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

impl Bound {
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
