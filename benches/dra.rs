//! What DRA mode takes: `cargo bench --bench dra`.
//!
//! The daemon runs in this process with an embedded kubelet and API server, over real sockets, on a
//! machine with 16 chips. From a rescan that finds a fault to the taint in the API server; from a
//! deletion of the slice to its return; and the kubelet's preparation of a claim, which holds two
//! requests to the API server, beside one such request alone.

#![expect(clippy::disallowed_methods, reason = "the doors of the house are for the plugin")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ix_device_plugin::app::{self, DaemonSettings, DraSettings, Running};
use ix_device_plugin::daemon::claim_reader::claim_reader;
use ix_device_plugin::decide::dra::socket_paths::DriverInstance;
use ix_device_plugin::decide::node::removed::Retention;
use ix_device_plugin::demo::api_server::{ApiServer, ObjectKind, ObjectStore, ServerVersion};
use ix_device_plugin::demo::kubelet::dra::{
    DraDeadlines, DraKubelet, DraKubeletSettings, DraPodSpec, HealthService, RepeatedPrepare,
};
use ix_device_plugin::demo::machine::DemoMachine;
use ix_device_plugin::demo::scheduler::schedule;
use ix_device_plugin::demo::story::SHIPPED;
use ix_device_plugin::host::kube_api::{ApiAccess, KubeApi};
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::dra::claim::ClaimRef;
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::node_file::parse_node_file;
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::json;

const NODE: &str = "node-1";
const ROUNDS: usize = 200;
/// Longer than a burst, so that each change is the first hint of its own.
const PAUSE: Duration = Duration::from_millis(80);
/// Only triggers lead to scans, and a fault is over as soon as it is not seen any more.
const CONFIG: &str = "mode: dra\ndiscovery: {rescan: 1h}\nhealth: {interval: 1h, recovery: 0s}\n";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(measure());
}

async fn measure() {
    let directory = tempfile::TempDir::new().expect("a directory");
    std::fs::create_dir(directory.path().join("cdi")).expect("a directory");
    let server = ApiServer::start(ServerVersion::V1_36, NODE).await.expect("a port");
    let server = Arc::new(server);
    let api = KubeApi::open(&ApiAccess::Plain(server.url())).await.expect("a client");
    let machine = parse_node_file(SHIPPED).expect("the shipped machine");
    let machine = DemoMachine::unpack(machine).expect("a directory for the machine");
    let daemon = app::build(settings(&machine, directory.path(), &api));
    let kubelet = kubelet(directory.path(), &api, &server);
    kubelet.wait_for(|state| state.is_connected(DRIVER_NAME)).await;
    server.wait_for(|store| devices(store) == 8).await;
    println!("8 boards, {ROUNDS} rounds, milliseconds");
    println!("| what | p50 | p99 | slowest |\n|---|---|---|---|");
    faults(&machine, &daemon, &server).await;
    deletions(&server).await;
    claims(&kubelet, &server, &api).await;
}

fn settings(machine: &DemoMachine, directory: &Path, api: &KubeApi) -> DaemonSettings {
    let mut config = parse_config(CONFIG).expect("a good configuration");
    config.cdi.spec_dir = directory.join("cdi");
    DaemonSettings {
        root: machine.root(),
        config,
        config_source: None,
        kubelet_directory: directory.join("device-plugins"),
        pod_resources_socket: None,
        retention: Retention::default(),
        ixml: None,
        http: None,
        inotify: true,
        uevents: false,
        dra: Some(DraSettings {
            instance: DriverInstance {
                kubelet_root: directory.to_owned(),
                driver: DRIVER_NAME.to_owned(),
                pod_uid: None,
            },
            node: NODE.to_owned(),
            claims: claim_reader(api.clone()),
            api: Some(api.clone()),
        }),
    }
}

fn kubelet(directory: &Path, api: &KubeApi, server: &Arc<ApiServer>) -> DraKubelet {
    let server = Arc::clone(server);
    let settings = DraKubeletSettings {
        root: directory.to_owned(),
        deadlines: DraDeadlines::default(),
        health: HealthService::Alpha,
        repeated: RepeatedPrepare::Replaces,
        claims: claim_reader(api.clone()),
        wipe: Arc::new(move || server.delete_slices_of(NODE).map_err(|error| error.to_string())),
    };
    DraKubelet::start(settings).expect("directories can be made")
}

fn slices(store: &ObjectStore) -> Vec<ResourceSlice> {
    store.all(ObjectKind::ResourceSlice)
}

fn devices(store: &ObjectStore) -> usize {
    slices(store).iter().filter_map(|slice| slice.spec.devices.as_ref()).map(Vec::len).sum()
}

fn tainted(store: &ObjectStore) -> usize {
    let slices = slices(store);
    let devices = slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    devices.filter(|device| device.taints.is_some()).count()
}

async fn faults(machine: &DemoMachine, daemon: &Running, server: &ApiServer) {
    let snapshot = daemon.snapshots.borrow().clone().expect("the machine was scanned");
    let chip = snapshot.inventory.boards[0].chips[0].address;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        tokio::time::sleep(PAUSE).await;
        machine.stop_answering(chip).expect("a file is written");
        let began = Instant::now();
        daemon.triggers.send(RescanTrigger::Uevent).await.expect("the daemon runs");
        server.wait_for(|store| tainted(store) == 1).await;
        took.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
        machine.answer_again(chip).expect("a file is written");
        daemon.triggers.send(RescanTrigger::Uevent).await.expect("the daemon runs");
        server.wait_for(|store| tainted(store) == 0).await;
    }
    row("from a fault to its taint, the scan included", took);
}

async fn deletions(server: &ApiServer) {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        server.delete_slices_of(NODE).expect("the name is a name");
        server.wait_for(|store| devices(store) == 8).await;
        took.push(began.elapsed());
    }
    row("from the deletion of the slice to its return", took);
}

async fn claims(kubelet: &DraKubelet, server: &ApiServer, api: &KubeApi) {
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
        "metadata": { "name": "gpu" }, "spec": {},
    });
    server.create(ObjectKind::DeviceClass, "", class).expect("a valid class");
    let (mut prepares, mut gets) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("claim-{round}");
        let exactly = json!({ "deviceClassName": "gpu", "count": 2 });
        let claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "devices": { "requests": [{ "name": "gpu", "exactly": exactly }] } },
        });
        server.create(ObjectKind::ResourceClaim, "default", claim).expect("a valid claim");
        schedule(server, NODE, "default", &name).expect("devices are free");
        let claim = ClaimRef { namespace: "default".to_owned(), name: name.clone() };
        let pod = DraPodSpec::single(&format!("pod-{round}"), &claim);
        let began = Instant::now();
        kubelet.run_pod(&pod).await.expect("the claim is prepared");
        prepares.push(began.elapsed());
        let began = Instant::now();
        api.claim("default", &name).await.expect("the claim is there");
        gets.push(began.elapsed());
        kubelet.end_pod(&pod.name).await.expect("the claim is unprepared");
        server.delete(ObjectKind::ResourceClaim, "default", &name).expect("the claim is there");
    }
    row("the kubelet prepares a claim of two boards, two GETs included", prepares);
    row("one GET of a claim", gets);
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!("| {what} | {:.2} | {:.2} | {:.2} |", at(50), at(99), at(100));
}
