//! When to query PodResources: at the start, when a device comes, leaves or changes its health, often
//! while a device is listed that left or that is withheld, and otherwise at the configured interval. In DRA
//! mode also while claims hold some.

use std::collections::BTreeSet;
use std::time::Duration;

use super::snapshot::NodeSnapshot;
use crate::model::device::DeviceId;
use crate::model::health::Health;
use crate::model::pod_usage::KubeletInstance;

/// How often to query while a device is listed that left or that is withheld.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// The longest interval of the first query, which is repeated with growing pauses until it is answered.
const IDLE_REQUEST_INTERVAL: Duration = Duration::from_secs(60);

/// How long after the first query on a node without such devices the last one comes: a kubelet
/// that has just started answers before it has read its pods.
const SECOND_REQUEST_DELAY: Duration = Duration::from_secs(30);

/// How long after an allocation a query is worth sending: the kubelet lists a pod once it is admitted.
pub const ADMISSION_DELAY: Duration = Duration::from_secs(1);

/// Queries on such a node: one at once, one later.
const CLOSING_REQUESTS: u8 = 2;

/// Failures in a row after which a kubelet that never answered counts as unavailable.
const FAILURE_LIMIT: u32 = 5;

/// The queries so far.
#[derive(Clone, Debug)]
pub struct PodResourcesSchedule {
    /// Devices that left or are withheld, by resource.
    about: BTreeSet<(String, DeviceId)>,
    /// Whether claims are known from the last answer.
    has_claims: bool,
    /// Every listed device with its health, in the order of the snapshot.
    listed: Vec<(String, DeviceId, Health)>,
    /// Queries left although there are no such devices.
    closing: u8,
    ever_answered: bool,
    /// Since the last answer.
    failures: u32,
}

/// How a query failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFailure {
    /// There is no socket.
    Absent,
    /// The kubelet refused, or did not answer in time.
    Failed,
}

impl Default for PodResourcesSchedule {
    fn default() -> Self {
        Self {
            about: BTreeSet::new(),
            has_claims: false,
            listed: Vec::new(),
            closing: CLOSING_REQUESTS,
            ever_answered: false,
            failures: 0,
        }
    }
}

impl PodResourcesSchedule {
    /// Takes in the latest snapshot. True where it calls for a query at once: the listed devices or
    /// their health changed, another device left or is withheld, or the last one is not any more. A
    /// pod that was being admitted during the last query may hold it since.
    pub fn follow(&mut self, snapshot: Option<&NodeSnapshot>) -> bool {
        let devices =
            snapshot.into_iter().flat_map(|snapshot| snapshot.removed().chain(snapshot.withheld()));
        // Whether a cordoned device is drained can wait for a kubelet that answers.
        let answering = snapshot.filter(|_| self.ever_answered);
        let devices = devices.chain(answering.into_iter().flat_map(NodeSnapshot::draining));
        let devices = devices.map(|(resource, device)| (resource.name.clone(), device.id));
        let held = snapshot.into_iter().flat_map(|snapshot| snapshot.held_by_pods.values());
        let about = devices.chain(held.map(|held| (held.resource.clone(), held.id))).collect();
        self.has_claims = snapshot.is_some_and(|snapshot| !snapshot.claimed.is_empty());
        let before = std::mem::replace(&mut self.about, about);
        let has_changed = self.relist(snapshot) && self.ever_answered;
        let is_over = self.about.is_empty() && !before.is_empty();
        if is_over {
            self.closing = CLOSING_REQUESTS;
        }
        has_changed || is_over || !self.about.is_subset(&before)
    }

    /// Whether the listed devices differ from those of the last call.
    fn relist(&mut self, snapshot: Option<&NodeSnapshot>) -> bool {
        let devices = snapshot.into_iter().flat_map(NodeSnapshot::devices);
        let listed = devices
            .map(|(resource, device)| (resource.name.clone(), device.id, device.health))
            .collect();
        let before = std::mem::replace(&mut self.listed, listed);
        before != self.listed
    }

    /// Whether an allocation calls for a query. A kubelet that never answered is queried again
    /// without that.
    #[must_use]
    pub fn follows_allocations(&self) -> bool {
        self.ever_answered
    }

    /// How long to wait for such a change before the next query, where `configured` is the longest
    /// time between two; none where none is due.
    #[must_use]
    pub fn interval(&self, configured: Option<Duration>) -> Option<Duration> {
        if !self.ever_answered {
            return Some(self.retry_interval());
        }
        if !self.about.is_empty() {
            return Some(REQUEST_INTERVAL);
        }
        let closing = (self.closing > 0 || self.has_claims).then_some(SECOND_REQUEST_DELAY);
        let retry = (self.failures > 0).then(|| self.retry_interval());
        closing.into_iter().chain(retry).chain(configured).min()
    }

    /// How long to wait after a failure.
    fn retry_interval(&self) -> Duration {
        let interval = REQUEST_INTERVAL.saturating_mul(self.failures.max(1));
        let longest =
            if self.about.is_empty() { IDLE_REQUEST_INTERVAL } else { REQUEST_INTERVAL * 2 };
        interval.min(longest)
    }

    /// The kubelet answered. Returns how often it had failed since the last answer.
    pub fn answered(&mut self) -> u32 {
        self.ever_answered = true;
        if self.about.is_empty() {
            self.closing = self.closing.saturating_sub(1);
        }
        std::mem::take(&mut self.failures)
    }

    /// It did not answer. Returns how often that happened since the last answer.
    pub fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Whether PodResources is unavailable: it never answered, and either there is no
    /// socket or it failed often.
    #[must_use]
    pub fn is_unavailable(&self, failed: RequestFailure) -> bool {
        !self.ever_answered && (failed == RequestFailure::Absent || self.failures >= FAILURE_LIMIT)
    }
}

/// Which kubelet answered, from its socket: the inode, the time of its making in nanoseconds since
/// the epoch, the time of day, and how long this process has seen it.
#[must_use]
pub fn kubelet_instance(
    (inode, made): (u64, i128),
    time_of_day: Duration,
    seen_for: Duration,
    kubelet_start: Duration,
) -> KubeletInstance {
    let now = i128::try_from(time_of_day.as_nanos()).unwrap_or(i128::MAX);
    let start = i128::try_from(kubelet_start.as_nanos()).unwrap_or(i128::MAX);
    let is_old = now.saturating_sub(made) >= start || seen_for >= kubelet_start;
    KubeletInstance { id: (inode, made), knows_its_pods: is_old }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::node::state::snapshot_of;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder};
    use crate::model::config::Config;
    use crate::model::dra::claim::{ClaimRef, ClaimUsage};
    use crate::model::health::{Reason, ReasonCode};
    use crate::model::pod_usage::HeldDevice;

    /// Three devices, of which those with these numbers are withheld.
    fn withheld(numbers: &[usize]) -> NodeSnapshot {
        let sample = ScanBuilder::default()
            .chip("00:01.0 13:00.0", SINGLE)
            .chip("00:02.0 40:00.0", SINGLE)
            .chip("00:03.0 64:00.0", SINGLE);
        let mut snapshot = (*snapshot_of(sample.scan(), &Config::default())).clone();
        for number in numbers {
            let reason = Reason { code: ReasonCode::HeldByPod, detail: String::new() };
            snapshot.resources[0].devices[*number].reasons.push(reason);
        }
        snapshot
    }

    #[track_caller]
    fn check_second_question(questions: &mut PodResourcesSchedule) {
        questions.answered();
        assert_eq!(questions.interval(None), Some(SECOND_REQUEST_DELAY));
        questions.answered();
        assert_eq!(questions.interval(None), None);
    }

    #[test]
    fn without_an_interval_a_node_that_does_not_change_is_asked_about_twice_and_never_again() {
        let mut questions = PodResourcesSchedule::default();
        questions.follow(Some(&withheld(&[])));
        check_second_question(&mut questions);
        assert!(!questions.follow(Some(&withheld(&[]))));
        assert_eq!(questions.interval(None), None);
    }

    #[test]
    fn the_configured_interval_is_the_longest_time_between_two_questions() {
        let mut questions = PodResourcesSchedule::default();
        let (short, long) = (Duration::from_secs(15), Duration::from_secs(300));
        questions.answered();
        assert_eq!(questions.interval(Some(short)), Some(short));
        assert_eq!(questions.interval(Some(long)), Some(SECOND_REQUEST_DELAY));
        questions.answered();
        assert_eq!(questions.interval(Some(long)), Some(long));
        questions.follow(Some(&withheld(&[0])));
        assert_eq!(questions.interval(Some(long)), Some(REQUEST_INTERVAL));
    }

    #[test]
    fn an_answer_that_is_missed_is_asked_for_again_with_growing_pauses() {
        let mut questions = PodResourcesSchedule::default();
        check_second_question(&mut questions);
        questions.failed();
        assert_eq!(questions.interval(None), Some(REQUEST_INTERVAL));
        questions.failed();
        assert_eq!(questions.interval(None), Some(REQUEST_INTERVAL * 2));
        assert_eq!(questions.interval(Some(REQUEST_INTERVAL)), Some(REQUEST_INTERVAL));
    }

    #[test]
    fn a_device_that_comes_leaves_or_changes_its_health_is_asked_about_at_once() {
        let mut questions = PodResourcesSchedule::default();
        questions.answered();
        let mut node = withheld(&[]);
        questions.follow(Some(&node));
        assert!(!questions.follow(Some(&node)));
        node.resources[0].devices[1].health = Health::Healthy;
        assert!(questions.follow(Some(&node)));
        let device = node.resources[0].devices.pop().unwrap();
        assert!(questions.follow(Some(&node)));
        node.resources[0].devices.push(device);
        assert!(questions.follow(Some(&node)));
        assert!(!questions.follow(Some(&node)));
    }

    #[test]
    fn each_withheld_device_is_asked_about_at_once_and_then_at_intervals() {
        let mut questions = PodResourcesSchedule::default();
        questions.answered();
        for (numbers, is_due) in
            [(&[0][..], true), (&[0], false), (&[0, 1], true), (&[1], false), (&[2], true)]
        {
            assert_eq!(questions.follow(Some(&withheld(numbers))), is_due, "{numbers:?}");
            assert_eq!(questions.interval(None), Some(REQUEST_INTERVAL));
        }
    }

    #[test]
    fn in_dra_mode_held_devices_are_asked_about_at_intervals_and_claims_now_and_then() {
        let mut questions = PodResourcesSchedule::default();
        check_second_question(&mut questions);
        let mut snapshot = withheld(&[]);
        questions.follow(Some(&snapshot));
        snapshot.claimed.insert(ClaimUsage {
            claim: ClaimRef { namespace: "team".to_owned(), name: "train".to_owned() },
            device: "chip-0000-13-00-0".parse().unwrap(),
            is_shared: false,
        });
        assert!(!questions.follow(Some(&snapshot)));
        assert_eq!(questions.interval(None), Some(SECOND_REQUEST_DELAY));
        let id = snapshot.resources[0].devices[0].id;
        let held = HeldDevice { resource: "a.b/c".to_owned(), id, holder: None };
        snapshot.held_by_pods.insert(id.address, held);
        assert!(questions.follow(Some(&snapshot)));
        assert_eq!(questions.interval(None), Some(REQUEST_INTERVAL));
    }

    #[test]
    fn twice_more_is_asked_after_the_last_one_is_free() {
        let mut questions = PodResourcesSchedule::default();
        questions.answered();
        questions.follow(Some(&withheld(&[0])));
        let nothing = withheld(&[]);
        assert!(questions.follow(Some(&nothing)));
        assert!(!questions.follow(Some(&nothing)));
        check_second_question(&mut questions);
    }

    #[test]
    fn without_any_answer_the_first_question_is_repeated_ever_more_slowly() {
        let mut questions = PodResourcesSchedule::default();
        let waits = (0..70).map(|_| {
            questions.failed();
            questions.interval(None).unwrap()
        });
        let waits: Vec<_> = waits.collect();
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[69]), (REQUEST_INTERVAL, IDLE_REQUEST_INTERVAL));
        assert_eq!(questions.answered(), 70);
        assert_eq!(questions.answered(), 0);
    }

    #[test]
    fn a_kubelet_does_not_tell_where_there_is_no_socket_or_it_fails_again_and_again() {
        let mut questions = PodResourcesSchedule::default();
        questions.failed();
        assert!(questions.is_unavailable(RequestFailure::Absent));
        assert!(!questions.is_unavailable(RequestFailure::Failed));
        for _ in 1..FAILURE_LIMIT {
            questions.failed();
        }
        assert!(questions.is_unavailable(RequestFailure::Failed));
        questions.answered();
        questions.failed();
        assert!(!questions.is_unavailable(RequestFailure::Absent));
    }

    #[test]
    fn a_kubelet_knows_its_pods_by_the_age_of_its_socket_or_by_how_long_it_was_seen() {
        let second = Duration::from_secs;
        let knows = |age: u64, seen: u64| {
            let made = i128::from(1000 - age) * 1_000_000_000;
            kubelet_instance((7, made), second(1000), second(seen), second(30)).knows_its_pods
        };
        assert!(!knows(29, 29));
        assert!(knows(30, 0) && knows(0, 30));
        // A clock that was set back makes no socket old.
        let future = kubelet_instance((7, i128::MAX), second(1000), second(0), second(30));
        assert!(!future.knows_its_pods);
    }
}
