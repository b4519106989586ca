//! Which changes of health become events of the Node: one for each change, and none for a change that
//! was over before its event was sent. A device that is unhealthy when the daemon starts is no
//! change.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::model::dra::device::{DraDeviceHealth, DraDeviceName};
use crate::model::health::Health;

/// How many events may follow each other at once: all chips of a large node.
const BURST: u32 = 32;
/// How long until another event may follow.
const REFILL_INTERVAL: Duration = Duration::from_secs(30);

/// What was reported, and what is still to be.
#[derive(Debug)]
pub struct HealthEvents {
    reported: BTreeMap<DraDeviceName, Health>,
    current: BTreeMap<DraDeviceName, DraDeviceHealth>,
    /// Devices whose health is not what was reported, the oldest change first.
    pending: VecDeque<DraDeviceName>,
    has_list: bool,
    tokens: u32,
    refilled_at: Duration,
}

impl Default for HealthEvents {
    fn default() -> Self {
        Self {
            reported: BTreeMap::new(),
            current: BTreeMap::new(),
            pending: VecDeque::new(),
            has_list: false,
            tokens: BURST,
            refilled_at: Duration::ZERO,
        }
    }
}

impl HealthEvents {
    /// Takes in the complete list. The first one reports nothing, and neither does a device that is
    /// new; one that left is forgotten.
    pub fn observe(&mut self, list: Vec<DraDeviceHealth>) {
        let is_first = !std::mem::replace(&mut self.has_list, true);
        self.current = list.into_iter().map(|health| (health.device, health)).collect();
        self.reported.retain(|device, _| self.current.contains_key(device));
        for (device, current) in &self.current {
            let reported = self.reported.get(device).copied();
            let is_new_and_ill =
                !is_first && reported.is_none() && current.health != Health::Healthy;
            if reported.is_none() && !is_new_and_ill {
                self.reported.insert(*device, current.health);
            }
            if is_new_and_ill {
                self.reported.insert(*device, Health::Healthy);
            }
        }
        let differs = |device: &DraDeviceName| {
            let current = self.current.get(device).map(|current| current.health);
            current.is_some() && current != self.reported.get(device).copied()
        };
        self.pending.retain(differs);
        let new: Vec<_> = self.current.keys().filter(|device| differs(device)).copied().collect();
        let new = new.into_iter().filter(|device| !self.pending.contains(device));
        let new: Vec<_> = new.collect();
        self.pending.extend(new);
    }

    /// The next event that may be sent now. It counts as sent.
    pub fn next(&mut self, now: Duration) -> Option<DraDeviceHealth> {
        self.refill(now);
        if self.tokens == 0 {
            return None;
        }
        let device = self.pending.pop_front()?;
        let current = self.current.get(&device)?.clone();
        self.tokens -= 1;
        self.reported.insert(device, current.health);
        Some(current)
    }

    /// The event was not sent after all; it comes again, unless its change is over by then.
    pub fn failed(&mut self, event: &DraDeviceHealth) {
        self.tokens = self.tokens.saturating_add(1).min(BURST);
        let before = match event.health {
            Health::Healthy => Health::Unhealthy,
            Health::Unhealthy => Health::Healthy,
        };
        self.reported.insert(event.device, before);
        let is_still = self.current.get(&event.device).is_some_and(|it| it.health != before);
        self.pending.retain(|device| *device != event.device);
        if is_still {
            self.pending.push_front(event.device);
        }
    }

    /// When an event that waits may be sent; none where none waits.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let is_waiting = !self.pending.is_empty();
        is_waiting.then(|| match self.tokens {
            0 => self.refilled_at + REFILL_INTERVAL,
            _ => Duration::ZERO,
        })
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.refilled_at);
        let intervals = elapsed.as_secs() / REFILL_INTERVAL.as_secs();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(intervals).min(BURST);
        self.refilled_at = match self.tokens {
            BURST => now,
            _ => self.refilled_at + REFILL_INTERVAL * intervals,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: usize) -> DraDeviceName {
        format!("chip-0000-{index:02x}-00-0").parse().unwrap()
    }

    fn list(ill: &[usize]) -> Vec<DraDeviceHealth> {
        let health = |index| {
            let health = if ill.contains(&index) { Health::Unhealthy } else { Health::Healthy };
            DraDeviceHealth { device: device(index), health, message: String::new() }
        };
        (0..64).map(health).collect()
    }

    fn sent(events: &mut HealthEvents, now: Duration) -> Vec<(DraDeviceName, Health)> {
        std::iter::from_fn(|| events.next(now)).map(|it| (it.device, it.health)).collect()
    }

    #[test]
    fn each_change_is_one_event_and_the_first_list_is_none() {
        let (mut events, now) = (HealthEvents::default(), Duration::ZERO);
        events.observe(list(&[1]));
        assert_eq!(sent(&mut events, now), []);
        events.observe(list(&[1, 2]));
        events.observe(list(&[1, 2]));
        assert_eq!(sent(&mut events, now), [(device(2), Health::Unhealthy)]);
        events.observe(list(&[2]));
        assert_eq!(sent(&mut events, now), [(device(1), Health::Healthy)]);
        assert_eq!(events.next_at(), None);
    }

    #[test]
    fn a_change_that_is_over_before_its_event_is_none() {
        let mut events = HealthEvents::default();
        events.observe(list(&[]));
        events.observe(list(&[3]));
        events.observe(list(&[]));
        assert_eq!(sent(&mut events, Duration::ZERO), []);
    }

    #[test]
    fn a_storm_is_limited_and_ends_with_the_present_health() {
        let (mut events, mut now) = (HealthEvents::default(), Duration::ZERO);
        events.observe(list(&[]));
        let mut count = 0;
        for _ in 0..100 {
            events.observe(list(&[5, 6]));
            count += sent(&mut events, now).len();
            events.observe(list(&[]));
            count += sent(&mut events, now).len();
        }
        assert_eq!(count, usize::try_from(BURST).unwrap());
        events.observe(list(&[5]));
        now = events.next_at().unwrap();
        assert_eq!(sent(&mut events, now), [(device(5), Health::Unhealthy)]);
    }

    #[test]
    fn an_event_that_was_not_sent_comes_again_unless_its_change_is_over() {
        let (mut events, now) = (HealthEvents::default(), Duration::ZERO);
        events.observe(list(&[]));
        events.observe(list(&[4]));
        let event = events.next(now).unwrap();
        events.failed(&event);
        assert_eq!(events.next(now), Some(event.clone()));
        events.observe(list(&[]));
        events.failed(&event);
        assert_eq!(events.next(now), None);
    }

    #[test]
    fn a_new_device_is_reported_only_where_it_is_unhealthy() {
        let mut events = HealthEvents::default();
        events.observe(Vec::new());
        events.observe(list(&[7]));
        assert_eq!(sent(&mut events, Duration::ZERO), [(device(7), Health::Unhealthy)]);
    }
}
