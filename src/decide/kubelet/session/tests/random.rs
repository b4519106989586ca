//! A model of the node that lets everything fail at random, then lets all succeed.

use proptest::prelude::*;

use super::*;

/// What the session meets while faults last.
#[derive(Clone, Debug)]
struct Phase {
    lasts: Duration,
    own_socket: OwnSocketState,
    kubelet: Option<SocketIdentity>,
    streams: usize,
    lost_stream: bool,
    bind: BindOutcome,
    outcome: Option<RegisterOutcome>,
}

fn phase() -> impl Strategy<Value = Phase> {
    let own_socket = prop_oneof![
        3 => Just(OwnSocketState::Ours),
        1 => Just(OwnSocketState::Missing),
        1 => any::<bool>().prop_map(|alive| OwnSocketState::Foreign { alive }),
    ];
    let kubelet = prop_oneof![Just(None), Just(Some(OLD)), Just(Some(NEW))];
    let bind = prop_oneof![Just(BindOutcome::Bound), Just(BindOutcome::Failed)];
    let outcome = prop_oneof![
        Just(None),
        Just(Some(RegisterOutcome::Accepted)),
        Just(Some(RegisterOutcome::Refused)),
        Just(Some(RegisterOutcome::TimedOut)),
    ];
    let observed = (own_socket, kubelet, 0..3_usize, any::<bool>());
    (0..3000_u64, observed, bind, outcome).prop_map(|(lasts, observed, bind, outcome)| {
        let (own_socket, kubelet, streams, lost_stream) = observed;
        Phase { lasts: ms(lasts), own_socket, kubelet, streams, lost_stream, bind, outcome }
    })
}

/// At most so many actions are taken while nothing changes and no time passes.
const MAX_ACTIONS_AT_ONCE: usize = 6;
/// How often the driver observes without a hint.
const POLL_INTERVAL: Duration = ms(500);

/// A driver with a clock of its own. It checks the order of actions: no registration without a
/// server, no second server.
struct Model {
    session: Session,
    now: Duration,
    serves: bool,
    calling: bool,
    actions_at_once: usize,
}

impl Model {
    fn act(&mut self, observation: Observation, bind: BindOutcome) -> Action {
        self.actions_at_once += 1;
        assert!(self.actions_at_once <= MAX_ACTIONS_AT_ONCE, "it spins: {:?}", self.session);
        let action = self.session.next(observation, self.now);
        match action {
            Action::Bind => {
                assert!(!self.serves, "two servers");
                self.serves = bind == BindOutcome::Bound;
                self.session.bound(bind, self.now);
            }
            Action::Register { .. } => {
                assert!(self.serves, "the kubelet has nobody to call back");
                self.calling = true;
            }
            Action::Close(_) => {
                assert!(self.serves, "there is nothing to close");
                (self.serves, self.calling) = (false, false);
            }
            Action::Wait { .. } => {}
        }
        action
    }

    fn end_call(&mut self, outcome: Option<RegisterOutcome>) {
        if let Some(outcome) = outcome.filter(|_| self.calling) {
            self.calling = false;
            self.session.registered(outcome, self.now);
            self.actions_at_once = 0;
        }
    }

    fn advance_to(&mut self, time: Duration) {
        assert!(time > self.now, "a wait that is over: {:?}", self.session);
        self.now = time;
        self.actions_at_once = 0;
    }

    /// Lives through a phase, polling.
    fn live(&mut self, phase: &Phase) {
        let end = self.now + phase.lasts;
        self.actions_at_once = 0;
        while self.now < end {
            let Phase { own_socket, kubelet, streams, lost_stream, .. } = *phase;
            let observation = Observation { own_socket, kubelet, streams, lost_stream };
            let action = self.act(observation, phase.bind);
            self.end_call(phase.outcome);
            if let Action::Wait { until } = action {
                let latest = self.now + POLL_INTERVAL;
                self.advance_to(until.unwrap_or(latest).min(latest).min(end));
            }
        }
    }

    /// From now on all succeeds: what is bound is there, Register is accepted at once, and each
    /// registration opens a stream, also one that was accepted before. A call from before fails, and
    /// a stream from before is lost. Returns how long it took until it streams.
    fn recover(&mut self) -> Duration {
        let began = self.now;
        let mut lost_stream = self.session.is_streaming();
        let mut streams = usize::from(matches!(self.session.state, State::Registered { .. }));
        self.end_call(Some(RegisterOutcome::Refused));
        self.actions_at_once = 0;
        while !(self.session.is_streaming() && streams > 0) {
            let own_socket =
                if self.serves { OwnSocketState::Ours } else { OwnSocketState::Missing };
            let observation = Observation { own_socket, kubelet: Some(NEW), streams, lost_stream };
            match self.act(observation, BindOutcome::Bound) {
                Action::Bind | Action::Close(_) => (streams, lost_stream) = (0, false),
                Action::Register { .. } => {
                    self.end_call(Some(RegisterOutcome::Accepted));
                    streams += 1;
                }
                Action::Wait { until } => {
                    let latest = self.now + POLL_INTERVAL;
                    self.advance_to(until.unwrap_or(latest).min(latest));
                }
            }
            assert!(self.now < began + ms(60_000), "lost: {:?}", self.session);
        }
        self.now.saturating_sub(began)
    }

    /// The kubelet dies; later, a new one removes all sockets and serves. The session registers with
    /// it before any time passes, unless it yielded to another instance.
    fn kubelet_restarts(&mut self, away_for: Duration) {
        let lost_stream = self.session.is_streaming();
        let gone = Phase {
            lasts: away_for,
            own_socket: OwnSocketState::Missing,
            kubelet: None,
            streams: 0,
            lost_stream,
            bind: BindOutcome::Failed,
            outcome: Some(RegisterOutcome::Refused),
        };
        self.live(&gone);
        let began = self.now;
        let mut own_socket = OwnSocketState::Missing;
        loop {
            let observation = Observation { own_socket, kubelet: Some(THIRD), ..READY };
            match self.act(observation, BindOutcome::Bound) {
                Action::Register { .. } => break,
                Action::Bind => own_socket = OwnSocketState::Ours,
                Action::Close(_) => {}
                Action::Wait { until } => {
                    assert!(self.session.has_yielded(), "it waits: {:?}", self.session);
                    self.advance_to(until.expect("the other instance is gone"));
                }
            }
        }
        assert!(self.now <= began + TAKEOVER_DELAY, "{:?}", self.session);
    }
}

/// None of those that the random phases have.
const THIRD: SocketIdentity = SocketIdentity { device: 1, inode: 10, modified: 300 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn whatever_happened_it_streams_within_a_second_once_all_is_well(
        seed: u64,
        phases in prop::collection::vec(phase(), 0..12),
    ) {
        let (session, now) = (Session::new(seed), Duration::ZERO);
        let mut model = Model { session, now, serves: false, calling: false, actions_at_once: 0 };
        for phase in &phases {
            model.live(phase);
        }
        let took = model.recover();
        prop_assert!(took <= ms(1000), "{took:?}");
    }

    #[test]
    fn whatever_happened_a_kubelet_that_starts_is_registered_with_before_any_time_passes(
        seed: u64,
        phases in prop::collection::vec(phase(), 0..12),
        away_for in 0..3000_u64,
    ) {
        let (session, now) = (Session::new(seed), Duration::ZERO);
        let mut model = Model { session, now, serves: false, calling: false, actions_at_once: 0 };
        for phase in &phases {
            model.live(phase);
        }
        model.kubelet_restarts(ms(away_for));
    }
}
