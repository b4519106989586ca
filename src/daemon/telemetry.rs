//! What the loops report of themselves: their meters, and the state that no snapshot has.
//!
//! Loops hold a clone and write; probes, metrics and status read. Nothing waits or decides here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::dra_telemetry::DraTelemetry;
use crate::model::rescan::RescanTrigger;
use crate::wire::metrics::meters::{NodeMeters, ReloadResult, ResourceMeters};

/// Clones share one state.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// What is counted of the node.
    pub node: NodeMeters,
    /// What DRA mode reports.
    pub dra: DraTelemetry,
    started: Instant,
    resources: Arc<watch::Sender<BTreeMap<String, ResourceTelemetry>>>,
    state: Arc<watch::Sender<TelemetryState>>,
}

/// What is known of the node's sources and scans.
#[derive(Clone, Debug, Default)]
pub struct TelemetryState {
    /// Scans of the machine.
    pub scans: Scans,
    /// The configuration file that was read last; absent where there is none to follow.
    pub config_file: Option<PathBuf>,
    /// Why the file's configuration is not active.
    pub refused_config: Option<LastError>,
    /// How changes of the configuration's directory are noticed.
    pub config_followed: WatchMethod,
    /// The kernel's uevents.
    pub netlink: SourceState,
    /// PodResources of the kubelet.
    pub pod_resources: SourceState,
}

/// Scans of the machine.
#[derive(Clone, Debug, Default)]
pub struct Scans {
    /// When one began that has not ended.
    pub began: Option<Instant>,
    /// When the last one that succeeded ended, and how long it took.
    pub succeeded: Option<(Instant, Duration)>,
    /// Why the last one failed.
    pub last_error: Option<LastError>,
}

/// An error that continues.
#[derive(Clone, Debug)]
pub struct LastError {
    /// Its latest text.
    pub text: String,
    /// When it began.
    pub since: Instant,
}

/// Whether a source works.
#[derive(Clone, Debug, Default)]
pub enum SourceState {
    /// Not used so far.
    #[default]
    Unused,
    /// It works.
    Up,
    /// It does not work.
    Down(LastError),
}

/// How changes of a directory are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchMethod {
    /// There is no such directory.
    #[default]
    Nothing,
    /// By inotify.
    Inotify,
    /// By polling alone.
    Polls,
}

impl WatchMethod {
    /// After an attempt to follow by inotify.
    #[must_use]
    pub fn of<T>(opened: &io::Result<T>) -> Self {
        match opened {
            Ok(_) => Self::Inotify,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Nothing,
            Err(_) => Self::Polls,
        }
    }
}

/// The telemetry of one resource; clones share one state.
#[derive(Clone, Debug)]
pub struct ResourceTelemetry {
    /// What is counted.
    pub meters: ResourceMeters,
    configured: Instant,
    notes: Arc<watch::Sender<SessionNotes>>,
}

/// The state that a session reports.
#[derive(Clone, Debug)]
pub struct SessionNotes {
    /// When it last made a step.
    pub last_step: Instant,
    /// Whether a kubelet's socket is there, and the last call to it was accepted; true until
    /// it was checked.
    pub has_kubelet: bool,
    /// Whether the kubelet accepted our registration.
    pub is_registered: bool,
    /// How changes of the kubelet's directory are noticed.
    pub followed: WatchMethod,
    /// The last error since the last success.
    pub last_error: Option<String>,
}

impl Default for Telemetry {
    /// Of a daemon that starts now.
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Telemetry {
    /// Nothing reported yet; times count from `started`.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        Self {
            node: NodeMeters::default(),
            dra: DraTelemetry::default(),
            started,
            resources: Arc::default(),
            state: Arc::default(),
        }
    }

    /// When the daemon started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The state of sources and scans.
    #[must_use]
    pub fn state(&self) -> TelemetryState {
        self.state.borrow().clone()
    }

    /// Every resource that is configured.
    #[must_use]
    pub fn resources(&self) -> BTreeMap<String, ResourceTelemetry> {
        self.resources.borrow().clone()
    }

    /// Sets the configured resources; the telemetry of others is dropped.
    pub fn set_resources<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.resources.send_modify(|resources| {
            let mut before = std::mem::take(resources);
            for name in names {
                let resource = before.remove(name).unwrap_or_default();
                resources.insert(name.to_owned(), resource);
            }
        });
    }

    /// The telemetry of one resource. That of a resource that is not configured is not published.
    #[must_use]
    pub fn resource(&self, name: &str) -> ResourceTelemetry {
        self.resources.borrow().get(name).cloned().unwrap_or_default()
    }

    /// A scan begins.
    pub fn rescan_started(&self, cause: RescanTrigger) {
        self.node.rescans.count(cause);
        self.state.send_modify(|state| state.scans.began = Some(Instant::now()));
    }

    /// It succeeded.
    pub fn rescan_succeeded(&self) {
        self.rescan_ended(|scans, took| {
            scans.succeeded = Some((Instant::now(), took));
            scans.last_error = None;
        });
    }

    /// It failed.
    pub fn rescan_failed(&self, error: &str) {
        self.rescan_ended(|scans, _| {
            scans.last_error = Some(LastError::updated(scans.last_error.take(), error));
        });
    }

    fn rescan_ended(&self, end: impl FnOnce(&mut Scans, Duration)) {
        self.state.send_modify(|state| {
            let took = state.scans.began.take().map_or(Duration::ZERO, |began| began.elapsed());
            self.node.rescan_duration.observe(took.as_secs_f64());
            end(&mut state.scans, took);
        });
    }

    /// Uevents are received, or not, for this reason.
    pub fn netlink(&self, error: Option<&str>) {
        self.state.send_modify(|state| state.netlink.now(error));
    }

    /// PodResources answered, or did not, for this reason.
    pub fn pod_resources(&self, error: Option<&str>) {
        self.state.send_modify(|state| state.pod_resources.now(error));
    }

    /// How changes of the configuration's directory are noticed.
    pub fn config_followed(&self, followed: WatchMethod) {
        self.state.send_modify(|state| state.config_followed = followed);
    }

    /// This configuration file was read.
    pub fn config_read(&self, file: &Path) {
        self.state.send_if_modified(|state| {
            let is_another = state.config_file.as_deref() != Some(file);
            if is_another {
                state.config_file = Some(file.to_owned());
            }
            is_another
        });
    }

    /// The configuration of the file is active.
    pub fn config_is_current(&self) {
        self.state.send_modify(|state| state.refused_config = None);
    }

    /// A change of the file is active.
    pub fn config_applied(&self) {
        self.node.config_reloads.count(ReloadResult::Applied);
        self.config_is_current();
    }

    /// A change of the file was refused; the last valid one stays active.
    pub fn config_refused(&self, problem: &str) {
        self.node.config_reloads.count(ReloadResult::Refused);
        self.state.send_modify(|state| {
            let last = state.refused_config.take();
            state.refused_config = Some(LastError::updated(last, problem));
        });
    }
}

impl LastError {
    /// The same error continues, with this text; `since` stays.
    fn updated(last: Option<Self>, text: &str) -> Self {
        let since = last.map_or_else(Instant::now, |last| last.since);
        Self { text: text.to_owned(), since }
    }
}

impl SourceState {
    fn now(&mut self, error: Option<&str>) {
        *self = match (error, std::mem::take(self)) {
            (None, _) => Self::Up,
            (Some(error), Self::Down(last_error)) => {
                Self::Down(LastError::updated(Some(last_error), error))
            }
            (Some(error), _) => Self::Down(LastError::updated(None, error)),
        };
    }
}

impl Default for ResourceTelemetry {
    fn default() -> Self {
        let now = Instant::now();
        let notes = SessionNotes {
            last_step: now,
            has_kubelet: true,
            is_registered: false,
            followed: WatchMethod::Nothing,
            last_error: None,
        };
        let notes = Arc::new(watch::Sender::new(notes));
        Self { meters: ResourceMeters::default(), configured: now, notes }
    }
}

impl ResourceTelemetry {
    /// The state of its session.
    #[must_use]
    pub fn notes(&self) -> SessionNotes {
        self.notes.borrow().clone()
    }

    /// Changes the state of its session.
    pub fn note(&self, change: impl FnOnce(&mut SessionNotes)) {
        self.notes.send_modify(change);
    }

    /// The kubelet has the list; only the first time counts.
    pub fn has_list(&self) {
        self.meters.first_list.get_or_init(|| self.configured.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_error_that_continues_keeps_its_start_and_its_latest_text() {
        let telemetry = Telemetry::new(Instant::now());
        let began = Instant::now();
        telemetry.rescan_failed("one");
        tokio::time::advance(Duration::from_secs(5)).await;
        telemetry.rescan_failed("two");
        let last_error = telemetry.state().scans.last_error.unwrap();
        assert_eq!((&*last_error.text, last_error.since), ("two", began));
        telemetry.rescan_succeeded();
        assert!(telemetry.state().scans.last_error.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_that_stays_keeps_its_counts_and_one_that_goes_is_forgotten() {
        let telemetry = Telemetry::new(Instant::now());
        telemetry.set_resources(["a.b/one", "a.b/two"]);
        for name in ["a.b/one", "a.b/two"] {
            telemetry.resource(name).meters.lists_sent.inc();
        }
        telemetry.set_resources(["a.b/two", "a.b/three"]);
        let resources = telemetry.resources();
        let sent = resources.iter().map(|(name, it)| (&**name, it.meters.lists_sent.get()));
        assert_eq!(sent.collect::<Vec<_>>(), [("a.b/three", 0), ("a.b/two", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_list_is_timed_once() {
        let resource = ResourceTelemetry::default();
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(3)).await;
            resource.has_list();
        }
        assert_eq!(resource.meters.first_list.get(), Some(&Duration::from_secs(3)));
    }
}
