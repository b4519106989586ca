//! What the kubelet knows of drivers, claims, pods and the health of devices.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::settings::{RegistrationFault, RepeatedPrepare};
use crate::model::dra::claim::ClaimRef;
use crate::wire::dra_v1::Device;

/// The state, which tasks change and tests wait on.
pub(super) type SharedState = Arc<watch::Sender<DraNodeState>>;

/// The state of one node.
#[derive(Debug, Default)]
pub struct DraNodeState {
    /// Whether the kubelet runs.
    pub serving: bool,
    /// Drivers by registration socket.
    pub drivers: BTreeMap<PathBuf, RegisteredDriver>,
    /// Claims that pods here use; they outlive the kubelet's process.
    pub claims: BTreeMap<ClaimRef, UsedClaim>,
    /// Pods that are active.
    pub pods: BTreeMap<String, DraPodSpec>,
    /// The health of devices by driver, pool and device.
    pub health: BTreeMap<[String; 3], ReportedHealth>,
    /// Attempts to register.
    pub attempts: u64,
    /// Registrations that succeeded.
    pub registrations: u64,
    /// Connections to service sockets.
    pub connections: u64,
    /// Health lists received.
    pub health_lists: u64,
    /// Times that slices were deleted.
    pub wipes: u64,
    /// Why an attempt to register failed last.
    pub last_error: Option<String>,
    /// What happens to the next attempts to register.
    pub faults: VecDeque<RegistrationFault>,
    /// Failed attempts in a row by registration socket, and when the next one may be.
    pub(super) backoff: BTreeMap<PathBuf, (u32, Instant)>,
}

/// A driver that registered.
#[derive(Clone, Debug)]
pub struct RegisteredDriver {
    /// Its name.
    pub name: String,
    /// Its service socket.
    pub endpoint: PathBuf,
    /// Its services.
    pub versions: Vec<String>,
    /// Counts registrations: the latest connected one is preferred.
    pub order: u64,
    /// The connection to its service; none while there is none.
    pub channel: Option<Channel>,
}

/// A claim that a pod uses or used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsedClaim {
    /// Its uid.
    pub uid: String,
    /// Pods that use it.
    pub pods: BTreeSet<String>,
    /// What each driver answered.
    pub devices: BTreeMap<String, Vec<Device>>,
    /// Whether this process of the kubelet prepared it.
    pub is_prepared: bool,
}

/// A pod as far as claims are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraPodSpec {
    /// Its name.
    pub name: String,
    /// Its containers.
    pub containers: Vec<DraContainer>,
}

/// A container and the claims that it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraContainer {
    /// Its name.
    pub name: String,
    /// Each with one of its requests; with all, where there is none.
    pub claims: Vec<(ClaimRef, Option<String>)>,
}

/// The health that a driver reported of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedHealth {
    /// 0 is unknown, 1 healthy, 2 unhealthy.
    pub status: i32,
    /// Why.
    pub message: String,
    /// Until when it counts.
    pub until: Instant,
}

/// One entry of a pod's `allocatedResourcesStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatedStatus {
    /// The container.
    pub container: String,
    /// `claim:NAME`, or `claim:NAME/REQUEST`.
    pub name: String,
    /// The first CDI name of the device.
    pub resource_id: String,
    /// `Healthy`, `Unhealthy` or `Unknown`.
    pub health: &'static str,
    /// Why.
    pub message: String,
}

impl DraPodSpec {
    /// A pod with the single container `main`, which uses all requests of one claim.
    #[must_use]
    pub fn single(name: &str, claim: &ClaimRef) -> Self {
        let claims = vec![(claim.clone(), None)];
        let containers = vec![DraContainer { name: "main".to_owned(), claims }];
        Self { name: name.to_owned(), containers }
    }
}

impl DraNodeState {
    /// Whether an instance of this driver is registered.
    #[must_use]
    pub fn is_registered(&self, driver: &str) -> bool {
        self.drivers.values().any(|it| it.name == driver)
    }

    /// Whether an instance of this driver is connected.
    #[must_use]
    pub fn is_connected(&self, driver: &str) -> bool {
        self.instances(driver).any(|it| it.channel.is_some())
    }

    /// The health reported of a device; unknown where it is too old or was never reported.
    #[must_use]
    pub fn health_of(&self, driver: &str, pool: &str, device: &str) -> (&'static str, String) {
        let key = [driver, pool, device].map(ToOwned::to_owned);
        let reported = self.health.get(&key).filter(|it| Instant::now() < it.until);
        match reported {
            Some(it) if it.status == 1 => ("Healthy", it.message.clone()),
            Some(it) if it.status == 2 => ("Unhealthy", it.message.clone()),
            _ => ("Unknown", String::new()),
        }
    }

    fn instances(&self, driver: &str) -> impl Iterator<Item = &RegisteredDriver> {
        self.drivers.values().filter(move |it| it.name == driver)
    }

    /// The instance that is called: the latest connected one, else the latest.
    pub(super) fn preferred(&self, driver: &str) -> Option<&RegisteredDriver> {
        self.instances(driver).max_by_key(|it| (it.channel.is_some(), it.order))
    }

    /// The kubelet's process ends: what its memory had is lost, its checkpoint stays.
    pub(super) fn process_ended(&mut self) {
        self.serving = false;
        self.drivers.clear();
        self.health.clear();
        self.backoff.clear();
        for claim in self.claims.values_mut() {
            claim.is_prepared = false;
        }
    }

    /// The connection to an instance began, or ended.
    pub(super) fn connected(&mut self, socket: &Path, channel: Option<Channel>) {
        self.connections += u64::from(channel.is_some());
        if let Some(driver) = self.drivers.get_mut(socket) {
            driver.channel = channel;
        }
    }

    /// A driver answered for a claim.
    pub(super) fn prepared(
        &mut self,
        claim: &ClaimRef,
        driver: &str,
        devices: Vec<Device>,
        repeated: RepeatedPrepare,
    ) {
        let Some(claim) = self.claims.get_mut(claim) else { return };
        let held = claim.devices.entry(driver.to_owned()).or_default();
        if repeated == RepeatedPrepare::Replaces {
            held.clear();
        }
        held.extend(devices);
    }

    /// CDI names of a pod by container, in the order of its claims.
    #[must_use]
    pub fn cdi_names(&self, pod: &DraPodSpec) -> BTreeMap<String, Vec<String>> {
        let names = |container: &DraContainer| {
            let devices = self.devices(container).into_iter();
            devices.flat_map(|(_, _, device)| device.cdi_device_ids.clone()).collect()
        };
        pod.containers.iter().map(|it| (it.name.clone(), names(it))).collect()
    }

    /// The pod's `allocatedResourcesStatus`.
    #[must_use]
    pub fn allocated_status(&self, pod: &DraPodSpec) -> Vec<AllocatedStatus> {
        let containers = pod.containers.iter();
        let status = containers.flat_map(|container| {
            self.devices(container).into_iter().map(|(name, driver, device)| {
                let (health, message) =
                    self.health_of(driver, &device.pool_name, &device.device_name);
                AllocatedStatus {
                    container: container.name.clone(),
                    name,
                    resource_id: device.cdi_device_ids.first().cloned().unwrap_or_default(),
                    health,
                    message,
                }
            })
        });
        status.collect()
    }

    /// The devices of a container, each with the name of its claim, and its driver.
    fn devices(&self, container: &DraContainer) -> Vec<(String, &str, &Device)> {
        let mut devices = Vec::new();
        for (claim, request) in &container.claims {
            let used = self.claims.get(claim).into_iter().flat_map(|used| &used.devices);
            for (driver, held) in used {
                let name = match request {
                    Some(request) => format!("claim:{}/{request}", claim.name),
                    None => format!("claim:{}", claim.name),
                };
                let is_wanted = |device: &&Device| {
                    let names = &device.request_names;
                    request.as_ref().is_none_or(|it| names.is_empty() || names.contains(it))
                };
                let wanted = held.iter().filter(is_wanted);
                devices.extend(wanted.map(|device| (name.clone(), &**driver, device)));
            }
        }
        devices
    }
}
