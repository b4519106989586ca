//! Probes, metrics and status, from the telemetry and the latest snapshots. Read-only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::inventory_inputs::Ping;
use super::inventory_owner::SnapshotReceiver;
use super::sessions::SessionsView;
use super::telemetry::{
    LastError, ResourceTelemetry, SourceState, Telemetry, TelemetryState, WatchMethod,
};
use crate::decide::kubelet::probes::{
    DraSessionState, ProbeResult, ScanState, SessionState, liveness, readiness,
};
use crate::host::clock::time_of_day;
use crate::model::config::Config;
use crate::model::dra::DRIVER_NAME;
use crate::model::ixml::IxmlState;
use crate::wire::metrics::exposition::{Format, exposition};
use crate::wire::metrics::input::{BUILD, MetricsInput};
use crate::wire::metrics::meters::{LabelValue as _, ResourceMeters, Source};
use crate::wire::report::dra_status::{DraRegistrationStatus, DraStatus, dra_status};
use crate::wire::report::status::{OngoingError, SourceCondition, Status, StatusInput, status};

/// How long the owner may take to answer: less than the second that a kubelet gives a probe.
const OWNER_TIMEOUT: Duration = Duration::from_millis(500);

/// Where everything is read.
#[derive(Debug)]
pub struct StatusService {
    /// What the loops report.
    pub telemetry: Telemetry,
    /// The latest snapshot.
    pub snapshots: SnapshotReceiver,
    /// The active configuration.
    pub config: watch::Receiver<Arc<Config>>,
    /// How far each session is.
    pub sessions: watch::Receiver<SessionsView>,
    /// The state of libixml; absent where it is never used.
    pub ixml: Option<watch::Receiver<IxmlState>>,
    /// Checks that the inventory loop makes progress.
    pub pings: mpsc::Sender<Ping>,
}

impl StatusService {
    /// Whether the main loops make progress.
    pub async fn live(&self) -> ProbeResult {
        let (scan, sessions, dra) = (self.scan_state(), self.session_states(), self.dra());
        liveness(self.owner_answers().await, &scan, &sessions, dra.as_ref())
    }

    async fn owner_answers(&self) -> bool {
        let (ping, answer) = oneshot::channel();
        // A full queue means that the owner does not read it.
        self.pings.try_send(ping).is_ok()
            && matches!(timeout(OWNER_TIMEOUT, answer).await, Ok(Ok(())))
    }

    /// Whether the kubelet has everything.
    #[must_use]
    pub fn ready(&self) -> ProbeResult {
        readiness(&self.scan_state(), &self.session_states(), self.dra().as_ref())
    }

    /// Every metric.
    #[must_use]
    pub fn metrics(&self, format: Format) -> String {
        let (snapshot, state) = (self.snapshots.borrow().clone(), self.telemetry.state());
        let (resources, ixml) = (self.telemetry.resources(), self.ixml());
        let dra = self.telemetry.dra.notes();
        let slices = Arc::clone(&self.telemetry.dra.slices().borrow());
        let sources_up = self.sources(&state).into_iter().filter_map(|(source, condition)| {
            matches!(condition, SourceCondition::Up(_)).then_some(source)
        });
        let meters = |(name, resource): (String, ResourceTelemetry)| (name, resource.meters);
        let input = MetricsInput {
            build: BUILD,
            snapshot: snapshot.as_deref(),
            resources: &resources.into_iter().map(meters).collect(),
            node: &self.telemetry.node,
            dra: dra.is_used.then_some((&self.telemetry.dra.meters, dra.is_connected)),
            slices: dra.is_used.then_some(&*slices),
            scanning: state.scans.began.map(|began| began.elapsed()),
            config_is_current: state.refused_config.is_none(),
            sources_up: &sources_up.collect::<BTreeSet<_>>(),
            ixml: match &ixml {
                IxmlState::Reading(reading) => Some(reading),
                _ => None,
            },
        };
        exposition(&input, format)
    }

    /// The status document.
    #[must_use]
    pub fn status(&self) -> Status {
        let (snapshot, state) = (self.snapshots.borrow().clone(), self.telemetry.state());
        let config = Arc::clone(&self.config.borrow());
        let sources = self.sources(&state).into_iter();
        status(&StatusInput {
            build: BUILD,
            now: time_of_day(),
            uptime: self.telemetry.started().elapsed(),
            readiness: self.ready(),
            config: &config,
            config_file: state.config_file.as_ref().map(|path| path.display().to_string()),
            refused_config: state.refused_config.as_ref().map(ongoing),
            scanning: state.scans.began.map(|began| began.elapsed()),
            scanned: state.scans.succeeded.map(|(at, took)| (at.elapsed(), took)),
            scan_error: state.scans.last_error.as_ref().map(ongoing),
            snapshot: snapshot.as_deref(),
            sessions: &self.sessions(),
            dra: self.dra_status(),
            sources: sources.map(|(source, condition)| (source.name(), condition)).collect(),
        })
    }

    fn scan_state(&self) -> ScanState {
        let scans = self.telemetry.state().scans;
        ScanState {
            has_succeeded: scans.succeeded.is_some(),
            last_error: scans.last_error.map(|error| error.text),
            running_for: scans.began.map(|began| began.elapsed()),
        }
    }

    fn session_states(&self) -> Vec<SessionState> {
        self.sessions().into_iter().map(|(session, _)| session).collect()
    }

    /// DRA mode in the document; none in device plugin mode.
    fn dra_status(&self) -> Option<DraStatus> {
        let notes = self.telemetry.dra.notes();
        let registration = DraRegistrationStatus {
            registered: notes.registered.map(|at| time_of_day() - at.elapsed()),
            is_connected: notes.is_connected,
            last_error: notes.last_error,
        };
        let slices = self.telemetry.dra.slices();
        let slices = slices.borrow();
        notes.is_used.then(|| dra_status(registration, &slices))
    }

    /// The registration of the DRA driver; none in device plugin mode.
    fn dra(&self) -> Option<DraSessionState> {
        let notes = self.telemetry.dra.notes();
        notes.is_used.then(|| DraSessionState {
            driver: DRIVER_NAME.to_owned(),
            progress: notes.progress,
            last_error: notes.last_error,
            since_last_step: notes.last_step.elapsed(),
        })
    }

    fn sessions(&self) -> Vec<(SessionState, ResourceMeters)> {
        let sessions = self.sessions.borrow().clone();
        let session = |(resource, progress): (String, watch::Receiver<_>)| {
            let telemetry = self.telemetry.resource(&resource);
            let (notes, progress) = (telemetry.notes(), *progress.borrow());
            let session = SessionState {
                resource,
                progress,
                has_kubelet: notes.has_kubelet,
                is_registered: notes.is_registered,
                last_error: notes.last_error,
                since_last_step: notes.last_step.elapsed(),
            };
            (session, telemetry.meters)
        };
        sessions.into_iter().map(session).collect()
    }

    fn ixml(&self) -> IxmlState {
        self.ixml.as_ref().map_or(IxmlState::Off, |state| state.borrow().clone())
    }

    fn sources(&self, state: &TelemetryState) -> BTreeMap<Source, SourceCondition> {
        let netlink = "uevents are not received";
        let pod_resources = "PodResources was not queried";
        BTreeMap::from([
            (Source::Netlink, source_condition(&state.netlink, netlink)),
            (Source::PodResources, source_condition(&state.pod_resources, pod_resources)),
            (Source::Inotify, self.inotify(state)),
            (Source::Ixml, ixml_condition(&self.ixml())),
        ])
    }

    /// Up where it watches every directory that is to be watched.
    fn inotify(&self, state: &TelemetryState) -> SourceCondition {
        let resources = self.telemetry.resources();
        let sessions = resources
            .values()
            .map(|resource| ("the kubelet's directory", resource.notes().followed));
        let followed = sessions.chain([("the configuration's directory", state.config_followed)]);
        let followed: BTreeSet<_> = followed.collect();
        let polled = followed.iter().filter(|(_, followed)| *followed == WatchMethod::Polls);
        let polled: Vec<_> = polled.map(|(directory, _)| *directory).collect();
        if !polled.is_empty() {
            return SourceCondition::Down(format!("polled instead: {}", polled.join(", ")), None);
        }
        if followed.iter().any(|(_, followed)| *followed == WatchMethod::Inotify) {
            return SourceCondition::Up(None);
        }
        SourceCondition::Unused("no directory to follow".to_owned())
    }
}

fn source_condition(state: &SourceState, unused: &str) -> SourceCondition {
    match state {
        SourceState::Unused => SourceCondition::Unused(unused.to_owned()),
        SourceState::Up => SourceCondition::Up(None),
        SourceState::Down(error) => {
            SourceCondition::Down(error.text.clone(), Some(error.since.elapsed()))
        }
    }
}

fn ixml_condition(state: &IxmlState) -> SourceCondition {
    let sentence = state.to_string();
    match state {
        IxmlState::Off => SourceCondition::Unused(sentence),
        IxmlState::Reading(_) => SourceCondition::Up(Some(sentence)),
        IxmlState::Stalled { since, .. } => SourceCondition::Down(sentence, Some(since.elapsed())),
        IxmlState::NotFound(_) | IxmlState::Unusable(_) => SourceCondition::Down(sentence, None),
    }
}

fn ongoing(error: &LastError) -> OngoingError {
    OngoingError { text: error.text.clone(), age: error.since.elapsed() }
}
