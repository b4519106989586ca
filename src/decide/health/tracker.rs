//! Which chips are healthy: from what is seen, what was seen before, and the time.
//!
//! A state (no driver, no node) counts while it is seen and not a moment longer. A fault that is
//! certain (the chip does not answer, a fatal PCIe error) or that another program reports counts at
//! once, a hint that may mislead after [`STREAK`] observations in a row; all are over only after a
//! time without them, which doubles with each relapse. Where one signal that is not certain would
//! take more than half of the chips at once, the signal is suspected instead of the chips.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::config::HealthRules;
use crate::model::health::{Certainty, Reason, ReasonCode, Severity};
use crate::model::pci::PciAddress;

/// Observations in a row after which a soft signal counts.
pub const STREAK: u32 = 3;
/// A relapse within this many recovery times after a fault ended makes the next one longer.
const RELAPSE: u32 = 10;
/// The longest recovery is this many times the configured one.
const LONGEST: u32 = 32;

/// What was seen against each chip in one look.
pub type ChipReasons = BTreeMap<PciAddress, Vec<Reason>>;

/// What holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthVerdicts {
    /// Chips that are unhealthy, and why.
    pub reasons: ChipReasons,
    /// What an operator should look at.
    pub warnings: Vec<String>,
    /// When the next fault is over if it is not seen again.
    pub next: Option<Duration>,
}

/// What was seen so far. Times are since any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct HealthTracker {
    chips: BTreeMap<PciAddress, History>,
    /// Signals that would take too many chips at once, and how many.
    suspected: BTreeMap<ReasonCode, usize>,
}

#[derive(Clone, Debug, Default)]
struct History {
    signals: BTreeMap<ReasonCode, Signal>,
}

/// One signal of one chip.
#[derive(Clone, Debug)]
struct Signal {
    detail: String,
    /// Whether the last look that could see it did.
    is_seen: bool,
    /// Observations in a row.
    streak: u32,
    /// When it last counted as a fault and was seen; none while it does not count.
    fault: Option<Duration>,
    /// When the last fault was over.
    ended: Option<Duration>,
    /// Faults that came soon after the one before.
    relapses: u32,
}

impl HealthTracker {
    /// Takes in one look. `scope` are the signals that this look could see: what it did not find
    /// is not there. `chips` are all chips of the node; others are forgotten, so a chip that comes
    /// back starts anew.
    pub fn observe(
        &mut self,
        now: Duration,
        chips: &BTreeSet<PciAddress>,
        scope: &[ReasonCode],
        seen: &ChipReasons,
        rules: &HealthRules,
    ) {
        self.chips.retain(|chip, _| chips.contains(chip));
        for chip in chips {
            let history = self.chips.entry(*chip).or_default();
            let reasons = seen.get(chip).map_or(&[][..], Vec::as_slice);
            for code in scope {
                let reason = reasons.iter().find(|reason| reason.code == *code);
                history.observe(*code, reason);
            }
        }
        self.suspect(scope, rules);
        for history in self.chips.values_mut() {
            history.count_faults(now, scope, &self.suspected, rules);
        }
    }

    /// Signals that are not certain and by which more than half of the chips would turn unhealthy
    /// at once.
    fn suspect(&mut self, scope: &[ReasonCode], rules: &HealthRules) {
        for code in scope {
            let Some(streak) = streak_of(code.certainty()) else { continue };
            let would_turn = |history: &&History| {
                let signal = history.signals.get(code);
                signal.is_some_and(|signal| signal.streak >= streak && signal.fault.is_none())
            };
            let turning = self.chips.values().filter(would_turn).count();
            let is_many = turning > 1 && turning * 2 > self.chips.len();
            if is_many && rules.severity(*code) == Severity::Unhealthy {
                self.suspected.insert(*code, turning);
            } else {
                self.suspected.remove(code);
            }
        }
    }

    /// What holds at `now`.
    pub fn judge(&mut self, now: Duration, rules: &HealthRules) -> HealthVerdicts {
        let mut judgement = HealthVerdicts::default();
        for (code, chips) in &self.suspected {
            judgement.warnings.push(format!(
                "{code} would make {chips} of {} chips unhealthy at once; the signal is suspected, \
                 not the chips, and nothing changes",
                self.chips.len()
            ));
        }
        for (chip, history) in &mut self.chips {
            history.end_faults(now, rules);
            history.add_to(*chip, &mut judgement, rules);
        }
        judgement
    }
}

/// Observations in a row after which a signal counts that may be suspected; none for the others.
fn streak_of(certainty: Certainty) -> Option<u32> {
    match certainty {
        Certainty::State | Certainty::Hard => None,
        Certainty::Reported => Some(1),
        Certainty::Soft => Some(STREAK),
    }
}

impl History {
    fn observe(&mut self, code: ReasonCode, reason: Option<&Reason>) {
        let signal = match (self.signals.get_mut(&code), reason) {
            (Some(signal), _) => signal,
            (None, None) => return,
            (None, Some(_)) => self.signals.entry(code).or_insert_with(Signal::new),
        };
        signal.is_seen = reason.is_some();
        signal.streak = if signal.is_seen { signal.streak.saturating_add(1) } else { 0 };
        if let Some(reason) = reason {
            signal.detail.clone_from(&reason.detail);
        }
    }

    fn count_faults(
        &mut self,
        now: Duration,
        scope: &[ReasonCode],
        suspected: &BTreeMap<ReasonCode, usize>,
        rules: &HealthRules,
    ) {
        for (code, signal) in &mut self.signals {
            let counts = match streak_of(code.certainty()) {
                None => code.certainty() == Certainty::Hard,
                Some(streak) => signal.streak >= streak && !suspected.contains_key(code),
            };
            let is_counted = scope.contains(code) && signal.is_seen;
            if is_counted && (counts || signal.fault.is_some()) {
                signal.fault_seen(now, rules.recovery);
            }
        }
    }

    fn end_faults(&mut self, now: Duration, rules: &HealthRules) {
        for signal in self.signals.values_mut() {
            if signal.over_at(rules.recovery).is_some_and(|over| now >= over) {
                signal.fault = None;
                signal.ended = Some(now);
            }
        }
    }

    fn add_to(&self, chip: PciAddress, judgement: &mut HealthVerdicts, rules: &HealthRules) {
        for (code, signal) in &self.signals {
            let is_fault = signal.fault.is_some();
            let holds = is_fault || code.certainty() == Certainty::State && signal.is_seen;
            match rules.severity(*code) {
                Severity::Unhealthy if holds => {
                    let reason = Reason { code: *code, detail: signal.shown(rules) };
                    judgement.reasons.entry(chip).or_default().push(reason);
                    let over = signal.over_at(rules.recovery);
                    judgement.next = judgement.next.into_iter().chain(over).min();
                }
                Severity::Warn if holds || signal.is_seen => {
                    judgement.warnings.push(format!("{code}: {}", signal.detail));
                }
                _ => {}
            }
        }
    }
}

impl Signal {
    fn new() -> Self {
        Self {
            detail: String::new(),
            is_seen: false,
            streak: 0,
            fault: None,
            ended: None,
            relapses: 0,
        }
    }

    fn fault_seen(&mut self, now: Duration, recovery: Duration) {
        if self.fault.is_none() {
            let is_relapse = self.ended.is_some_and(|ended| now < ended + recovery * RELAPSE);
            self.relapses = if is_relapse { self.relapses.saturating_add(1) } else { 0 };
        }
        self.fault = Some(now);
    }

    /// When the fault is over if it is not seen again; none while it is seen, or is no fault.
    fn over_at(&self, recovery: Duration) -> Option<Duration> {
        let last = self.fault.filter(|_| !self.is_seen)?;
        Some(last + recovery * self.factor())
    }

    /// How many recovery times the fault takes to be over.
    fn factor(&self) -> u32 {
        (1 << self.relapses.min(8)).min(LONGEST)
    }

    /// The detail; of a fault that is not seen any more, also how long it still counts.
    fn shown(&self, rules: &HealthRules) -> String {
        match self.fault {
            Some(_) if !self.is_seen => {
                let recovery = rules.recovery * self.factor();
                format!("{}; not seen any more, counts until {recovery:?} have passed", self.detail)
            }
            _ => self.detail.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &[ReasonCode] = ReasonCode::ALL;

    fn chip(bus: u8) -> PciAddress {
        PciAddress { domain: 0, bus, device: 0, function: 0 }
    }

    /// A node of four chips under the default rules, with one more soft signal that counts.
    struct Node {
        judge: HealthTracker,
        rules: HealthRules,
        chips: BTreeSet<PciAddress>,
    }

    impl Node {
        fn new() -> Self {
            let signals = BTreeMap::from([(ReasonCode::AerNonFatal, Severity::Unhealthy)]);
            let rules = HealthRules { signals, ..HealthRules::default() };
            Self { judge: HealthTracker::default(), rules, chips: (1..=4).map(chip).collect() }
        }

        fn see(&mut self, second: u64, seen: &[(u8, ReasonCode)]) -> HealthVerdicts {
            let mut findings = ChipReasons::new();
            for (bus, code) in seen {
                let reason = Reason { code: *code, detail: "seen".to_owned() };
                findings.entry(chip(*bus)).or_default().push(reason);
            }
            let now = Duration::from_secs(second);
            self.judge.observe(now, &self.chips, SCOPE, &findings, &self.rules);
            self.judge.judge(now, &self.rules)
        }
    }

    fn codes(judgement: &HealthVerdicts, bus: u8) -> Vec<ReasonCode> {
        let reasons = judgement.reasons.get(&chip(bus));
        reasons.map_or(Vec::new(), |reasons| reasons.iter().map(|it| it.code).collect())
    }

    #[test]
    fn a_state_counts_while_it_is_seen_and_no_longer() {
        let mut node = Node::new();
        let judgement = node.see(0, &[(1, ReasonCode::DriverNotBound)]);
        assert_eq!(codes(&judgement, 1), [ReasonCode::DriverNotBound]);
        assert_eq!(node.see(1, &[]), HealthVerdicts::default());
    }

    #[test]
    fn a_hard_fault_counts_at_once_and_until_the_recovery_time_has_passed() {
        let mut node = Node::new();
        let judgement = node.see(0, &[(1, ReasonCode::AerFatal)]);
        assert_eq!(codes(&judgement, 1), [ReasonCode::AerFatal]);
        assert_eq!(judgement.reasons[&chip(1)][0].detail, "seen");
        let judgement = node.see(5, &[]);
        let detail = &judgement.reasons[&chip(1)][0].detail;
        assert_eq!(detail, "seen; not seen any more, counts until 30s have passed");
        assert_eq!(judgement.next, Some(Duration::from_secs(30)));
        assert_eq!(codes(&node.see(29, &[]), 1), [ReasonCode::AerFatal]);
        assert_eq!(node.see(30, &[]), HealthVerdicts::default());
    }

    #[test]
    fn a_fault_that_is_seen_again_begins_its_recovery_anew() {
        let mut node = Node::new();
        node.see(0, &[(1, ReasonCode::ConfigSpaceUnreadable)]);
        node.see(20, &[]);
        node.see(25, &[(1, ReasonCode::ConfigSpaceUnreadable)]);
        assert_eq!(codes(&node.see(54, &[]), 1), [ReasonCode::ConfigSpaceUnreadable]);
        assert_eq!(codes(&node.see(55, &[]), 1), []);
    }

    #[test]
    fn each_relapse_doubles_the_recovery_up_to_a_bound_and_a_quiet_time_resets_it() {
        let mut node = Node::new();
        let mut now = 0;
        let mut recoveries = Vec::new();
        for _ in 0..8 {
            node.see(now, &[(1, ReasonCode::AerFatal)]);
            let over = node.see(now + 1, &[]).next.unwrap().as_secs();
            recoveries.push(over - now);
            node.see(over, &[]);
            now = over + 10;
        }
        assert_eq!(recoveries, [30, 60, 120, 240, 480, 960, 960, 960]);
        now += 301;
        node.see(now, &[(1, ReasonCode::AerFatal)]);
        assert_eq!(node.see(now + 1, &[]).next, Some(Duration::from_secs(now + 30)));
    }

    #[test]
    fn a_soft_signal_counts_after_three_looks_in_a_row() {
        let mut node = Node::new();
        let seen = [(1, ReasonCode::AerNonFatal)];
        assert_eq!(codes(&node.see(0, &seen), 1), []);
        assert_eq!(codes(&node.see(5, &seen), 1), []);
        assert_eq!(codes(&node.see(10, &[]), 1), []);
        assert_eq!(codes(&node.see(15, &seen), 1), []);
        assert_eq!(codes(&node.see(20, &seen), 1), []);
        assert_eq!(codes(&node.see(25, &seen), 1), [ReasonCode::AerNonFatal]);
    }

    #[test]
    fn a_soft_signal_of_more_than_half_of_the_chips_is_suspected_instead() {
        let mut node = Node::new();
        let seen = [1, 2, 3].map(|bus| (bus, ReasonCode::AerNonFatal));
        node.see(0, &seen);
        node.see(5, &seen);
        let judgement = node.see(10, &seen);
        assert_eq!(judgement.reasons, ChipReasons::new());
        let expected = "AerNonFatal would make 3 of 4 chips unhealthy at once; the signal is \
                        suspected, not the chips, and nothing changes";
        assert_eq!(judgement.warnings, [expected]);
        let judgement = node.see(15, &seen[..2]);
        assert_eq!(codes(&judgement, 1), [ReasonCode::AerNonFatal]);
        assert_eq!(codes(&judgement, 3), []);
    }

    #[test]
    fn a_report_counts_at_once_unless_it_is_of_more_than_half_of_the_chips() {
        let mut node = Node::new();
        let judgement = node.see(0, &[(1, ReasonCode::IxmlMemory), (2, ReasonCode::IxmlMemory)]);
        assert_eq!(codes(&judgement, 1), [ReasonCode::IxmlMemory]);

        let mut node = Node::new();
        let seen = [1, 2, 3].map(|bus| (bus, ReasonCode::IxmlMemory));
        let judgement = node.see(0, &seen);
        assert_eq!(judgement.reasons, ChipReasons::new());
        let expected = "IxmlMemory would make 3 of 4 chips unhealthy at once; the signal is \
                        suspected, not the chips, and nothing changes";
        assert_eq!(judgement.warnings, [expected]);
    }

    #[test]
    fn a_hard_fault_of_all_chips_is_believed() {
        let mut node = Node::new();
        let seen = [1, 2, 3, 4].map(|bus| (bus, ReasonCode::ConfigSpaceUnreadable));
        assert_eq!(node.see(0, &seen).reasons.len(), 4);
    }

    #[test]
    fn the_configuration_decides_what_a_signal_does() {
        let mut node = Node::new();
        node.rules.signals = BTreeMap::from([
            (ReasonCode::AerFatal, Severity::Warn),
            (ReasonCode::DriverNotBound, Severity::Ignore),
            (ReasonCode::LinkBelowMaximum, Severity::Unhealthy),
        ]);
        let seen = [ReasonCode::AerFatal, ReasonCode::DriverNotBound, ReasonCode::LinkBelowMaximum];
        let judgement = node.see(0, &seen.map(|code| (1, code)));
        assert_eq!(codes(&judgement, 1), [ReasonCode::LinkBelowMaximum]);
        assert_eq!(judgement.warnings, ["AerFatal: seen"]);
    }

    #[test]
    fn a_chip_that_left_and_came_back_starts_anew() {
        let mut node = Node::new();
        node.see(0, &[(1, ReasonCode::AerFatal)]);
        node.chips.remove(&chip(1));
        node.see(1, &[]);
        node.chips.insert(chip(1));
        assert_eq!(node.see(2, &[]), HealthVerdicts::default());
    }

    #[test]
    fn a_look_says_nothing_of_signals_that_it_cannot_see() {
        let mut node = Node::new();
        node.see(0, &[(1, ReasonCode::DriverNotBound)]);
        let (now, chips) = (Duration::from_secs(1), node.chips.clone());
        let scope = [ReasonCode::AerFatal];
        node.judge.observe(now, &chips, &scope, &ChipReasons::new(), &node.rules);
        let judgement = node.judge.judge(now, &node.rules);
        assert_eq!(codes(&judgement, 1), [ReasonCode::DriverNotBound]);
    }
}
