//! When to ask the kubelet who holds what: at the start, and while a device that left is listed.
//! A node where nothing left asks nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use super::removed;
use crate::decide::node::advertise::NodeSnapshot;
use crate::model::device::DeviceId;

/// How often to ask while a device that left is listed.
const INTERVAL: Duration = Duration::from_secs(2);

/// Where nobody ever answered, the start's question is asked less and less often, down to this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// How long after the first question on a node where nothing is listed that left the last one comes:
/// a kubelet that has just started answers before it knows its pods.
const SECOND_LOOK: Duration = Duration::from_secs(30);

/// Questions on such a node: one at once, one as a second look.
const CLOSING: u8 = 2;

/// What was asked about so far.
#[derive(Clone, Debug)]
pub struct PodResourcesSchedule {
    /// Devices that left and are listed, by resource.
    about: BTreeSet<(String, DeviceId)>,
    /// Answers still wanted though nothing is listed that left.
    closing: u8,
    ever_answered: bool,
    /// Since the last answer.
    failures: u32,
}

impl Default for PodResourcesSchedule {
    fn default() -> Self {
        Self { about: BTreeSet::new(), closing: CLOSING, ever_answered: false, failures: 0 }
    }
}

impl PodResourcesSchedule {
    /// Whether what is listed now calls for a question at once: another device left, or the last
    /// one left the list. A pod that was being admitted when it was asked about may hold it since.
    pub fn is_due(&mut self, snapshot: Option<&NodeSnapshot>) -> bool {
        let removed = snapshot.into_iter().flat_map(removed::removed);
        let about = removed.map(|(resource, device)| (resource.name.clone(), device.id)).collect();
        let before = std::mem::replace(&mut self.about, about);
        let is_over = self.about.is_empty() && !before.is_empty();
        if is_over {
            self.closing = CLOSING;
        }
        is_over || !self.about.is_subset(&before)
    }

    /// How long to wait for such a change before asking again; none where nothing is left to ask.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        if !self.about.is_empty() {
            return Some(INTERVAL);
        }
        if !self.ever_answered {
            return Some(INTERVAL.saturating_mul(self.failures.max(1)).min(LONGEST_INTERVAL));
        }
        (self.closing > 0).then_some(SECOND_LOOK)
    }

    /// The kubelet answered. True where it did not the last time.
    pub fn answered(&mut self) -> bool {
        self.ever_answered = true;
        if self.about.is_empty() {
            self.closing = self.closing.saturating_sub(1);
        }
        std::mem::take(&mut self.failures) > 0
    }

    /// It did not answer. Returns how often that happened since the last answer.
    pub fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::node::removed::tests::node::{Node, board, second};
    use crate::decide::node::removed::{RemovedDevices, Retention};

    /// The offer after boards at these buses left.
    fn offer_without(buses: &[u8]) -> NodeSnapshot {
        let all = [0x13, 0x40, 0x64];
        let mut removed_devices = RemovedDevices::new(Retention::default());
        for gone in [&[][..], buses] {
            let there = all.iter().filter(|bus| !gone.contains(bus));
            let boards = there.map(|bus| board(*bus, 1)).collect();
            removed_devices.observe(Node { boards, ..Node::default() }.snapshot(), second(1));
        }
        removed_devices.snapshot(second(1)).unwrap()
    }

    #[track_caller]
    fn check_second_look(questions: &mut PodResourcesSchedule) {
        questions.answered();
        assert_eq!(questions.interval(), Some(SECOND_LOOK));
        questions.answered();
        assert_eq!(questions.interval(), None);
    }

    #[test]
    fn a_node_where_nothing_left_is_asked_about_twice_and_never_again() {
        let mut questions = PodResourcesSchedule::default();
        check_second_look(&mut questions);
        assert!(!questions.is_due(Some(&offer_without(&[]))));
        assert_eq!(questions.interval(), None);
    }

    #[test]
    fn each_departure_is_asked_about_at_once_and_then_at_intervals() {
        let mut questions = PodResourcesSchedule::default();
        questions.answered();
        for (gone, is_due) in [
            (&[0x13][..], true),
            (&[0x13], false),
            (&[0x13, 0x40], true),
            (&[0x40], false),
            (&[0x64], true),
        ] {
            assert_eq!(questions.is_due(Some(&offer_without(gone))), is_due, "{gone:x?}");
            assert_eq!(questions.interval(), Some(INTERVAL));
        }
    }

    #[test]
    fn twice_more_is_asked_after_the_last_one_left_the_list() {
        let mut questions = PodResourcesSchedule::default();
        questions.answered();
        questions.is_due(Some(&offer_without(&[0x13])));
        let nothing = offer_without(&[]);
        assert!(questions.is_due(Some(&nothing)));
        assert!(!questions.is_due(Some(&nothing)));
        check_second_look(&mut questions);
    }

    #[test]
    fn without_any_answer_the_first_question_is_repeated_ever_more_slowly() {
        let mut questions = PodResourcesSchedule::default();
        let waits = (0..40).map(|_| {
            questions.failed();
            questions.interval().unwrap()
        });
        let waits: Vec<_> = waits.collect();
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[39]), (INTERVAL, LONGEST_INTERVAL));
        assert!(questions.answered());
        assert!(!questions.answered());
    }
}
