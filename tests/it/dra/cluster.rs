//! A driver, a kubelet and an API server together: updates, kills, restarts and reboots, and what pods
//! and slices see of them.

use std::collections::BTreeSet;
use std::fs;

use ix_device_plugin::app::{self, Running};
use ix_device_plugin::demo::api_server::{ObjectKind, ObjectStore};
use ix_device_plugin::demo::kubelet::dra::{DraDeadlines, DraPodSpec};
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::parse::claim_records::parse_claim_records;
use ix_device_plugin::parse::node_file::parse_node_file;
use k8s_openapi::api::resource::v1::Device;
use serde_json::json;

use crate::support::clock::{eventually, soon};
use crate::support::dra_cluster::{DraCluster, NODE, create_class, devices, slices, taints};
use crate::support::dra_rig::{deadlines, stop};
use crate::support::fixtures::node_text;
use crate::support::log::Log;

const FIXTURE: &str = "bi-v150-x8";

/// A cluster and its log.
struct ClusterRig {
    cluster: DraCluster,
    _log: Log,
}

impl ClusterRig {
    /// A kubelet that gives a driver half a minute before it deletes its slices, as each one does.
    async fn start(config: &str) -> Self {
        let wiping_delay = DraDeadlines::default().wiping_delay;
        Self::with(config, DraDeadlines { wiping_delay, ..deadlines() }).await
    }

    async fn with(config: &str, deadlines: DraDeadlines) -> Self {
        let log = Log::capture();
        let machine = parse_node_file(&node_text(FIXTURE)).unwrap();
        Self { cluster: DraCluster::start(machine, config, deadlines).await, _log: log }
    }

    /// The driver of a pod with this uid, once the kubelet is connected and has its eight boards.
    async fn driver(&self, uid: &str) -> Running {
        let driver = app::build(self.cluster.settings(Some(uid)));
        self.until_connected().await;
        self.until("eight devices", |store| devices(store).len() == 8).await;
        driver
    }

    async fn until_connected(&self) {
        let connected = self.cluster.kubelet.wait_for(|state| state.is_connected(DRIVER_NAME));
        soon("a connected driver", connected).await;
    }

    async fn until(&self, what: &str, wanted: impl FnMut(&ObjectStore) -> bool) {
        drop(soon(what, self.cluster.server.wait_for(wanted)).await);
    }

    /// Starts a pod, as a kubelet does: again until it starts.
    async fn runs(&self, pod: &DraPodSpec) -> Vec<String> {
        let run = async || self.cluster.kubelet.run_pod(pod).await.ok();
        eventually("the pod to start", run).await.remove("main").unwrap()
    }

    /// The slices that are there: one that was deleted and created again is another one.
    fn uids(&self) -> Vec<Option<String>> {
        let slices = slices(&self.cluster.server.store()).into_iter();
        slices.map(|slice| slice.metadata.uid).collect()
    }

    fn sockets(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.cluster.path("plugins_registry")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn in_a_sequential_update_the_slices_stay_and_the_new_pod_takes_over() {
    let rig = ClusterRig::start("").await;
    let old = rig.driver("old").await;
    let before = rig.uids();
    let pod = rig.cluster.pod("pod", 2).unwrap();
    let had = rig.runs(&pod).await;
    stop(old).await;
    let kubelet = &rig.cluster.kubelet;
    soon("no driver", kubelet.wait_for(|state| !state.is_registered(DRIVER_NAME))).await;
    assert_eq!((rig.uids(), rig.sockets()), (before.clone(), BTreeSet::new()));
    // A pod that comes now waits.
    let next = rig.cluster.pod("next", 1).unwrap();
    let error = kubelet.run_pod(&next).await.unwrap_err();
    assert_eq!(error, "DRA driver gpu.iluvatar.com is not registered");
    let _new = rig.driver("new").await;
    let given = rig.runs(&next).await;
    assert!(given.iter().all(|name| !had.contains(name)), "{given:?}");
    assert_eq!(rig.runs(&pod).await, had);
    rig.cluster.end("pod").await.unwrap();
    assert_eq!((rig.uids(), kubelet.state().borrow().wipes), (before, 1));
}

#[tokio::test]
async fn in_a_rolling_update_no_slice_is_deleted_and_a_pod_starts_meanwhile() {
    let rig = ClusterRig::start("").await;
    let old = rig.driver("old").await;
    let before = rig.uids();
    let pod = rig.cluster.pod("pod", 1).unwrap();
    let had = rig.runs(&pod).await;
    let new = app::build(rig.cluster.settings(Some("new")));
    let kubelet = &rig.cluster.kubelet;
    soon("both drivers", kubelet.wait_for(|state| state.drivers.len() == 2)).await;
    let both = ["gpu.iluvatar.com-new-reg.sock", "gpu.iluvatar.com-old-reg.sock"];
    assert_eq!(rig.sockets(), names(&both));
    let meanwhile = rig.cluster.pod("meanwhile", 1).unwrap();
    let given = rig.runs(&meanwhile).await;
    assert!(given.iter().all(|name| !had.contains(name)), "{given:?}");
    stop(old).await;
    soon("one driver", kubelet.wait_for(|state| state.drivers.len() == 1)).await;
    assert_eq!(rig.sockets(), names(&both[..1]));
    // The old one took nothing of the new one along.
    rig.until_connected().await;
    for pod in ["pod", "meanwhile"] {
        rig.cluster.end(pod).await.unwrap();
    }
    let all = rig.cluster.pod("all", 8).unwrap();
    assert_eq!(rig.runs(&all).await.len(), 16);
    assert_eq!((rig.uids(), kubelet.state().borrow().wipes), (before, 1));
    stop(new).await;
}

#[tokio::test]
async fn a_driver_that_is_killed_and_soon_back_keeps_its_slices() {
    let rig = ClusterRig::start("").await;
    let driver = rig.driver("1").await;
    let (before, kubelet) = (rig.uids(), &rig.cluster.kubelet);
    drop(driver);
    soon("the end", kubelet.wait_for(|state| !state.is_connected(DRIVER_NAME))).await;
    assert_eq!(rig.uids(), before);
    let _driver = rig.driver("1").await;
    assert_eq!((rig.uids(), kubelet.state().borrow().wipes), (before, 1));
}

#[tokio::test]
async fn a_driver_that_stays_away_loses_its_slices_and_gets_them_back() {
    let rig = ClusterRig::with("", deadlines()).await;
    drop(rig.driver("killed").await);
    rig.until("no slices", |store| slices(store).is_empty()).await;
    stop(rig.driver("stopped").await).await;
    rig.until("no slices", |store| slices(store).is_empty()).await;
    let _driver = rig.driver("back").await;
}

#[tokio::test]
async fn after_a_restart_of_the_kubelet_slices_are_back_and_pods_have_what_they_had() {
    let mut rig = ClusterRig::start("").await;
    let _driver = rig.driver("1").await;
    let before = rig.uids();
    let pod = rig.cluster.pod("pod", 2).unwrap();
    let had = rig.runs(&pod).await;
    rig.cluster.kubelet.stop();
    rig.cluster.kubelet.restart().unwrap();
    rig.until_connected().await;
    rig.until("eight devices", |store| devices(store).len() == 8).await;
    let kubelet = &rig.cluster.kubelet;
    soon("the deletion", kubelet.wait_for(|state| state.wipes == 2)).await;
    rig.until("eight devices", |store| devices(store).len() == 8).await;
    assert_ne!(rig.uids(), before);
    assert_eq!(rig.runs(&pod).await, had);
}

/// A reboot empties `/run`, where CDI specs are, and ends everything; sockets of processes that are
/// gone stay in the kubelet's directory, and with them the record of prepared claims. Where the
/// kubelet's directory is new, the record is gone too.
async fn check_reboot(keeps_kubelet_directory: bool) {
    let mut rig = ClusterRig::start("").await;
    let driver = rig.driver("1").await;
    let pod = rig.cluster.pod("pod", 2).unwrap();
    let had = rig.runs(&pod).await;
    drop(driver);
    rig.cluster.kubelet.stop();
    fs::remove_dir_all(rig.cluster.path("cdi")).unwrap();
    fs::create_dir(rig.cluster.path("cdi")).unwrap();
    assert_eq!(rig.sockets(), names(&["gpu.iluvatar.com-1-reg.sock"]));
    if !keeps_kubelet_directory {
        for directory in ["plugins", "plugins_registry"] {
            fs::remove_dir_all(rig.cluster.path(directory)).unwrap();
        }
    }
    rig.cluster.kubelet.restart().unwrap();
    let _driver = rig.driver("1").await;
    assert_eq!(rig.runs(&pod).await, had);
    let spec = rig.cluster.path("cdi").join("gpu.iluvatar.com-device.json");
    let spec = fs::read_to_string(spec).unwrap();
    for name in had.iter().filter_map(|name| name.split_once('=')) {
        assert!(spec.contains(&format!("\"{}\"", name.1)), "{name:?} is not in {spec}");
    }
    // It is known who holds them, whatever became of the record.
    let records = rig.cluster.path("plugins/gpu.iluvatar.com/prepared-claims");
    let records = parse_claim_records(&fs::read_to_string(records).unwrap()).unwrap();
    let holders: Vec<_> = records.values().map(|holding| &*holding.claim.name).collect();
    assert_eq!(holders, ["pod"]);
    rig.cluster.end("pod").await.unwrap();
    let all = rig.cluster.pod("all", 8).unwrap();
    assert_eq!(rig.runs(&all).await.len(), 16);
}

#[tokio::test]
async fn after_a_reboot_pods_run_again_with_what_they_had() {
    check_reboot(true).await;
}

#[tokio::test]
async fn after_a_reboot_with_a_new_kubelet_directory_too() {
    check_reboot(false).await;
}

#[tokio::test]
async fn a_fault_keeps_new_pods_pending_with_its_name_and_its_end_lets_them_run() {
    let config = "dra: {evict: [ConfigSpaceUnreadable]}\nhealth: {recovery: 0s}";
    let rig = ClusterRig::start(config).await;
    let driver = rig.driver("1").await;
    let pod = rig.cluster.pod("pod", 8).unwrap();
    rig.runs(&pod).await;
    let snapshot = driver.snapshots.borrow().clone().unwrap();
    let board = &snapshot.inventory.boards[0];
    let chip: PciAddress = board.chips[0].address;
    let name = format!("board-{}", board.address.to_string().replace([':', '.'], "-"));
    rig.cluster.machine.stop_answering(chip).unwrap();
    driver.triggers.send(RescanTrigger::Uevent).await.unwrap();
    let taint = format!("{name} gpu.iluvatar.com/unhealthy=ConfigSpaceUnreadable:NoExecute");
    rig.until("the taint", |store| taints(store) == [taint.clone()]).await;
    // In the status of the pod that has it, with the sentence.
    let kubelet = &rig.cluster.kubelet;
    let is_unhealthy = |pod: &DraPodSpec| {
        let state = kubelet.state();
        let status = state.borrow().allocated_status(pod).into_iter();
        status.filter(|device| device.health == "Unhealthy").map(|it| it.message).next()
    };
    let message = eventually("the status", async || is_unhealthy(&pod)).await;
    assert!(message.starts_with("ConfigSpaceUnreadable: ") && message.contains("remedy: "));
    // Eviction deletes that pod; a new one does not get the device.
    rig.cluster.end("pod").await.unwrap();
    let pending = rig.cluster.pod("next", 8).unwrap_err();
    assert!(pending.contains("1 tainted gpu.iluvatar.com/unhealthy=ConfigSpaceUnreadable"));
    rig.cluster.machine.answer_again(chip).unwrap();
    driver.triggers.send(RescanTrigger::Uevent).await.unwrap();
    rig.until("no taint", |store| taints(store).is_empty()).await;
    let next = rig.cluster.scheduled("next").unwrap();
    rig.runs(&next).await;
    assert_eq!(is_unhealthy(&next), None);
}

#[tokio::test]
async fn a_gpu_is_found_below_the_root_bus_of_a_network_card() {
    const ROOT: &str = "resource.kubernetes.io/pcieRoot";
    let rig = ClusterRig::start("").await;
    let _driver = rig.driver("1").await;
    let root_of = |device: &Device| {
        device.attributes.as_ref().and_then(|attributes| attributes.get(ROOT)?.string.clone())
    };
    let boards = devices(&rig.cluster.server.store());
    let first = root_of(&boards[0]).unwrap();
    let board = boards.iter().find(|board| root_of(board).is_some_and(|root| root != first));
    let root = root_of(board.unwrap()).unwrap();
    let attributes = json!({ ROOT: { "string": root } });
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": "nics" },
        "spec": {
            "driver": "nic.example.com", "nodeName": NODE,
            "pool": { "name": "nics", "generation": 1, "resourceSliceCount": 1 },
            "devices": [{ "name": "eth0", "attributes": attributes }],
        },
    });
    let server = &rig.cluster.server;
    server.create(ObjectKind::ResourceSlice, "", slice).unwrap();
    create_class(server, "nic", "nic.example.com", None);
    let request = |class: &str| json!({ "name": class, "exactly": { "deviceClassName": class } });
    let constraint = json!({ "requests": ["gpu", "nic"], "matchAttribute": ROOT });
    let wanted =
        json!({ "requests": [request("gpu"), request("nic")], "constraints": [constraint] });
    rig.cluster.pod_of("pod", wanted).unwrap();
    let claim = server.get(ObjectKind::ResourceClaim, "default", "pod").unwrap();
    let results = &claim["status"]["allocation"]["devices"]["results"];
    let given = boards.iter().find(|board| results[0]["device"] == board.name).unwrap();
    assert_eq!((root_of(given), &results[1]["device"]), (Some(root), &json!("eth0")));
}
