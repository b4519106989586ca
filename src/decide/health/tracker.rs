//! Which chips are unhealthy: from the signals, their past, and the time.
//!
//! A *state* (no driver, no node) counts while it is seen and not a moment longer. A *hard* fault
//! (the chip does not answer, a fatal PCIe error) and what libixml *reports* count at once, a *soft*
//! signal after [`SOFT_SIGNAL_STREAK`] observations in a row; all end only after a recovery time without them,
//! which doubles with each relapse. A soft signal, and a report other than "this GPU is lost" and
//! "reset required", is suppressed while it would turn most of the boards unhealthy at once, on
//! nodes of at least [`SUPPRESSION_BOARD_MINIMUM`] boards: then its source is the likelier fault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::config::HealthRules;
use crate::model::health::{Certainty, Reason, ReasonCode, Severity};
use crate::model::observed::ObservedNode;
use crate::model::pci::PciAddress;
use crate::model::warning::{Subject, Warning, WarningCode};

/// Observations in a row after which a soft signal counts.
pub const SOFT_SIGNAL_STREAK: u32 = 3;
/// The fewest boards of a node on which a signal can be suppressed.
pub const SUPPRESSION_BOARD_MINIMUM: usize = 3;
/// A relapse within this many recovery times after a fault ended makes the next one longer.
const RELAPSE_WINDOW: u32 = 10;
/// The longest recovery is this many times the configured one.
const RECOVERY_LIMIT: u32 = 32;

/// What is seen, or holds, against each chip.
pub type ChipReasons = BTreeMap<PciAddress, Vec<Reason>>;

/// The board of each chip of a node.
pub type BoardOfChip = BTreeMap<PciAddress, PciAddress>;

/// The board of each chip that a scan shows.
#[must_use]
pub fn board_of_chip(node: &ObservedNode) -> BoardOfChip {
    let boards = node.boards.iter();
    boards.flat_map(|board| board.chips.iter().map(|chip| (chip.address, board.address))).collect()
}

/// What holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthVerdicts {
    /// Chips that are unhealthy, and why.
    pub reasons: ChipReasons,
    /// Signals of severity `warn`, and suppressed ones.
    pub warnings: Vec<Warning>,
}

/// The signals so far. Times are on the daemon's clock.
#[derive(Clone, Debug, Default)]
pub struct HealthTracker {
    chips: BTreeMap<PciAddress, History>,
    /// Signals that would turn most boards unhealthy at once: how many, and of how many.
    suppressed: BTreeMap<ReasonCode, (usize, usize)>,
}

#[derive(Clone, Debug, Default)]
struct History {
    signals: BTreeMap<ReasonCode, Signal>,
}

/// One signal of one chip.
#[derive(Clone, Debug, Default)]
struct Signal {
    detail: String,
    /// Whether the last observation that could show it did.
    is_seen: bool,
    /// Observations in a row.
    streak: u32,
    /// When it last counted as a fault and was seen; none while it does not count.
    fault: Option<Duration>,
    /// When the last fault ended.
    ended: Option<Duration>,
    /// Faults that came soon after the one before.
    relapses: u32,
}

impl HealthTracker {
    /// Takes in one observation. `scope` are the signals that it could show: those that it does
    /// not show are over. `boards` has every chip of the node; others are forgotten, so a chip
    /// that comes back starts anew.
    pub fn observe(
        &mut self,
        now: Duration,
        boards: &BoardOfChip,
        scope: &[ReasonCode],
        seen: &ChipReasons,
        rules: &HealthRules,
    ) {
        self.end_faults(now, rules);
        self.chips.retain(|chip, _| boards.contains_key(chip));
        for chip in boards.keys() {
            let history = self.chips.entry(*chip).or_default();
            let reasons = seen.get(chip).map_or(&[][..], Vec::as_slice);
            for code in scope {
                history.observe(*code, reasons.iter().find(|reason| reason.code == *code));
            }
        }
        self.suppress(boards, scope, rules);
        for history in self.chips.values_mut() {
            history.count_faults(now, scope, &self.suppressed, rules);
        }
    }

    /// Ends the faults whose recovery time has passed by `now`, each at its own time.
    pub fn end_faults(&mut self, now: Duration, rules: &HealthRules) {
        for signal in self.chips.values_mut().flat_map(|history| history.signals.values_mut()) {
            if let Some(over) = signal.over_at(rules.recovery).filter(|over| now >= *over) {
                signal.fault = None;
                signal.ended = Some(over);
            }
        }
    }

    /// When the next fault ends if it is not seen again.
    #[must_use]
    pub fn next_deadline(&self, rules: &HealthRules) -> Option<Duration> {
        let signals = self.chips.values().flat_map(|history| history.signals.values());
        signals.filter_map(|signal| signal.over_at(rules.recovery)).min()
    }

    /// What holds, as of the last call of [`Self::observe`] or [`Self::end_faults`].
    #[must_use]
    pub fn verdicts(&self, rules: &HealthRules) -> HealthVerdicts {
        let mut verdicts = HealthVerdicts::default();
        let suppressed = self.suppressed.iter();
        verdicts.warnings.extend(suppressed.map(|(code, counts)| suppression(*code, *counts)));
        for (chip, history) in &self.chips {
            history.add_to(*chip, &mut verdicts, rules);
        }
        verdicts
    }

    /// Finds the signals by which most boards would turn unhealthy at once.
    fn suppress(&mut self, boards: &BoardOfChip, scope: &[ReasonCode], rules: &HealthRules) {
        let all = boards.values().collect::<BTreeSet<_>>().len();
        for code in scope {
            let Some(streak) = suppressible_streak(*code) else { continue };
            let would_turn = |(_, history): &(&PciAddress, &History)| {
                let signal = history.signals.get(code);
                signal.is_some_and(|signal| signal.streak >= streak && signal.fault.is_none())
            };
            let turning = self.chips.iter().filter(would_turn);
            let turning = turning.filter_map(|(chip, _)| boards.get(chip));
            let turning = turning.collect::<BTreeSet<_>>().len();
            let is_most = all >= SUPPRESSION_BOARD_MINIMUM && turning * 2 > all;
            if is_most && rules.severity(*code) == Severity::Unhealthy {
                self.suppressed.insert(*code, (turning, all));
            } else {
                self.suppressed.remove(code);
            }
        }
    }
}

fn suppression(code: ReasonCode, (turning, all): (usize, usize)) -> Warning {
    let detail = format!(
        "{code} is ignored: it would turn {turning} of {all} boards unhealthy at once, so its \
         source is suspect"
    );
    Warning { code: WarningCode::SuppressedSignal(code), subject: Subject::Node, detail }
}

/// Observations in a row after which a signal counts that can be suppressed; none for the others.
fn suppressible_streak(code: ReasonCode) -> Option<u32> {
    let names_a_lost_chip = matches!(code, ReasonCode::IxmlGpuLost | ReasonCode::IxmlResetRequired);
    match code.certainty() {
        Certainty::Reported if !names_a_lost_chip => Some(1),
        Certainty::Soft => Some(SOFT_SIGNAL_STREAK),
        Certainty::Reported | Certainty::State | Certainty::Hard => None,
    }
}

/// Observations in a row after which a signal is a fault; none where it never is one.
fn fault_streak(certainty: Certainty) -> Option<u32> {
    match certainty {
        Certainty::State => None,
        Certainty::Hard | Certainty::Reported => Some(1),
        Certainty::Soft => Some(SOFT_SIGNAL_STREAK),
    }
}

impl History {
    fn observe(&mut self, code: ReasonCode, reason: Option<&Reason>) {
        if reason.is_none() && !self.signals.contains_key(&code) {
            return;
        }
        let signal = self.signals.entry(code).or_default();
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
        suppressed: &BTreeMap<ReasonCode, (usize, usize)>,
        rules: &HealthRules,
    ) {
        for (code, signal) in &mut self.signals {
            let Some(streak) = fault_streak(code.certainty()) else { continue };
            let counts = signal.streak >= streak && !suppressed.contains_key(code);
            let is_observed = scope.contains(code) && signal.is_seen;
            if is_observed && (counts || signal.fault.is_some()) {
                signal.fault_seen(now, rules.recovery);
            }
        }
    }

    fn add_to(&self, chip: PciAddress, verdicts: &mut HealthVerdicts, rules: &HealthRules) {
        for (code, signal) in &self.signals {
            let is_state = code.certainty() == Certainty::State;
            let holds = signal.fault.is_some() || is_state && signal.is_seen;
            match rules.severity(*code) {
                Severity::Unhealthy if holds => {
                    let reason = Reason { code: *code, detail: signal.shown(rules) };
                    verdicts.reasons.entry(chip).or_default().push(reason);
                }
                Severity::Warn if holds || signal.is_seen => {
                    let detail = format!("{code}: {}", signal.detail);
                    let (code, subject) = (WarningCode::Signal(*code), Subject::Chip(chip));
                    verdicts.warnings.push(Warning { code, subject, detail });
                }
                _ => {}
            }
        }
    }
}

impl Signal {
    fn fault_seen(&mut self, now: Duration, recovery: Duration) {
        if self.fault.is_none() {
            let is_relapse =
                self.ended.is_some_and(|ended| now < ended + recovery * RELAPSE_WINDOW);
            self.relapses = if is_relapse { self.relapses.saturating_add(1) } else { 0 };
        }
        self.fault = Some(now);
    }

    /// When the fault ends if it is not seen again; none while it is seen, or is no fault.
    fn over_at(&self, recovery: Duration) -> Option<Duration> {
        let last = self.fault.filter(|_| !self.is_seen)?;
        Some(last + recovery * self.factor())
    }

    /// How many recovery times the fault takes to end.
    fn factor(&self) -> u32 {
        (1 << self.relapses.min(8)).min(RECOVERY_LIMIT)
    }

    /// The detail; of a fault that is no longer seen, also how long it still counts.
    fn shown(&self, rules: &HealthRules) -> String {
        match self.fault {
            Some(_) if !self.is_seen => {
                let recovery = rules.recovery * self.factor();
                format!("{}; no longer seen, ends after {recovery:?} without it", self.detail)
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

    /// A node of four boards of one chip under the default rules, with one more soft signal that
    /// counts.
    struct Node {
        tracker: HealthTracker,
        rules: HealthRules,
        boards: BoardOfChip,
    }

    impl Node {
        fn new() -> Self {
            let signals = BTreeMap::from([(ReasonCode::AerNonFatal, Severity::Unhealthy)]);
            let rules = HealthRules { signals, ..HealthRules::default() };
            let boards = (1..=4).map(|bus| (chip(bus), chip(bus))).collect();
            Self { tracker: HealthTracker::default(), rules, boards }
        }

        fn see(&mut self, second: u64, seen: &[(u8, ReasonCode)]) -> HealthVerdicts {
            let mut findings = ChipReasons::new();
            for (bus, code) in seen {
                let reason = Reason { code: *code, detail: "seen".to_owned() };
                findings.entry(chip(*bus)).or_default().push(reason);
            }
            let now = Duration::from_secs(second);
            self.tracker.observe(now, &self.boards, SCOPE, &findings, &self.rules);
            self.tracker.verdicts(&self.rules)
        }

        fn next(&self) -> Option<u64> {
            Some(self.tracker.next_deadline(&self.rules)?.as_secs())
        }
    }

    fn details(verdicts: &HealthVerdicts) -> Vec<&str> {
        verdicts.warnings.iter().map(|warning| &*warning.detail).collect()
    }

    fn codes(verdicts: &HealthVerdicts, bus: u8) -> Vec<ReasonCode> {
        let reasons = verdicts.reasons.get(&chip(bus));
        reasons.map_or(Vec::new(), |reasons| reasons.iter().map(|it| it.code).collect())
    }

    #[test]
    fn a_state_counts_while_it_is_seen_and_no_longer() {
        let mut node = Node::new();
        let verdicts = node.see(0, &[(1, ReasonCode::DriverNotBound)]);
        assert_eq!(codes(&verdicts, 1), [ReasonCode::DriverNotBound]);
        assert_eq!(node.see(1, &[]), HealthVerdicts::default());
    }

    #[test]
    fn a_hard_fault_counts_at_once_and_until_the_recovery_time_has_passed() {
        let mut node = Node::new();
        let verdicts = node.see(0, &[(1, ReasonCode::AerFatal)]);
        assert_eq!(codes(&verdicts, 1), [ReasonCode::AerFatal]);
        assert_eq!(verdicts.reasons[&chip(1)][0].detail, "seen");
        let verdicts = node.see(5, &[]);
        let detail = &verdicts.reasons[&chip(1)][0].detail;
        assert_eq!(detail, "seen; no longer seen, ends after 30s without it");
        assert_eq!(node.next(), Some(30));
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
            node.see(now + 1, &[]);
            let over = node.next().unwrap();
            recoveries.push(over - now);
            node.see(over, &[]);
            now = over + 10;
        }
        assert_eq!(recoveries, [30, 60, 120, 240, 480, 960, 960, 960]);
        now += 301;
        node.see(now, &[(1, ReasonCode::AerFatal)]);
        node.see(now + 1, &[]);
        assert_eq!(node.next(), Some(now + 30));
    }

    #[test]
    fn a_soft_signal_counts_after_three_observations_in_a_row() {
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
    fn a_soft_signal_of_most_boards_at_once_is_suppressed() {
        let mut node = Node::new();
        let seen = [1, 2, 3].map(|bus| (bus, ReasonCode::AerNonFatal));
        node.see(0, &seen);
        node.see(5, &seen);
        let verdicts = node.see(10, &seen);
        assert_eq!(verdicts.reasons, ChipReasons::new());
        let expected = "AerNonFatal is ignored: it would turn 3 of 4 boards unhealthy at once, so \
                        its source is suspect";
        assert_eq!(details(&verdicts), [expected]);
        let verdicts = node.see(15, &seen[..2]);
        assert_eq!(codes(&verdicts, 1), [ReasonCode::AerNonFatal]);
        assert_eq!(codes(&verdicts, 3), []);
    }

    #[test]
    fn a_report_counts_at_once_unless_it_is_of_most_boards_at_once() {
        let mut node = Node::new();
        let verdicts = node.see(0, &[(1, ReasonCode::IxmlMemory), (2, ReasonCode::IxmlMemory)]);
        assert_eq!(codes(&verdicts, 1), [ReasonCode::IxmlMemory]);

        let mut node = Node::new();
        let seen = [1, 2, 3].map(|bus| (bus, ReasonCode::IxmlMemory));
        let verdicts = node.see(0, &seen);
        assert_eq!(verdicts.reasons, ChipReasons::new());
        let expected = "IxmlMemory is ignored: it would turn 3 of 4 boards unhealthy at once, so \
                        its source is suspect";
        assert_eq!(details(&verdicts), [expected]);
    }

    #[test]
    fn a_hard_fault_of_all_chips_is_believed() {
        let mut node = Node::new();
        let seen = [1, 2, 3, 4].map(|bus| (bus, ReasonCode::ConfigSpaceUnreadable));
        assert_eq!(node.see(0, &seen).reasons.len(), 4);
    }

    #[test]
    fn a_lost_gpu_and_a_required_reset_are_believed_of_every_board() {
        for code in [ReasonCode::IxmlGpuLost, ReasonCode::IxmlResetRequired] {
            let mut node = Node::new();
            let verdicts = node.see(0, &[1, 2, 3, 4].map(|bus| (bus, code)));
            assert_eq!((verdicts.reasons.len(), verdicts.warnings.len()), (4, 0), "{code}");
        }
    }

    #[test]
    fn most_of_the_chips_are_not_most_of_the_boards() {
        let mut node = Node::new();
        // Two chips on each of the boards 1 and 2, one on the boards 3, 4 and 5.
        node.boards = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 4), (7, 5)]
            .map(|(bus, board)| (chip(bus), chip(board)))
            .into();
        let seen = [1, 2, 3, 4].map(|bus| (bus, ReasonCode::IxmlMemory));
        assert_eq!(node.see(0, &seen).reasons.len(), 4);
    }

    #[test]
    fn on_a_node_of_one_or_two_boards_nothing_is_suppressed() {
        for boards in [[1, 1], [1, 2]] {
            let mut node = Node::new();
            node.boards = [(1, boards[0]), (2, boards[1])]
                .map(|(bus, board)| (chip(bus), chip(board)))
                .into();
            let verdicts = node.see(0, &[1, 2].map(|bus| (bus, ReasonCode::IxmlMemory)));
            assert_eq!((verdicts.reasons.len(), verdicts.warnings.len()), (2, 0));
        }
    }

    #[test]
    fn when_a_fault_ended_does_not_depend_on_when_it_was_asked() {
        let relapse_after = |queries: &[u64]| {
            let mut node = Node::new();
            node.see(0, &[(1, ReasonCode::AerFatal)]);
            node.see(1, &[]);
            for second in queries {
                node.tracker.end_faults(Duration::from_secs(*second), &node.rules);
            }
            // 300 s after the fault ended in second 30 it is no relapse any more.
            node.see(330, &[(1, ReasonCode::AerFatal)]);
            node.see(331, &[]);
            node.next()
        };
        assert_eq!(relapse_after(&[]), Some(360));
        assert_eq!(relapse_after(&[30]), Some(360));
        assert_eq!(relapse_after(&[100]), Some(360));
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
        let verdicts = node.see(0, &seen.map(|code| (1, code)));
        assert_eq!(codes(&verdicts, 1), [ReasonCode::LinkBelowMaximum]);
        assert_eq!(details(&verdicts), ["AerFatal: seen"]);
    }

    #[test]
    fn a_chip_that_left_and_came_back_starts_anew() {
        let mut node = Node::new();
        node.see(0, &[(1, ReasonCode::AerFatal)]);
        node.boards.remove(&chip(1));
        node.see(1, &[]);
        node.boards.insert(chip(1), chip(1));
        assert_eq!(node.see(2, &[]), HealthVerdicts::default());
    }

    #[test]
    fn an_observation_leaves_signals_alone_that_it_cannot_see() {
        let mut node = Node::new();
        node.see(0, &[(1, ReasonCode::DriverNotBound)]);
        let (now, boards) = (Duration::from_secs(1), node.boards.clone());
        let scope = [ReasonCode::AerFatal];
        node.tracker.observe(now, &boards, &scope, &ChipReasons::new(), &node.rules);
        let verdicts = node.tracker.verdicts(&node.rules);
        assert_eq!(codes(&verdicts, 1), [ReasonCode::DriverNotBound]);
    }
}
