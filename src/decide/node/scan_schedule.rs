//! When to scan the machine again.
//!
//! The first hint of a burst is answered at once, the rest together after a gap. It stays short for
//! as long as boards take to leave one by one, then doubles while hints keep coming, so a storm or a
//! flapping device costs a bounded number of scans and never puts the last one off for good. A chip
//! whose driver or node is not there yet is scanned again with growing delay for half a minute. At
//! intervals the machine is scanned without a hint.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::pci::PciAddress;

/// Shortest and longest gap between two scans that hints lead to.
const BURST_GAP: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// So many scans in a burst come after the shortest gap; it is over in a fifth of a second.
const PROMPT_SCAN_LIMIT: u32 = 8;
/// First and longest delay between scans at a chip that is not complete yet.
const SETTLING_INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long a chip may take to get its driver and its node.
const SETTLING_TIMEOUT: Duration = Duration::from_secs(30);

/// The last scan and the hints since. Times count from any fixed moment.
#[derive(Clone, Debug)]
pub struct ScanSchedule {
    interval: Duration,
    last: Option<Duration>,
    /// Scans in this burst that came as soon as the gap allowed.
    busy: u32,
    /// The first hint that no scan has answered.
    hinted: Option<Duration>,
    /// The last hint.
    last_hint: Option<Duration>,
    /// When each chip that is not complete was first seen so.
    unsettled: BTreeMap<PciAddress, Duration>,
    /// When to scan for those again.
    unsettled_at: Option<Duration>,
    failures: u32,
    seed: u64,
}

impl ScanSchedule {
    /// Nothing scanned yet; `interval` is the longest time without a scan.
    #[must_use]
    pub fn new(interval: Duration, seed: u64) -> Self {
        Self {
            interval,
            last: None,
            busy: 0,
            hinted: None,
            last_hint: None,
            unsettled: BTreeMap::new(),
            unsettled_at: None,
            failures: 0,
            seed,
        }
    }

    /// Changes the longest time without a scan.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Something may have changed.
    pub fn hint(&mut self, now: Duration) {
        self.hinted.get_or_insert(now);
        self.last_hint = Some(now);
    }

    /// When to scan next; at once before the first scan.
    #[must_use]
    pub fn next(&self) -> Duration {
        let Some(last) = self.last else { return Duration::ZERO };
        if self.failures > 0 {
            return last + crate::decide::backoff::backoff(self.failures, self.seed);
        }
        let for_hint = self.hinted.map(|hinted| hinted.max(last + self.gap()));
        let reasons = [Some(last + self.interval), for_hint, self.unsettled_at];
        reasons.into_iter().flatten().min().unwrap_or(last + self.interval)
    }

    /// A scan began at `began` and succeeded by `now`; these chips lack their driver or node.
    /// Hints since it began are answered by the next one.
    pub fn scanned(&mut self, began: Duration, now: Duration, incomplete: &[PciAddress]) {
        self.failures = 0;
        // By the hint, not by the scan: on a busy node a scan comes late, and the burst goes on.
        let since_last = self.hinted.zip(self.last).map(|(hint, last)| hint.saturating_sub(last));
        let is_burst = since_last.is_some_and(|quiet| quiet <= self.gap() * 2);
        self.busy = if is_burst { self.busy.saturating_add(1) } else { 0 };
        self.hinted = self.last_hint.filter(|hint| *hint > began);
        self.last = Some(now);
        self.settle(now, incomplete);
    }

    /// A scan failed.
    pub fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.last = Some(now);
    }

    /// Whether a chip lacks its driver or its node and is due to be scanned again.
    #[must_use]
    pub fn is_settling(&self, now: Duration) -> bool {
        self.unsettled_at.is_some_and(|at| at <= now)
    }

    /// How many scans failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn gap(&self) -> Duration {
        let doublings = self.busy.saturating_sub(PROMPT_SCAN_LIMIT).min(16);
        (BURST_GAP.0 * (1 << doublings)).min(BURST_GAP.1)
    }

    fn settle(&mut self, now: Duration, incomplete: &[PciAddress]) {
        self.unsettled.retain(|chip, _| incomplete.contains(chip));
        for chip in incomplete {
            self.unsettled.entry(*chip).or_insert(now);
        }
        let waited = |since: &Duration| now.saturating_sub(*since);
        let waits = self.unsettled.values().map(waited).filter(|waited| *waited < SETTLING_TIMEOUT);
        // A delay as long as the wait so far doubles the wait each time.
        let delay =
            waits.min().map(|waited| waited.clamp(SETTLING_INTERVAL.0, SETTLING_INTERVAL.1));
        self.unsettled_at = delay.map(|delay| now + delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn settled() -> ScanSchedule {
        let mut rescan = ScanSchedule::new(ms(60_000), 1);
        rescan.scanned(ms(0), ms(5), &[]);
        rescan
    }

    fn chip(bus: u8) -> PciAddress {
        PciAddress { domain: 0, bus, device: 0, function: 0 }
    }

    #[test]
    fn the_first_scan_is_at_once_and_the_next_after_the_interval() {
        assert_eq!(ScanSchedule::new(ms(60_000), 1).next(), ms(0));
        assert_eq!(settled().next(), ms(60_005));
    }

    #[test]
    fn a_hint_after_a_quiet_time_is_answered_at_once() {
        let mut rescan = settled();
        rescan.hint(ms(1000));
        rescan.hint(ms(1001));
        assert_eq!(rescan.next(), ms(1000));
    }

    #[test]
    fn a_hint_during_a_scan_leads_to_another_after_the_gap() {
        let mut rescan = settled();
        rescan.hint(ms(1000));
        rescan.hint(ms(1000));
        rescan.scanned(ms(1000), ms(1006), &[]);
        assert_eq!(rescan.next(), ms(61_006));
        rescan.hint(ms(1010));
        assert_eq!(rescan.next(), ms(1026));
    }

    #[test]
    fn a_hint_during_a_scan_that_another_hint_led_to_is_answered_too() {
        let mut rescan = settled();
        rescan.hint(ms(1000));
        // The scan begins at 1001.
        rescan.hint(ms(1003));
        rescan.scanned(ms(1001), ms(1006), &[]);
        assert_eq!(rescan.next(), ms(1026));
    }

    #[test]
    fn a_storm_of_a_second_costs_a_handful_of_scans_and_the_last_hint_is_answered() {
        let mut rescan = settled();
        let mut scans = Vec::new();
        for now in 1000..=4000 {
            if now <= 2000 {
                rescan.hint(ms(now));
            }
            if rescan.next() <= ms(now) {
                rescan.scanned(ms(now), ms(now + 1), &[]);
                scans.push(now);
            }
        }
        assert!(scans.len() <= 16, "{scans:?}");
        assert!(*scans.last().unwrap() > 2000 && *scans.last().unwrap() <= 2600, "{scans:?}");
    }

    #[test]
    fn scans_that_come_late_do_not_make_a_storm_cost_more_of_them() {
        let mut rescan = settled();
        let mut scans = 0;
        let mut due = None;
        for now in 1000..=11_000 {
            rescan.hint(ms(now));
            if rescan.next() <= ms(now) {
                due.get_or_insert(now);
            }
            // No task gets the processor for sixty milliseconds.
            if due.is_some_and(|due| now >= due + 60) {
                rescan.scanned(ms(now), ms(now + 1), &[]);
                (scans, due) = (scans + 1, None);
            }
        }
        assert!(scans <= 35, "{scans}");
    }

    #[test]
    fn boards_that_leave_one_by_one_are_each_answered_within_the_shortest_gap() {
        let mut rescan = settled();
        let mut latest = ms(0);
        for now in (1000..1160).step_by(20) {
            rescan.hint(ms(now));
            let scan = rescan.next();
            latest = latest.max(scan.saturating_sub(ms(now)));
            rescan.scanned(scan, scan + ms(2), &[]);
        }
        assert!(latest <= BURST_GAP.0 + ms(2), "{latest:?}");
    }

    #[test]
    fn a_quiet_time_makes_the_gap_short_again() {
        let mut rescan = settled();
        for now in 1000..4000 {
            rescan.hint(ms(now));
            if rescan.next() <= ms(now) {
                rescan.scanned(ms(now), ms(now + 1), &[]);
            }
        }
        rescan.hint(ms(4000));
        let last = rescan.next();
        assert!(last > ms(4020), "{last:?}");
        rescan.scanned(last, last + ms(1), &[]);
        rescan.hint(ms(8000));
        assert_eq!(rescan.next(), ms(8000));
        rescan.scanned(ms(8000), ms(8001), &[]);
        rescan.hint(ms(8002));
        assert_eq!(rescan.next(), ms(8021));
    }

    #[test]
    fn a_chip_without_its_node_is_scanned_with_growing_delay_for_half_a_minute() {
        let mut rescan = settled();
        let mut now = ms(1000);
        let mut scans = 0;
        rescan.hint(now);
        while rescan.next() < ms(60_000) {
            now = rescan.next().max(now);
            rescan.scanned(now, now, &[chip(1)]);
            scans += 1;
        }
        assert!(now > ms(26_000) && now <= ms(36_000), "{now:?}");
        assert!((10..=20).contains(&scans), "{scans}");
    }

    #[test]
    fn a_failed_scan_is_retried_soon_and_never_faster_than_every_five_milliseconds() {
        let mut rescan = settled();
        for failure in 1..20 {
            rescan.failed(ms(10_000));
            assert_eq!(rescan.failures(), failure);
            let next = rescan.next();
            assert!(next >= ms(10_005) && next <= ms(11_000), "{next:?}");
        }
    }
}
