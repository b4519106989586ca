//! The kubelet's half of dynamic resource allocation: it finds drivers in `plugins_registry`, prepares
//! claims with them, follows the health of devices, and deletes slices. It speaks the real protocol
//! over real sockets and follows kubelet 1.36; where a rule is our own, its item has a comment.

mod path_client;
mod settings;
mod state;

mod claims;
mod connection;
mod health;
mod registry;
mod wiping;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::registry::DraContext;
pub use self::settings::{
    DraDeadlines, DraKubeletSettings, HealthService, RegistrationFault, RepeatedPrepare, SliceWipe,
};
use self::state::SharedState;
pub use self::state::{
    AllocatedStatus, DraContainer, DraNodeState, DraPodSpec, RegisteredDriver, ReportedHealth,
    UsedClaim,
};
use crate::decide::dra::socket_paths::{PLUGINS, REGISTRY};
use crate::host::sockets::create_directory;

/// One node's kubelet as far as claims are concerned. Dropping it ends all its tasks and connections,
/// as a kill would.
pub struct DraKubelet {
    settings: DraKubeletSettings,
    state: SharedState,
    process: Option<DraProcess>,
}

/// From a start to the end after it.
struct DraProcess {
    context: DraContext,
    tasks: JoinSet<()>,
    _cut: DropGuard,
}

impl DraKubelet {
    /// Starts as a kubelet does: makes its directories, deletes the slices of its node, and registers
    /// the drivers that it finds. It removes no socket.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn start(settings: DraKubeletSettings) -> io::Result<Self> {
        let state = Arc::new(watch::Sender::new(DraNodeState::default()));
        let mut kubelet = Self { settings, state, process: None };
        kubelet.restart()?;
        Ok(kubelet)
    }

    /// Ends the kubelet's process in the middle of whatever it does, and starts another. Pods keep
    /// what they hold.
    ///
    /// # Errors
    /// As for [`DraKubelet::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        for directory in [PLUGINS, REGISTRY] {
            create_directory(&self.settings.root.join(directory))?;
        }
        let cut = CancellationToken::new();
        let (settings, state) = (self.settings.clone(), Arc::clone(&self.state));
        let context = DraContext { settings, state, cut: cut.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(registry::run(context.clone()));
        tasks.spawn(wiping::run(context.clone()));
        tasks.spawn(claims::unprepare_inactive(context.clone()));
        self.state.send_modify(|state| state.serving = true);
        self.process = Some(DraProcess { context, tasks, _cut: cut.drop_guard() });
        Ok(())
    }

    /// Ends the kubelet's process.
    pub fn stop(&mut self) {
        if let Some(DraProcess { mut tasks, .. }) = self.process.take() {
            tasks.abort_all();
        }
        self.state.send_modify(DraNodeState::process_ended);
    }

    /// The node's state, always the newest.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<DraNodeState> {
        self.state.subscribe()
    }

    /// Waits until the node's state is as wanted; at once where it is already.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&DraNodeState) -> bool) {
        let mut state = self.state.subscribe();
        // The sender lives as long as this kubelet.
        let _ = state.wait_for(|state| wanted(state)).await;
    }

    /// Lets the next attempts to register fail in this way.
    pub fn fail_registrations(&self, faults: impl IntoIterator<Item = RegistrationFault>) {
        self.state.send_modify(|state| state.faults.extend(faults));
    }

    /// Prepares the claims of a pod, and returns CDI names by container. A real kubelet tries again
    /// after a failure; here the caller does.
    ///
    /// # Errors
    /// In the words of the pod's event. The pod stays active.
    pub async fn run_pod(&self, pod: &DraPodSpec) -> Result<BTreeMap<String, Vec<String>>, String> {
        claims::prepare(self.context()?, pod).await
    }

    /// The pod's containers have ended: unprepares claims that no other pod uses.
    ///
    /// # Errors
    /// The pod stays active; a real kubelet tries again.
    pub async fn end_pod(&self, pod: &str) -> Result<(), String> {
        claims::unprepare(self.context()?, pod).await
    }

    /// The pod is gone from the API server, whatever the kubelet knows of it.
    pub fn force_delete(&self, pod: &str) {
        self.state.send_modify(|state| {
            state.pods.remove(pod);
        });
    }

    fn context(&self) -> Result<&DraContext, String> {
        let process = self.process.as_ref();
        process.map(|process| &process.context).ok_or_else(|| "the kubelet is down".to_owned())
    }
}
