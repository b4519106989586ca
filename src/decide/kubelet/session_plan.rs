//! Which sessions run: one for each configured resource.
//!
//! **Invariant.** No two sessions have the same resource or the same socket name. A session counts
//! until it has closed: server ended, streams ended, socket removed. The kubelet leaks the older of
//! two streams of one process (kubernetes#124716), so a resource whose socket name changes starts
//! again only after its old session has closed.

use std::collections::BTreeMap;

use super::socket_name::{FIRST_SOCKET, socket_name};
use crate::model::config::StartVerification;

/// The sessions that are wanted, and those that have not closed.
#[derive(Clone, Debug, Default)]
pub struct SessionPlan {
    /// By resource.
    wanted: BTreeMap<String, SessionTerms>,
    /// By resource.
    open: BTreeMap<String, OpenSession>,
}

#[derive(Clone, Debug)]
struct OpenSession {
    terms: SessionTerms,
    phase: Phase,
}

/// What a session registers with. A session never changes it: the kubelet takes it from the
/// registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// File name of its socket.
    pub socket: String,
    /// Whether the kubelet calls PreStartContainer.
    pub verification: StartVerification,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Closing,
}

/// What to do with one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// End the session of this resource; then [`SessionPlan::closed`].
    End {
        /// For example `iluvatar.com/gpu`.
        resource: String,
    },
    /// Start a session.
    Start {
        /// For example `iluvatar.com/gpu`.
        resource: String,
        /// What it registers with.
        terms: SessionTerms,
    },
}

impl SessionPlan {
    /// From now on these are the configured resources. Returns what to do now.
    pub fn configure(
        &mut self,
        resources: &[&str],
        verification: StartVerification,
    ) -> Vec<SessionChange> {
        let sockets = self.assign_sockets(resources).into_iter();
        let terms = |(resource, socket)| (resource, SessionTerms { socket, verification });
        self.wanted = sockets.map(terms).collect();
        let mut changes = self.end_unwanted();
        changes.extend(self.start_wanted());
        changes
    }

    /// The session of `resource` has closed. Returns what to do now.
    pub fn closed(&mut self, resource: &str) -> Vec<SessionChange> {
        self.open.remove(resource);
        self.start_wanted()
    }

    /// A socket name for each resource. The name that probes look for is always in use: the
    /// resource that has it keeps it, so that its session stays; else the first resource gets it.
    fn assign_sockets(&self, resources: &[&str]) -> BTreeMap<String, String> {
        let has_first = |resource: &&&str| {
            self.wanted.get(**resource).is_some_and(|terms| terms.socket == FIRST_SOCKET)
        };
        let holder = resources.iter().find(has_first).or(resources.first()).copied();
        let socket = |resource: &str| {
            if holder == Some(resource) { FIRST_SOCKET.to_owned() } else { socket_name(resource) }
        };
        resources.iter().map(|&resource| (resource.to_owned(), socket(resource))).collect()
    }

    fn end_unwanted(&mut self) -> Vec<SessionChange> {
        let mut changes = Vec::new();
        for (resource, session) in &mut self.open {
            let is_wanted = self.wanted.get(resource) == Some(&session.terms);
            if session.phase == Phase::Running && !is_wanted {
                session.phase = Phase::Closing;
                changes.push(SessionChange::End { resource: resource.clone() });
            }
        }
        changes
    }

    /// Starts what waits for no open session of its resource and at its socket.
    fn start_wanted(&mut self) -> Vec<SessionChange> {
        let mut changes = Vec::new();
        for (resource, terms) in &self.wanted {
            let mut open = self.open.iter();
            if open.any(|(other, it)| other == resource || it.terms.socket == terms.socket) {
                continue;
            }
            let session = OpenSession { terms: terms.clone(), phase: Phase::Running };
            self.open.insert(resource.clone(), session);
            let (resource, terms) = (resource.clone(), terms.clone());
            changes.push(SessionChange::Start { resource, terms });
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "a.b/one";
    const TWO: &str = "a.b/two";
    const SOCKET_OF_TWO: &str = "iluvatar-gpu-a.b_two.sock";

    const ON: StartVerification = StartVerification::On;

    fn start(resource: &str, socket: &str) -> SessionChange {
        start_with(resource, socket, ON)
    }

    fn start_with(resource: &str, socket: &str, verification: StartVerification) -> SessionChange {
        let terms = SessionTerms { socket: socket.to_owned(), verification };
        SessionChange::Start { resource: resource.to_owned(), terms }
    }

    fn end(resource: &str) -> SessionChange {
        SessionChange::End { resource: resource.to_owned() }
    }

    #[test]
    fn the_first_resource_gets_the_socket_that_probes_look_for() {
        let mut plan = SessionPlan::default();
        let changes = plan.configure(&[TWO, ONE], ON);
        assert_eq!(changes, [start(ONE, "iluvatar-gpu-a.b_one.sock"), start(TWO, FIRST_SOCKET)]);
    }

    #[test]
    fn a_resource_keeps_its_session_when_another_comes_before_it() {
        let mut plan = SessionPlan::default();
        plan.configure(&[ONE], ON);
        assert_eq!(plan.configure(&[TWO, ONE], ON), [start(TWO, SOCKET_OF_TWO)]);
        assert_eq!(plan.configure(&[TWO, ONE], ON), []);
    }

    #[test]
    fn another_verification_is_registered_anew_once_the_old_session_has_closed() {
        let mut plan = SessionPlan::default();
        plan.configure(&[ONE], ON);
        let off = StartVerification::Off;
        assert_eq!(plan.configure(&[ONE], off), [end(ONE)]);
        assert_eq!(plan.closed(ONE), [start_with(ONE, FIRST_SOCKET, off)]);
        assert_eq!(plan.configure(&[ONE], off), []);
    }

    #[test]
    fn a_resource_that_changes_its_socket_starts_after_both_old_sessions_have_closed() {
        for [first, second] in [[ONE, TWO], [TWO, ONE]] {
            let mut plan = SessionPlan::default();
            plan.configure(&[ONE, TWO], ON);
            assert_eq!(plan.configure(&[TWO], ON), [end(ONE), end(TWO)]);
            assert_eq!(plan.closed(first), []);
            assert_eq!(plan.closed(second), [start(TWO, FIRST_SOCKET)]);
        }
    }

    #[test]
    fn another_resource_waits_for_the_socket_of_one_that_closes() {
        let mut plan = SessionPlan::default();
        plan.configure(&[ONE], ON);
        assert_eq!(plan.configure(&[TWO], ON), [end(ONE)]);
        assert_eq!(plan.closed(ONE), [start(TWO, FIRST_SOCKET)]);
    }

    #[test]
    fn a_resource_that_comes_back_while_its_session_closes_starts_when_that_has_closed() {
        let mut plan = SessionPlan::default();
        plan.configure(&[ONE], ON);
        assert_eq!(plan.configure(&[], ON), [end(ONE)]);
        assert_eq!(plan.configure(&[ONE], ON), []);
        assert_eq!(plan.closed(ONE), [start(ONE, FIRST_SOCKET)]);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Configure(Vec<&'static str>),
        /// One of those that close has closed.
        Closed(prop::sample::Index),
    }

    fn event() -> impl Strategy<Value = Event> {
        let resources = vec![ONE, TWO, "a.b/three", "a.b/four"];
        let configured = prop::sample::subsequence(resources, 0..=4).prop_shuffle();
        prop_oneof![
            configured.prop_map(Event::Configure),
            any::<prop::sample::Index>().prop_map(Event::Closed),
        ]
    }

    /// Carries changes out and checks each.
    #[derive(Default)]
    struct Node {
        plan: SessionPlan,
        running: BTreeMap<String, String>,
        closing: BTreeMap<String, String>,
    }

    impl Node {
        fn carry_out(&mut self, changes: Vec<SessionChange>) {
            for change in changes {
                match change {
                    SessionChange::End { resource } => {
                        let socket = self.running.remove(&resource).expect("it runs");
                        self.closing.insert(resource, socket);
                    }
                    SessionChange::Start { resource, terms: SessionTerms { socket, .. } } => {
                        let mut open = self.running.iter().chain(&self.closing);
                        assert!(open.all(|(other, at)| *other != resource && *at != socket));
                        self.running.insert(resource, socket);
                    }
                }
            }
        }

        fn close(&mut self, which: prop::sample::Index) {
            if !self.closing.is_empty() {
                let at = which.index(self.closing.len());
                let resource = self.closing.keys().nth(at).cloned().expect("in range");
                self.closing.remove(&resource);
                let changes = self.plan.closed(&resource);
                self.carry_out(changes);
            }
        }
    }

    proptest! {
        #[test]
        fn no_two_sessions_share_a_resource_or_a_socket_and_all_that_are_wanted_run_in_the_end(
            events in prop::collection::vec(event(), 0..40),
            last: prop::sample::Index,
        ) {
            let (mut node, mut configured) = (Node::default(), Vec::new());
            for event in events {
                match event {
                    Event::Configure(resources) => {
                        let changes = node.plan.configure(&resources, ON);
                        node.carry_out(changes);
                        configured = resources;
                    }
                    Event::Closed(which) => node.close(which),
                }
            }
            while !node.closing.is_empty() {
                node.close(last);
            }
            configured.sort_unstable();
            prop_assert_eq!(node.running.keys().collect::<Vec<_>>(), configured);
            let mut sockets = node.running.values();
            prop_assert!(node.running.is_empty() || sockets.any(|socket| socket == FIRST_SOCKET));
        }
    }
}
