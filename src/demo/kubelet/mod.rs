//! A kubelet's device manager in one value: registration, streams, capacity, admission. It speaks
//! the real protocol over real sockets and follows kubelet 1.36; where a rule is ours, the
//! item that has it says so. No pods run: admission answers what they would get.

mod resource_name;
mod settings;
mod view;

mod pods;
mod resources;

mod pod_devices;
mod selection;

mod connection;
mod process;

mod node;

mod admission;
mod streams;

mod pod_resources;
mod registration;

pub mod dra;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::node::ShutDown;
pub use self::pod_resources::NAMESPACE;
pub use self::pods::{
    Admission, AdmissionCause, AdmissionError, AdmittedContainer, ContainerRequest, Injection,
    PodRequest, StartError,
};
pub use self::settings::{
    DIAL_TIMEOUT, GRACE_PERIOD, KubeletSettings, OwnSocket, PRE_START_TIMEOUT, RegisterBehaviour,
};
pub use self::view::{DeviceView, NodeView, ResourceHealth, ResourceView};

/// Why the kubelet could not start, restart or stop.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// The directory cannot be made or wiped, or a socket cannot be bound.
    #[error("device plugin directory of the embedded kubelet: {0}")]
    Directory(#[from] io::Error),
    /// There is no kubelet any more.
    #[error(transparent)]
    ShutDown(#[from] ShutDown),
}

/// One node's kubelet. Dropping it ends all its tasks and connections, as a kill would: the
/// socket stays. [`EmbeddedKubelet::shutdown`] ends it in good order.
pub struct EmbeddedKubelet {
    node_handle: node::NodeHandle,
    pod_queue: mpsc::Sender<admission::QueuedPod>,
    pod_resources_socket: Option<PathBuf>,
    view: watch::Receiver<NodeView>,
    tasks: JoinSet<()>,
    stop: DropGuard,
}

impl EmbeddedKubelet {
    /// Starts as a kubelet does: makes `directory` where it is missing, removes every socket in
    /// it, then serves `kubelet.sock` there.
    ///
    /// # Errors
    /// The directory cannot be made or wiped, or the socket cannot be bound.
    pub async fn start(directory: &Path, settings: KubeletSettings) -> Result<Self, KubeletError> {
        let (node_handle, commands) = node::Node::node_handle();
        let (pod_queue, queue) = mpsc::channel(16);
        let (publisher, view) = watch::channel(NodeView::default());
        let stop = CancellationToken::new();
        let pod_resources_socket = settings.pod_resources_socket.clone();
        let node = node::Node::new(directory.to_owned(), settings);
        let mut tasks = JoinSet::new();
        tasks.spawn(node.run(commands, publisher, stop.clone()));
        tasks.spawn(admission::admit_one_by_one(node_handle.clone(), queue));
        let stop = stop.drop_guard();
        let kubelet = Self { node_handle, pod_queue, pod_resources_socket, view, tasks, stop };
        kubelet.restart().await?;
        Ok(kubelet)
    }

    /// The node's state, always the newest; to wait on without polling.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<NodeView> {
        self.view.clone()
    }

    /// Waits until the node's state is as `wanted`, and returns it; at once where it is already.
    ///
    /// # Errors
    /// The kubelet was shut down.
    pub async fn wait_for(
        &self,
        wanted: impl FnMut(&NodeView) -> bool,
    ) -> Result<NodeView, ShutDown> {
        let mut view = self.view();
        let seen = view.wait_for(wanted).await.map_err(|_| ShutDown)?;
        Ok(seen.clone())
    }

    /// Ends the kubelet's process, if it runs, in the middle of whatever it does, and starts
    /// another: streams die, sockets are wiped, plugins must register again. Pods keep what they
    /// hold, and the answers that came with it.
    ///
    /// # Errors
    /// As for [`EmbeddedKubelet::start`].
    pub async fn restart(&self) -> Result<(), KubeletError> {
        self.end_process().await?;
        let pod_resources = self.pod_resources_socket.as_deref().map(pod_resources::bind);
        let pod_resources = pod_resources.transpose()?;
        let node_handle = self.node_handle.clone();
        let serve = |listener, context: process::ProcessContext| async move {
            let cut = context.cut.clone();
            let registration = registration::serve(listener, context, node_handle.clone());
            match pod_resources {
                Some(socket) => {
                    let pod_resources = pod_resources::serve(socket, cut, node_handle);
                    tokio::join!(registration, pod_resources);
                }
                None => registration.await,
            }
        };
        Ok(self.node_handle.ask(|node| node.start(serve)).await??)
    }

    /// Ends the kubelet's process; [`EmbeddedKubelet::restart`] starts another.
    ///
    /// # Errors
    /// The socket cannot be removed.
    pub async fn stop(&self, socket: OwnSocket) -> Result<(), KubeletError> {
        self.end_process().await?;
        match socket {
            OwnSocket::Removed => Ok(self.node_handle.ask(node::Node::remove_socket).await??),
            OwnSocket::LeftBehind => Ok(()),
        }
    }

    /// PodResources lists these claims from now on, beside devices of plugins.
    ///
    /// # Errors
    /// The kubelet was shut down.
    pub async fn list_claims(
        &self,
        claims: watch::Receiver<dra::DraNodeState>,
    ) -> Result<(), ShutDown> {
        self.node_handle.ask(move |node| node.claims = Some(claims)).await
    }

    /// What Register does from now on, calls that wait already excepted.
    ///
    /// # Errors
    /// The kubelet was shut down.
    pub async fn set_register_behaviour(
        &self,
        behaviour: RegisterBehaviour,
    ) -> Result<(), ShutDown> {
        self.node_handle.ask(move |node| node.register = behaviour).await
    }

    /// Ends the open streams of the resource from the kubelet's side. Sockets and everything else
    /// stay as they are; the plugin is disconnected, as after any end of a stream.
    ///
    /// # Errors
    /// The kubelet was shut down.
    pub async fn drop_stream(&self, resource: &str) -> Result<(), ShutDown> {
        let resource = resource.to_owned();
        self.node_handle.ask(move |node| node.drop_streams(&resource)).await
    }

    /// Chooses devices for the pod and asks the plugins for them. Pods are admitted one by one,
    /// without a time limit. A pod that is admitted already gets what it holds, if that is still
    /// healthy.
    ///
    /// A resource that was never registered is refused as an unregistered device; a real
    /// kubelet ignores it, because no scheduler would have sent the pod.
    ///
    /// # Errors
    /// The pod is refused, holds nothing, and would stay `Failed`.
    pub async fn admit(&self, pod: PodRequest) -> Result<Admission, AdmissionError> {
        let (answer, answered) = oneshot::channel();
        let queued = self.pod_queue.send((pod, answer)).await;
        queued.map_err(|_| AdmissionCause::ShutDown)?;
        answered.await.map_err(|_| AdmissionCause::ShutDown)?
    }

    /// Starts a container of an admitted pod, for the first time or again; to a kubelet that is
    /// the same. Plugins that want it get `PreStartContainer`; what they answered to Allocate
    /// at admission is used each time.
    ///
    /// After a restart of the kubelet, and until the plugin is registered again, the kubelet does
    /// not know the plugin's options and calls no plugin.
    ///
    /// # Errors
    /// A plugin refuses, does not answer in time, or is gone.
    pub async fn start_container(
        &self,
        pod: &str,
        container: &str,
    ) -> Result<Injection, StartError> {
        admission::start_container(&self.node_handle, pod.to_owned(), container.to_owned()).await
    }

    /// The pod is gone: its devices are free.
    ///
    /// # Errors
    /// The kubelet was shut down.
    pub async fn remove(&self, pod: &str) -> Result<(), ShutDown> {
        let pod = pod.to_owned();
        self.node_handle.ask(move |node| node.pods.remove(&pod)).await
    }

    /// The pod's `allocatedResourcesStatus`: health by container, resource and device id. A
    /// device that the last list did not name is reported Healthy, and a lost stream changes
    /// nothing, as in kubelet 1.36.
    ///
    /// # Errors
    /// The kubelet was shut down.
    pub async fn allocated_resources_status(
        &self,
        pod: &str,
    ) -> Result<BTreeMap<String, ResourceHealth>, ShutDown> {
        let pod = pod.to_owned();
        self.node_handle.ask(move |node| node.allocated_resources_status(&pod)).await
    }

    /// Ends the kubelet in good order: its socket is removed, all connections are cut, and all
    /// tasks have ended when this returns.
    pub async fn shutdown(self) {
        // A socket that cannot be removed stays, as after a kill.
        let _ = self.stop(OwnSocket::Removed).await;
        let Self { pod_queue, mut tasks, stop, .. } = self;
        drop((pod_queue, stop));
        while tasks.join_next().await.is_some() {}
    }

    /// When this returns, streams are cut and the socket refuses.
    async fn end_process(&self) -> Result<(), ShutDown> {
        if let Some(process) = self.node_handle.ask(node::Node::end).await? {
            process.end().await;
        }
        Ok(())
    }
}
