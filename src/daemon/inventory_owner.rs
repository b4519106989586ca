//! The loop around the node's state: it starts scans, feeds every input, and publishes what changed.
//!
//! An event is a hint; only a scan changes the inventory. A scan runs beside the loop, at most one at
//! a time, so a scan that hangs blocks nothing else. A failed scan keeps the last inventory and is
//! retried.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::allocation_store::AllocationStore;
use super::log_changes::log_changes;
use super::telemetry::Telemetry;
use super::timer::until;
use crate::decide::node::list_limit::oversized;
use crate::decide::node::scan_schedule::ScanSchedule;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::decide::node::state::{NodeState, RescanAdvice};
use crate::host::clock::time_of_day;
use crate::host::root::Root;
use crate::host::scan::scan;
use crate::host::sysfs::ScanError;
use crate::model::config::Config;
use crate::model::cordon::CordonList;
use crate::model::health_sample::HealthSample;
use crate::model::ixml::IxmlReading;
use crate::model::pci::PciAddress;
use crate::model::pci_error::PciErrorEvent;
use crate::model::pod_usage::PodUsage;
use crate::model::rescan::RescanTrigger;
use crate::model::sysfs::SysfsScan;

/// How long a scan may take before the log says so. One of 64 chips takes a few milliseconds.
const SLOW_SCAN_LIMIT: Duration = Duration::from_secs(10);

/// Answered by the next turn of the loop.
pub type Ping = oneshot::Sender<()>;

/// What is seen of the chips' health between two scans.
#[derive(Clone, Debug)]
pub enum HealthReport {
    /// A few files of each chip in /sys.
    Sysfs(HealthSample),
    /// The reading of libixml; none once it is not used any more.
    Ixml(Option<Arc<IxmlReading>>),
    /// The kernel announced error recovery of a chip, or its end.
    ErrorEvent(PciAddress, PciErrorEvent),
}

/// Which pods hold devices, as the kubelet reports it.
#[derive(Clone, Debug)]
pub enum PodsReport {
    /// Its last answer.
    Usage(Arc<PodUsage>),
    /// PodResources is unavailable.
    Unavailable,
}

/// The latest snapshot; none before the first scan that succeeded.
pub type SnapshotReceiver = watch::Receiver<Option<Arc<NodeSnapshot>>>;

/// A configuration that the machine makes impossible.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ImpossibleConfig(String);

/// Everything that the loop receives.
#[derive(Debug)]
pub struct Inputs {
    /// The active configuration.
    pub config: watch::Receiver<Arc<Config>>,
    /// Reasons to scan.
    pub triggers: mpsc::Receiver<RescanTrigger>,
    /// What is seen of the chips' health.
    pub health: mpsc::Receiver<HealthReport>,
    /// Which pods hold devices.
    pub pods: watch::Receiver<Option<PodsReport>>,
    /// Requests to show that the loop makes progress.
    pub pings: mpsc::Receiver<Ping>,
    /// What was allocated.
    pub allocations: AllocationStore,
    /// What operators keep from new pods.
    pub cordons: watch::Receiver<CordonList>,
}

/// Owns the node's state.
pub struct InventoryOwner {
    root: Arc<Root>,
    inputs: Inputs,
    state: NodeState,
    schedule: ScanSchedule,
    scanning: Option<RunningScan>,
    /// The first trigger since the last one began.
    trigger: Option<RescanTrigger>,
    snapshots: watch::Sender<Option<Arc<NodeSnapshot>>>,
    telemetry: Telemetry,
}

struct RunningScan {
    task: JoinHandle<Result<SysfsScan, ScanError>>,
    /// What it reads.
    config: Arc<Config>,
    began: Duration,
    is_slow: bool,
}

impl InventoryOwner {
    /// An owner that has seen nothing yet, and what it will publish.
    #[must_use]
    pub fn new(
        root: Arc<Root>,
        mut inputs: Inputs,
        mut state: NodeState,
        telemetry: Telemetry,
    ) -> (Self, SnapshotReceiver) {
        // Before the first list: a cordoned device is offered to nobody after a restart either.
        state.cordoned(inputs.cordons.borrow_and_update().clone(), Duration::ZERO);
        let (snapshots, receiver) = watch::channel(None);
        let interval = state.config().discovery.rescan;
        let schedule = ScanSchedule::new(interval, u64::from(std::process::id()));
        let (scanning, trigger) = (None, None);
        let owner = Self { root, inputs, state, schedule, scanning, trigger, snapshots, telemetry };
        (owner, receiver)
    }

    /// Scans, takes in and publishes until `stop`.
    ///
    /// # Errors
    /// [`ImpossibleConfig`] where the first list would be larger than a kubelet receives.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ImpossibleConfig> {
        while !stop.is_cancelled() {
            self.wait(&stop).await;
            self.publish()?;
        }
        Ok(())
    }

    /// Waits for one thing to happen and takes it in.
    async fn wait(&mut self, stop: &CancellationToken) {
        let started = self.telemetry.started();
        let scan_at = self.scanning.is_none().then(|| started + self.schedule.next());
        let slow_at = self.scanning.as_ref().filter(|scan| !scan.is_slow);
        let slow_at = slow_at.map(|scan| started + scan.began + SLOW_SCAN_LIMIT);
        let deadline = self.state.next_deadline().map(|at| started + at);
        tokio::select! {
            // A stop goes first, then scans: many hints must not delay them.
            biased;
            () = stop.cancelled() => {}
            scanned = finished(&mut self.scanning) => self.scanned(scanned),
            () = until(scan_at) => self.start_scan(),
            // The sender has timed out if it no longer waits.
            Some(ping) = self.inputs.pings.recv() => drop(ping.send(())),
            () = until(deadline) => {}
            () = until(slow_at) => self.scan_is_slow(),
            Ok(()) = self.inputs.pods.changed() => self.pods_changed(),
            Some(report) = self.inputs.health.recv() => self.health_changed(report),
            Ok(()) = self.inputs.config.changed() => self.config_changed(),
            Ok(()) = self.inputs.cordons.changed() => self.cordons_changed(),
            Some(trigger) = self.inputs.triggers.recv() => self.hint(trigger),
        }
    }

    fn now(&self) -> Duration {
        self.telemetry.started().elapsed()
    }

    fn hint(&mut self, trigger: RescanTrigger) {
        debug!(?trigger, "rescan requested");
        self.trigger.get_or_insert(trigger);
        self.schedule.hint(self.now());
    }

    fn start_scan(&mut self) {
        let trigger = self.take_trigger();
        self.telemetry.rescan_started(trigger);
        let (root, config) = (Arc::clone(&self.root), Arc::clone(&self.inputs.config.borrow()));
        let reads = Arc::clone(&config);
        let task = tokio::task::spawn_blocking(move || scan(&root, &reads.discovery));
        let began = self.now();
        self.scanning = Some(RunningScan { task, config, began, is_slow: false });
    }

    /// Why a scan is due.
    fn take_trigger(&mut self) -> RescanTrigger {
        let hinted = self.trigger.take();
        match (self.state.observed(), hinted) {
            _ if self.schedule.failures() > 0 => RescanTrigger::Retry,
            (None, _) => RescanTrigger::Start,
            (Some(_), Some(trigger)) => trigger,
            (Some(_), None) if self.schedule.is_settling(self.now()) => RescanTrigger::Settling,
            (Some(_), None) => RescanTrigger::Timer,
        }
    }

    fn scan_is_slow(&mut self) {
        warn!(
            event = "ScanSlow", after = ?SLOW_SCAN_LIMIT,
            "scan has not finished (driver hung?); keeping the last inventory"
        );
        if let Some(scan) = &mut self.scanning {
            scan.is_slow = true;
        }
    }

    fn scanned(&mut self, (scan, result): (ScanContext, Result<SysfsScan, String>)) {
        let now = self.now();
        match result {
            Ok(found) => {
                self.telemetry.rescan_succeeded();
                debug!(functions = found.functions.len(), took = ?now.saturating_sub(scan.began), "scan finished");
                self.schedule.set_interval(scan.config.discovery.rescan);
                let had_chips = self.state.observed().is_none_or(|node| !node.boards.is_empty());
                self.state.recorded(&self.inputs.allocations.allocations());
                self.state.scanned(Arc::new(found), &scan.config.discovery, now);
                self.schedule.scanned(scan.began, now, &self.state.incomplete_chips());
                self.log_no_chips(had_chips);
            }
            Err(error) => self.scan_failed(&error, now),
        }
    }

    fn log_no_chips(&self, had_chips: bool) {
        let Some(node) = self.state.observed() else { return };
        if node.boards.is_empty() && had_chips {
            info!(
                event = "NoChips",
                functions = node.functions_seen,
                "no Iluvatar chips found; waiting for one"
            );
        }
    }

    fn scan_failed(&mut self, error: &str, now: Duration) {
        self.telemetry.rescan_failed(error);
        self.schedule.failed(now);
        match self.schedule.failures() {
            1 => warn!(
                event = "ScanFailed",
                error, "scan failed; keeping the last inventory and retrying"
            ),
            failures => debug!(error, failures, "scan failed again"),
        }
    }

    fn health_changed(&mut self, report: HealthReport) {
        let now = self.now();
        match report {
            HealthReport::Sysfs(sample) => {
                if self.state.sampled(sample, now) == RescanAdvice::Rescan {
                    self.hint(RescanTrigger::Health);
                }
            }
            HealthReport::Ixml(reading) => self.state.ixml(reading, now),
            HealthReport::ErrorEvent(chip, event) => self.state.error_event(chip, event, now),
        }
    }

    fn pods_changed(&mut self) {
        let now = self.now();
        let report = self.inputs.pods.borrow_and_update().clone();
        self.state.recorded(&self.inputs.allocations.allocations());
        match report {
            Some(PodsReport::Usage(usage)) => self.state.pods(&usage, now),
            Some(PodsReport::Unavailable) => self.state.pods_unavailable(now),
            None => {}
        }
    }

    fn config_changed(&mut self) {
        let config = Arc::clone(&self.inputs.config.borrow_and_update());
        self.state.recorded(&self.inputs.allocations.allocations());
        self.state.configured(config, self.now());
        self.hint(RescanTrigger::Configuration);
    }

    fn cordons_changed(&mut self) {
        let cordons = self.inputs.cordons.borrow_and_update().clone();
        self.state.recorded(&self.inputs.allocations.allocations());
        self.state.cordoned(cordons, self.now());
    }

    fn publish(&mut self) -> Result<(), ImpossibleConfig> {
        let now = self.now();
        let Some(snapshot) = self.state.snapshot(now) else { return Ok(()) };
        let last = self.snapshots.borrow().clone();
        if last.as_ref() == Some(&snapshot) {
            return Ok(());
        }
        if let Some(problem) = oversized(&snapshot.resources).filter(|_| last.is_none()) {
            return Err(ImpossibleConfig(problem));
        }
        log_changes(last.as_deref(), &snapshot, (now, time_of_day()));
        self.snapshots.send_replace(Some(snapshot));
        Ok(())
    }
}

/// What a scan was started with.
struct ScanContext {
    config: Arc<Config>,
    began: Duration,
}

/// The end of the running scan; never ends where none runs.
async fn finished(scanning: &mut Option<RunningScan>) -> (ScanContext, Result<SysfsScan, String>) {
    let Some(scan) = scanning else { return std::future::pending().await };
    let result = match (&mut scan.task).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("the scan ended early: {error}")),
    };
    let context = ScanContext { config: Arc::clone(&scan.config), began: scan.began };
    *scanning = None;
    (context, result)
}
