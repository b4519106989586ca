//! The story that `demo` plays: the whole daemon, a kubelet in the same process, and a machine that
//! is pulled apart under them. Nothing is shown that did not happen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::kubelet::{
    Admission, EmbeddedKubelet, NodeView, PodRequest, Settings as KubeletSettings,
};
use super::machine::PlayMachine;
use super::timeline::{Actor, Timeline};
use crate::app::{self, DaemonSettings};
use crate::daemon::inventory_owner::SnapshotReceiver;
use crate::decide::node::removed::Retention;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::board::Board;
use crate::model::config::{Config, HealthRules};
use crate::model::health::Health;
use crate::model::machine::Machine;
use crate::model::rescan::RescanTrigger;
use crate::wire::counted::counted;

/// The machine that is played on unless another is named.
pub const SHIPPED: &str = include_str!("../../fixtures/nodes/bi-v150-x8.node");

/// Longest that any one thing in the story may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The story is played in seconds, so health moves faster than by default (5 s and 30 s).
const INTERVAL: Duration = Duration::from_millis(500);
const RECOVERY: Duration = Duration::from_secs(1);

/// Parts of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Story {
    /// Everything.
    All,
    /// Pods that ask for 1, 2, 4 and too many GPUs.
    Pods,
    /// The kubelet restarts.
    Restart,
    /// A board leaves, the pod that held it goes, and the board comes back.
    Hotplug,
    /// A chip stops answering and recovers.
    Health,
}

impl Story {
    fn has(self, part: Self) -> bool {
        self == Self::All || self == part
    }
}

/// Plays the story on `machine`, below `directory`, which it may fill.
///
/// # Errors
/// What did not happen as it should, for example a list that did not come in ten seconds.
pub async fn play(
    story: Story,
    machine: Machine,
    mut config: Config,
    directory: &Path,
    timeline: Timeline<'_>,
) -> anyhow::Result<()> {
    config.health = HealthRules { interval: INTERVAL, recovery: RECOVERY, ..config.health };
    let machine = PlayMachine::unpack(machine).context("cannot unpack the machine")?;
    let started = Instant::now();
    let resource = config.resources[0].name.clone();
    let pod_resources_socket = Some(directory.join("pod-resources/kubelet.sock"));
    let kubelet = KubeletSettings { pod_resources_socket, ..KubeletSettings::default() };
    let settings = settings(&machine, config, directory, &kubelet);
    let kubelet = EmbeddedKubelet::start(directory, kubelet).await?;
    let bound = app::build(settings);
    let mut stage = Stage {
        timeline,
        started,
        machine,
        kubelet,
        resource,
        snapshots: bound.snapshots.clone(),
        triggers: bound.triggers.clone(),
        told: Summary::default(),
        held: BTreeMap::new(),
    };
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let daemon = bound.run_until_stopped(async {
        let _ = ended.await;
    });
    let telling = async {
        let told = stage.tell_all(story).await;
        drop(end);
        told
    };
    let (told, daemon) = tokio::join!(telling, daemon);
    told.and(daemon.map_err(anyhow::Error::from))?;
    stage.close().await
}

/// The plugin as it is played: everything but what would reach out of `directory`.
fn settings(
    machine: &PlayMachine,
    config: Config,
    directory: &Path,
    kubelet: &KubeletSettings,
) -> DaemonSettings {
    DaemonSettings {
        root: machine.root(),
        config,
        config_source: None,
        kubelet_directory: directory.to_owned(),
        pod_resources_socket: kubelet.pod_resources_socket.clone(),
        // This kubelet knows its pods at any time.
        retention: Retention { kubelet_start: Duration::ZERO, ..Retention::default() },
        ixml: None,
        http: None,
        inotify: true,
        uevents: false,
    }
}

#[derive(Default)]
struct Summary {
    pods: usize,
    refused: usize,
    restarts: usize,
    changes: usize,
}

struct Stage<'a> {
    timeline: Timeline<'a>,
    started: Instant,
    machine: PlayMachine,
    kubelet: EmbeddedKubelet,
    resource: String,
    snapshots: SnapshotReceiver,
    triggers: mpsc::Sender<RescanTrigger>,
    told: Summary,
    /// Which pod has which device.
    held: BTreeMap<String, String>,
}

impl Stage<'_> {
    fn tell(&mut self, actor: Actor, text: &str, facts: &Value) -> anyhow::Result<()> {
        let told = self.timeline.tell(self.started.elapsed(), actor, text, facts);
        told.context("cannot print the timeline")
    }

    async fn tell_all(&mut self, story: Story) -> anyhow::Result<()> {
        self.registration().await?;
        if story.has(Story::Pods) {
            self.pods().await?;
        }
        if story.has(Story::Restart) {
            self.restart().await?;
        }
        if story.has(Story::Hotplug) {
            self.hotplug().await?;
        }
        if story.has(Story::Health) {
            self.health().await?;
        }
        Ok(())
    }

    /// Waits until the kubelet sees what `condition` wants, and says how long it took.
    async fn until(
        &self,
        what: &str,
        condition: impl Fn(&NodeView) -> bool,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let seen = timeout(PATIENCE, self.kubelet.wait_for(condition)).await;
        seen.map_err(|_| anyhow!("the kubelet did not see within {PATIENCE:?}: {what}"))??;
        Ok(began.elapsed())
    }

    fn snapshot(&self) -> anyhow::Result<Arc<NodeSnapshot>> {
        self.snapshots.borrow().clone().context("the machine has not been looked at")
    }

    fn count(&self) -> (usize, usize) {
        let view = self.kubelet.view().borrow().clone();
        (view.capacity(&self.resource), view.allocatable(&self.resource))
    }

    async fn registration(&mut self) -> anyhow::Result<()> {
        self.tell(Actor::Kubelet, "started, waiting for plugins", &Value::Null)?;
        let resource = self.resource.clone();
        self.until("a first list", move |view| {
            view.resources.get(&resource).is_some_and(|resource| resource.lists_received > 0)
        })
        .await?;
        let snapshot = self.snapshot()?;
        let boards = &snapshot.inventory.boards;
        let chips = counted(snapshot.inventory.chips().len(), "chip");
        let text = match boards.first() {
            None => "found no boards in /sys".to_owned(),
            Some(board) => {
                let (boards, model) = (counted(boards.len(), "board"), board.model_or_id());
                format!("found {boards} with {chips} in /sys ({model})")
            }
        };
        self.tell(Actor::Plugin, &text, &Value::Null)?;
        self.last_board()?;
        self.node("registered; the node has")
    }

    fn node(&mut self, text: &str) -> anyhow::Result<()> {
        let (capacity, allocatable) = self.count();
        let resource = self.resource.clone();
        let text = format!("{text} {resource}: capacity {capacity}, allocatable {allocatable}");
        let facts =
            json!({ "resource": resource, "capacity": capacity, "allocatable": allocatable });
        self.tell(Actor::Kubelet, &text, &facts)
    }

    async fn pods(&mut self) -> anyhow::Result<()> {
        let mut free = self.count().1;
        for count in [1, 2, 4] {
            if count <= free {
                self.pod(count).await?;
                free -= count;
            }
        }
        self.pod(free + 1).await
    }

    async fn pod(&mut self, count: usize) -> anyhow::Result<()> {
        let number = self.told.pods + self.told.refused + 1;
        let pod = format!("pod-{number}");
        let name = format!("{pod} asks for {count}");
        let pod = PodRequest::single(&pod, &self.resource, count);
        match self.kubelet.admit(pod).await {
            Ok(admission) => {
                self.told.pods += 1;
                let (text, facts) = self.admitted(&name, &admission)?;
                self.note_held(&admission);
                self.tell(Actor::Pod, &text, &facts)
            }
            Err(error) => {
                self.told.refused += 1;
                let text = format!("{name} and is refused\n{error}");
                self.tell(Actor::Pod, &text, &json!({ "pod": name, "error": error.to_string() }))
            }
        }
    }

    fn note_held(&mut self, admission: &Admission) {
        let devices = admission.containers.iter().flat_map(|container| &container.devices);
        let ids = devices.flat_map(|(_, ids)| ids);
        self.held.extend(ids.map(|id| (id.clone(), admission.pod.clone())));
    }

    fn admitted(&self, name: &str, admission: &Admission) -> anyhow::Result<(String, Value)> {
        let snapshot = self.snapshot()?;
        let resource = snapshot.resource(&self.resource).context("the resource is gone")?;
        let container = admission.containers.first().context("the pod has no container")?;
        let ids = container.devices.get(&self.resource).cloned().unwrap_or_default();
        let devices: Vec<_> = ids.iter().filter_map(|id| resource.find(id.parse().ok()?)).collect();
        let nodes: Vec<_> =
            container.injection.devices.iter().map(|device| device.host_path.as_str()).collect();
        let numa: std::collections::BTreeSet<_> =
            devices.iter().flat_map(|device| device.numa_nodes.iter().copied()).collect();
        let visible = container.injection.envs.get("IX_VISIBLE_DEVICES").cloned();
        let visible = visible.unwrap_or_default();
        let text = format!(
            "{name} and gets {}\nnodes {}\nIX_VISIBLE_DEVICES={visible}\nNUMA {numa:?}",
            ids.join(", "),
            nodes.join(" "),
        );
        let facts = json!({
            "pod": name, "devices": ids, "nodes": nodes, "numaNodes": numa,
            "env": container.injection.envs,
        });
        Ok((text, facts))
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        self.tell(Actor::Kubelet, "restarts: every socket is wiped", &Value::Null)?;
        let before = self.lists();
        self.kubelet.restart().await?;
        self.told.restarts += 1;
        let resource = self.resource.clone();
        let took = self
            .until("a list after the restart", move |view| {
                let resource = view.resources.get(&resource);
                resource.is_some_and(|view| view.lists_received > before && view.allocatable > 0)
            })
            .await?;
        self.node(&format!("has our list again after {:.1} ms;", took.as_secs_f64() * 1000.0))
    }

    fn lists(&self) -> u64 {
        let view = self.kubelet.view().borrow().clone();
        view.resources.get(&self.resource).map_or(0, |resource| resource.lists_received)
    }

    fn last_board(&self) -> anyhow::Result<Board> {
        let snapshot = self.snapshot()?;
        let mut boards = snapshot.inventory.boards.iter().rev();
        let healthy = boards.find(|board| board.health == Health::Healthy);
        healthy.cloned().context("the machine has no healthy board, and the story needs one")
    }

    async fn look_again(&self) -> anyhow::Result<()> {
        self.triggers.send(RescanTrigger::Uevent).await.context("nobody looks any more")
    }

    async fn hotplug(&mut self) -> anyhow::Result<()> {
        let board = self.last_board()?;
        let (capacity, allocatable) = self.count();
        self.tell(
            Actor::Hardware,
            &format!("board {} is pulled out", board.address),
            &Value::Null,
        )?;
        self.machine.unplug(&board).context("cannot unplug")?;
        self.look_again().await?;
        self.change("a healthy device less", move |view, resource| {
            view.allocatable(resource) < allocatable
        })
        .await?;
        self.release(&board).await?;
        let resource = self.resource.clone();
        self.until("a device less", move |view| view.capacity(&resource) < capacity).await?;
        self.node("counts it no longer;")?;
        let text = format!("board {} is back in its place", board.address);
        self.tell(Actor::Hardware, &text, &Value::Null)?;
        self.machine.replug(&board).context("cannot replug")?;
        self.look_again().await?;
        self.change("all devices again", move |view, resource| view.capacity(resource) == capacity)
            .await
    }

    /// Deletes the pod that holds the board, if one does, once the plugin knows of it.
    async fn release(&mut self, board: &Board) -> anyhow::Result<()> {
        let Some(pod) = self.held.get(&board.address.to_string()).cloned() else { return Ok(()) };
        let mut snapshots = self.snapshots.clone();
        let is_known = |snapshot: &Option<Arc<NodeSnapshot>>| {
            let snapshot = snapshot.iter();
            snapshot
                .flat_map(|snapshot| snapshot.removed())
                .any(|(_, device)| device.reasons.iter().any(|reason| reason.detail.contains(&pod)))
        };
        timeout(PATIENCE, snapshots.wait_for(is_known))
            .await
            .context("nobody holds the board")??;
        self.reasons()?;
        self.tell(Actor::Pod, &format!("{pod} is deleted"), &json!({ "pod": pod }))?;
        self.kubelet.remove(&pod).await?;
        self.held.retain(|_, holder| *holder != pod);
        Ok(())
    }

    async fn health(&mut self) -> anyhow::Result<()> {
        let board = self.last_board()?;
        let chip = board.chips.last().context("the board has no chip")?.address;
        let (_, allocatable) = self.count();
        let text = format!(
            "chip {chip} stops answering; the plugin looks every {INTERVAL:?}, and a fault is over \
             after {RECOVERY:?} without it"
        );
        self.tell(Actor::Hardware, &text, &Value::Null)?;
        self.machine.silence(chip).context("cannot silence")?;
        self.change("a healthy device less", move |view, resource| {
            view.allocatable(resource) < allocatable
        })
        .await?;
        self.reasons()?;
        self.tell(Actor::Hardware, &format!("chip {chip} answers again"), &Value::Null)?;
        self.machine.revive(chip).context("cannot revive")?;
        self.change("all healthy again", move |view, resource| {
            view.allocatable(resource) == allocatable
        })
        .await
    }

    /// Waits until the kubelet sees a change, and shows the node.
    async fn change(
        &mut self,
        what: &str,
        seen: impl Fn(&NodeView, &str) -> bool,
    ) -> anyhow::Result<()> {
        let resource = self.resource.clone();
        let took = self.until(what, move |view| seen(view, &resource)).await?;
        self.told.changes += 1;
        self.node(&format!("sees it after {:.1} ms;", took.as_secs_f64() * 1000.0))
    }

    fn reasons(&mut self) -> anyhow::Result<()> {
        let snapshot = self.snapshot()?;
        let unhealthy =
            snapshot.inventory.boards.iter().filter(|board| board.health == Health::Unhealthy);
        for board in unhealthy {
            for reason in &board.reasons {
                let text = format!("board {}: {}: {}", board.address, reason.code, reason.detail);
                let facts =
                    json!({ "board": board.address.to_string(), "reason": reason.code.name() });
                self.tell(Actor::Plugin, &text, &facts)?;
            }
        }
        for (_, device) in snapshot.removed() {
            for reason in &device.reasons {
                let text = format!("device {}: {}: {}", device.id, reason.code, reason.detail);
                let facts =
                    json!({ "device": device.id.to_string(), "reason": reason.code.name() });
                self.tell(Actor::Plugin, &text, &facts)?;
            }
        }
        Ok(())
    }

    async fn close(mut self) -> anyhow::Result<()> {
        let Summary { pods, refused, restarts, changes } = self.told;
        self.tell(Actor::Plugin, "stopped cleanly", &Value::Null)?;
        let text = format!(
            "{} admitted, {refused} refused for lack of devices, {}, {}",
            counted(pods, "pod"),
            counted(restarts, "kubelet restart"),
            counted(changes, "hardware change"),
        );
        let facts = json!({
            "admitted": pods, "refused": refused, "restarts": restarts, "changes": changes,
        });
        self.tell(Actor::Story, &text, &facts)?;
        self.kubelet.shutdown().await;
        Ok(())
    }
}
