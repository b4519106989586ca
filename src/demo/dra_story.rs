//! The story of DRA mode: a node that changes from the device plugin to the DRA driver while a pod
//! holds a GPU, and what slices, claims and faults do then. The kubelet waits as a real one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::api_server::{ApiServer, ObjectKind, ObjectStore, ServerVersion};
use super::daemon::DemoDaemon;
use super::kubelet::dra::{
    DraDeadlines, DraKubelet, DraKubeletSettings, DraPodSpec, HealthService, RepeatedPrepare,
};
use super::kubelet::{EmbeddedKubelet, KubeletSettings, PodRequest};
use super::machine::DemoMachine;
use super::scheduler::schedule;
use super::timeline::{Actor, Timeline};
use crate::app::{DaemonSettings, DraSettings};
use crate::daemon::claim_reader::claim_reader;
use crate::decide::dra::socket_paths::DriverInstance;
use crate::decide::node::removed::Retention;
use crate::host::kube_api::{ApiAccess, KubeApi};
use crate::host::sockets::create_directory;
use crate::model::config::{Config, DraOffer, ServingMode};
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::claim::ClaimRef;
use crate::model::health::Health;
use crate::model::rescan::RescanTrigger;
use crate::wire::counted::counted;

/// How long any one step may take; a kubelet that restarts needs seconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
const NODE: &str = "node-1";
const NAMESPACE: &str = "default";
const CHIP_CLASS: &str = "chip.gpu.iluvatar.com";
const BOARD: &str = "gpu.iluvatar.com/board";

/// The node, the cluster, and the timeline.
struct DraStage<'a> {
    timeline: Timeline<'a>,
    started: Instant,
    directory: PathBuf,
    machine: DemoMachine,
    config: Config,
    server: Arc<ApiServer>,
    plugin_kubelet: EmbeddedKubelet,
    pods: usize,
}

/// Plays the story on `machine`; sockets and files go below `directory`.
///
/// # Errors
/// What did not happen as expected, for example a slice that was not published in time.
pub(super) async fn play(
    machine: DemoMachine,
    config: Config,
    directory: &Path,
    timeline: Timeline<'_>,
) -> anyhow::Result<()> {
    let (started, directory) = (Instant::now(), directory.to_owned());
    let pod_resources_socket = Some(directory.join("pod-resources/kubelet.sock"));
    let kubelet = KubeletSettings { pod_resources_socket, ..KubeletSettings::default() };
    let plugin_kubelet = EmbeddedKubelet::start(&directory.join("device-plugins"), kubelet).await?;
    create_directory(&directory.join("cdi"))?;
    let server = Arc::new(ApiServer::start(ServerVersion::V1_36, NODE).await?);
    let mut stage =
        DraStage { timeline, started, directory, machine, config, server, plugin_kubelet, pods: 0 };
    stage.create_class()?;
    let old_pod = stage.device_plugin().await?;
    let api = KubeApi::open(&ApiAccess::Plain(stage.server.url())).await?;
    let daemon = DemoDaemon::start(stage.settings(Some(api.clone())));
    let mut kubelet = stage.start_kubelet(api)?;
    let played = stage.play_parts(&daemon, &mut kubelet, &old_pod).await;
    let stopped = daemon.stop().await;
    played.and(stopped)?;
    stage.print(
        Actor::Plugin,
        "stopped cleanly; the slices stay for the next instance",
        &json!(null),
    )?;
    let text = format!("{} had GPUs, and no GPU was allocated twice", counted(stage.pods, "pod"));
    stage.print(Actor::Story, &text, &json!({ "pods": stage.pods }))?;
    kubelet.stop();
    stage.plugin_kubelet.shutdown().await;
    Ok(())
}

impl DraStage<'_> {
    fn print(&mut self, actor: Actor, text: &str, facts: &Value) -> anyhow::Result<()> {
        let printed = self.timeline.print(self.started.elapsed(), actor, text, facts);
        printed.context("cannot print the timeline")
    }

    fn create_class(&mut self) -> anyhow::Result<()> {
        let expression = format!(
            "device.driver == '{DRIVER_NAME}' && device.attributes['{DRIVER_NAME}'].chips == 1"
        );
        let class = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": { "name": CHIP_CLASS },
            "spec": { "selectors": [{ "cel": { "expression": expression } }] },
        });
        self.server.create(ObjectKind::DeviceClass, "", class)?;
        Ok(())
    }

    /// With an API server in DRA mode, without one as a device plugin.
    fn settings(&self, api: Option<KubeApi>) -> DaemonSettings {
        let mut config = self.config.clone();
        config.cdi.spec_dir = self.directory.join("cdi");
        config.dra.devices = DraOffer::Chip;
        config.mode = match api {
            Some(_) => ServingMode::Dra,
            None => ServingMode::DevicePlugin,
        };
        let instance = DriverInstance {
            kubelet_root: self.directory.clone(),
            driver: DRIVER_NAME.to_owned(),
            pod_uid: None,
        };
        let dra = api.map(|api| DraSettings {
            instance,
            node: NODE.to_owned(),
            claims: claim_reader(api.clone()),
            api: Some(api),
        });
        DaemonSettings {
            root: self.machine.root(),
            config,
            config_source: None,
            kubelet_directory: self.directory.join("device-plugins"),
            pod_resources_socket: Some(self.directory.join("pod-resources/kubelet.sock")),
            retention: Retention { kubelet_start: Duration::ZERO, ..Retention::default() },
            ixml: None,
            http: None,
            inotify: true,
            uevents: false,
            dra,
        }
    }

    fn start_kubelet(&self, api: KubeApi) -> anyhow::Result<DraKubelet> {
        let server = Arc::clone(&self.server);
        let settings = DraKubeletSettings {
            root: self.directory.clone(),
            deadlines: DraDeadlines::default(),
            health: HealthService::Alpha,
            repeated: RepeatedPrepare::Replaces,
            claims: claim_reader(api),
            wipe: Arc::new(move || {
                server.delete_slices_of(NODE).map_err(|error| error.to_string())
            }),
        };
        Ok(DraKubelet::start(settings)?)
    }

    /// The node as it was: a pod gets a GPU from the device plugin, which then stops.
    async fn device_plugin(&mut self) -> anyhow::Result<String> {
        self.print(Actor::Plugin, "serves the node in mode device-plugin", &Value::Null)?;
        let daemon = DemoDaemon::start(self.settings(None));
        let resource = self.config.resources[0].name.clone();
        let has_list = self.plugin_kubelet.wait_for(|view| view.allocatable(&resource) > 0);
        let listed = timeout(STEP_TIMEOUT, has_list).await;
        listed.context("the machine has no healthy board, and the story needs three")??;
        let pod = format!("pod-{}", self.pods + 1);
        let request = PodRequest::single(&pod, &resource, 1);
        let admission = self.plugin_kubelet.admit(request).await?;
        let ids = admission.containers.iter().flat_map(|it| it.devices.values().flatten());
        let ids: Vec<_> = ids.cloned().collect();
        self.pods += 1;
        let text = format!("{pod} requests {resource}: 1 and gets {}", ids.join(", "));
        self.print(Actor::Pod, &text, &json!({ "pod": pod, "devices": ids }))?;
        daemon.stop().await?;
        let text = "the node changes to mode dra: the device plugin stops, the DRA driver starts, \
                    the pod stays";
        self.print(Actor::Story, text, &Value::Null)?;
        Ok(pod)
    }

    async fn play_parts(
        &mut self,
        daemon: &DemoDaemon,
        kubelet: &mut DraKubelet,
        old_pod: &str,
    ) -> anyhow::Result<()> {
        self.publish(kubelet).await?;
        let count = self.claim_of_one_board(kubelet).await?;
        self.fault(daemon, kubelet, count).await?;
        self.restart(kubelet).await?;
        self.release(old_pod).await
    }

    async fn publish(&mut self, kubelet: &DraKubelet) -> anyhow::Result<()> {
        self.connected(kubelet).await?;
        self.until("slices with a GPU that is held", |store| {
            taints(store).iter().any(|(_, taint)| taint.contains("/held="))
        })
        .await?;
        let store = self.server.store();
        let devices = counted(devices(&store).len(), "device");
        let slices: Vec<ResourceSlice> = store.all(ObjectKind::ResourceSlice);
        let text = format!("published {devices} in {}", counted(slices.len(), "slice"));
        self.print(Actor::Plugin, &text, &json!({ "slices": slices.len() }))?;
        self.print_taints(&store)
    }

    async fn connected(&mut self, kubelet: &DraKubelet) -> anyhow::Result<()> {
        let connected = kubelet.wait_for(|state| state.is_connected(DRIVER_NAME));
        timeout(STEP_TIMEOUT, connected).await.context("the kubelet found no driver")?;
        let text = format!("registered driver {DRIVER_NAME} and is connected to it");
        self.print(Actor::Kubelet, &text, &Value::Null)
    }

    fn print_taints(&mut self, store: &ObjectStore) -> anyhow::Result<()> {
        let mut text = "taints:".to_owned();
        for (device, taint) in taints(store) {
            text.push_str(&format!("\n{device} {taint}"));
        }
        let text = if text.contains('\n') { text } else { "taints: none".to_owned() };
        self.print(Actor::Plugin, &text, &json!({ "taints": taints(store) }))
    }

    /// All chips of one board, by a constraint. Returns how many devices are free afterwards.
    async fn claim_of_one_board(&mut self, kubelet: &DraKubelet) -> anyhow::Result<usize> {
        let store = self.server.store();
        let free: Vec<_> = devices(&store).into_iter().filter(|it| it.taints.is_none()).collect();
        let board = |device: &Device| {
            device.attributes.as_ref()?.get("board").and_then(|board| board.string.clone())
        };
        let first = free.first().context("no device is free, and the story needs one")?;
        let chips = free.iter().filter(|device| board(device) == board(first)).count();
        self.run_pod(kubelet, chips, true).await?;
        Ok(free.len() - chips)
    }

    /// A pod with so many chips: where there are, it runs, else it is pending.
    async fn run_pod(
        &mut self,
        kubelet: &DraKubelet,
        count: usize,
        one_board: bool,
    ) -> anyhow::Result<(DraPodSpec, ClaimRef)> {
        let number = self.pods + 1;
        let (pod, name) = (format!("pod-{number}"), format!("claim-{number}"));
        let constraints =
            if one_board { json!([{ "matchAttribute": BOARD }]) } else { Value::Null };
        let exactly = json!({ "deviceClassName": CHIP_CLASS, "count": count });
        let claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "devices": {
                "requests": [{ "name": "gpu", "exactly": exactly }], "constraints": constraints,
            } },
        });
        self.server.create(ObjectKind::ResourceClaim, NAMESPACE, claim)?;
        let claim = ClaimRef { namespace: NAMESPACE.to_owned(), name };
        let spec = DraPodSpec::single(&pod, &claim);
        let chips = counted(count, "chip");
        let of = if one_board { " of one board" } else { "" };
        self.start_pod(kubelet, &spec, &claim, &format!("{pod} claims {chips}{of}")).await?;
        Ok((spec, claim))
    }

    async fn start_pod(
        &mut self,
        kubelet: &DraKubelet,
        pod: &DraPodSpec,
        claim: &ClaimRef,
        text: &str,
    ) -> anyhow::Result<()> {
        let scheduled = schedule(&self.server, NODE, &claim.namespace, &claim.name);
        let allocated = match scheduled {
            Err(error) => {
                let facts = json!({ "pod": pod.name, "pending": error.to_string() });
                return self.print(Actor::Pod, &format!("{text} and is Pending\n{error}"), &facts);
            }
            Ok(allocated) => allocated,
        };
        let names = kubelet.run_pod(pod).await.map_err(|error| anyhow!(error))?;
        let results = allocated.pointer("/status/allocation/devices/results");
        let devices: Vec<_> = results
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|result| result["device"].as_str())
            .collect();
        self.pods += 1;
        let cdi: Vec<_> = names.values().flatten().map(String::as_str).collect();
        let facts = json!({ "pod": pod.name, "devices": devices, "cdi": cdi });
        let text = format!("{text} and gets {}\nCDI {}", devices.join(", "), cdi.join(" "));
        self.print(Actor::Pod, &text, &facts)
    }

    /// A chip fails, a pod that needs it stays pending, and it runs once the chip is back.
    async fn fault(
        &mut self,
        daemon: &DemoDaemon,
        kubelet: &DraKubelet,
        free: usize,
    ) -> anyhow::Result<()> {
        let snapshot = daemon.snapshots.borrow().clone().context("the machine is not scanned")?;
        let boards = &snapshot.inventory.boards;
        let board = boards.iter().rev().find(|board| board.health == Health::Healthy);
        let chip = board.and_then(|board| board.chips.last()).context("no chip is healthy")?;
        let chip = chip.address;
        self.print(Actor::Hardware, &format!("chip {chip} stops answering"), &Value::Null)?;
        self.machine.stop_answering(chip)?;
        daemon.triggers.send(RescanTrigger::Uevent).await?;
        let is_tainted = |store: &ObjectStore| unhealthy(store) > 0;
        self.until("a taint", is_tainted).await?;
        self.print_taints(&self.server.store())?;
        let (pod, claim) = self.run_pod(kubelet, free, false).await?;
        self.print(Actor::Hardware, &format!("chip {chip} answers again"), &Value::Null)?;
        self.machine.answer_again(chip)?;
        daemon.triggers.send(RescanTrigger::Uevent).await?;
        self.until("no such taint", |store| unhealthy(store) == 0).await?;
        self.print_taints(&self.server.store())?;
        let text = format!("{} is scheduled again", pod.name);
        self.start_pod(kubelet, &pod, &claim, &text).await
    }

    /// A kubelet that starts deletes all slices of its node.
    async fn restart(&mut self, kubelet: &mut DraKubelet) -> anyhow::Result<()> {
        let text = "restarts, and deletes the node's slices as every kubelet does";
        self.print(Actor::Kubelet, text, &Value::Null)?;
        let before = self.server.store().resource_version();
        kubelet.restart()?;
        self.connected(kubelet).await?;
        let began = Instant::now();
        self.until("the slices again", |store| {
            store.resource_version() > before && !devices(store).is_empty()
        })
        .await?;
        let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
        let text =
            format!("the slices are back after {milliseconds:.1} ms; running pods were unaffected");
        self.print(Actor::Plugin, &text, &json!({ "milliseconds": milliseconds }))
    }

    /// The pod that has its GPU from the device plugin ends.
    async fn release(&mut self, pod: &str) -> anyhow::Result<()> {
        self.print(Actor::Pod, &format!("{pod} is deleted"), &json!({ "pod": pod }))?;
        self.plugin_kubelet.remove(pod).await?;
        self.until("no taint", |store| !devices(store).is_empty() && taints(store).is_empty())
            .await?;
        self.print_taints(&self.server.store())
    }

    async fn until(
        &self,
        what: &str,
        wanted: impl FnMut(&ObjectStore) -> bool,
    ) -> anyhow::Result<()> {
        let seen = timeout(STEP_TIMEOUT, self.server.wait_for(wanted)).await;
        seen.map(drop).with_context(|| format!("the API server did not get in time: {what}"))
    }
}

fn devices(store: &ObjectStore) -> Vec<Device> {
    let slices: Vec<ResourceSlice> = store.all(ObjectKind::ResourceSlice);
    slices.into_iter().flat_map(|slice| slice.spec.devices.unwrap_or_default()).collect()
}

/// Each tainted device with its first taint.
fn taints(store: &ObjectStore) -> Vec<(String, String)> {
    let tainted = devices(store).into_iter().filter_map(|device| {
        let taint = device.taints?.into_iter().next()?;
        let (key, value, effect) = (taint.key, taint.value.unwrap_or_default(), taint.effect);
        Some((device.name, format!("{key}={value}:{effect}")))
    });
    tainted.collect()
}

fn unhealthy(store: &ObjectStore) -> usize {
    taints(store).iter().filter(|(_, taint)| taint.contains("/unhealthy=")).count()
}
