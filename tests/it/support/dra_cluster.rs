//! A node in DRA mode with a kubelet and an API server of its own, over real sockets. The bench of
//! DRA mode runs on it too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::app::{DaemonSettings, DraSettings};
use ix_device_plugin::daemon::claim_reader::claim_reader;
use ix_device_plugin::decide::dra::socket_paths::DriverInstance;
use ix_device_plugin::decide::node::removed::Retention;
use ix_device_plugin::demo::api_server::{ApiServer, ObjectKind, ObjectStore, ServerVersion};
use ix_device_plugin::demo::kubelet::dra::{
    DraDeadlines, DraKubelet, DraKubeletSettings, DraPodSpec, HealthService, RepeatedPrepare,
};
use ix_device_plugin::demo::machine::DemoMachine;
use ix_device_plugin::demo::scheduler::schedule;
use ix_device_plugin::host::kube_api::{ApiAccess, KubeApi};
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::dra::claim::ClaimRef;
use ix_device_plugin::model::machine::Machine;
use ix_device_plugin::parse::config::parse_config;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The node's name, and the pool's.
pub(crate) const NODE: &str = "node-1";
/// Of each claim.
const NAMESPACE: &str = "default";
/// The device class of each claim: any device of the driver.
const CLASS: &str = "gpu";

/// The node and its cluster; drivers come and go on it.
pub(crate) struct DraCluster {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) api: KubeApi,
    pub(crate) kubelet: DraKubelet,
    pub(crate) machine: DemoMachine,
    config: String,
    directory: TempDir,
}

impl DraCluster {
    /// A kubelet with these waits, and no driver yet.
    pub(crate) async fn start(machine: Machine, config: &str, deadlines: DraDeadlines) -> Self {
        let directory = TempDir::new().expect("there is room");
        std::fs::create_dir(directory.path().join("cdi")).expect("there is room");
        let server = ApiServer::start(ServerVersion::V1_36, NODE).await.expect("a port");
        let server = Arc::new(server);
        let api = KubeApi::open(&ApiAccess::Plain(server.url())).await.expect("a client");
        create_class(&server, CLASS, DRIVER_NAME, Some("iluvatar.com/gpu"));
        let wiped = Arc::clone(&server);
        let kubelet = DraKubelet::start(DraKubeletSettings {
            root: directory.path().to_owned(),
            deadlines,
            health: HealthService::Alpha,
            repeated: RepeatedPrepare::Replaces,
            claims: claim_reader(api.clone()),
            wipe: Arc::new(move || wiped.delete_slices_of(NODE).map_err(|it| it.to_string())),
        });
        Self {
            server,
            api,
            kubelet: kubelet.expect("directories can be made"),
            machine: DemoMachine::unpack(machine).expect("there is room"),
            config: config.to_owned(),
            directory,
        }
    }

    /// A file or directory of the node; the kubelet's root directory is the node's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Of the driver in the pod with this uid.
    pub(crate) fn settings(&self, pod_uid: Option<&str>) -> DaemonSettings {
        let config = format!("mode: dra\n{}", self.config);
        let mut config = parse_config(&config).expect("a good configuration");
        config.cdi.spec_dir = self.path("cdi");
        DaemonSettings {
            root: self.machine.root(),
            config,
            config_source: None,
            kubelet_directory: self.path("device-plugins"),
            pod_resources_socket: None,
            retention: Retention { kubelet_start: Duration::ZERO, ..Retention::default() },
            ixml: None,
            http: None,
            inotify: true,
            uevents: false,
            dra: Some(DraSettings {
                instance: DriverInstance {
                    kubelet_root: self.directory.path().to_owned(),
                    driver: DRIVER_NAME.to_owned(),
                    pod_uid: pod_uid.map(ToOwned::to_owned),
                },
                node: NODE.to_owned(),
                claims: claim_reader(self.api.clone()),
                api: Some(self.api.clone()),
            }),
        }
    }

    /// A pod whose claim, of the same name, a scheduler gives so many devices.
    pub(crate) fn pod(&self, name: &str, count: usize) -> Result<DraPodSpec, String> {
        let exactly = json!({ "deviceClassName": CLASS, "count": count });
        self.pod_of(name, json!({ "requests": [{ "name": "gpu", "exactly": exactly }] }))
    }

    /// The same for these requests and constraints.
    pub(crate) fn pod_of(&self, name: &str, devices: Value) -> Result<DraPodSpec, String> {
        let mut claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": name, "namespace": NAMESPACE },
        });
        claim["spec"]["devices"] = devices;
        self.server.create(ObjectKind::ResourceClaim, NAMESPACE, claim).expect("a valid claim");
        self.scheduled(name)
    }

    /// The pod of this name, once a scheduler has devices for its claim.
    pub(crate) fn scheduled(&self, name: &str) -> Result<DraPodSpec, String> {
        schedule(&self.server, NODE, NAMESPACE, name).map_err(|error| error.to_string())?;
        let claim = ClaimRef { namespace: NAMESPACE.to_owned(), name: name.to_owned() };
        Ok(DraPodSpec::single(name, &claim))
    }

    /// Ends a pod, and deletes its claim.
    pub(crate) async fn end(&self, pod: &str) -> Result<(), String> {
        self.kubelet.end_pod(pod).await?;
        let deleted = self.server.delete(ObjectKind::ResourceClaim, NAMESPACE, pod);
        deleted.map(drop).map_err(|error| error.to_string())
    }
}

/// A class of all devices of a driver.
pub(crate) fn create_class(server: &ApiServer, name: &str, driver: &str, resource: Option<&str>) {
    let expression = format!("device.driver == '{driver}'");
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": name },
        "spec": {
            "selectors": [{ "cel": { "expression": expression } }],
            "extendedResourceName": resource,
        },
    });
    server.create(ObjectKind::DeviceClass, "", class).expect("a valid class");
}

pub(crate) fn slices(store: &ObjectStore) -> Vec<ResourceSlice> {
    store.all(ObjectKind::ResourceSlice)
}

pub(crate) fn devices(store: &ObjectStore) -> Vec<Device> {
    let slices = slices(store).into_iter();
    slices.flat_map(|slice| slice.spec.devices.unwrap_or_default()).collect()
}

/// `DEVICE KEY=VALUE:EFFECT` of each taint.
pub(crate) fn taints(store: &ObjectStore) -> Vec<String> {
    let taints = devices(store).into_iter().flat_map(|device| {
        let name = device.name;
        device.taints.unwrap_or_default().into_iter().map(move |taint| {
            let value = taint.value.unwrap_or_default();
            format!("{name} {}={value}:{}", taint.key, taint.effect)
        })
    });
    taints.collect()
}
