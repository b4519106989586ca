//! Scans of the machine, at most one at a time, when the schedule or a hint asks for one.
//!
//! A scan runs beside whoever waits for it, so a scan that hangs blocks nothing else. A failed scan
//! is logged, counted and retried.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::telemetry::Telemetry;
use super::timer::until;
use crate::decide::node::scan_schedule::ScanSchedule;
use crate::host::identities::read_identities;
use crate::host::root::Root;
use crate::host::scan::scan;
use crate::host::sysfs::ScanError;
use crate::model::config::Config;
use crate::model::identity::IdentitiesReading;
use crate::model::log_event::LogEvent;
use crate::model::pci::PciAddress;
use crate::model::rescan::RescanTrigger;
use crate::model::sysfs::SysfsScan;

/// How long a scan may take before a warning is logged. One of 64 chips takes a few milliseconds.
const SLOW_SCAN_LIMIT: Duration = Duration::from_secs(10);

/// Decides when to scan, and scans.
pub struct Scanner {
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    schedule: ScanSchedule,
    running: Option<RunningScan>,
    /// The first hint since the last scan began.
    hint: Option<RescanTrigger>,
    has_succeeded: bool,
    telemetry: Telemetry,
}

/// What the machine shows, and what the file of identities holds.
type ScanResult = Result<(SysfsScan, Option<IdentitiesReading>), ScanError>;

struct RunningScan {
    task: JoinHandle<ScanResult>,
    config: Arc<Config>,
    began: Instant,
    is_slow: bool,
    /// Chips that left since it began, which it may have read before.
    left: Vec<PciAddress>,
}

/// A scan that succeeded.
pub struct FinishedScan {
    /// What it found.
    pub found: Arc<SysfsScan>,
    /// The file of identities; none where the configuration names none.
    pub identities: Option<IdentitiesReading>,
    /// The configuration that it read for.
    pub config: Arc<Config>,
    /// When it began.
    pub began: Instant,
}

impl Scanner {
    /// A scanner that scans at once, under the latest `config`.
    #[must_use]
    pub fn new(
        root: Arc<Root>,
        config: watch::Receiver<Arc<Config>>,
        telemetry: Telemetry,
    ) -> Self {
        let interval = config.borrow().discovery.rescan;
        let schedule = ScanSchedule::new(interval, u64::from(std::process::id()));
        let (running, hint, has_succeeded) = (None, None, false);
        Self { root, config, schedule, running, hint, has_succeeded, telemetry }
    }

    /// Something may have changed.
    pub fn hint(&mut self, trigger: RescanTrigger) {
        debug!(?trigger, "rescan requested");
        self.hint.get_or_insert(trigger);
        self.schedule.hint(self.elapsed(Instant::now()));
    }

    /// A chip left: a scan that runs must not bring it back.
    pub fn chip_left(&mut self, chip: PciAddress) {
        if let Some(scan) = &mut self.running {
            scan.left.push(chip);
        }
    }

    /// Waits for the next scan that succeeds. Dropping the future loses nothing: the scan goes on.
    pub async fn next(&mut self) -> FinishedScan {
        loop {
            let Some(scan) = &mut self.running else {
                self.until_due().await;
                self.start();
                continue;
            };
            let slow_at = (!scan.is_slow).then(|| scan.began + SLOW_SCAN_LIMIT);
            tokio::select! {
                biased;
                result = &mut scan.task => {
                    if let Some(finished) = self.finish(result) {
                        return finished;
                    }
                }
                () = until(slow_at) => {
                    scan.is_slow = true;
                    warn!(
                        event = LogEvent::ScanSlow.name(), after = ?SLOW_SCAN_LIMIT,
                        "scan has not finished (driver hung?); keeping the last inventory"
                    );
                }
            }
        }
    }

    /// A timer would be late by up to a millisecond, also where the scan is due now.
    async fn until_due(&self) {
        let due = self.telemetry.started() + self.schedule.next();
        if due > Instant::now() {
            sleep_until(due).await;
        }
    }

    /// Plans the next scan after one that succeeded; these chips lack their driver or node.
    pub fn plan(&mut self, last: &FinishedScan, incomplete: &[PciAddress]) {
        let (began, now) = (self.elapsed(last.began), self.elapsed(Instant::now()));
        self.schedule.set_interval(last.config.discovery.rescan);
        self.schedule.scanned(began, now, incomplete);
    }

    fn elapsed(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.telemetry.started())
    }

    fn start(&mut self) {
        let trigger = self.take_trigger();
        self.telemetry.rescan_started(trigger);
        let (root, config) = (Arc::clone(&self.root), Arc::clone(&self.config.borrow()));
        let reads = Arc::clone(&config);
        let task = tokio::task::spawn_blocking(move || {
            let found = scan(&root, &reads.discovery)?;
            Ok((found, read_identities(&reads.discovery)))
        });
        let began = Instant::now();
        self.running = Some(RunningScan { task, config, began, is_slow: false, left: Vec::new() });
    }

    /// Why a scan is due.
    fn take_trigger(&mut self) -> RescanTrigger {
        let hint = self.hint.take();
        let is_settling = self.schedule.is_settling(self.elapsed(Instant::now()));
        match hint {
            _ if self.schedule.failures() > 0 => RescanTrigger::Retry,
            _ if !self.has_succeeded => RescanTrigger::Start,
            Some(trigger) => trigger,
            None if is_settling => RescanTrigger::Settling,
            None => RescanTrigger::Timer,
        }
    }

    fn finish(&mut self, result: Result<ScanResult, JoinError>) -> Option<FinishedScan> {
        let RunningScan { config, began, is_slow, left, .. } = self.running.take()?;
        match result {
            Ok(Ok((mut found, identities))) => {
                for chip in left {
                    found.remove_chip(chip);
                }
                self.has_succeeded = true;
                self.telemetry.rescan_succeeded();
                self.log_recovery(is_slow, began);
                debug!(functions = found.functions.len(), took = ?began.elapsed(), "scan finished");
                return Some(FinishedScan { found: Arc::new(found), identities, config, began });
            }
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(error) => self.failed(&format!("the scan ended early: {error}")),
        }
        None
    }

    /// Ends what a warning began.
    fn log_recovery(&self, was_slow: bool, began: Instant) {
        let failures = self.schedule.failures();
        if failures > 0 || was_slow {
            let (event, took) = (LogEvent::ScanRecovered.name(), began.elapsed());
            info!(event, failures, ?took, "scan succeeded again");
        }
    }

    fn failed(&mut self, error: &str) {
        self.telemetry.rescan_failed(error);
        self.schedule.failed(self.elapsed(Instant::now()));
        match self.schedule.failures() {
            1 => warn!(
                event = LogEvent::ScanFailed.name(),
                error, "scan failed; keeping the last inventory and retrying"
            ),
            failures => debug!(error, failures, "scan failed again"),
        }
    }
}
