//! A model of the kubelet and of the machine that treats the session badly, then well.

use proptest::prelude::*;

use super::*;

/// What the world does to the session while faults last.
#[derive(Clone, Debug)]
struct Moment {
    lasts: Duration,
    own_socket: OwnSocket,
    kubelet: Option<SocketIdentity>,
    streams: usize,
    lost_stream: bool,
    binds: bool,
    answer: Option<RegisterOutcome>,
}

fn moment() -> impl Strategy<Value = Moment> {
    let own_socket = prop_oneof![
        3 => Just(OwnSocket::Ours),
        1 => Just(OwnSocket::Missing),
        1 => any::<bool>().prop_map(|alive| OwnSocket::Foreign { alive }),
    ];
    let kubelet = prop_oneof![Just(None), Just(Some(OLD)), Just(Some(NEW))];
    let answer = prop_oneof![
        Just(None),
        Just(Some(RegisterOutcome::Accepted)),
        Just(Some(RegisterOutcome::Refused)),
        Just(Some(RegisterOutcome::TimedOut)),
    ];
    let world = (own_socket, kubelet, 0..3_usize, any::<bool>());
    (0..3000_u64, world, any::<bool>(), answer).prop_map(|(lasts, world, binds, answer)| {
        let (own_socket, kubelet, streams, lost_stream) = world;
        Moment { lasts: ms(lasts), own_socket, kubelet, streams, lost_stream, binds, answer }
    })
}

/// At most so many steps are taken while nothing in the world changes and no time passes.
const STEPS_AT_ONCE: usize = 6;
/// How often the driver looks when it hears nothing.
const LOOK: Duration = ms(500);

/// A driver with a clock of its own. It checks the order of steps: no registration without a
/// server, no second server.
struct Model {
    session: Session,
    now: Duration,
    serves: bool,
    calling: bool,
    steps_at_once: usize,
}

impl Model {
    fn step(&mut self, observation: Observation, binds: bool) -> Action {
        self.steps_at_once += 1;
        assert!(self.steps_at_once <= STEPS_AT_ONCE, "it spins: {:?}", self.session);
        let step = self.session.next(observation, self.now);
        match step {
            Action::Bind => {
                assert!(!self.serves, "two servers");
                self.serves = binds;
                self.session.bound(binds, self.now);
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
        step
    }

    fn answer(&mut self, answer: Option<RegisterOutcome>) {
        if let Some(answer) = answer.filter(|_| self.calling) {
            self.calling = false;
            self.session.registered(answer, self.now);
            self.steps_at_once = 0;
        }
    }

    fn pass_until(&mut self, moment: Duration) {
        assert!(moment > self.now, "a wait that is over: {:?}", self.session);
        self.now = moment;
        self.steps_at_once = 0;
    }

    /// Lives through a moment, with looks at intervals.
    fn live(&mut self, moment: &Moment) {
        let end = self.now + moment.lasts;
        self.steps_at_once = 0;
        while self.now < end {
            let Moment { own_socket, kubelet, streams, lost_stream, .. } = *moment;
            let observation = Observation { own_socket, kubelet, streams, lost_stream };
            let step = self.step(observation, moment.binds);
            self.answer(moment.answer);
            if let Action::Wait { until } = step {
                let latest = self.now + LOOK;
                self.pass_until(until.unwrap_or(latest).min(latest).min(end));
            }
        }
    }

    /// From now on all is well: what is bound is there, Register is accepted at once, and each
    /// registration opens a stream, also one that was accepted before. A call from before is cut,
    /// and a stream from before is lost. Returns when it streams.
    fn recover(&mut self) -> Duration {
        let began = self.now;
        let mut lost_stream = self.session.is_streaming();
        let mut streams = usize::from(matches!(self.session.state, State::Registered { .. }));
        self.answer(Some(RegisterOutcome::Refused));
        self.steps_at_once = 0;
        while !(self.session.is_streaming() && streams > 0) {
            let own_socket = if self.serves { OwnSocket::Ours } else { OwnSocket::Missing };
            let observation = Observation { own_socket, kubelet: Some(NEW), streams, lost_stream };
            match self.step(observation, true) {
                Action::Bind | Action::Close(_) => (streams, lost_stream) = (0, false),
                Action::Register { .. } => {
                    self.answer(Some(RegisterOutcome::Accepted));
                    streams += 1;
                }
                Action::Wait { until } => {
                    let latest = self.now + LOOK;
                    self.pass_until(until.unwrap_or(latest).min(latest));
                }
            }
            assert!(self.now < began + ms(60_000), "lost: {:?}", self.session);
        }
        self.now.saturating_sub(began)
    }

    /// The kubelet dies; later, a new one removes all sockets and serves. Whoever gave way to
    /// another instance excepted, the session registers with it before any time passes.
    fn kubelet_restarts(&mut self, away_for: Duration) {
        let lost_stream = self.session.is_streaming();
        let gone = Moment {
            lasts: away_for,
            own_socket: OwnSocket::Missing,
            kubelet: None,
            streams: 0,
            lost_stream,
            binds: false,
            answer: Some(RegisterOutcome::Refused),
        };
        self.live(&gone);
        let began = self.now;
        let mut own_socket = OwnSocket::Missing;
        loop {
            let observation = Observation { own_socket, kubelet: Some(THIRD), ..READY };
            match self.step(observation, true) {
                Action::Register { .. } => break,
                Action::Bind => own_socket = OwnSocket::Ours,
                Action::Close(_) => {}
                Action::Wait { until } => {
                    assert!(self.session.has_yielded(), "it waits: {:?}", self.session);
                    self.pass_until(until.expect("the other instance is gone"));
                }
            }
        }
        assert!(self.now <= began + PRECEDENCE, "{:?}", self.session);
    }
}

/// Neither of those that the random moments show.
const THIRD: SocketIdentity = SocketIdentity { device: 1, inode: 10, modified: 300 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn whatever_happened_it_streams_within_a_second_once_all_is_well(
        seed: u64,
        moments in prop::collection::vec(moment(), 0..12),
    ) {
        let (session, now) = (Session::new(seed), Duration::ZERO);
        let mut model = Model { session, now, serves: false, calling: false, steps_at_once: 0 };
        for moment in &moments {
            model.live(moment);
        }
        let took = model.recover();
        prop_assert!(took <= ms(1000), "{took:?}");
    }

    #[test]
    fn whatever_happened_a_kubelet_that_starts_is_registered_with_before_any_time_passes(
        seed: u64,
        moments in prop::collection::vec(moment(), 0..12),
        away_for in 0..3000_u64,
    ) {
        let (session, now) = (Session::new(seed), Duration::ZERO);
        let mut model = Model { session, now, serves: false, calling: false, steps_at_once: 0 };
        for moment in &moments {
            model.live(moment);
        }
        model.kubelet_restarts(ms(away_for));
    }
}
