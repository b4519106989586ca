//! A node in DRA mode: a machine that can be changed, a kubelet, claims, and the plugin in this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ix_device_plugin::app::{self, DaemonSettings, DraSettings, Running};
use ix_device_plugin::daemon::dra_service::ClaimReader;
use ix_device_plugin::decide::dra::socket_paths::DriverInstance;
use ix_device_plugin::decide::node::removed::Retention;
use ix_device_plugin::demo::kubelet::dra::{
    DraDeadlines, DraKubelet, DraKubeletSettings, DraNodeState, DraPodSpec, HealthService,
    RepeatedPrepare,
};
use ix_device_plugin::demo::machine::DemoMachine;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::dra::claim::{AllocatedDevice, ClaimRef, DraAllocation, DraClaim};
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::node_file::parse_node_file;
use tempfile::TempDir;
use tokio::sync::watch;

use super::clock::soon;
use super::fixtures::{node_text, scan_of};
use super::log::Log;

/// The node's name, and the pool's.
pub(crate) const NODE: &str = "node-a";

/// What the API server answers to those who fetch claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiAnswers {
    pub(crate) claims: BTreeMap<ClaimRef, DraClaim>,
    pub(crate) error: Option<String>,
    pub(crate) hangs: bool,
}

/// The node; the plugin runs while there is one.
pub(crate) struct DraRig {
    pub(crate) kubelet: DraKubelet,
    pub(crate) machine: DemoMachine,
    pub(crate) boards: Vec<Board>,
    pub(crate) api: Arc<watch::Sender<ApiAnswers>>,
    pub(crate) plugin: Option<Running>,
    _log: Log,
    config: String,
    host: TempDir,
}

/// Waits of the kubelet that a test has no time for; deadlines stay, since this machine may be busy.
pub(crate) fn deadlines() -> DraDeadlines {
    let real = DraDeadlines::default();
    let DraDeadlines { dial, get_info, notify, call, .. } = real;
    DraDeadlines { dial, get_info, notify, call, ..real.faster(50) }
}

impl DraRig {
    /// Machine and kubelet, and no plugin yet.
    pub(crate) fn new(fixture: &str, config: &str) -> Self {
        Self::with(fixture, config, |_| {})
    }

    /// The same with another kubelet.
    pub(crate) fn with(
        fixture: &str,
        config: &str,
        change: impl FnOnce(&mut DraKubeletSettings),
    ) -> Self {
        let (log, host) = (Log::capture(), TempDir::new().unwrap());
        let machine = DemoMachine::unpack(parse_node_file(&node_text(fixture)).unwrap()).unwrap();
        let boards = scan_of(&machine.root(), &Config::default()).unwrap().boards;
        let api = Arc::new(watch::Sender::new(ApiAnswers::default()));
        let mut settings = DraKubeletSettings {
            root: host.path().join("kubelet"),
            deadlines: deadlines(),
            health: HealthService::Alpha,
            repeated: RepeatedPrepare::Replaces,
            claims: kubelet_reader(&api),
            wipe: Arc::new(|| Ok(())),
        };
        change(&mut settings);
        let kubelet = DraKubelet::start(settings).unwrap();
        std::fs::create_dir(host.path().join("cdi")).unwrap();
        let cdi = host.path().join("cdi").display().to_string();
        let config = format!("mode: dra\ncdi: {{specDir: {cdi}}}\n{config}");
        Self { kubelet, machine, boards, api, plugin: None, _log: log, config, host }
    }

    /// Machine, kubelet, and a plugin that the kubelet is connected to.
    pub(crate) async fn start(fixture: &str, config: &str) -> Self {
        Self::new(fixture, config).started().await
    }

    pub(crate) async fn started(mut self) -> Self {
        self.plugin = Some(self.another_plugin("1"));
        self.until_connected().await;
        self
    }

    /// An instance in the pod with this uid.
    pub(crate) fn another_plugin(&self, uid: &str) -> Running {
        self.plugin_named(Some(uid))
    }

    pub(crate) fn plugin_named(&self, uid: Option<&str>) -> Running {
        app::build(DaemonSettings {
            root: self.machine.root(),
            config: parse_config(&self.config).unwrap(),
            config_source: None,
            kubelet_directory: self.host.path().join("device-plugins"),
            pod_resources_socket: None,
            retention: Retention::default(),
            ixml: None,
            http: None,
            inotify: true,
            uevents: false,
            dra: Some(DraSettings {
                instance: DriverInstance {
                    kubelet_root: self.root(),
                    driver: DRIVER_NAME.to_owned(),
                    pod_uid: uid.map(ToOwned::to_owned),
                },
                node: NODE.to_owned(),
                claims: reader(&self.api),
                api: None,
            }),
        })
    }

    /// The kubelet's root directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.host.path().join("kubelet")
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.root().join("plugins_registry")
    }

    /// The driver's directory.
    pub(crate) fn directory(&self) -> PathBuf {
        self.root().join("plugins").join(DRIVER_NAME)
    }

    /// Ends the plugin's tasks wherever they are, as a kill does.
    pub(crate) fn kill(&mut self) {
        drop(self.plugin.take());
    }

    /// Ends it as with SIGTERM.
    pub(crate) async fn stop(&mut self) {
        stop(self.plugin.take().unwrap()).await;
    }

    pub(crate) async fn until(&self, what: &str, wanted: impl FnMut(&DraNodeState) -> bool) {
        soon(what, self.kubelet.wait_for(wanted)).await;
    }

    pub(crate) async fn until_connected(&self) {
        self.until("a connected driver", |state| state.is_connected(DRIVER_NAME)).await;
    }

    pub(crate) async fn rescan(&self) {
        self.plugin.as_ref().unwrap().triggers.send(RescanTrigger::Uevent).await.unwrap();
    }

    // -- Claims

    /// The name of a board's device.
    pub(crate) fn device(&self, board: usize) -> String {
        let board = &self.boards[board];
        let kind = if board.chips.len() > 1 { "board" } else { "chip" };
        format!("{kind}-{}", board.address.to_string().replace([':', '.'], "-"))
    }

    /// The CDI names of a board's chips.
    pub(crate) fn cdi_names(&self, board: usize) -> Vec<String> {
        let chips = self.boards[board].chips.iter();
        chips.map(|chip| format!("gpu.iluvatar.com/device={}", chip.address)).collect()
    }

    /// A claim of this name that a scheduler has allocated these boards.
    pub(crate) fn allocate(&self, name: &str, boards: &[usize]) -> ClaimRef {
        let results = boards.iter().map(|board| result("gpu", &self.device(*board)));
        self.claim(name, &format!("uid-{name}"), results.collect())
    }

    /// A claim with these results.
    pub(crate) fn claim(&self, name: &str, uid: &str, results: Vec<AllocatedDevice>) -> ClaimRef {
        let claim = ClaimRef { namespace: "default".to_owned(), name: name.to_owned() };
        let allocated = DraClaim {
            uid: uid.to_owned(),
            claim: claim.clone(),
            allocation: Some(DraAllocation { results, configs: Vec::new() }),
        };
        self.api.send_modify(|api| {
            api.claims.insert(claim.clone(), allocated);
        });
        claim
    }

    /// The claim is gone.
    pub(crate) fn delete(&self, claim: &ClaimRef) {
        self.api.send_modify(|api| {
            api.claims.remove(claim);
        });
    }

    /// Runs a pod with one container: its CDI names, or why it does not start.
    pub(crate) async fn run(&self, pod: &str, claim: &ClaimRef) -> Result<Vec<String>, String> {
        self.run_pod(&DraPodSpec::single(pod, claim)).await
    }

    pub(crate) async fn run_pod(&self, pod: &DraPodSpec) -> Result<Vec<String>, String> {
        let names = soon("an answer", self.kubelet.run_pod(pod)).await?;
        Ok(names["main"].clone())
    }

    /// Runs a pod until it starts, as a kubelet does.
    pub(crate) async fn runs(&self, pod: &str, claim: &ClaimRef) -> Vec<String> {
        let spec = DraPodSpec::single(pod, claim);
        soon("the pod to start", async {
            loop {
                match self.kubelet.run_pod(&spec).await {
                    Ok(names) => return names["main"].clone(),
                    Err(_) => tokio::time::sleep(deadlines().reconcile).await,
                }
            }
        })
        .await
    }
}

/// One device of ours for the request `gpu`.
pub(crate) fn result(request: &str, device: &str) -> AllocatedDevice {
    AllocatedDevice {
        request: request.to_owned(),
        driver: DRIVER_NAME.to_owned(),
        pool: NODE.to_owned(),
        device: device.to_owned(),
        admin_access: false,
        share_id: None,
    }
}

pub(crate) async fn stop(plugin: Running) {
    soon("the plugin to stop", plugin.run_until_stopped(std::future::ready(()))).await.unwrap();
}

/// Fetches from these answers.
fn reader(api: &Arc<watch::Sender<ApiAnswers>>) -> ClaimReader {
    let api = Arc::clone(api);
    Arc::new(move |claim| {
        let mut answers = api.subscribe();
        Box::pin(async move {
            let answers = answers.wait_for(|answers| !answers.hangs).await.unwrap();
            match &answers.error {
                Some(error) => Err(error.clone()),
                None => Ok(answers.claims.get(&claim).cloned()),
            }
        })
    })
}

/// The kubelet's own requests always succeed, so that a fault is the plugin's alone.
fn kubelet_reader(api: &Arc<watch::Sender<ApiAnswers>>) -> ClaimReader {
    let api = Arc::clone(api);
    Arc::new(move |claim| {
        let found = api.borrow().claims.get(&claim).cloned();
        Box::pin(async move { Ok(found) })
    })
}
