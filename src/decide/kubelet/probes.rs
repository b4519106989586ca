//! Whether the plugin is live and whether it is ready, each with the sentences that say why.
//!
//! **Live** means that the main loops make progress: only what a restart can repair counts. A
//! kubelet that is away, a driver that is not loaded and a read of /sys that hangs in the kernel do
//! not. **Ready** means that the kubelet has the list of every resource, or that a newer instance
//! serves them.

use std::time::Duration;

use crate::model::session::Progress;

/// A scan that runs longer than this is mentioned.
const SLOW_SCAN_LIMIT: Duration = Duration::from_secs(10);

/// A session that makes no step for so long is stuck: it waits at most a second or two between two
/// steps, whatever the kubelet does.
pub const LONGEST_SESSION_STEP: Duration = Duration::from_secs(30);

/// What is known of one resource's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// For example `iluvatar.com/gpu`.
    pub resource: String,
    /// How far it is.
    pub progress: Progress,
    /// Whether there is a kubelet: its socket exists and the last connection to it was accepted.
    pub has_kubelet: bool,
    /// Whether the kubelet accepted our registration.
    pub is_registered: bool,
    /// The last error, as the log has it; none since the last success.
    pub last_error: Option<String>,
    /// Time since its last step.
    pub since_last_step: Duration,
}

/// What is known of the registration of the DRA driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraSessionState {
    /// The driver's name.
    pub driver: String,
    /// How far it is: streaming once the kubelet accepted the driver.
    pub progress: Progress,
    /// The last error, as the log has it; none since the last success.
    pub last_error: Option<String>,
    /// Time since its last step.
    pub since_last_step: Duration,
}

impl DraSessionState {
    fn sentence(&self) -> String {
        let Self { driver, last_error, .. } = self;
        let last_error =
            last_error.as_ref().map_or(String::new(), |last_error| format!(": {last_error}"));
        match self.progress {
            Progress::Streaming => format!("{driver}: registered with the kubelet"),
            Progress::Yielded => format!("{driver}: a newer instance of the plugin serves it"),
            Progress::Waiting => format!("{driver}: not registered with the kubelet{last_error}"),
        }
    }
}

/// What is known of the scans of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanState {
    /// Whether one ever succeeded.
    pub has_succeeded: bool,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// How long the current one has been running; none while none runs.
    pub running_for: Option<Duration>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether it is positive.
    pub is_positive: bool,
    /// What is missing, or the state of each part if nothing is.
    pub sentences: Vec<String>,
}

impl ProbeResult {
    /// Positive if nothing is missing.
    fn new(missing: Vec<String>, otherwise: Vec<String>) -> Self {
        let is_positive = missing.is_empty();
        Self { is_positive, sentences: if is_positive { otherwise } else { missing } }
    }
}

/// Whether the plugin is ready.
#[must_use]
pub fn readiness(
    scan: &ScanState,
    sessions: &[SessionState],
    dra: Option<&DraSessionState>,
) -> ProbeResult {
    if !scan.has_succeeded {
        let missing = scan.last_error.as_ref().map_or_else(
            || "the first scan of the machine has not finished".to_owned(),
            |last_error| format!("the machine cannot be scanned: {last_error}"),
        );
        return ProbeResult::new(vec![missing], Vec::new());
    }
    if let Some(dra) = dra {
        let is_missing = dra.progress == Progress::Waiting;
        let missing = is_missing.then(|| dra.sentence()).into_iter().collect();
        return ProbeResult::new(missing, vec![dra.sentence()]);
    }
    if sessions.is_empty() {
        let missing = "no resource has a session with the kubelet".to_owned();
        return ProbeResult::new(vec![missing], Vec::new());
    }
    let missing = sessions.iter().filter_map(missing).collect();
    ProbeResult::new(missing, sessions.iter().map(served).collect())
}

fn missing(session: &SessionState) -> Option<String> {
    let SessionState { resource, is_registered, last_error, .. } = session;
    let last_error =
        last_error.as_ref().map_or(String::new(), |last_error| format!(": {last_error}"));
    match session.progress {
        Progress::Streaming | Progress::Yielded => None,
        Progress::Waiting if !session.has_kubelet => {
            Some(format!("{resource}: not registered: there is no kubelet on this node"))
        }
        Progress::Waiting if *is_registered => {
            Some(format!("{resource}: registered, but the kubelet has no open stream{last_error}"))
        }
        Progress::Waiting => {
            Some(format!("{resource}: not registered with the kubelet{last_error}"))
        }
    }
}

fn served(session: &SessionState) -> String {
    let resource = &session.resource;
    match session.progress {
        Progress::Yielded => format!("{resource}: a newer instance of the plugin serves it"),
        Progress::Streaming | Progress::Waiting => format!("{resource}: the kubelet has its list"),
    }
}

/// Whether the plugin is live. `owner_answers`: whether the owner of the inventory answered when it
/// was asked.
#[must_use]
pub fn liveness(
    owner_answers: bool,
    scan: &ScanState,
    sessions: &[SessionState],
    dra: Option<&DraSessionState>,
) -> ProbeResult {
    let mut missing = Vec::new();
    let mut well = Vec::new();
    if owner_answers {
        well.push("the inventory loop is making progress".to_owned());
    } else {
        missing.push("the inventory loop does not answer".to_owned());
    }
    // A scan that hangs is no reason for a restart, which would only hang at the same read.
    let slow = scan.running_for.filter(|since| *since >= SLOW_SCAN_LIMIT);
    well.extend(slow.map(|since| format!("a scan has been running for {} s", since.as_secs())));
    let sessions = sessions.iter().map(|session| (&session.resource, session.since_last_step));
    let dra = dra.map(|session| (&session.driver, session.since_last_step));
    let stuck = sessions.chain(dra).filter(|(_, since)| *since > LONGEST_SESSION_STEP);
    missing.extend(stuck.map(|(name, since)| {
        let seconds = since.as_secs();
        format!("{name}: its session has made no progress for {seconds} s")
    }));
    ProbeResult::new(missing, well)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCANNED: ScanState =
        ScanState { has_succeeded: true, last_error: None, running_for: None };

    fn session(progress: Progress) -> SessionState {
        SessionState {
            resource: "a.b/c".to_owned(),
            progress,
            has_kubelet: true,
            is_registered: false,
            last_error: None,
            since_last_step: Duration::ZERO,
        }
    }

    #[track_caller]
    fn check(result: &ProbeResult, is_positive: bool, sentences: &[&str]) {
        let sentences = sentences.iter().map(ToString::to_string).collect();
        assert_eq!(*result, ProbeResult { is_positive, sentences });
    }

    #[test]
    fn nothing_is_ready_before_the_first_scan() {
        let unscanned = ScanState::default();
        let sentence = "the first scan of the machine has not finished";
        check(&readiness(&unscanned, &[], None), false, &[sentence]);
        let failed = ScanState { last_error: Some("no /sys".to_owned()), ..unscanned };
        let sessions = [session(Progress::Streaming)];
        let sentence = "the machine cannot be scanned: no /sys";
        check(&readiness(&failed, &sessions, None), false, &[sentence]);
    }

    #[test]
    fn a_scan_that_fails_later_leaves_it_ready() {
        let failing = ScanState { last_error: Some("no /sys".to_owned()), ..SCANNED };
        let result = readiness(&failing, &[session(Progress::Streaming)], None);
        check(&result, true, &["a.b/c: the kubelet has its list"]);
    }

    #[test]
    fn every_resource_must_be_with_the_kubelet_and_only_those_that_are_not_are_named() {
        let sentence = "no resource has a session with the kubelet";
        check(&readiness(&SCANNED, &[], None), false, &[sentence]);
        let refused = SessionState {
            resource: "a.b/d".to_owned(),
            last_error: Some("cannot register: no".to_owned()),
            ..session(Progress::Waiting)
        };
        let sentence = "a.b/d: not registered with the kubelet: cannot register: no";
        let result = readiness(&SCANNED, &[session(Progress::Streaming), refused], None);
        check(&result, false, &[sentence]);
        let streamless = SessionState { is_registered: true, ..session(Progress::Waiting) };
        let sentence = "a.b/c: registered, but the kubelet has no open stream";
        check(&readiness(&SCANNED, &[streamless], None), false, &[sentence]);
    }

    #[test]
    fn without_a_kubelet_it_is_not_ready_and_still_live() {
        let alone = SessionState { has_kubelet: false, ..session(Progress::Waiting) };
        let sentence = "a.b/c: not registered: there is no kubelet on this node";
        check(&readiness(&SCANNED, std::slice::from_ref(&alone), None), false, &[sentence]);
        let sentence = "the inventory loop is making progress";
        check(&liveness(true, &SCANNED, &[alone], None), true, &[sentence]);
    }

    #[test]
    fn a_driver_is_ready_once_the_kubelet_has_accepted_it() {
        let driver = |progress, last_error: Option<&str>| DraSessionState {
            driver: "a.b".to_owned(),
            progress,
            last_error: last_error.map(ToOwned::to_owned),
            since_last_step: Duration::ZERO,
        };
        let waiting = driver(Progress::Waiting, Some("cannot listen: no"));
        let sentence = "a.b: not registered with the kubelet: cannot listen: no";
        check(&readiness(&SCANNED, &[], Some(&waiting)), false, &[sentence]);
        let registered = driver(Progress::Streaming, None);
        let sentence = "a.b: registered with the kubelet";
        check(&readiness(&SCANNED, &[], Some(&registered)), true, &[sentence]);
        let stuck = DraSessionState { since_last_step: Duration::from_secs(31), ..registered };
        let sentence = "a.b: its session has made no progress for 31 s";
        check(&liveness(true, &SCANNED, &[], Some(&stuck)), false, &[sentence]);
    }

    #[test]
    fn behind_a_newer_instance_it_is_ready() {
        let result = readiness(&SCANNED, &[session(Progress::Yielded)], None);
        check(&result, true, &["a.b/c: a newer instance of the plugin serves it"]);
    }

    #[test]
    fn it_is_live_while_its_loop_answers_even_if_a_scan_hangs() {
        let progress = "the inventory loop is making progress";
        check(&liveness(true, &SCANNED, &[], None), true, &[progress]);
        let scanning = ScanState { running_for: Some(Duration::from_secs(3600)), ..SCANNED };
        let sentence = "a scan has been running for 3600 s";
        check(&liveness(true, &scanning, &[], None), true, &[progress, sentence]);
        let sentence = "the inventory loop does not answer";
        check(&liveness(false, &SCANNED, &[], None), false, &[sentence]);
    }

    #[test]
    fn a_session_without_progress_is_our_fault_whatever_the_kubelet_does() {
        let waiting = session(Progress::Waiting);
        check(
            &liveness(true, &SCANNED, std::slice::from_ref(&waiting), None),
            true,
            &["the inventory loop is making progress"],
        );
        let stuck = SessionState { since_last_step: Duration::from_secs(31), ..waiting };
        let sentence = "a.b/c: its session has made no progress for 31 s";
        check(&liveness(true, &SCANNED, &[stuck], None), false, &[sentence]);
    }
}
