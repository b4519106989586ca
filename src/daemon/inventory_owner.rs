//! The loop around the node's state: it starts scans, feeds every input, and publishes what changed.
//!
//! An event is a hint, which a scan confirms. A scan runs beside the loop
//! ([`super::scanner`]), so a scan that hangs blocks nothing else.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inventory_inputs::{HealthReport, Input, Inputs, PodsReport};
use super::log_changes::{log_changes, log_no_chips};
use super::scanner::{FinishedScan, Scanner};
use super::telemetry::Telemetry;
use super::timer::until;
use crate::decide::node::list_limit::oversized;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::decide::node::state::{NodeState, RescanAdvice};
use crate::host::clock::time_of_day;
use crate::host::root::Root;
use crate::model::rescan::RescanTrigger;

/// The latest snapshot; none before the first scan that succeeded.
pub type SnapshotReceiver = watch::Receiver<Option<Arc<NodeSnapshot>>>;

/// A configuration that the machine makes impossible.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ImpossibleConfig(String);

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
        // The first scan answers what came before it.
        while let Ok(trigger) = self.inputs.triggers.try_recv() {
            self.scanner.hint(trigger);
        }
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
            () = until(deadline) => {}
            input = self.inputs.next() => self.take_in(input),
        }
    }

    fn scanned(&mut self, scan: &FinishedScan) {
        let had_chips = self.state.observed().is_none_or(|node| !node.boards.is_empty());
        self.state.recorded(&self.inputs.allocations.allocations());
        self.state.identities(scan.identities.clone());
        let now = self.started.elapsed();
        self.state.scanned(Arc::clone(&scan.found), &scan.config.discovery, now);
        self.scanner.plan(scan, &self.state.incomplete_chips());
        log_no_chips(had_chips, self.state.observed());
    }

    fn take_in(&mut self, input: Input) {
        self.state.recorded(&self.inputs.allocations.allocations());
        let now = self.started.elapsed();
        match input {
            // The sender has timed out if it no longer waits.
            Input::Ping(ping) => drop(ping.send(())),
            Input::Pods(Some(PodsReport::Usage(usage))) => self.state.pods(&usage, now),
            Input::Pods(Some(PodsReport::Unavailable)) => self.state.pods_unavailable(now),
            Input::Pods(None) => {}
            Input::Health(report) => self.health_changed(report, now),
            Input::Config(config) => {
                self.state.configured(config, now);
                self.scanner.hint(RescanTrigger::Configuration);
            }
            Input::Cordons(cordons) => self.state.cordoned(cordons, now),
            Input::Trigger(trigger) => self.scanner.hint(trigger),
        }
    }

    fn health_changed(&mut self, report: HealthReport, now: Duration) {
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

    fn publish(&mut self) -> Result<(), ImpossibleConfig> {
        let now = self.started.elapsed();
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
