//! The story that `demo` plays: the whole daemon, a kubelet in the same process, and a machine whose
//! boards are removed and broken meanwhile. Every line reports something that happened.

mod cordon;
mod reconfigure;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use self::reconfigure::ConfigFile;
use super::daemon::DemoDaemon;
use super::dra_story;
use super::kubelet::{Admission, EmbeddedKubelet, KubeletSettings, NodeView, PodRequest};
use super::machine::DemoMachine;
use super::timeline::{Actor, Timeline};
use crate::app::DaemonSettings;
use crate::daemon::inventory_owner::SnapshotReceiver;
use crate::decide::node::removed::Retention;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::board::Board;
use crate::model::config::{Config, HealthRules};
use crate::model::device::Device;
use crate::model::health::Health;
use crate::model::machine::Machine;
use crate::model::rescan::RescanTrigger;
use crate::wire::counted::counted;

/// The machine of the demo unless another is named.
pub const SHIPPED: &str = include_str!("../../fixtures/nodes/bi-v150-x8.node");

/// How long any one step of the story may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The story takes seconds, so health changes faster than by default (5 s and 30 s).
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
const HEALTH_RECOVERY: Duration = Duration::from_secs(1);

/// Parts of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Story {
    /// Everything.
    All,
    /// Pods that request 1, 2, 4 and too many GPUs.
    Pods,
    /// The kubelet restarts.
    Restart,
    /// A board is removed, the pod that holds it is deleted, and the board comes back.
    Hotplug,
    /// A chip stops answering and recovers.
    Health,
    /// A device that a pod holds is cordoned, and uncordoned after the pod ended.
    Cordon,
    /// The configuration changes from boards to chips while a pod holds a board.
    Config,
    /// DRA mode, which `all` leaves out: the change from the device plugin, slices, claims, taints.
    Dra,
}

impl Story {
    fn has(self, part: Self) -> bool {
        self == Self::All || self == part
    }
}

/// Plays the story on `machine`; sockets and files go below `directory`.
///
/// # Errors
/// What did not happen as expected, for example a list that did not come in ten seconds.
pub async fn play(
    story: Story,
    machine: Machine,
    mut config: Config,
    directory: &Path,
    timeline: Timeline<'_>,
) -> anyhow::Result<()> {
    config.health =
        HealthRules { interval: HEALTH_INTERVAL, recovery: HEALTH_RECOVERY, ..config.health };
    let machine = DemoMachine::unpack(machine).context("cannot unpack the machine")?;
    if story == Story::Dra {
        return dra_story::play(machine, config, directory, timeline).await;
    }
    let started = Instant::now();
    let resource = config.resources[0].name.clone();
    let pod_resources_socket = Some(directory.join("pod-resources/kubelet.sock"));
    let kubelet = KubeletSettings { pod_resources_socket, ..KubeletSettings::default() };
    let config_file = ConfigFile::write(directory, &config)?;
    let settings = settings(&machine, config.clone(), &config_file, directory, &kubelet);
    let kubelet = EmbeddedKubelet::start(directory, kubelet).await?;
    let daemon = DemoDaemon::start(settings);
    let mut stage = Stage {
        timeline,
        started,
        machine,
        kubelet,
        resource,
        snapshots: daemon.snapshots.clone(),
        triggers: daemon.triggers.clone(),
        config,
        config_file,
        counts: Counts::default(),
        held: BTreeMap::new(),
    };
    let played = stage.play_parts(story, directory).await;
    played.and(daemon.stop().await)?;
    stage.close().await
}

/// The plugin's settings: nothing reaches out of `directory` and the unpacked machine.
fn settings(
    machine: &DemoMachine,
    config: Config,
    config_file: &ConfigFile,
    directory: &Path,
    kubelet: &KubeletSettings,
) -> DaemonSettings {
    DaemonSettings {
        root: machine.root(),
        config,
        config_source: Some(config_file.source()),
        kubelet_directory: directory.to_owned(),
        pod_resources_socket: kubelet.pod_resources_socket.clone(),
        // This kubelet knows its pods from its start.
        retention: Retention { kubelet_start: Duration::ZERO, ..Retention::default() },
        ixml: None,
        http: None,
        inotify: true,
        uevents: false,
        dra: None,
    }
}

#[derive(Default)]
struct Counts {
    pods: usize,
    refused: usize,
    restarts: usize,
    changes: usize,
    cordons: usize,
    reconfigurations: usize,
}

struct Stage<'a> {
    timeline: Timeline<'a>,
    started: Instant,
    machine: DemoMachine,
    kubelet: EmbeddedKubelet,
    resource: String,
    snapshots: SnapshotReceiver,
    triggers: mpsc::Sender<RescanTrigger>,
    config: Config,
    config_file: ConfigFile,
    counts: Counts,
    /// Which pod has which device.
    held: BTreeMap<String, String>,
}

impl Stage<'_> {
    fn print(&mut self, actor: Actor, text: &str, facts: &Value) -> anyhow::Result<()> {
        let printed = self.timeline.print(self.started.elapsed(), actor, text, facts);
        printed.context("cannot print the timeline")
    }

    async fn play_parts(&mut self, story: Story, directory: &Path) -> anyhow::Result<()> {
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
        if story.has(Story::Cordon) {
            self.cordon(directory).await?;
        }
        if story.has(Story::Config) {
            self.reconfigure().await?;
        }
        Ok(())
    }

    /// Waits until the kubelet's view meets `condition`, and returns how long it took.
    async fn wait_until(
        &self,
        what: &str,
        condition: impl Fn(&NodeView) -> bool,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let seen = timeout(STEP_TIMEOUT, self.kubelet.wait_for(condition)).await;
        seen.map_err(|_| anyhow!("the kubelet did not see within {STEP_TIMEOUT:?}: {what}"))??;
        Ok(began.elapsed())
    }

    fn snapshot(&self) -> anyhow::Result<Arc<NodeSnapshot>> {
        self.snapshots.borrow().clone().context("the machine has not been scanned")
    }

    fn count(&self) -> (usize, usize) {
        let view = self.kubelet.view().borrow().clone();
        (view.capacity(&self.resource), view.allocatable(&self.resource))
    }

    async fn registration(&mut self) -> anyhow::Result<()> {
        self.print(Actor::Kubelet, "started, waiting for plugins", &Value::Null)?;
        let resource = self.resource.clone();
        self.wait_until("a first list", move |view| {
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
        self.print(Actor::Plugin, &text, &Value::Null)?;
        self.last_board()?;
        self.node("registered; the node has")
    }

    fn node(&mut self, text: &str) -> anyhow::Result<()> {
        let (capacity, allocatable) = self.count();
        let resource = self.resource.clone();
        let text = format!("{text} {resource}: capacity {capacity}, allocatable {allocatable}");
        let facts =
            json!({ "resource": resource, "capacity": capacity, "allocatable": allocatable });
        self.print(Actor::Kubelet, &text, &facts)
    }

    async fn pods(&mut self) -> anyhow::Result<()> {
        let mut free = self.count().1;
        for count in [1, 2, 4] {
            if count <= free {
                self.pod(count).await?;
                free -= count;
            }
        }
        self.pod(free + 1).await?;
        Ok(())
    }

    async fn pod(&mut self, count: usize) -> anyhow::Result<String> {
        let number = self.counts.pods + self.counts.refused + 1;
        let pod = format!("pod-{number}");
        let name = format!("{pod} requests {count}");
        let request = PodRequest::single(&pod, &self.resource, count);
        match self.kubelet.admit(request).await {
            Ok(admission) => {
                self.counts.pods += 1;
                let (text, facts) = self.admitted(&name, &admission)?;
                self.note_held(&admission);
                self.print(Actor::Pod, &text, &facts)?;
            }
            Err(error) => {
                self.counts.refused += 1;
                let text = format!("{name} and is refused\n{error}");
                let facts = json!({ "pod": name, "error": error.to_string() });
                self.print(Actor::Pod, &text, &facts)?;
            }
        }
        Ok(pod)
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
        self.print(Actor::Kubelet, "restarts: all sockets are removed", &Value::Null)?;
        let before = self.lists();
        self.kubelet.restart().await?;
        self.counts.restarts += 1;
        let resource = self.resource.clone();
        let took = self
            .wait_until("a list after the restart", move |view| {
                let resource = view.resources.get(&resource);
                resource.is_some_and(|view| view.lists_received > before && view.allocatable > 0)
            })
            .await?;
        self.node(&format!("has the list again after {:.1} ms;", took.as_secs_f64() * 1000.0))
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

    async fn rescan(&self) -> anyhow::Result<()> {
        self.triggers.send(RescanTrigger::Uevent).await.context("the plugin has stopped")
    }

    async fn hotplug(&mut self) -> anyhow::Result<()> {
        let board = self.last_board()?;
        let (capacity, allocatable) = self.count();
        self.print(Actor::Hardware, &format!("board {} is removed", board.address), &Value::Null)?;
        self.machine.unplug(&board).context("cannot unplug")?;
        self.rescan().await?;
        self.change("a healthy device less", move |view, resource| {
            view.allocatable(resource) < allocatable
        })
        .await?;
        self.release(&board).await?;
        let resource = self.resource.clone();
        self.wait_until("a device less", move |view| view.capacity(&resource) < capacity).await?;
        self.node("no longer counts it;")?;
        let text = format!("board {} is back", board.address);
        self.print(Actor::Hardware, &text, &Value::Null)?;
        self.machine.replug(&board).context("cannot replug")?;
        self.rescan().await?;
        self.change("all devices again", move |view, resource| view.capacity(resource) == capacity)
            .await
    }

    /// Deletes the pod that holds the board, if any, once the plugin knows that it does.
    async fn release(&mut self, board: &Board) -> anyhow::Result<()> {
        let Some(pod) = self.held.get(&board.address.to_string()).cloned() else { return Ok(()) };
        let mut snapshots = self.snapshots.clone();
        let is_known = |snapshot: &Option<Arc<NodeSnapshot>>| {
            let snapshot = snapshot.iter();
            snapshot
                .flat_map(|snapshot| snapshot.removed())
                .any(|(_, device)| device.reasons.iter().any(|reason| reason.detail.contains(&pod)))
        };
        timeout(STEP_TIMEOUT, snapshots.wait_for(is_known))
            .await
            .context("no pod holds the board")??;
        self.reasons()?;
        self.delete(&pod).await
    }

    async fn delete(&mut self, pod: &str) -> anyhow::Result<()> {
        self.print(Actor::Pod, &format!("{pod} is deleted"), &json!({ "pod": pod }))?;
        self.kubelet.remove(pod).await?;
        self.held.retain(|_, holder| holder != pod);
        Ok(())
    }

    async fn health(&mut self) -> anyhow::Result<()> {
        let board = self.last_board()?;
        let chip = board.chips.last().context("the board has no chip")?.address;
        let (_, allocatable) = self.count();
        let text = format!(
            "chip {chip} stops answering; health is sampled every {HEALTH_INTERVAL:?}, and a fault \
             ends after {HEALTH_RECOVERY:?} without it"
        );
        self.print(Actor::Hardware, &text, &Value::Null)?;
        self.machine.stop_answering(chip).context("cannot stop the chip")?;
        self.change("a healthy device less", move |view, resource| {
            view.allocatable(resource) < allocatable
        })
        .await?;
        self.reasons()?;
        self.print(Actor::Hardware, &format!("chip {chip} answers again"), &Value::Null)?;
        self.machine.answer_again(chip).context("cannot start the chip")?;
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
        let took = self.wait_until(what, move |view| seen(view, &resource)).await?;
        self.counts.changes += 1;
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
                self.print(Actor::Plugin, &text, &facts)?;
            }
        }
        snapshot.removed().try_for_each(|(_, device)| self.device_reasons(device))
    }

    fn device_reasons(&mut self, device: &Device) -> anyhow::Result<()> {
        for reason in &device.reasons {
            let text = format!("device {}: {}: {}", device.id, reason.code, reason.detail);
            let facts = json!({ "device": device.id.to_string(), "reason": reason.code.name() });
            self.print(Actor::Plugin, &text, &facts)?;
        }
        Ok(())
    }

    async fn close(mut self) -> anyhow::Result<()> {
        let Counts { pods, refused, restarts, changes, cordons, reconfigurations } = self.counts;
        self.print(Actor::Plugin, "stopped cleanly", &Value::Null)?;
        let text = format!(
            "{} admitted, {refused} refused for lack of devices, {}, {}, {}, {}",
            counted(pods, "pod"),
            counted(restarts, "kubelet restart"),
            counted(changes, "hardware change"),
            counted(cordons, "cordon"),
            counted(reconfigurations, "configuration change"),
        );
        let facts = json!({
            "admitted": pods, "refused": refused, "restarts": restarts, "changes": changes,
            "cordons": cordons, "reconfigurations": reconfigurations,
        });
        self.print(Actor::Story, &text, &facts)?;
        self.kubelet.shutdown().await;
        Ok(())
    }
}
