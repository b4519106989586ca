//! The one owner of the inventory: every trigger leads to the same scan, build and publish.
//!
//! The event is a hint, the scan is the truth. A failed scan is not an empty node: the last
//! inventory stays, and the scan is tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::log_changes::log_changes;
use super::slow::{self, warn_if_slow};
use super::telemetry::Telemetry;
use super::timer::until;
use crate::decide::health::board_history::BoardHistory;
use crate::decide::health::tracker::HealthTracker;
use crate::decide::health::{ixml_signals, sample_signals as vitals, scan_signals as health};
use crate::decide::machine::observe as inventory;
use crate::decide::node::advertise::NodeSnapshot;
use crate::decide::node::removed::{PodUsage, RemovedDevices, Retention};
use crate::decide::node::scan_schedule::Rescan;
use crate::host::clock::time_of_day;
use crate::host::root::Root;
use crate::host::scan::{Scan, scan};
use crate::model::board::Chip;
use crate::model::config::Config;
use crate::model::health_sample::HealthSample;
use crate::model::inventory::Inventory;
use crate::model::ixml::IxmlReading;
use crate::model::pci::PciAddress;
use crate::wire::metrics::meters::RescanTrigger;

/// Why to look again.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The kernel announced a change.
    Uevent,
    /// The kernel may have changed something without a word to us.
    Poll,
    /// An operator asked (SIGHUP).
    Request,
}

impl Trigger {
    fn cause(&self) -> RescanTrigger {
        match self {
            Self::Uevent => RescanTrigger::Uevent,
            Self::Poll => RescanTrigger::Poll,
            Self::Request => RescanTrigger::Request,
        }
    }
}

/// Answered as soon as the owner comes round.
pub type Ping = oneshot::Sender<()>;

/// What was seen of the chips' health between two scans.
#[derive(Clone, Debug)]
pub enum HealthReport {
    /// A few files of each chip in /sys.
    Sysfs(HealthSample),
    /// What libixml says; none once it is not asked any more.
    Ixml(Option<Arc<IxmlReading>>),
}

/// What the kubelet says of holders, the last answer.
pub type PodUsageReceiver = watch::Receiver<Option<Arc<PodUsage>>>;

/// What all loops share: none until the first scan that succeeded.
pub type SnapshotReceiver = watch::Receiver<Option<Arc<NodeSnapshot>>>;

/// Owns the machine's root, the last scan, what was seen of the chips' health, and what left.
pub struct InventoryOwner {
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    triggers: mpsc::Receiver<Trigger>,
    looks: mpsc::Receiver<HealthReport>,
    snapshots: watch::Sender<Option<Arc<NodeSnapshot>>>,
    rescan: Rescan,
    /// The last scan that succeeded, not judged.
    facts: Option<Inventory>,
    /// The last short look.
    last_sample: HealthSample,
    /// What libixml said last.
    last_ixml: Option<Arc<IxmlReading>>,
    judge: HealthTracker,
    /// When the judgement changes by itself.
    judge_at: Option<Duration>,
    board_history: BoardHistory,
    removed_devices: RemovedDevices,
    /// Absent where nobody asks the kubelet.
    answers: Option<PodUsageReceiver>,
    /// Absent where nobody asks whether this lives.
    pings: Option<mpsc::Receiver<Ping>>,
    telemetry: Telemetry,
    /// What first asked for a look since the last one.
    cause: Option<RescanTrigger>,
    started: Instant,
}

/// What an owner hears.
#[derive(Debug)]
pub struct Inputs {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Hints to look again.
    pub triggers: mpsc::Receiver<Trigger>,
    /// Short looks at the chips.
    pub looks: mpsc::Receiver<HealthReport>,
}

impl InventoryOwner {
    /// An owner that has not looked yet, and what it will publish. Devices that left stay listed
    /// as `stay` says; all times count from `started`.
    #[must_use]
    pub fn new(
        root: Arc<Root>,
        inputs: Inputs,
        (started, retention): (Instant, Retention),
    ) -> (Self, SnapshotReceiver) {
        let Inputs { config, triggers, looks } = inputs;
        let (snapshots, receiver) = watch::channel(None);
        let rescan = Rescan::new(config.borrow().discovery.rescan, u64::from(std::process::id()));
        let owner = Self {
            root,
            config,
            triggers,
            looks,
            snapshots,
            rescan,
            facts: None,
            last_sample: HealthSample::new(),
            last_ixml: None,
            judge: HealthTracker::default(),
            judge_at: None,
            board_history: BoardHistory::default(),
            removed_devices: RemovedDevices::new(retention),
            answers: None,
            pings: None,
            telemetry: Telemetry::default(),
            cause: None,
            started,
        };
        (owner, receiver)
    }

    /// From now on hears what the kubelet says of holders.
    #[must_use]
    pub fn hearing(mut self, answers: PodUsageReceiver) -> Self {
        self.answers = Some(answers);
        self
    }

    /// From now on tells how its looks go, and answers `pings` in between.
    #[must_use]
    pub fn telling(mut self, telemetry: Telemetry, pings: mpsc::Receiver<Ping>) -> Self {
        self.telemetry = telemetry;
        self.pings = Some(pings);
        self
    }

    /// Looks, judges, publishes what changed, and waits for a reason to look again; until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let look_at = self.started + self.rescan.next();
            let judge_at = self.judge_at.map(|at| self.started + at);
            let expiry = self.removed_devices.next_expiry().map(|at| self.started + at);
            tokio::select! {
                // A stop goes first, then a due look: hints that pour in must not put it off.
                biased;
                () = stop.cancelled() => break,
                // Who asks has gone where nobody waits for the answer.
                Some(ping) = pinged(&mut self.pings) => drop(ping.send(())),
                () = tokio::time::sleep_until(look_at) => self.look().await,
                () = until(judge_at) => self.publish(),
                () = until(expiry) => self.publish(),
                Some(answer) = heard(&mut self.answers) => self.take_answer(&answer),
                Some(look) = self.looks.recv() => match look {
                    HealthReport::Sysfs(vitals) => self.take_sample(vitals),
                    HealthReport::Ixml(reading) => self.take_ixml(reading),
                },
                Some(trigger) = self.triggers.recv() => {
                    debug!(?trigger, "a hint to look again");
                    self.hint(trigger.cause());
                }
                Ok(()) = self.config.changed() => self.hint(RescanTrigger::Configuration),
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn hint(&mut self, cause: RescanTrigger) {
        self.cause.get_or_insert(cause);
        self.rescan.hint(self.now());
    }

    /// Why a look is due.
    fn take_cause(&mut self) -> RescanTrigger {
        let hinted = self.cause.take();
        if self.rescan.failures() > 0 {
            return RescanTrigger::Retry;
        }
        match (&self.facts, hinted) {
            (None, _) => RescanTrigger::Start,
            (Some(_), Some(cause)) => cause,
            (Some(_), None) if self.rescan.is_settling(self.now()) => RescanTrigger::Settling,
            (Some(_), None) => RescanTrigger::Timer,
        }
    }

    async fn look(&mut self) {
        let cause = self.take_cause();
        self.telemetry.rescan_started(cause);
        let root = Arc::clone(&self.root);
        let config = Arc::clone(&self.config.borrow_and_update());
        let scanned = Arc::clone(&config);
        let began = self.now();
        let looking = tokio::task::spawn_blocking(move || scan(&root, &scanned));
        let looked = warn_if_slow(looking, slow::LOOK, || {
            warn!(
                after = ?slow::LOOK,
                "a look at the machine hangs, perhaps in the driver; the last list stays until it \
                 is over"
            );
        });
        let looked = looked.await;
        match looked {
            Ok(Ok(scan)) => {
                self.rescan.set_interval(config.discovery.rescan);
                let took = self.now().saturating_sub(began);
                debug!(scan.functions_seen, ?took, "looked at the machine");
                self.telemetry.rescan_succeeded();
                self.rescan.looked(began, self.now(), &incomplete(&scan.facts));
                self.take_scan(scan, &config);
            }
            Ok(Err(error)) => self.failed(&format!("{error}")),
            Err(error) => self.failed(&format!("the scan ended early: {error}")),
        }
    }

    fn take_scan(&mut self, mut scan: Scan, config: &Config) {
        self.board_history.correct(&mut scan.facts, &config.boards);
        let (chips, seen) = inventory::seen(&scan.facts);
        self.judge.observe(self.now(), &chips, health::SCOPE, &seen, &config.health);
        self.last_sample.retain(|chip, _| chips.contains(chip));
        let had_boards = self.facts.as_ref().is_none_or(|facts| !facts.boards.is_empty());
        if scan.facts.boards.is_empty() && had_boards {
            info!(functions_seen = scan.functions_seen, "no Iluvatar chips found; waiting for one");
        }
        self.facts = Some(scan.facts);
        self.publish();
    }

    fn take_sample(&mut self, vitals: HealthSample) {
        let Some(facts) = &self.facts else { return };
        let is_outdated = vitals::is_outdated(facts, &vitals);
        let (chips, _) = inventory::seen(facts);
        if is_outdated {
            self.hint(RescanTrigger::Health);
        }
        let findings = vitals::findings(&self.last_sample, &vitals);
        let rules = &self.config.borrow().health.clone();
        self.judge.observe(self.now(), &chips, vitals::SCOPE, &findings, rules);
        self.last_sample = vitals;
        self.publish();
    }

    fn take_ixml(&mut self, reading: Option<Arc<IxmlReading>>) {
        let Some(facts) = &self.facts else { return };
        let (chips, _) = inventory::seen(facts);
        let before = self.last_ixml.as_deref();
        let said = reading.as_ref().map(|now| ixml_signals::findings(before, now));
        let rules = &self.config.borrow().health.clone();
        let (now, said) = (self.now(), said.unwrap_or_default());
        self.judge.observe(now, &chips, ixml_signals::SCOPE, &said, rules);
        self.last_ixml = reading;
        self.publish();
    }

    fn take_answer(&mut self, answer: &PodUsage) {
        self.removed_devices.hear(answer);
        self.publish();
    }

    fn failed(&mut self, error: &str) {
        self.telemetry.rescan_failed(error);
        self.rescan.failed(self.started.elapsed());
        let failures = self.rescan.failures();
        if failures == 1 {
            warn!(%error, "cannot look at the machine; the last list stays, trying again");
        } else {
            debug!(%error, failures, "still cannot look at the machine");
        }
    }

    fn publish(&mut self) {
        let Some(facts) = &self.facts else { return };
        let config = Arc::clone(&self.config.borrow());
        let judgement = self.judge.judge(self.started.elapsed(), &config.health);
        self.judge_at = judgement.next;
        let inventory = inventory::judged(facts, &judgement, &config.health);
        self.removed_devices.observe(NodeSnapshot::new(inventory, &config), self.now());
        let Some(snapshot) = self.removed_devices.snapshot(self.now()) else { return };
        self.board_history.forget_departed(&snapshot.inventory, &self.removed_devices.chips());
        let last = self.snapshots.borrow().clone();
        let snapshot = snapshot.following(last.as_deref(), time_of_day());
        if last.as_deref() != Some(&snapshot) {
            log_changes(last.as_deref(), &snapshot);
            self.snapshots.send_replace(Some(Arc::new(snapshot)));
        }
    }
}

/// None, at once, where nobody asks; `select!` then ignores it.
async fn pinged(pings: &mut Option<mpsc::Receiver<Ping>>) -> Option<Ping> {
    pings.as_mut()?.recv().await
}

/// None, at once, where nobody asks the kubelet; `select!` then ignores it.
async fn heard(answers: &mut Option<PodUsageReceiver>) -> Option<Arc<PodUsage>> {
    let answers = answers.as_mut()?;
    answers.changed().await.ok()?;
    answers.borrow_and_update().clone()
}

/// Chips whose driver or node may still be on its way.
fn incomplete(inventory: &Inventory) -> Vec<PciAddress> {
    let chips = inventory.chips_by_board();
    let waits = |chip: &&Chip| chip.reasons.iter().any(|reason| reason.code.may_pass());
    chips.filter(waits).map(|chip| chip.address).collect()
}
