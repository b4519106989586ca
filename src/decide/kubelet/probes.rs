//! Whether the plugin lives and whether it is ready, each with the sentences that say why.
//!
//! **Live** means that our own loops come round: only what a restart can mend counts. A kubelet that
//! is away, a driver that is not loaded, a read of /sys that hangs in the kernel are none of that.
//! **Ready** means that the kubelet has every resource's list, or that there is no kubelet.

use std::time::Duration;

use crate::model::session::Progress;

/// A session waits at most a second or two between two turns, whatever the kubelet does.
pub const LONGEST_TURN: Duration = Duration::from_secs(30);

/// What is known of one resource's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatusInput {
    /// For example `iluvatar.com/gpu`.
    pub resource: String,
    /// How far it is.
    pub progress: Progress,
    /// Whether there is a kubelet: its socket is there, and when last called somebody took the call.
    pub has_kubelet: bool,
    /// Whether the kubelet accepted our registration.
    pub is_registered: bool,
    /// What went wrong last, as the log has it; none where nothing did since the last success.
    pub trouble: Option<String>,
    /// How long ago it last came round.
    pub turned: Duration,
}

/// What is known of the looks at the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanStatus {
    /// Whether one ever succeeded.
    pub has_succeeded: bool,
    /// Why the last one failed.
    pub trouble: Option<String>,
    /// For how long one is under way.
    pub under_way: Option<Duration>,
}

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether all is well.
    pub is_well: bool,
    /// What is missing; or where nothing is, how things stand.
    pub sentences: Vec<String>,
}

impl Verdict {
    fn of(missing: Vec<String>, otherwise: Vec<String>) -> Self {
        let is_well = missing.is_empty();
        Self { is_well, sentences: if is_well { otherwise } else { missing } }
    }
}

/// Whether the plugin is ready.
#[must_use]
pub fn readiness(look: &ScanStatus, sessions: &[SessionStatusInput]) -> Verdict {
    if !look.has_succeeded {
        let missing = look.trouble.as_ref().map_or_else(
            || "the machine has not been looked at yet".to_owned(),
            |trouble| format!("the machine cannot be looked at: {trouble}"),
        );
        return Verdict::of(vec![missing], Vec::new());
    }
    if sessions.is_empty() {
        let missing = "no resource has a session with the kubelet yet".to_owned();
        return Verdict::of(vec![missing], Vec::new());
    }
    let missing = sessions.iter().filter_map(missing).collect();
    Verdict::of(missing, sessions.iter().map(well).collect())
}

fn missing(session: &SessionStatusInput) -> Option<String> {
    if session.progress != Progress::Waiting || !session.has_kubelet {
        return None;
    }
    let SessionStatusInput { resource, is_registered, trouble, .. } = session;
    let trouble = trouble.as_ref().map_or(String::new(), |trouble| format!(": {trouble}"));
    Some(if *is_registered {
        format!("{resource}: registered, but the kubelet has no open stream{trouble}")
    } else {
        format!("{resource}: not registered with the kubelet{trouble}")
    })
}

fn well(session: &SessionStatusInput) -> String {
    let resource = &session.resource;
    match session.progress {
        Progress::Streaming => format!("{resource}: the kubelet has its list"),
        Progress::Yielded => {
            format!(
                "{resource}: another live instance serves it; this one waits until that is gone"
            )
        }
        Progress::Waiting => format!("{resource}: there is no kubelet to register with"),
    }
}

/// Whether the plugin lives. `owner_answers` tells whether the owner of the inventory answered when
/// it was asked.
#[must_use]
pub fn liveness(
    owner_answers: bool,
    look: &ScanStatus,
    sessions: &[SessionStatusInput],
) -> Verdict {
    let mut missing = Vec::new();
    let mut well = Vec::new();
    match look.under_way {
        _ if owner_answers => well.push("the inventory's owner answers".to_owned()),
        // A restart would only hang at the same read.
        Some(since) => {
            well.push(format!("a look at the machine is under way, for {} s", since.as_secs()));
        }
        None => missing.push("the inventory's owner does not answer".to_owned()),
    }
    let stuck = sessions.iter().filter(|session| session.turned > LONGEST_TURN);
    missing.extend(stuck.map(|session| {
        let (resource, seconds) = (&session.resource, session.turned.as_secs());
        format!("{resource}: its session has not come round for {seconds} s")
    }));
    Verdict::of(missing, well)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKED: ScanStatus = ScanStatus { has_succeeded: true, trouble: None, under_way: None };

    fn session(progress: Progress) -> SessionStatusInput {
        SessionStatusInput {
            resource: "a.b/c".to_owned(),
            progress,
            has_kubelet: true,
            is_registered: false,
            trouble: None,
            turned: Duration::ZERO,
        }
    }

    #[track_caller]
    fn check(verdict: &Verdict, is_well: bool, sentences: &[&str]) {
        let sentences = sentences.iter().map(ToString::to_string).collect();
        assert_eq!(*verdict, Verdict { is_well, sentences });
    }

    #[test]
    fn nothing_is_ready_before_the_first_look() {
        let unlooked = ScanStatus::default();
        check(&readiness(&unlooked, &[]), false, &["the machine has not been looked at yet"]);
        let failed = ScanStatus { trouble: Some("no /sys".to_owned()), ..unlooked };
        let sessions = [session(Progress::Streaming)];
        let sentence = "the machine cannot be looked at: no /sys";
        check(&readiness(&failed, &sessions), false, &[sentence]);
    }

    #[test]
    fn a_look_that_fails_later_leaves_it_ready() {
        let failing = ScanStatus { trouble: Some("no /sys".to_owned()), ..LOOKED };
        let verdict = readiness(&failing, &[session(Progress::Streaming)]);
        check(&verdict, true, &["a.b/c: the kubelet has its list"]);
    }

    #[test]
    fn every_resource_must_be_with_the_kubelet_and_only_those_that_are_not_are_named() {
        let sentence = "no resource has a session with the kubelet yet";
        check(&readiness(&LOOKED, &[]), false, &[sentence]);
        let refused = SessionStatusInput {
            resource: "a.b/d".to_owned(),
            trouble: Some("cannot register: no".to_owned()),
            ..session(Progress::Waiting)
        };
        let sentence = "a.b/d: not registered with the kubelet: cannot register: no";
        let verdict = readiness(&LOOKED, &[session(Progress::Streaming), refused]);
        check(&verdict, false, &[sentence]);
        let streamless = SessionStatusInput { is_registered: true, ..session(Progress::Waiting) };
        let sentence = "a.b/c: registered, but the kubelet has no open stream";
        check(&readiness(&LOOKED, &[streamless]), false, &[sentence]);
    }

    #[test]
    fn without_a_kubelet_and_behind_a_newer_instance_it_is_ready() {
        let alone = SessionStatusInput { has_kubelet: false, ..session(Progress::Waiting) };
        let verdict = readiness(&LOOKED, &[alone]);
        check(&verdict, true, &["a.b/c: there is no kubelet to register with"]);
        let verdict = readiness(&LOOKED, &[session(Progress::Yielded)]);
        let sentence = "a.b/c: another live instance serves it; this one waits until that is gone";
        check(&verdict, true, &[sentence]);
    }

    #[test]
    fn it_lives_while_its_owner_answers_or_the_kernel_keeps_it_waiting() {
        check(&liveness(true, &LOOKED, &[]), true, &["the inventory's owner answers"]);
        let looking = ScanStatus { under_way: Some(Duration::from_secs(3600)), ..LOOKED };
        let sentence = "a look at the machine is under way, for 3600 s";
        check(&liveness(false, &looking, &[]), true, &[sentence]);
        let sentence = "the inventory's owner does not answer";
        check(&liveness(false, &LOOKED, &[]), false, &[sentence]);
    }

    #[test]
    fn a_session_that_does_not_come_round_is_our_fault_whatever_the_kubelet_does() {
        let waiting = session(Progress::Waiting);
        check(
            &liveness(true, &LOOKED, std::slice::from_ref(&waiting)),
            true,
            &["the inventory's owner answers"],
        );
        let stuck = SessionStatusInput { turned: Duration::from_secs(31), ..waiting };
        let sentence = "a.b/c: its session has not come round for 31 s";
        check(&liveness(true, &LOOKED, &[stuck]), false, &[sentence]);
    }
}
