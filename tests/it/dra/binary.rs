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
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::binary::{binary, run};
use crate::support::clock::{eventually, soon};
use crate::support::dra_rig::{NODE, deadlines};
use crate::support::process::PluginProcess;

fn claim(device: &str) -> serde_json::Value {
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

#[tokio::test]
async fn the_program_prepares_what_the_api_server_says_and_leaves_no_socket_when_it_ends() {
    let server = ApiServer::start(ServerVersion::V1_36, NODE).await.unwrap();
    server.create(ObjectKind::ResourceClaim, "ai", claim("chip-0000-15-00-0")).unwrap();
    let api = KubeApi::open(&ApiAccess::Plain(server.url())).await.unwrap();
    let host = tempfile::tempdir().unwrap();
    let (root, cdi) = (host.path().join("kubelet"), host.path().join("cdi"));
    fs::create_dir(&cdi).unwrap();
    let kubelet = DraKubelet::start(DraKubeletSettings {
        root: root.clone(),
        deadlines: deadlines(),
        health: HealthService::Listed,
        repeated: RepeatedPrepare::Replaces,
        claims: claim_reader(api),
        wipe: Arc::new(|| Ok(())),
    })
    .unwrap();
    let config = host.path().join("config.yaml");
    fs::write(&config, format!("cdi: {{specDir: {}}}\n", cdi.display())).unwrap();
    let mut command = binary();
    command.args(["run", "--mode", "dra", "--node-name", NODE, "--pod-uid", "u1"]);
    command.args(["--root", "fixtures/nodes/mr-v100-x4.node", "--log-format", "json"]);
    command.args(["--http", "off", "--api-server", &server.url()]);
    command.arg("--config").arg(&config);
    command.arg("--kubelet-dir").arg(root.join("device-plugins"));
    let mut process = PluginProcess::start(&mut command);
    let claim = ClaimRef { namespace: "ai".to_owned(), name: "training".to_owned() };
    let pod = DraPodSpec::single("pod", &claim);
    let names = eventually("a pod", async || kubelet.run_pod(&pod).await.ok()).await;
    assert_eq!(names["main"], ["gpu.iluvatar.com/device=0000:15:00.0"]);
    kubelet.end_pod("pod").await.unwrap();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ends().await, Some(0));
    let is_gone = kubelet.wait_for(|state| !state.is_registered(DRIVER_NAME));
    soon("the end of the registration", is_gone).await;
    for directory in ["plugins_registry".into(), format!("plugins/{DRIVER_NAME}")] {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        assert!(!paths.any(|path| path.extension().is_some_and(|it| it == "sock")));
    }
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
