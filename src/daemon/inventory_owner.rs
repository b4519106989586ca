//! The loop around the node's state: it starts scans, feeds every input, and publishes what changed.
//!
//! An event is a hint, which a scan confirms. A scan runs beside the loop
//! ([`super::scanner`]), so a scan that hangs blocks nothing else.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::allocation_store::AllocationStore;
use super::log_changes::log_changes;
use super::scanner::{FinishedScan, Scanner};
use super::telemetry::Telemetry;
use super::timer::until;
use crate::decide::node::list_limit::oversized;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::decide::node::state::{NodeState, RescanAdvice};
use crate::host::clock::time_of_day;
use crate::host::root::Root;
use crate::model::config::Config;
use crate::model::cordon::CordonList;
use crate::model::health_sample::HealthSample;
use crate::model::ixml::IxmlReading;
use crate::model::log_event::LogEvent;
use crate::model::pci::PciAddress;
use crate::model::pci_error::PciErrorEvent;
use crate::model::pod_usage::PodUsage;
use crate::model::rescan::RescanTrigger;

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
    /// The kernel reported that a chip left, and /sys does not list it any more.
    ChipLeft(PciAddress),
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
    scanner: Scanner,
    inputs: Inputs,
    state: NodeState,
    snapshots: watch::Sender<Option<Arc<NodeSnapshot>>>,
    started: Instant,
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
        let started = telemetry.started();
        let scanner = Scanner::new(root, inputs.config.clone(), telemetry);
        (Self { scanner, inputs, state, snapshots, started }, receiver)
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
        let deadline = self.state.next_deadline().map(|at| self.started + at);
        tokio::select! {
            // A stop goes first, then scans: many hints must not delay them.
            biased;
            () = stop.cancelled() => {}
            scan = self.scanner.next() => self.scanned(&scan),
            // The sender has timed out if it no longer waits.
            Some(ping) = self.inputs.pings.recv() => drop(ping.send(())),
            () = until(deadline) => {}
            Ok(()) = self.inputs.pods.changed() => self.pods_changed(),
            Some(report) = self.inputs.health.recv() => self.health_changed(report),
            Ok(()) = self.inputs.config.changed() => self.config_changed(),
            Ok(()) = self.inputs.cordons.changed() => self.cordons_changed(),
            Some(trigger) = self.inputs.triggers.recv() => self.scanner.hint(trigger),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn scanned(&mut self, scan: &FinishedScan) {
        self.state.identities(scan.identities.clone());
        let had_chips = self.state.observed().is_none_or(|node| !node.boards.is_empty());
        self.state.recorded(&self.inputs.allocations.allocations());
        self.state.scanned(Arc::clone(&scan.found), &scan.config.discovery, self.now());
        self.scanner.plan(scan, &self.state.incomplete_chips());
        self.log_no_chips(had_chips);
    }

    fn log_no_chips(&self, had_chips: bool) {
        let Some(node) = self.state.observed() else { return };
        if node.boards.is_empty() && had_chips {
            info!(
                event = LogEvent::NoChips.name(),
                functions = node.functions_seen,
                "no Iluvatar chips found; waiting for one"
            );
        }
    }

    fn health_changed(&mut self, report: HealthReport) {
        let now = self.now();
        match report {
            HealthReport::Sysfs(sample) => {
                if self.state.sampled(sample, now) == RescanAdvice::Rescan {
                    self.scanner.hint(RescanTrigger::Health);
                }
            }
            HealthReport::Ixml(reading) => self.state.ixml(reading, now),
            HealthReport::ErrorEvent(chip, event) => self.state.error_event(chip, event, now),
            HealthReport::ChipLeft(chip) => {
                self.scanner.chip_left(chip);
                self.state.chip_left(chip, now);
            }
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
        self.scanner.hint(RescanTrigger::Configuration);
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
