//! The rules of the machine one by one, then a model of the world that holds its invariant.

use proptest::prelude::*;

use super::*;

const OLD: SocketIdentity = SocketIdentity { device: 1, inode: 10, modified: 100 };
const NEW: SocketIdentity = SocketIdentity { device: 1, inode: 11, modified: 200 };

/// Our socket in its place and a kubelet, but no stream yet.
const READY: Sight =
    Sight { own_socket: OwnSocket::Ours, kubelet: Some(OLD), streams: 0, lost_stream: false };
const STREAMING: Sight = Sight { streams: 1, ..READY };
const NO_KUBELET: Sight = Sight { kubelet: None, ..READY };
const WIPED: Sight = Sight { own_socket: OwnSocket::Missing, ..READY };
const OTHER_INSTANCE: Sight = Sight { own_socket: OwnSocket::Foreign { alive: true }, ..READY };
const DEAD_SOCKET: Sight = Sight { own_socket: OwnSocket::Foreign { alive: false }, ..READY };

const WAIT_FOR_A_HINT: Step = Step::Wait { until: None };

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn serving() -> Session {
    let mut session = Session::new(7);
    assert_eq!(session.next(WIPED, ms(0)), Step::Bind);
    session.bound(true, WIPED, ms(0));
    session
}

fn registering() -> Session {
    let mut session = serving();
    assert!(matches!(session.next(READY, ms(0)), Step::Register { .. }));
    session
}

fn registered() -> Session {
    let mut session = registering();
    session.registered(Answer::Accepted, ms(0));
    session
}

fn streaming() -> Session {
    let mut session = registered();
    assert_eq!(session.next(STREAMING, ms(0)), WAIT_FOR_A_HINT);
    assert!(session.is_streaming());
    session
}

fn yielded() -> Session {
    let mut session = streaming();
    assert_eq!(session.next(OTHER_INSTANCE, ms(0)), Step::Close(Reason::Yielding));
    assert!(session.has_yielded());
    session
}

/// When the machine wants to be asked again.
#[track_caller]
fn waits_until(step: Step) -> Duration {
    match step {
        Step::Wait { until: Some(until) } => until,
        other => panic!("{other:?} is no wait for a time"),
    }
}

#[test]
fn a_session_that_keeps_falling_is_said_a_few_times_and_then_once_a_minute_until_it_was_steady() {
    let (mut session, mut now, mut said) = (Session::new(7), ms(0), 0);
    let mut falls_after = |lasts, now| {
        session.bound(true, WIPED, now);
        assert!(matches!(session.next(READY, now), Step::Register { .. }));
        session.registered(Answer::Accepted, now);
        assert_eq!(session.next(STREAMING, now), WAIT_FOR_A_HINT);
        assert_eq!(session.next(READY, now + lasts), Step::Close(Reason::StreamEnded));
        (session.is_worth_saying(now + lasts), session.next(WIPED, now + lasts))
    };
    while now < Duration::from_secs(600) {
        let (is_said, wait) = falls_after(ms(0), now);
        (said, now) = (said + u32::from(is_said), waits_until(wait));
    }
    assert!((SAID + 9..=SAID + 10).contains(&said), "{said}");
    assert_eq!(falls_after(STEADY, now), (true, Step::Bind));
}

#[test]
fn it_serves_before_it_registers() {
    let mut session = Session::new(7);
    assert_eq!(session.next(WIPED, ms(0)), Step::Bind);
    session.bound(true, WIPED, ms(0));
    assert_eq!(session.next(READY, ms(0)), Step::Register { patience: ms(500) });
}

#[test]
fn it_serves_while_the_kubelet_is_away_and_registers_as_soon_as_it_comes() {
    let mut session = serving();
    assert_eq!(session.next(NO_KUBELET, ms(0)), WAIT_FOR_A_HINT);
    assert_eq!(session.next(NO_KUBELET, ms(600_000)), WAIT_FOR_A_HINT);
    assert!(matches!(session.next(READY, ms(600_000)), Step::Register { .. }));
}

#[test]
fn a_newer_instance_takes_the_place_of_an_older_one() {
    assert_eq!(Session::new(7).next(OTHER_INSTANCE, ms(0)), Step::Bind);
}

#[test]
fn a_failed_bind_is_tried_again_after_a_wait_that_grows_to_half_a_second() {
    let (mut session, mut now, mut waits) = (Session::new(7), ms(0), Vec::new());
    for _ in 0..12 {
        assert_eq!(session.next(WIPED, now), Step::Bind);
        session.bound(false, WIPED, now);
        let until = waits_until(session.next(WIPED, now));
        waits.push(until.saturating_sub(now));
        now = until;
    }
    assert!(waits[0] >= ms(5) && waits[0] <= ms(10), "{waits:?}");
    assert!(waits[11] >= ms(250) && waits[11] <= ms(500), "{waits:?}");
}

#[test]
fn a_kubelet_that_has_just_come_ends_the_wait_after_a_failed_bind() {
    let mut session = Session::new(7);
    session.bound(false, WIPED, ms(0));
    waits_until(session.next(WIPED, ms(0)));
    assert_eq!(session.next(Sight { kubelet: Some(NEW), ..WIPED }, ms(0)), Step::Bind);
}

#[test]
fn one_call_is_under_way_at_a_time() {
    assert_eq!(registering().next(READY, ms(400)), WAIT_FOR_A_HINT);
}

#[test]
fn a_refused_registration_is_tried_again_after_a_wait() {
    let mut session = registering();
    session.registered(Answer::Refused, ms(0));
    let until = waits_until(session.next(READY, ms(0)));
    assert!(until >= ms(5) && until <= ms(10), "{until:?}");
    assert_eq!(session.next(READY, until), Step::Register { patience: ms(500) });
}

#[test]
fn another_kubelet_ends_the_wait_after_a_refusal() {
    let mut session = registering();
    session.registered(Answer::Refused, ms(0));
    let step = session.next(Sight { kubelet: Some(NEW), ..READY }, ms(0));
    assert_eq!(step, Step::Register { patience: ms(500) });
}

#[test]
fn another_kubelet_ends_a_call_that_is_under_way() {
    let step = registering().next(Sight { kubelet: Some(NEW), ..READY }, ms(1));
    assert_eq!(step, Step::Register { patience: ms(500) });
}

#[test]
fn a_silent_kubelet_gets_more_time_with_each_call_up_to_sixteen_seconds() {
    let (mut session, mut now, mut patiences) = (serving(), ms(0), Vec::new());
    for _ in 0..8 {
        let Step::Register { patience } = session.next(READY, now) else { panic!("no call") };
        patiences.push(patience.as_millis());
        session.registered(Answer::Silent, now);
        now = waits_until(session.next(READY, now));
    }
    assert_eq!(patiences, [500, 1000, 2000, 4000, 8000, 16_000, 16_000, 16_000]);
}

#[test]
fn a_refusal_is_an_answer_and_restores_the_first_patience() {
    let mut session = registering();
    session.registered(Answer::Silent, ms(0));
    let now = waits_until(session.next(READY, ms(0)));
    assert_eq!(session.next(READY, now), Step::Register { patience: ms(1000) });
    session.registered(Answer::Refused, now);
    let now = waits_until(session.next(READY, now));
    assert_eq!(session.next(READY, now), Step::Register { patience: ms(500) });
}

#[test]
fn a_late_answer_changes_nothing() {
    for answer in [Answer::Accepted, Answer::Refused, Answer::Silent] {
        for (mut session, sight) in [(streaming(), STREAMING), (registered(), READY)] {
            let before = format!("{session:?}");
            session.registered(answer, ms(10));
            assert_eq!(format!("{session:?}"), before, "{answer:?} at {sight:?}");
        }
    }
}

#[test]
fn a_stream_of_a_call_that_was_given_up_is_as_good_as_any() {
    let mut session = registering();
    session.registered(Answer::Silent, ms(500));
    assert_eq!(session.next(STREAMING, ms(501)), WAIT_FOR_A_HINT);
    assert!(session.is_streaming());
}

#[test]
fn a_stream_that_opens_before_the_answer_is_a_stream() {
    let mut session = registering();
    assert_eq!(session.next(STREAMING, ms(1)), WAIT_FOR_A_HINT);
    assert!(session.is_streaming());
}

#[test]
fn without_a_stream_by_the_deadline_it_starts_again_with_longer_patience() {
    let (mut session, mut now, mut patiences) = (registered(), ms(0), Vec::new());
    for _ in 0..7 {
        let stream_by = waits_until(session.next(READY, now));
        patiences.push(stream_by.saturating_sub(now).as_millis());
        assert_eq!(session.next(READY, stream_by), Step::Close(Reason::NoStream));
        now = waits_until(session.next(WIPED, stream_by));
        assert_eq!(session.next(WIPED, now), Step::Bind);
        session.bound(true, WIPED, now);
        assert!(matches!(session.next(READY, now), Step::Register { .. }));
        session.registered(Answer::Accepted, now);
    }
    assert_eq!(patiences, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
}

#[test]
fn a_steady_stream_that_ends_is_followed_by_a_new_session_at_once() {
    let mut session = streaming();
    assert_eq!(session.next(READY, ms(1000)), Step::Close(Reason::StreamEnded));
    assert_eq!(session.next(WIPED, ms(1000)), Step::Bind);
}

#[test]
fn streams_that_never_last_are_opened_at_longer_and_longer_intervals() {
    let (mut session, mut now, mut waits) = (streaming(), ms(0), Vec::new());
    for _ in 0..12 {
        assert_eq!(session.next(READY, now), Step::Close(Reason::StreamEnded));
        let until = waits_until(session.next(WIPED, now));
        waits.push(until.saturating_sub(now));
        now = until;
        assert_eq!(session.next(WIPED, now), Step::Bind);
        session.bound(true, WIPED, now);
        assert!(matches!(session.next(READY, now), Step::Register { .. }));
        session.registered(Answer::Accepted, now);
        assert_eq!(session.next(STREAMING, now), WAIT_FOR_A_HINT);
    }
    assert!(waits[0] <= ms(10) && waits[11] >= ms(250), "{waits:?}");
}

#[test]
fn a_steady_stream_makes_earlier_failures_forgotten() {
    let mut session = Session::new(7);
    for _ in 0..20 {
        session.bound(false, WIPED, ms(0));
    }
    session.bound(true, WIPED, ms(0));
    session.next(STREAMING, ms(0));
    assert_eq!(session.next(READY, ms(2000)), Step::Close(Reason::StreamEnded));
    session.bound(false, WIPED, ms(2000));
    assert!(waits_until(session.next(WIPED, ms(2000))) <= ms(2010));
}

#[test]
fn a_lost_stream_is_noticed_while_a_leaked_one_is_open() {
    let leaked = Sight { lost_stream: true, ..STREAMING };
    assert_eq!(streaming().next(leaked, ms(1)), Step::Close(Reason::StreamEnded));
}

#[test]
fn a_stream_that_opened_and_ended_between_two_looks_is_a_lost_one() {
    let missed = Sight { lost_stream: true, ..READY };
    assert_eq!(registered().next(missed, ms(1)), Step::Close(Reason::StreamEnded));
}

#[test]
fn a_kubelet_that_comes_anew_ends_what_the_old_one_accepted() {
    let other = Sight { kubelet: Some(NEW), ..READY };
    assert_eq!(registered().next(other, ms(1)), Step::Close(Reason::KubeletRestarted));
    let other = Sight { kubelet: Some(NEW), ..STREAMING };
    assert_eq!(streaming().next(other, ms(1)), Step::Close(Reason::KubeletRestarted));
}

#[test]
fn a_kubelet_whose_socket_is_away_ends_nothing_while_its_stream_is_open() {
    assert_eq!(streaming().next(Sight { kubelet: None, ..STREAMING }, ms(1)), WAIT_FOR_A_HINT);
}

#[test]
fn a_socket_that_is_gone_or_dead_ends_every_state_that_serves() {
    for state in [serving, registering, registered, streaming] {
        for (sight, reason) in
            [(WIPED, Reason::OwnSocketGone), (DEAD_SOCKET, Reason::OwnSocketReplaced)]
        {
            let sight = Sight { streams: 1, ..sight };
            assert_eq!(state().next(sight, ms(1)), Step::Close(reason), "{:?}", state());
        }
    }
}

#[test]
fn an_older_instance_keeps_its_stream_while_it_lasts_and_then_yields() {
    let mut session = streaming();
    assert_eq!(session.next(Sight { streams: 1, ..OTHER_INSTANCE }, ms(1)), WAIT_FOR_A_HINT);
    assert!(session.is_streaming());
    assert_eq!(session.next(OTHER_INSTANCE, ms(2)), Step::Close(Reason::Yielding));
}

#[test]
fn a_leaked_stream_does_not_keep_an_older_instance_from_yielding() {
    let leaked = Sight { streams: 1, lost_stream: true, ..OTHER_INSTANCE };
    assert_eq!(streaming().next(leaked, ms(1)), Step::Close(Reason::Yielding));
}

#[test]
fn an_instance_that_is_replaced_before_it_streams_yields() {
    for state in [serving, registering, registered] {
        assert_eq!(state().next(OTHER_INSTANCE, ms(1)), Step::Close(Reason::Yielding));
    }
}

#[test]
fn who_yielded_takes_over_when_nobody_has_answered_for_a_moment() {
    for gone in [WIPED, DEAD_SOCKET] {
        let mut session = yielded();
        assert_eq!(session.next(OTHER_INSTANCE, ms(60_000)), WAIT_FOR_A_HINT);
        assert_eq!(waits_until(session.next(gone, ms(60_000))), ms(60_100));
        assert_eq!(session.next(gone, ms(60_100)), Step::Bind);
    }
}

#[test]
fn a_newer_instance_that_starts_its_session_again_keeps_its_place() {
    let mut session = yielded();
    assert_eq!(waits_until(session.next(WIPED, ms(1))), ms(101));
    assert_eq!(session.next(OTHER_INSTANCE, ms(50)), WAIT_FOR_A_HINT);
    assert_eq!(waits_until(session.next(WIPED, ms(90))), ms(190));
}

#[test]
fn an_older_instance_lets_the_newer_go_first_when_the_kubelet_wipes_both_sockets() {
    let mut session = streaming();
    session.next(Sight { streams: 1, ..OTHER_INSTANCE }, ms(1));
    assert_eq!(session.next(WIPED, ms(2)), Step::Close(Reason::OwnSocketGone));
    assert!(session.has_yielded());
    assert_eq!(waits_until(session.next(WIPED, ms(2))), ms(102));
}

#[test]
fn who_yielded_and_cannot_bind_still_does_not_fight() {
    let mut session = yielded();
    session.next(WIPED, ms(0));
    assert_eq!(session.next(WIPED, ms(100)), Step::Bind);
    session.bound(false, WIPED, ms(100));
    let until = waits_until(session.next(WIPED, ms(100)));
    assert_eq!(session.next(OTHER_INSTANCE, until), WAIT_FOR_A_HINT);
}

/// What the world does to the session while faults last.
#[derive(Clone, Debug)]
struct Moment {
    lasts: Duration,
    own_socket: OwnSocket,
    kubelet: Option<SocketIdentity>,
    streams: usize,
    lost_stream: bool,
    binds: bool,
    answer: Option<Answer>,
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
        Just(Some(Answer::Accepted)),
        Just(Some(Answer::Refused)),
        Just(Some(Answer::Silent)),
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
    fn step(&mut self, sight: Sight, binds: bool) -> Step {
        self.steps_at_once += 1;
        assert!(self.steps_at_once <= STEPS_AT_ONCE, "it spins: {:?}", self.session);
        let step = self.session.next(sight, self.now);
        match step {
            Step::Bind => {
                assert!(!self.serves, "two servers");
                self.serves = binds;
                self.session.bound(binds, sight, self.now);
            }
            Step::Register { .. } => {
                assert!(self.serves, "the kubelet has nobody to call back");
                self.calling = true;
            }
            Step::Close(_) => {
                assert!(self.serves, "there is nothing to close");
                (self.serves, self.calling) = (false, false);
            }
            Step::Wait { .. } => {}
        }
        step
    }

    fn answer(&mut self, answer: Option<Answer>) {
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
            let sight = Sight { own_socket, kubelet, streams, lost_stream };
            let step = self.step(sight, moment.binds);
            self.answer(moment.answer);
            if let Step::Wait { until } = step {
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
        self.answer(Some(Answer::Refused));
        self.steps_at_once = 0;
        while !(self.session.is_streaming() && streams > 0) {
            let own_socket = if self.serves { OwnSocket::Ours } else { OwnSocket::Missing };
            let sight = Sight { own_socket, kubelet: Some(NEW), streams, lost_stream };
            match self.step(sight, true) {
                Step::Bind | Step::Close(_) => (streams, lost_stream) = (0, false),
                Step::Register { .. } => {
                    self.answer(Some(Answer::Accepted));
                    streams += 1;
                }
                Step::Wait { until } => {
                    let latest = self.now + LOOK;
                    self.pass_until(until.unwrap_or(latest).min(latest));
                }
            }
            assert!(self.now < began + ms(60_000), "lost: {:?}", self.session);
        }
        self.now.saturating_sub(began)
    }
}

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
}
