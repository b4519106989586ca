//! The one owner of the kubelet's state: a task that answers commands one by one, ends grace
//! periods, and publishes what an onlooker may see. It alone starts and ends connections.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::PluginClient;
use super::dra::DraNodeState;
use super::pod_devices::{Held, PodDevices};
use super::pods::{AdmissionCause, ContainerRequest};
use super::process::{self, Process, ProcessContext};
use super::resources::{ClientId, ResourceTable};
use super::selection::{self, AllocatableIds};
use super::settings::{KubeletSettings, RegisterBehaviour};
use super::view::{NodeView, ResourceHealth};
use crate::model::health::Health;
use crate::wire::v1beta1::DevicePluginOptions;

/// The state; lives in the task that runs [`Node::run`].
pub(super) struct Node {
    pub(super) resources: ResourceTable,
    pub(super) pods: PodDevices,
    pub(super) register: RegisterBehaviour,
    pub(super) register_calls: u64,
    pub(super) pod_resources_calls: u64,
    /// Claims of pods, which PodResources lists too; none where there is no such kubelet.
    pub(super) claims: Option<watch::Receiver<DraNodeState>>,
    pub(super) settings: KubeletSettings,
    directory: PathBuf,
    connections: BTreeMap<ClientId, PluginConnection>,
    process: Option<Process>,
    lives: u64,
}

/// To one plugin.
struct PluginConnection {
    resource: String,
    client: PluginClient,
    cut: CancellationToken,
    stream_dropped: CancellationToken,
}

/// Who is to be called for a resource.
pub(super) struct ConnectedPlugin {
    /// Absent where the plugin is gone.
    pub(super) client: Option<PluginClient>,
    /// Absent after a restart of the kubelet, until the plugin is back.
    pub(super) options: Option<DevicePluginOptions>,
}

/// Runs commands in the owner's task.
#[derive(Clone)]
pub(super) struct NodeHandle {
    commands: mpsc::Sender<NodeCommand>,
}

type NodeCommand = Box<dyn FnOnce(&mut Node) -> Reply + Send>;
type Reply = Box<dyn FnOnce() + Send>;

/// The embedded kubelet was shut down, or its owner task died.
#[derive(Debug, thiserror::Error)]
#[error("the embedded kubelet was shut down")]
pub struct ShutDown;

impl NodeHandle {
    /// Runs `command` in the owner's task. The answer comes after the new view is published.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Result<T, ShutDown> {
        let (reply, answer) = oneshot::channel();
        let command: NodeCommand = Box::new(move |node| {
            let answer = command(node);
            Box::new(move || drop(reply.send(answer)))
        });
        self.commands.send(command).await.map_err(|_| ShutDown)?;
        answer.await.map_err(|_| ShutDown)
    }
}

impl Node {
    pub(super) fn new(directory: PathBuf, settings: KubeletSettings) -> Self {
        Self {
            resources: ResourceTable::new(settings.takeover_bug, settings.grace),
            pods: PodDevices::default(),
            register: RegisterBehaviour::Accept,
            register_calls: 0,
            pod_resources_calls: 0,
            claims: None,
            settings,
            directory,
            connections: BTreeMap::new(),
            process: None,
            lives: 0,
        }
    }

    /// A channel of commands for [`Node::run`].
    pub(super) fn node_handle() -> (NodeHandle, mpsc::Receiver<NodeCommand>) {
        let (commands, receiver) = mpsc::channel(64);
        (NodeHandle { commands }, receiver)
    }

    /// Answers until `stop`.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<NodeCommand>,
        view: watch::Sender<NodeView>,
        stop: CancellationToken,
    ) {
        loop {
            let expiry = self.resources.next_expiry();
            let mut reply: Option<Reply> = None;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(command) = commands.recv() => reply = Some(command(&mut self)),
                () = until(expiry) => self.resources.expire(Instant::now()),
                Some(()) = next_end(&mut self.process) => {}
            }
            self.publish(&view);
            if let Some(reply) = reply {
                reply();
            }
        }
    }

    /// Starts a process that runs `serve`. One that still runs ends first.
    pub(super) fn start<Served: Future<Output = ()> + Send + 'static>(
        &mut self,
        serve: impl FnOnce(UnixListener, ProcessContext) -> Served,
    ) -> io::Result<()> {
        drop(self.end());
        let listener = process::bind(&self.directory)?;
        self.resources.restarted(Instant::now());
        self.lives += 1;
        let mut process = Process::new(self.lives);
        let context = ProcessContext {
            life: process.life,
            directory: self.directory.clone(),
            dial_timeout: self.settings.dial_timeout,
            cut: process.cut(),
        };
        process.spawn(serve(listener, context));
        self.process = Some(process);
        Ok(())
    }

    /// Takes the process away, if one runs; it ends at the latest when the answer is dropped.
    pub(super) fn end(&mut self) -> Option<Process> {
        self.connections.clear();
        self.resources.restarted(Instant::now());
        self.process.take()
    }

    /// Removes `kubelet.sock`.
    pub(super) fn remove_socket(&mut self) -> io::Result<()> {
        process::remove_socket(&self.directory)
    }

    /// Runs `task` until the process ends; not at all where none runs.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &mut self.process {
            process.spawn(task);
        }
    }

    /// A token that cuts one connection, at the latest with the life; none where `life` is over.
    pub(super) fn connecting(
        &mut self,
        life: u64,
        resource: &str,
    ) -> Option<(ClientId, CancellationToken)> {
        let process = self.process.as_ref().filter(|now| now.life == life)?;
        let cut = process.cut();
        Some((self.resources.connecting(resource), cut))
    }

    /// The plugin sent its options: it is registered, and its stream is to be opened, until the
    /// token ends it. None where the kubelet was restarted meanwhile.
    pub(super) fn connected(
        &mut self,
        (id, cut): (ClientId, CancellationToken),
        resource: String,
        client: PluginClient,
        options: DevicePluginOptions,
    ) -> Option<CancellationToken> {
        if !self.resources.connected(id, options) {
            return None;
        }
        let stream_dropped = CancellationToken::new();
        let dropped = stream_dropped.clone();
        let connection = PluginConnection { resource, client, cut, stream_dropped };
        self.connections.insert(id, connection);
        Some(dropped)
    }

    /// The stream ended: its connection goes, and that of whom the kubelet takes for its owner.
    pub(super) fn stream_ended(&mut self, id: ClientId, why: String) {
        let disconnected = self.resources.stream_ended(id, why, Instant::now());
        for id in disconnected.into_iter().chain([id]) {
            if let Some(connection) = self.connections.remove(&id) {
                connection.cut.cancel();
            }
        }
    }

    /// Ends the open streams of the resource from our side.
    pub(super) fn drop_streams(&mut self, resource: &str) {
        for connection in self.connections.values() {
            if connection.resource == resource {
                connection.stream_dropped.cancel();
            }
        }
    }

    pub(super) fn candidates(
        &self,
        pod: &str,
        request: &ContainerRequest,
    ) -> Result<Option<AllocatableIds>, AdmissionCause> {
        let affinity = self.settings.numa_affinity.as_ref();
        selection::candidates(&self.resources, &self.pods, pod, request, affinity)
    }

    /// The plugin of the resource; none where none registered or the grace period is over.
    pub(super) fn plugin(&self, resource: &str) -> Option<ConnectedPlugin> {
        let endpoint = self.resources.endpoint(resource)?;
        let live = endpoint.client.filter(|_| endpoint.stopped_at.is_none());
        let connection = live.and_then(|client| self.connections.get(&client));
        let client = connection.map(|connection| connection.client.clone());
        Some(ConnectedPlugin { client, options: endpoint.options })
    }

    /// The pod's `allocatedResourcesStatus`, by container, resource and device id.
    pub(super) fn allocated_resources_status(&self, pod: &str) -> BTreeMap<String, ResourceHealth> {
        let containers = self.pods.containers(pod);
        let status = |resources: &BTreeMap<String, Held>| {
            resources
                .iter()
                .map(|(name, held)| (name.clone(), self.health_of(name, held)))
                .collect()
        };
        containers.map(|(container, resources)| (container.clone(), status(resources))).collect()
    }

    fn health_of(&self, resource: &str, held: &Held) -> BTreeMap<String, Health> {
        let health = |id| self.resources.listed_health(resource, id);
        held.devices.iter().map(|id| (id.clone(), health(id))).collect()
    }

    fn publish(&self, view: &watch::Sender<NodeView>) {
        let now = NodeView {
            serving: self.process.is_some(),
            register_calls: self.register_calls,
            pod_resources_calls: self.pod_resources_calls,
            resources: self.resources.view(),
        };
        view.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn next_end(process: &mut Option<Process>) -> Option<()> {
    match process {
        Some(process) => process.next_end().await,
        None => None,
    }
}
