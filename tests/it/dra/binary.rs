//! `run --mode dra` as a process of its own, at an API server.

use std::fs;
use std::sync::Arc;

use ix_device_plugin::daemon::claim_reader::claim_reader;
use ix_device_plugin::demo::api_server::{ApiServer, ObjectKind, ServerVersion};
use ix_device_plugin::demo::kubelet::dra::{
    DraKubelet, DraKubeletSettings, DraPodSpec, HealthService, RepeatedPrepare,
};
use ix_device_plugin::host::kube_api::{ApiAccess, KubeApi};
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::dra::claim::ClaimRef;
use ix_device_plugin::model::log_event::LogEvent;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::binary::{binary, run, stdout_of};
use crate::support::clock::{eventually, soon};
use crate::support::dra_rig::{NODE, deadlines};
use crate::support::process::PluginProcess;

fn claim(device: &str) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": { "name": "training", "namespace": "ai" },
        "spec": { "devices": { "requests": [
            { "name": "gpu", "exactly": { "deviceClassName": DRIVER_NAME } },
        ] } },
        "status": { "allocation": { "devices": { "results": [
            { "request": "gpu", "driver": DRIVER_NAME, "pool": NODE, "device": device },
        ] } } },
    })
}

/// A node of a machine on disk: its API server, its kubelet, and the program in DRA mode.
struct ProgramRig {
    server: ApiServer,
    kubelet: DraKubelet,
    process: PluginProcess,
    host: TempDir,
}

impl ProgramRig {
    async fn start(version: ServerVersion, config: &str) -> Self {
        Self::start_on("mr-v100-x4", version, config).await
    }

    async fn start_on(fixture: &str, version: ServerVersion, config: &str) -> Self {
        let server = ApiServer::start(version, NODE).await.unwrap();
        let api = KubeApi::open(&ApiAccess::Plain(server.url())).await.unwrap();
        let host = tempfile::tempdir().unwrap();
        let path = |name: &str| host.path().join(name).display().to_string();
        fs::create_dir(path("cdi")).unwrap();
        let fixture = format!("fixtures/nodes/{fixture}.node");
        stdout_of(&["fixture", "unpack", &fixture, &path("machine")]);
        let kubelet = DraKubelet::start(DraKubeletSettings {
            root: path("kubelet").into(),
            deadlines: deadlines(),
            health: HealthService::Listed,
            repeated: RepeatedPrepare::Replaces,
            claims: claim_reader(api),
            wipe: Arc::new(|| Ok(())),
        });
        let file = path("config.yaml");
        fs::write(&file, format!("cdi: {{specDir: {}}}\n{config}", path("cdi"))).unwrap();
        let mut command = binary();
        command.args(["run", "--mode", "dra", "--node-name", NODE, "--pod-uid", "u1"]);
        command.args(["--root", &path("machine"), "--log-format", "json", "--config", &file]);
        command.args(["--http", "127.0.0.1:0", "--api-server", &server.url()]);
        command.args(["--kubelet-dir", &path("kubelet/device-plugins")]);
        let process = PluginProcess::start(&mut command);
        Self { server, kubelet: kubelet.unwrap(), process, host }
    }

    /// The check `mode` of `doctor`, which runs as in a pod: without the flags of the plugin.
    async fn doctor(&self) -> Value {
        let address = self.process.address().await.to_string();
        let path = |name: &str| self.host.path().join(name).display().to_string();
        let (root, kubelet) = (path("machine"), path("kubelet/device-plugins"));
        let arguments = ["doctor", "-o", "json", "--http", &address, "--root", &root];
        let report = run(&[&arguments[..], &["--kubelet-dir", &kubelet]].concat()).stdout;
        let report: Value = serde_json::from_str(&report).unwrap();
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == "mode").unwrap()["findings"].clone()
    }

    async fn check_dropped(&self, feature: &str, sentence: &str) {
        let is_dropped = |event: &Value| event["event"] == LogEvent::FeatureDropped.name();
        let event = self.process.event("the dropped feature", is_dropped).await;
        assert_eq!(event["feature"], feature, "{event}");
        let has_feature = |status: &Value| status["dra"]["unsupported"][0]["feature"] == feature;
        self.process.until_status("the dropped feature", has_feature).await;
        let labels = format!("feature=\"{feature}\"");
        assert_eq!(self.process.metric("dra_unsupported", &labels).await, 1);
        let findings = self.doctor().await;
        assert_eq!(findings.as_array().unwrap().len(), 1, "{findings}");
        assert_eq!(findings[0]["finding"], "warning", "{findings}");
        let sentence = format!("the API server drops {feature} from slices: {sentence}");
        assert_eq!(findings[0]["sentence"], sentence);
    }
}

#[tokio::test]
async fn the_program_prepares_what_the_api_server_says_and_leaves_no_socket_when_it_ends() {
    let mut rig = ProgramRig::start(ServerVersion::V1_36, "").await;
    rig.server.create(ObjectKind::ResourceClaim, "ai", claim("chip-0000-15-00-0")).unwrap();
    let claim = ClaimRef { namespace: "ai".to_owned(), name: "training".to_owned() };
    let pod = DraPodSpec::single("pod", &claim);
    let names = eventually("a pod", async || rig.kubelet.run_pod(&pod).await.ok()).await;
    assert_eq!(names["main"], ["gpu.iluvatar.com/device=0000:15:00.0"]);
    rig.kubelet.end_pod("pod").await.unwrap();
    rig.process.signal(Signal::SIGTERM);
    assert_eq!(rig.process.ends().await, Some(0));
    let is_gone = rig.kubelet.wait_for(|state| !state.is_registered(DRIVER_NAME));
    soon("the end of the registration", is_gone).await;
    for directory in ["plugins_registry".into(), format!("plugins/{DRIVER_NAME}")] {
        let entries = fs::read_dir(rig.host.path().join("kubelet").join(directory)).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        assert!(!paths.any(|path| path.extension().is_some_and(|it| it == "sock")));
    }
}

#[tokio::test]
async fn shares_that_the_api_server_drops_are_named_in_log_status_metric_and_doctor() {
    let rig = ProgramRig::start(ServerVersion::V1_35, "dra: {slots: 4}").await;
    let sentence = "each device is allocated to one claim at a time";
    rig.check_dropped("consumable-capacity", sentence).await;
}

#[tokio::test]
async fn counters_that_the_api_server_drops_are_named_in_log_status_metric_and_doctor() {
    let config = "dra: {devices: both}";
    let rig = ProgramRig::start_on("bi-v150-x8", ServerVersion::V1_35, config).await;
    let sentence = "boards or chips are offered, depending on dra.fallback";
    rig.check_dropped("partitionable", sentence).await;
}

#[tokio::test]
async fn taints_that_the_api_server_drops_are_named_in_log_status_metric_and_doctor() {
    let rig = ProgramRig::start(ServerVersion::V1_35, "").await;
    rig.process.until_status("the slices", |status| status["dra"]["slicesCurrent"] == true).await;
    let chip = rig.host.path().join("machine/sys/bus/pci/devices/0000:15:00.0/config");
    fs::write(chip, [0xff; 64]).unwrap();
    rig.process.signal(Signal::SIGHUP);
    let sentence = "unhealthy devices leave the slices unless a claim holds them";
    rig.check_dropped("taints", sentence).await;
}

#[tokio::test]
async fn status_says_since_when_the_driver_is_registered_and_doctor_finds_its_mode() {
    let rig = ProgramRig::start(ServerVersion::V1_36, "").await;
    let is_registered = |status: &Value| {
        let dra = &status["dra"];
        let since = dra["registeredSince"].as_str().is_some_and(|since| since.ends_with('Z'));
        since && dra["registered"] == true && dra["slicesCurrent"] == true
    };
    rig.process.until_status("the registration", is_registered).await;
    let table = run(&["status", "--http", &rig.process.address().await.to_string()]).stdout;
    assert!(table.contains("driver gpu.iluvatar.com: registered since 20"), "{table}");
    let findings = rig.doctor().await;
    assert_eq!(findings[0]["sentence"], "dra; the device plugin does not run here", "{findings}");
}

#[test]
fn without_the_nodes_name_it_says_what_to_set() {
    let ran = run(&["run", "--mode", "dra", "--root", "fixtures/nodes/mr-v100-x4.node"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("pass --node-name, or set NODE_NAME"), "{}", ran.stderr);
}

#[test]
fn without_a_service_account_it_says_what_to_do() {
    let ran = run(&[
        "run",
        "--mode",
        "dra",
        "--node-name",
        NODE,
        "--root",
        "fixtures/nodes/mr-v100-x4.node",
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("no service account"), "{}", ran.stderr);
}
