//! A node that changes its mode while pods hold GPUs, from the device plugin to DRA and back.

use std::collections::BTreeSet;
use std::fs;

use ix_device_plugin::app::{self, DaemonSettings, Running};
use ix_device_plugin::demo::kubelet::{EmbeddedKubelet, KubeletSettings, PodRequest};
use ix_device_plugin::demo::scheduler::claim_for_extended_resource;
use ix_device_plugin::model::config::ServingMode;
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::health::ReasonCode;
use ix_device_plugin::parse::node_file::parse_node_file;

use crate::support::clock::soon;
use crate::support::dra_cluster::{DraCluster, devices, taints};
use crate::support::dra_rig::{deadlines, stop};
use crate::support::fixtures::{GPU, node_text};
use crate::support::log::Log;

const POD_RESOURCES: &str = "pod-resources/kubelet.sock";

/// One kubelet, both of whose halves know the same pods.
struct ModesRig {
    plugins: EmbeddedKubelet,
    cluster: DraCluster,
    _log: Log,
}

impl ModesRig {
    async fn start() -> Self {
        let log = Log::capture();
        let machine = parse_node_file(&node_text("bi-v150-x8")).unwrap();
        let cluster = DraCluster::start(machine, "podResources: {interval: 1s}", deadlines()).await;
        let socket = cluster.path(POD_RESOURCES);
        fs::create_dir(socket.parent().unwrap()).unwrap();
        let settings =
            KubeletSettings { pod_resources_socket: Some(socket), ..KubeletSettings::default() };
        let directory = cluster.path("device-plugins");
        let plugins = EmbeddedKubelet::start(&directory, settings).await.unwrap();
        plugins.list_claims(cluster.kubelet.state()).await.unwrap();
        Self { plugins, cluster, _log: log }
    }

    fn settings(&self) -> DaemonSettings {
        let pod_resources_socket = Some(self.cluster.path(POD_RESOURCES));
        DaemonSettings { pod_resources_socket, ..self.cluster.settings(Some("1")) }
    }

    /// Mode device-plugin, once the node has so many healthy boards.
    async fn device_plugin(&self, allocatable: usize) -> Running {
        let mut settings = DaemonSettings { dra: None, ..self.settings() };
        settings.config.mode = ServingMode::DevicePlugin;
        let plugin = app::build(settings);
        let has = self.plugins.wait_for(|view| view.allocatable(GPU) == allocatable);
        drop(soon("the boards", has).await.unwrap());
        plugin
    }

    /// Mode DRA, once eight boards are published with so many taints.
    async fn driver(&self, tainted: usize) -> Running {
        let driver = app::build(self.settings());
        let kubelet = &self.cluster.kubelet;
        soon("the driver", kubelet.wait_for(|state| state.is_connected(DRIVER_NAME))).await;
        let server = &self.cluster.server;
        let published =
            server.wait_for(|store| devices(store).len() == 8 && taints(store).len() == tainted);
        drop(soon("eight devices", published).await);
        driver
    }

    /// Boards that a pod of the device plugin gets.
    async fn admit(&self, pod: &str, count: usize) -> Result<BTreeSet<String>, String> {
        let request = PodRequest::single(pod, GPU, count);
        let admission = self.plugins.admit(request).await.map_err(|error| error.to_string())?;
        let containers = admission.containers.iter();
        Ok(containers.flat_map(|it| it.devices.values().flatten().cloned()).collect())
    }

    /// Boards that a pod has through its claim.
    async fn claimed(&self, pod: &str, count: usize) -> BTreeSet<String> {
        let pod = self.cluster.pod(pod, count).unwrap();
        let names = soon("an answer", self.cluster.kubelet.run_pod(&pod)).await.unwrap();
        assert_eq!(names["main"].len(), 2 * count);
        self.given()
    }

    /// Boards that pods have through claims.
    fn given(&self) -> BTreeSet<String> {
        let state = self.cluster.kubelet.state();
        let state = state.borrow();
        let devices = state.claims.values().flat_map(|claim| &claim.devices[DRIVER_NAME]);
        devices.map(|device| address(&device.device_name)).collect()
    }
}

/// `board-0000-13-00-0` is `0000:13:00.0`.
fn address(device: &str) -> String {
    let parts: Vec<_> = device.split('-').skip(1).collect();
    let [domain, bus, device, function] = parts[..] else { panic!("{device}") };
    format!("{domain}:{bus}:{device}.{function}")
}

#[tokio::test]
async fn a_node_changes_its_mode_there_and_back_and_no_gpu_is_given_twice() {
    let rig = ModesRig::start().await;
    let plugin = rig.device_plugin(8).await;
    let old = rig.admit("old", 1).await.unwrap();
    stop(plugin).await;

    let driver = rig.driver(1).await;
    let held = "board-0000-3d-00-0 gpu.iluvatar.com/held=iluvatar.com_gpu:NoSchedule";
    assert_eq!(taints(&rig.cluster.server.store()), [held]);
    let claimed = rig.claimed("claimed", 2).await;
    assert!(claimed.is_disjoint(&old), "{claimed:?}");
    let pending = rig.cluster.pod("pending", 6).unwrap_err();
    assert!(pending.contains("1 tainted gpu.iluvatar.com/held"), "{pending}");
    stop(driver).await;

    let plugin = rig.device_plugin(6).await;
    let snapshot = plugin.snapshots.borrow().clone().unwrap();
    let withheld = snapshot.resources[0].devices.iter().filter(|device| {
        device.reasons.iter().any(|reason| reason.code == ReasonCode::HeldByClaim)
    });
    let withheld: BTreeSet<_> = withheld.map(|device| device.id.to_string()).collect();
    assert_eq!(withheld, claimed);
    let new = rig.admit("new", 5).await.unwrap();
    assert!(new.is_disjoint(&old) && new.is_disjoint(&claimed), "{new:?}");
    rig.admit("more", 1).await.unwrap_err();
    // Without a driver the kubelet cannot end a pod that has a claim.
    let error = rig.cluster.end("claimed").await.unwrap_err();
    assert_eq!(error, "DRA driver gpu.iluvatar.com is not registered");
    stop(plugin).await;

    let driver = rig.driver(6).await;
    rig.cluster.end("claimed").await.unwrap();
    stop(driver).await;
    let plugin = rig.device_plugin(8).await;
    assert_eq!(rig.admit("last", 2).await.unwrap(), claimed);
    stop(plugin).await;
}

#[tokio::test]
async fn once_the_device_plugin_left_its_resource_is_served_by_claims() {
    let rig = ModesRig::start().await;
    let plugin = rig.device_plugin(8).await;
    let old = rig.admit("old", 3).await.unwrap();
    stop(plugin).await;
    drop(soon("no boards", rig.plugins.wait_for(|view| view.allocatable(GPU) == 0)).await.unwrap());
    let _driver = rig.driver(3).await;
    let server = &rig.cluster.server;
    claim_for_extended_resource(server, "default", "pod", GPU, 5).unwrap();
    let pod = rig.cluster.scheduled("pod-extended-resources").unwrap();
    soon("an answer", rig.cluster.kubelet.run_pod(&pod)).await.unwrap();
    let given = rig.given();
    assert!(given.len() == 5 && given.is_disjoint(&old), "{given:?}");
    claim_for_extended_resource(server, "default", "more", GPU, 1).unwrap();
    rig.cluster.scheduled("more-extended-resources").unwrap_err();
}
