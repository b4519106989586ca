//! A model of the node that lets everything fail at random, then lets all succeed.

use proptest::prelude::*;

use super::*;

/// What the registration meets while faults last.
#[derive(Clone, Debug)]
struct Phase {
    lasts: Duration,
    observation: RegistrationObservation,
    bind: BindOutcome,
}

fn own_socket() -> impl Strategy<Value = OwnSocketState> {
    prop_oneof![
        3 => Just(OwnSocketState::Ours),
        1 => Just(OwnSocketState::Missing),
        1 => any::<bool>().prop_map(|alive| OwnSocketState::Foreign { alive }),
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    let handshake = prop_oneof![
        Just(Handshake::NoCall),
        Just(Handshake::InfoRead),
        Just(Handshake::Registered),
        Just(Handshake::Refused),
    ];
    let bind = prop_oneof![Just(BindOutcome::Bound), Just(BindOutcome::Failed)];
    let observed = (own_socket(), own_socket(), handshake, any::<bool>());
    (0..5000_u64, observed, bind).prop_map(|(lasts, observed, bind)| {
        let (service, registration, handshake, is_connected) = observed;
        let observation =
            RegistrationObservation { service, registration, handshake, is_connected };
        Phase { lasts: ms(lasts), observation, bind }
    })
}

/// At most so many actions are taken while nothing changes and no time passes.
const MAX_ACTIONS_AT_ONCE: usize = 8;
/// How often the driver observes without a hint.
const POLL_INTERVAL: Duration = ms(500);

/// A driver with a clock of its own. It checks the order of actions: no second server at one socket,
/// no registration socket without a service, nothing closed that does not run.
struct Model {
    machine: Registration,
    now: Duration,
    is_served: bool,
    is_announced: bool,
    actions_at_once: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let machine = Registration::new(seed);
        Self { machine, now: ms(0), is_served: false, is_announced: false, actions_at_once: 0 }
    }

    fn act(
        &mut self,
        observation: RegistrationObservation,
        bind: BindOutcome,
    ) -> RegistrationAction {
        self.actions_at_once += 1;
        assert!(self.actions_at_once <= MAX_ACTIONS_AT_ONCE, "it spins: {:?}", self.machine);
        let action = self.machine.next(observation, self.now);
        match action {
            RegistrationAction::Serve { socket, .. } => {
                assert!(!*self.runs(socket), "two servers");
                if socket == DraSocket::Registration {
                    assert!(self.is_served, "the kubelet would dial nobody");
                }
                *self.runs(socket) = bind == BindOutcome::Bound;
                self.machine.bound(socket, bind, self.now);
            }
            RegistrationAction::Close(socket, _) => {
                assert!(*self.runs(socket), "there is nothing to close");
                *self.runs(socket) = false;
            }
            RegistrationAction::Wait { .. } => {}
        }
        action
    }

    fn runs(&mut self, socket: DraSocket) -> &mut bool {
        match socket {
            DraSocket::Service => &mut self.is_served,
            DraSocket::Registration => &mut self.is_announced,
        }
    }

    fn advance_to(&mut self, time: Duration) {
        assert!(time > self.now, "a wait that is over: {:?}", self.machine);
        self.now = time;
        self.actions_at_once = 0;
    }

    /// Lives through a phase, polling.
    fn live(&mut self, phase: &Phase) {
        let end = self.now + phase.lasts;
        self.actions_at_once = 0;
        while self.now < end {
            if let RegistrationAction::Wait { until } = self.act(phase.observation, phase.bind) {
                let latest = self.now + POLL_INTERVAL;
                self.advance_to(until.unwrap_or(latest).min(latest).min(end));
            }
        }
    }

    /// From now on all succeeds: what is bound is there, no other instance is. Returns how long it
    /// took until both are served and the machine waits.
    fn recover(&mut self) -> Duration {
        let began = self.now;
        self.actions_at_once = 0;
        loop {
            let at = |runs| if runs { OwnSocketState::Ours } else { OwnSocketState::Missing };
            let observation = RegistrationObservation {
                service: at(self.is_served),
                registration: at(self.is_announced),
                ..SERVED
            };
            if let RegistrationAction::Wait { until } = self.act(observation, BindOutcome::Bound) {
                if self.is_served && self.is_announced {
                    return self.now.saturating_sub(began);
                }
                let latest = self.now + POLL_INTERVAL;
                self.advance_to(until.unwrap_or(latest).min(latest));
            }
            assert!(self.now < began + ms(60_000), "lost: {:?}", self.machine);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn whatever_happened_both_sockets_are_served_within_a_second_once_all_is_well(
        seed: u64,
        phases in prop::collection::vec(phase(), 0..12),
    ) {
        let mut model = Model::new(seed);
        for phase in &phases {
            model.live(phase);
        }
        let took = model.recover();
        prop_assert!(took <= ms(1000), "{took:?}");
    }
}
