//! The node's whole state as one pure machine: every input in, the snapshot out.
//!
//! **Invariant.** The snapshot is a function of the inputs and their times, and of nothing else: how
//! often it is asked for, and when, changes nothing. A scan that fails is no input, so the last
//! observation stays. No device is healthy while a certain signal is against it, and no chip is
//! offered in a way that whoever holds it would have to share without knowing.
//!
//! A configuration and the observation that it is applied to belong together. What a scan reads
//! depends on `discovery`; so a configuration that changes what is read waits for the scan that
//! read it, and any other is applied at once, also while a scan hangs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cordons;
use super::holdings::{Holdings, PodResourcesState};
use super::inventory::conclude;
use super::known_uuids::KnownUuids;
use super::list_limit::ListLimit;
use super::removed::{Present, RemovedDevices, Retention};
use super::snapshot::NodeSnapshot;
use crate::decide::health::board_history::BoardHistory;
use crate::decide::health::error_recoveries::{self, ErrorRecoveries};
use crate::decide::health::tracker::{ChipReasons, HealthTracker, board_of_chip};
use crate::decide::health::{ixml_signals, sample_signals, scan_signals};
use crate::decide::machine::observe::observe;
use crate::model::allocation::Allocations;
use crate::model::config::{Config, DiscoveryRules, ServingMode};
use crate::model::cordon::CordonList;
use crate::model::device::DeviceId;
use crate::model::health::{Health, ReasonCode};
use crate::model::health_sample::HealthSample;
use crate::model::identity::IdentitiesReading;
use crate::model::ixml::IxmlReading;
use crate::model::observed::ObservedNode;
use crate::model::pci::PciAddress;
use crate::model::pci_error::PciErrorEvent;
use crate::model::pod_usage::PodUsage;
use crate::model::sysfs::SysfsScan;

/// Whether an input shows that the machine should be scanned again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RescanAdvice {
    /// It does.
    Rescan,
    /// It does not.
    NotNeeded,
}

/// Everything known of the node. Times are on the daemon's clock and never go back.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The configuration that the observation belongs to.
    config: Arc<Config>,
    /// A newer one, which waits for a scan that reads what it needs.
    awaiting_scan: Option<Arc<Config>>,
    scan: Option<Arc<SysfsScan>>,
    /// The last scan under `config`, corrected by the boards' history.
    observed: Option<ObservedNode>,
    board_history: BoardHistory,
    /// What the file of identities held when the next scan was made.
    next_identities: Option<IdentitiesReading>,
    uuids: KnownUuids,
    tracker: HealthTracker,
    last_sample: HealthSample,
    last_ixml: Option<Arc<IxmlReading>>,
    recoveries: ErrorRecoveries,
    removed: RemovedDevices,
    holdings: Holdings,
    cordons: CordonList,
    list_limit: ListLimit,
    snapshot: Option<Arc<NodeSnapshot>>,
}

impl NodeState {
    /// A node of which nothing was seen yet.
    #[must_use]
    pub fn new(config: Arc<Config>, retention: Retention) -> Self {
        Self {
            config,
            awaiting_scan: None,
            scan: None,
            observed: None,
            board_history: BoardHistory::default(),
            next_identities: None,
            uuids: KnownUuids::default(),
            tracker: HealthTracker::default(),
            last_sample: HealthSample::new(),
            last_ixml: None,
            recoveries: ErrorRecoveries::default(),
            removed: RemovedDevices::new(retention),
            holdings: Holdings::default(),
            cordons: CordonList::default(),
            list_limit: ListLimit::default(),
            snapshot: None,
        }
    }

    /// The configuration that the snapshot is made under.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The last observation; none before the first scan.
    #[must_use]
    pub fn observed(&self) -> Option<&ObservedNode> {
        self.observed.as_ref()
    }

    /// What the file of identities holds, read under the configuration of the next scan; none where
    /// that names no file. It holds together with that scan, so that no device is listed without its
    /// UUID only because the scan ended first.
    pub fn identities(&mut self, reading: Option<IdentitiesReading>) {
        self.next_identities = reading;
    }

    /// A scan ended that read what `read_under` needs.
    pub fn scanned(&mut self, scan: Arc<SysfsScan>, read_under: &DiscoveryRules, now: Duration) {
        self.advance(now);
        if let Some(config) = self.awaiting_scan.take() {
            if reads_the_same(read_under, &config.discovery) {
                self.config = config;
            } else {
                self.awaiting_scan = Some(config);
            }
        }
        if !reads_the_same(read_under, &self.config.discovery) {
            return;
        }
        self.scan = Some(scan);
        self.uuids.read(self.next_identities.take());
        self.observe();
        self.observe_signals(now);
        self.conclude(now);
    }

    /// The kernel reported that a chip left, and /sys does not list it any more: at once what the next
    /// scan will show. Where nodes are inferred from their number, that scan is needed.
    pub fn chip_left(&mut self, chip: PciAddress, now: Duration) {
        let Some(scan) = self.scan.as_mut().filter(|scan| scan.announces_node_of(chip)) else {
            return;
        };
        Arc::make_mut(scan).remove_chip(chip);
        self.advance(now);
        self.observe();
        self.observe_signals(now);
        self.conclude(now);
    }

    /// The configuration changed. It is applied at once unless a scan has to read more for it.
    pub fn configured(&mut self, config: Arc<Config>, now: Duration) {
        self.advance(now);
        if self.scan.is_some() && !reads_the_same(&config.discovery, &self.config.discovery) {
            self.awaiting_scan = Some(config);
            return;
        }
        self.awaiting_scan = None;
        self.config = config;
        self.observe();
        self.conclude(now);
    }

    /// A health sample of the chips in /sys.
    pub fn sampled(&mut self, sample: HealthSample, now: Duration) -> RescanAdvice {
        self.advance(now);
        let Some(observed) = &self.observed else { return RescanAdvice::NotNeeded };
        let is_outdated = sample_signals::is_outdated(observed, &sample);
        let signals = sample_signals::signals(&self.last_sample, &sample);
        self.track(sample_signals::SCOPE, &signals, now);
        self.last_sample = sample;
        self.conclude(now);
        if is_outdated { RescanAdvice::Rescan } else { RescanAdvice::NotNeeded }
    }

    /// The kernel announced error recovery of a chip, or its end.
    pub fn error_event(&mut self, chip: PciAddress, event: PciErrorEvent, now: Duration) {
        self.advance(now);
        // What has begun lasts until this moment, from which its recovery time counts.
        self.observe_recoveries(now);
        if self.recoveries.event(chip, event) {
            self.observe_recoveries(now);
            self.conclude(now);
        }
    }

    /// What libixml reports; none once it is not asked any more.
    pub fn ixml(&mut self, reading: Option<Arc<IxmlReading>>, now: Duration) {
        self.advance(now);
        if self.observed.is_none() {
            return;
        }
        let before = self.last_ixml.as_deref();
        let signals = reading.as_ref().map(|now| ixml_signals::signals(before, now));
        self.track(ixml_signals::SCOPE, &signals.unwrap_or_default(), now);
        self.last_ixml = reading;
        self.conclude(now);
    }

    /// The allocation records; what is new in them counts as held. It changes the snapshot only
    /// together with another input: what was just allocated is allocated as it is offered.
    pub fn recorded(&mut self, allocations: &Allocations) {
        self.holdings.recorded(allocations);
    }

    /// Which pods hold what.
    pub fn pods(&mut self, usage: &PodUsage, now: Duration) {
        self.advance(now);
        self.holdings.answered(usage);
        self.removed.answered(usage);
        self.conclude(now);
    }

    /// PodResources is unavailable and never answered.
    pub fn pods_unavailable(&mut self, now: Duration) {
        self.advance(now);
        let before = self.holdings.source();
        self.holdings.unavailable();
        if self.holdings.source() != before {
            self.conclude(now);
        }
    }

    /// What operators keep from new pods.
    pub fn cordoned(&mut self, cordons: CordonList, now: Duration) {
        self.advance(now);
        self.cordons = cordons;
        self.conclude(now);
    }

    /// What holds at `now`; none before the first scan.
    pub fn snapshot(&mut self, now: Duration) -> Option<Arc<NodeSnapshot>> {
        self.advance(now);
        self.snapshot.clone()
    }

    /// When the snapshot changes by itself if nothing else happens; always after the time of the
    /// last call.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let recovery = self.tracker.next_deadline(&self.config.health);
        recovery.into_iter().chain(self.removed.next_deadline()).min()
    }

    /// Lets the time pass, deadline by deadline.
    fn advance(&mut self, now: Duration) {
        while let Some(deadline) = self.next_deadline().filter(|deadline| *deadline <= now) {
            self.tracker.end_faults(deadline, &self.config.health);
            self.removed.expire(deadline);
            self.conclude(deadline);
        }
    }

    /// The last scan under the present configuration.
    fn observe(&mut self) {
        let Some(scan) = &self.scan else { return };
        let mut observed = observe(scan, &self.config);
        self.board_history.correct(&mut observed, &self.config.boards);
        self.observed = Some(observed);
    }

    /// What a scan shows counts once, when it ends.
    fn observe_signals(&mut self, now: Duration) {
        let Some(observed) = &self.observed else { return };
        let signals = scan_signals::signals(observed, &self.config.discovery);
        let (boards, rules) = (board_of_chip(observed), &self.config.health);
        self.tracker.observe(now, &boards, scan_signals::SCOPE, &signals, rules);
        self.last_sample.retain(|chip, _| boards.contains_key(chip));
        self.recoveries.keep(&boards);
        self.observe_recoveries(now);
    }

    fn observe_recoveries(&mut self, now: Duration) {
        self.track(error_recoveries::SCOPE, &self.recoveries.signals(), now);
    }

    /// What one source of signals shows of the observed chips.
    fn track(&mut self, scope: &[ReasonCode], signals: &ChipReasons, now: Duration) {
        let Some(observed) = &self.observed else { return };
        let (boards, rules) = (board_of_chip(observed), &self.config.health);
        self.tracker.observe(now, &boards, scope, signals, rules);
    }

    /// Makes the snapshot anew.
    fn conclude(&mut self, now: Duration) {
        let Some(observed) = &self.observed else { return };
        let mut verdicts = self.tracker.verdicts(&self.config.health);
        cordons::add_to(&self.cordons.cordons, &mut verdicts);
        let inventory = conclude(observed, &verdicts, &self.uuids, &self.config);
        let mut snapshot = NodeSnapshot::new(inventory, &self.config);
        snapshot.warnings.extend(cordons::warning(&self.cordons));
        // What is not listed cannot leave the list.
        self.list_limit.apply(&mut snapshot.resources, &mut snapshot.warnings);
        self.removed.observe(Present::new(&snapshot.inventory, &snapshot.resources), now);
        self.removed.expire(now);
        self.board_history.forget_departed(observed, &self.removed.chips());
        self.publish(snapshot, now);
    }

    /// Adds history to a snapshot, and keeps it.
    fn publish(&mut self, mut snapshot: NodeSnapshot, now: Duration) {
        let NodeSnapshot { inventory, resources, warnings, .. } = &mut snapshot;
        if self.config.mode == ServingMode::DevicePlugin {
            self.holdings.withhold(resources, inventory, warnings);
        }
        self.removed.add_to(resources, self.holdings.source());
        self.list_limit.apply(resources, warnings);
        let cordons = &self.cordons.cordons;
        snapshot.cordons = cordons::states(cordons, &self.holdings, &snapshot.inventory);
        if self.config.mode == ServingMode::Dra {
            snapshot.held_by_pods = self.holdings.held_chips(&snapshot.inventory);
            snapshot.claimed.clone_from(self.holdings.claimed());
        }
        snapshot.pod_devices = self.holdings.pod_devices(&snapshot.resources, &snapshot.inventory);
        snapshot.since = self.since(&snapshot, now);
        self.snapshot = Some(Arc::new(snapshot));
    }

    /// Since when each device has its health: since now, unless it had the same before.
    fn since(
        &self,
        snapshot: &NodeSnapshot,
        now: Duration,
    ) -> BTreeMap<(String, DeviceId), (Health, Duration)> {
        let last = self.snapshot.as_ref().map(|snapshot| &snapshot.since);
        let since = snapshot.devices().map(|(resource, device)| {
            let key = (resource.name.clone(), device.id);
            let before = last.and_then(|last| last.get(&key));
            let before = before.filter(|(health, _)| *health == device.health);
            let since = before.copied().unwrap_or((device.health, now));
            (key, since)
        });
        since.collect()
    }

    /// Whether PodResources answers.
    #[must_use]
    pub fn pod_resources(&self) -> PodResourcesState {
        self.holdings.source()
    }

    /// Chips whose driver or device node may still be on its way.
    #[must_use]
    pub fn incomplete_chips(&self) -> Vec<PciAddress> {
        let Some(observed) = &self.observed else { return Vec::new() };
        let signals = scan_signals::signals(observed, &self.config.discovery);
        let waiting = signals
            .into_iter()
            .filter(|(_, reasons)| reasons.iter().any(|reason| reason.code.may_pass()));
        waiting.map(|(chip, _)| chip).collect()
    }
}

/// Whether a scan under one set of rules read what the other needs.
fn reads_the_same(one: &DiscoveryRules, other: &DiscoveryRules) -> bool {
    one.vendor_ids == other.vendor_ids
        && one.drivers == other.drivers
        && one.control_nodes == other.control_nodes
        && one.identities == other.identities
}

/// What one scan shows, without any history and without the chips' UUIDs.
#[must_use]
pub fn snapshot_of(scan: SysfsScan, config: &Config) -> Arc<NodeSnapshot> {
    snapshot_with(scan, None, config)
}

/// What one scan and the file of identities show, without any history.
///
/// # Panics
/// Never: a scan under its own configuration always makes a snapshot.
#[must_use]
pub fn snapshot_with(
    scan: SysfsScan,
    identities: Option<IdentitiesReading>,
    config: &Config,
) -> Arc<NodeSnapshot> {
    let mut state = NodeState::new(Arc::new(config.clone()), Retention::default());
    state.identities(identities);
    state.scanned(Arc::new(scan), &config.discovery, Duration::ZERO);
    state.snapshot(Duration::ZERO).expect("a scan makes a snapshot")
}

#[cfg(test)]
mod tests;
