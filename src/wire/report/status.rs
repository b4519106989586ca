//! The status of a running plugin: `/status`, and `status -o json`. Names stay; more may come.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use super::cordon_status::{CordonStatus, cordon_status};
use super::dra_status::DraStatus;
use crate::decide::kubelet::probes::{ProbeResult, SessionState};
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::config::Config;
use crate::model::device::{Device, Resource};
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;
use crate::model::pod_usage::Holder;
use crate::model::session::Progress;
use crate::model::warning::Warning;
use crate::wire::config_yaml::effective_json;
use crate::wire::metrics::input::Build;
use crate::wire::metrics::meters::ResourceMeters;

/// What the document is made from; ages become points in time.
#[derive(Clone, Debug)]
pub struct StatusInput<'a> {
    /// Which build runs.
    pub build: Build,
    /// The wall clock.
    pub now: SystemTime,
    /// Since the daemon started.
    pub uptime: Duration,
    /// The answer of `/readyz`.
    pub readiness: ProbeResult,
    /// The active configuration.
    pub config: &'a Config,
    /// The file that was read last; absent where it does not change.
    pub config_file: Option<String>,
    /// The last reload, if it was refused.
    pub refused_config: Option<OngoingError>,
    /// How long ago the last scan that succeeded ended, and how long it took.
    pub scanned: Option<(Duration, Duration)>,
    /// For how long a scan has been running.
    pub scanning: Option<Duration>,
    /// Why scans fail.
    pub scan_error: Option<OngoingError>,
    /// The latest snapshot.
    pub snapshot: Option<&'a NodeSnapshot>,
    /// By resource.
    pub sessions: &'a [(SessionState, ResourceMeters)],
    /// DRA mode; none in device plugin mode.
    pub dra: Option<DraStatus>,
    /// By name.
    pub sources: BTreeMap<&'static str, SourceCondition>,
}

/// An error, and for how long it has lasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OngoingError {
    /// Its text.
    pub text: String,
    /// Since it began.
    pub age: Duration,
}

/// The state of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceCondition {
    /// Not used.
    Unused(String),
    /// It works, with a detail if there is one.
    Up(Option<String>),
    /// It does not work: why, and for how long if known.
    Down(String, Option<Duration>),
}

/// The document.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub(super) build: BuildStatus,
    pub(super) started_at: String,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    /// The answer of `/readyz`.
    pub(super) readiness: Vec<String>,
    pub(super) configuration: ConfigStatus,
    pub(super) machine: MachineStatus,
    pub(super) resources: Vec<ResourceStatus>,
    /// Absent where the plugin that answered is too old to have them.
    #[serde(default)]
    pub(super) cordons: Vec<CordonStatus>,
    /// Absent in device plugin mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dra: Option<DraStatus>,
    pub(super) sources: BTreeMap<String, SourceStatus>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct BuildStatus {
    pub(super) version: String,
    pub(super) revision: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigStatus {
    pub(super) file: Option<String>,
    /// Whether the file's is active.
    pub(super) current: bool,
    pub(super) refused: Option<ErrorStatus>,
    pub(super) active: serde_json::Value,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MachineStatus {
    pub(super) scanned_at: Option<String>,
    pub(super) scan_seconds: Option<f64>,
    /// Of a scan that is running: a driver that hangs shows here.
    pub(super) scanning_seconds: Option<f64>,
    pub(super) error: Option<ErrorStatus>,
    pub(super) driver_version: Option<String>,
    pub(super) skipped: Vec<SkippedStatus>,
    /// Chips that no resource offers.
    pub(super) unoffered: Vec<String>,
    pub(super) warnings: Vec<WarningStatus>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct WarningStatus {
    pub(super) code: String,
    pub(super) subject: String,
    pub(super) message: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SkippedStatus {
    pub(super) address: String,
    pub(super) reason: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct ErrorStatus {
    pub(super) text: String,
    pub(super) since: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceStatus {
    pub(super) name: String,
    /// Absent where devices are not shared.
    pub(super) replicas: Option<u32>,
    pub(super) session: Option<SessionStatus>,
    pub(super) devices: Vec<DeviceStatus>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionStatus {
    /// `waiting`, `streaming` or `yielded`.
    pub(super) progress: String,
    pub(super) kubelet: bool,
    pub(super) registered: bool,
    pub(super) error: Option<String>,
    pub(super) open_streams: i64,
    pub(super) lists_sent: u64,
    pub(super) first_list_seconds: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceStatus {
    pub(super) id: String,
    pub(super) health: String,
    /// Since when it has this health.
    pub(super) since: Option<String>,
    pub(super) reasons: Vec<ReasonStatus>,
    pub(super) chips: Vec<String>,
    /// The UUIDs of its chips that are known.
    #[serde(default)]
    pub(super) uuids: Vec<String>,
    pub(super) nodes: Vec<String>,
    pub(super) numa_nodes: Vec<u32>,
    /// Containers that hold its chips; absent where that is unknown.
    #[serde(default)]
    pub(super) pods: Option<Vec<PodStatus>>,
}

/// One container of a pod.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct PodStatus {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct ReasonStatus {
    pub(super) code: String,
    pub(super) detail: String,
    /// What to do about it; empty where the plugin that answered is too old to send it.
    #[serde(default)]
    pub(super) remedy: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SourceStatus {
    /// `up`, `down` or `unused`.
    pub(super) state: String,
    pub(super) detail: Option<String>,
    pub(super) since: Option<String>,
}

/// The document of these facts.
#[must_use]
pub fn status(facts: &StatusInput<'_>) -> Status {
    Status {
        build: BuildStatus {
            version: facts.build.version.to_owned(),
            revision: facts.build.revision.to_owned(),
        },
        started_at: facts.at(facts.uptime),
        uptime_seconds: facts.uptime.as_secs(),
        ready: facts.readiness.is_positive,
        readiness: facts.readiness.sentences.clone(),
        configuration: config_status(facts),
        machine: machine_status(facts),
        resources: resources(facts),
        cordons: facts.snapshot.iter().flat_map(|it| &it.cordons).map(cordon_status).collect(),
        dra: facts.dra.clone(),
        sources: facts
            .sources
            .iter()
            .map(|(name, source)| ((*name).to_owned(), source_status(facts, source)))
            .collect(),
    }
}

impl StatusInput<'_> {
    /// The point in time that is so long ago.
    fn at(&self, age: Duration) -> String {
        let then = self.now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        format_rfc3339_seconds(then).to_string()
    }

    fn error_status(&self, error: &OngoingError) -> ErrorStatus {
        ErrorStatus { text: error.text.clone(), since: self.at(error.age) }
    }
}

fn config_status(facts: &StatusInput<'_>) -> ConfigStatus {
    // The same shape as in the file, so that one can be compared with the other.
    let active = effective_json(facts.config);
    ConfigStatus {
        file: facts.config_file.clone(),
        current: facts.refused_config.is_none(),
        refused: facts.refused_config.as_ref().map(|error| facts.error_status(error)),
        active,
    }
}

fn machine_status(facts: &StatusInput<'_>) -> MachineStatus {
    let inventory = facts.snapshot.map(|snapshot| &*snapshot.inventory);
    let warnings = facts.snapshot.map_or(&[][..], |snapshot| &snapshot.warnings);
    let unoffered = facts.snapshot.map_or(&[][..], |snapshot| &snapshot.unoffered);
    let skipped = inventory.iter().flat_map(|inventory| &inventory.skipped);
    let skipped = skipped.map(|skipped| SkippedStatus {
        address: skipped.address.to_string(),
        reason: skipped.reason.to_string(),
    });
    MachineStatus {
        scanned_at: facts.scanned.map(|(age, _)| facts.at(age)),
        scan_seconds: facts.scanned.map(|(_, took)| took.as_secs_f64()),
        scanning_seconds: facts.scanning.map(|since| since.as_secs_f64()),
        error: facts.scan_error.as_ref().map(|error| facts.error_status(error)),
        driver_version: inventory.and_then(|inventory| inventory.driver_version.clone()),
        skipped: skipped.collect(),
        unoffered: unoffered.iter().map(ToString::to_string).collect(),
        warnings: warnings.iter().map(warning_status).collect(),
    }
}

fn warning_status(warning: &Warning) -> WarningStatus {
    WarningStatus {
        code: warning.code.name().to_owned(),
        subject: warning.subject.to_string(),
        message: warning.to_string(),
    }
}

/// In the order of the configuration; before the first scan, there are only names.
fn resources(facts: &StatusInput<'_>) -> Vec<ResourceStatus> {
    let names = facts.config.resources.iter().map(|rule| &*rule.name);
    names
        .map(|name| {
            let offered = facts.snapshot.and_then(|snapshot| snapshot.resource(name));
            let mut sessions = facts.sessions.iter();
            let session = sessions.find(|(session, _)| session.resource == name);
            ResourceStatus {
                name: name.to_owned(),
                replicas: offered.and_then(|it| it.sharing).map(|sharing| sharing.replicas),
                session: session.map(|(session, meters)| session_status(session, meters)),
                devices: offered.map_or(Vec::new(), |resource| devices(facts, resource)),
            }
        })
        .collect()
}

fn session_status(session: &SessionState, meters: &ResourceMeters) -> SessionStatus {
    let progress = match session.progress {
        Progress::Waiting => "waiting",
        Progress::Streaming => "streaming",
        Progress::Yielded => "yielded",
    };
    SessionStatus {
        progress: progress.to_owned(),
        kubelet: session.has_kubelet,
        registered: session.is_registered,
        error: session.last_error.clone(),
        open_streams: meters.open_streams.get(),
        lists_sent: meters.lists_sent.get(),
        first_list_seconds: meters.first_list.get().map(Duration::as_secs_f64),
    }
}

fn devices(facts: &StatusInput<'_>, resource: &Resource) -> Vec<DeviceStatus> {
    let since = |id| facts.snapshot.and_then(|snapshot| snapshot.since(&resource.name, id));
    let since = |id| Some(facts.at(facts.uptime.saturating_sub(since(id)?)));
    let inventory = facts.snapshot.map(|snapshot| &*snapshot.inventory);
    let status = |device: &Device| DeviceStatus {
        pods: pods(facts, device),
        ..device_status(device, inventory, since(device.id))
    };
    resource.devices.iter().map(status).collect()
}

fn pods(facts: &StatusInput<'_>, device: &Device) -> Option<Vec<PodStatus>> {
    Some(facts.snapshot?.holders(device)?.into_iter().map(pod_status).collect())
}

fn pod_status(holder: &Holder) -> PodStatus {
    let Holder { namespace, pod, container } = holder.clone();
    PodStatus { namespace, pod, container }
}

fn device_status(
    device: &Device,
    inventory: Option<&Inventory>,
    since: Option<String>,
) -> DeviceStatus {
    let uuid = |chip: &PciAddress| inventory?.chip(*chip)?.uuid.as_ref().map(ToString::to_string);
    let reasons = device.reasons.iter().map(|reason| ReasonStatus {
        code: reason.code.name().to_owned(),
        detail: reason.detail.clone(),
        remedy: reason.code.remedy().to_owned(),
    });
    DeviceStatus {
        id: device.id.to_string(),
        health: device.health.to_string(),
        since,
        reasons: reasons.collect(),
        chips: device.chips.iter().map(ToString::to_string).collect(),
        uuids: device.chips.iter().filter_map(uuid).collect(),
        nodes: device.nodes.iter().map(|node| node.path.clone()).collect(),
        numa_nodes: device.numa_nodes.clone(),
        pods: None,
    }
}

fn source_status(facts: &StatusInput<'_>, source: &SourceCondition) -> SourceStatus {
    let (state, detail, since) = match source {
        SourceCondition::Unused(why) => ("unused", Some(why.clone()), None),
        SourceCondition::Up(detail) => ("up", detail.clone(), None),
        SourceCondition::Down(why, age) => {
            ("down", Some(why.clone()), age.map(|age| facts.at(age)))
        }
    };
    SourceStatus { state: state.to_owned(), detail, since }
}
