//! The rules of the machine one by one; `random` checks its invariant against a model of the node.

mod new_kubelet;
mod random;

use super::*;

const OLD: SocketIdentity = SocketIdentity { device: 1, inode: 10, modified: 100 };
const NEW: SocketIdentity = SocketIdentity { device: 1, inode: 11, modified: 200 };

/// Our socket in its place and a kubelet, but no stream yet.
const READY: Observation = Observation {
    own_socket: OwnSocketState::Ours,
    kubelet: Some(OLD),
    streams: 0,
    lost_stream: false,
};
const STREAMING: Observation = Observation { streams: 1, ..READY };
const NO_KUBELET: Observation = Observation { kubelet: None, ..READY };
const WIPED: Observation = Observation { own_socket: OwnSocketState::Missing, ..READY };
const OTHER_INSTANCE: Observation =
    Observation { own_socket: OwnSocketState::Foreign { alive: true }, ..READY };
const DEAD_SOCKET: Observation =
    Observation { own_socket: OwnSocketState::Foreign { alive: false }, ..READY };

const WAIT_FOR_A_HINT: Action = Action::Wait { until: None };

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn serving() -> Session {
    let mut session = Session::new(7);
    assert_eq!(session.next(WIPED, ms(0)), Action::Bind);
    session.bound(BindOutcome::Bound, ms(0));
    session
}

fn registering() -> Session {
    let mut session = serving();
    assert!(matches!(session.next(READY, ms(0)), Action::Register { .. }));
    session
}

fn registered() -> Session {
    let mut session = registering();
    session.registered(RegisterOutcome::Accepted, ms(0));
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
    assert_eq!(session.next(OTHER_INSTANCE, ms(0)), Action::Close(RestartReason::Yielding));
    assert!(session.has_yielded());
    session
}

/// When the session acts again at the latest.
#[track_caller]
fn waits_until(action: Action) -> Duration {
    match action {
        Action::Wait { until: Some(until) } => until,
        other => panic!("{other:?} is not a wait with an end"),
    }
}

#[test]
fn it_serves_before_it_registers() {
    let mut session = Session::new(7);
    assert_eq!(session.next(WIPED, ms(0)), Action::Bind);
    session.bound(BindOutcome::Bound, ms(0));
    assert_eq!(session.next(READY, ms(0)), Action::Register { timeout: ms(500) });
}

#[test]
fn it_serves_while_the_kubelet_is_away_and_registers_when_it_starts() {
    let mut session = serving();
    assert_eq!(session.next(NO_KUBELET, ms(0)), WAIT_FOR_A_HINT);
    assert_eq!(session.next(NO_KUBELET, ms(600_000)), WAIT_FOR_A_HINT);
    assert!(matches!(session.next(READY, ms(600_000)), Action::Register { .. }));
}

#[test]
fn a_newer_instance_replaces_an_older_one() {
    assert_eq!(Session::new(7).next(OTHER_INSTANCE, ms(0)), Action::Bind);
}

#[test]
fn a_failed_bind_is_tried_again_after_a_wait_that_grows_to_half_a_second() {
    let (mut session, mut now, mut waits) = (Session::new(7), ms(0), Vec::new());
    for _ in 0..12 {
        assert_eq!(session.next(WIPED, now), Action::Bind);
        session.bound(BindOutcome::Failed, now);
        let until = waits_until(session.next(WIPED, now));
        waits.push(until.saturating_sub(now));
        now = until;
    }
    assert!(waits[0] >= ms(5) && waits[0] <= ms(10), "{waits:?}");
    assert!(waits[11] >= ms(250) && waits[11] <= ms(500), "{waits:?}");
}

#[test]
fn a_new_kubelet_ends_the_wait_after_a_failed_bind() {
    let mut session = Session::new(7);
    assert_eq!(session.next(WIPED, ms(0)), Action::Bind);
    session.bound(BindOutcome::Failed, ms(0));
    waits_until(session.next(WIPED, ms(0)));
    assert_eq!(session.next(Observation { kubelet: Some(NEW), ..WIPED }, ms(0)), Action::Bind);
}

#[test]
fn one_call_is_in_progress_at_a_time() {
    assert_eq!(registering().next(READY, ms(400)), WAIT_FOR_A_HINT);
}

#[test]
fn a_refused_registration_is_tried_again_after_a_wait() {
    let mut session = registering();
    session.registered(RegisterOutcome::Refused, ms(0));
    let until = waits_until(session.next(READY, ms(0)));
    assert!(until >= ms(5) && until <= ms(10), "{until:?}");
    assert_eq!(session.next(READY, until), Action::Register { timeout: ms(500) });
}

#[test]
fn another_kubelet_ends_the_wait_after_a_refusal() {
    let mut session = registering();
    session.registered(RegisterOutcome::Refused, ms(0));
    let action = session.next(Observation { kubelet: Some(NEW), ..READY }, ms(0));
    assert_eq!(action, Action::Register { timeout: ms(500) });
}

#[test]
fn another_kubelet_ends_a_call_that_is_in_progress() {
    let action = registering().next(Observation { kubelet: Some(NEW), ..READY }, ms(1));
    assert_eq!(action, Action::Register { timeout: ms(500) });
}

#[test]
fn a_kubelet_that_does_not_answer_gets_more_time_with_each_call_up_to_sixteen_seconds() {
    let (mut session, mut now, mut timeouts) = (serving(), ms(0), Vec::new());
    for _ in 0..8 {
        let Action::Register { timeout } = session.next(READY, now) else { panic!("no call") };
        timeouts.push(timeout.as_millis());
        session.registered(RegisterOutcome::TimedOut, now);
        now = waits_until(session.next(READY, now));
    }
    assert_eq!(timeouts, [500, 1000, 2000, 4000, 8000, 16_000, 16_000, 16_000]);
}

#[test]
fn after_a_refusal_the_first_timeout_holds_again() {
    let mut session = registering();
    session.registered(RegisterOutcome::TimedOut, ms(0));
    let now = waits_until(session.next(READY, ms(0)));
    assert_eq!(session.next(READY, now), Action::Register { timeout: ms(1000) });
    session.registered(RegisterOutcome::Refused, now);
    let now = waits_until(session.next(READY, now));
    assert_eq!(session.next(READY, now), Action::Register { timeout: ms(500) });
}

#[test]
fn a_late_outcome_changes_nothing() {
    let outcomes = [RegisterOutcome::Accepted, RegisterOutcome::Refused, RegisterOutcome::TimedOut];
    for outcome in outcomes {
        for (mut session, observation) in [(streaming(), STREAMING), (registered(), READY)] {
            let before = format!("{session:?}");
            session.registered(outcome, ms(10));
            assert_eq!(format!("{session:?}"), before, "{outcome:?} at {observation:?}");
        }
    }
}

#[test]
fn a_stream_of_a_call_that_was_given_up_is_as_good_as_any() {
    let mut session = registering();
    session.registered(RegisterOutcome::TimedOut, ms(500));
    assert_eq!(session.next(STREAMING, ms(501)), WAIT_FOR_A_HINT);
    assert!(session.is_streaming());
}

#[test]
fn a_stream_that_opens_before_register_returns_is_a_stream() {
    let mut session = registering();
    assert_eq!(session.next(STREAMING, ms(1)), WAIT_FOR_A_HINT);
    assert!(session.is_streaming());
}

#[test]
fn without_a_stream_by_the_deadline_it_starts_again_with_a_longer_timeout() {
    let (mut session, mut now, mut timeouts) = (registered(), ms(0), Vec::new());
    for _ in 0..7 {
        let stream_by = waits_until(session.next(READY, now));
        timeouts.push(stream_by.saturating_sub(now).as_millis());
        assert_eq!(session.next(READY, stream_by), Action::Close(RestartReason::NoStream));
        now = waits_until(session.next(WIPED, stream_by));
        assert_eq!(session.next(WIPED, now), Action::Bind);
        session.bound(BindOutcome::Bound, now);
        assert!(matches!(session.next(READY, now), Action::Register { .. }));
        session.registered(RegisterOutcome::Accepted, now);
    }
    assert_eq!(timeouts, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
}

#[test]
fn a_steady_stream_that_ends_is_followed_by_a_new_session_at_once() {
    let mut session = streaming();
    assert_eq!(session.next(READY, ms(1000)), Action::Close(RestartReason::StreamEnded));
    assert_eq!(session.next(WIPED, ms(1000)), Action::Bind);
}

#[test]
fn streams_that_never_last_are_opened_at_longer_and_longer_intervals() {
    let (mut session, mut now, mut waits) = (streaming(), ms(0), Vec::new());
    for _ in 0..12 {
        assert_eq!(session.next(READY, now), Action::Close(RestartReason::StreamEnded));
        let until = waits_until(session.next(WIPED, now));
        waits.push(until.saturating_sub(now));
        now = until;
        assert_eq!(session.next(WIPED, now), Action::Bind);
        session.bound(BindOutcome::Bound, now);
        assert!(matches!(session.next(READY, now), Action::Register { .. }));
        session.registered(RegisterOutcome::Accepted, now);
        assert_eq!(session.next(STREAMING, now), WAIT_FOR_A_HINT);
    }
    assert!(waits[0] <= ms(10) && waits[11] >= ms(250), "{waits:?}");
}

#[test]
fn a_steady_stream_resets_the_count_of_failures() {
    let mut session = Session::new(7);
    for _ in 0..20 {
        session.bound(BindOutcome::Failed, ms(0));
    }
    session.bound(BindOutcome::Bound, ms(0));
    session.next(STREAMING, ms(0));
    assert_eq!(session.next(READY, ms(2000)), Action::Close(RestartReason::StreamEnded));
    session.bound(BindOutcome::Failed, ms(2000));
    assert!(waits_until(session.next(WIPED, ms(2000))) <= ms(2010));
}

#[test]
fn a_lost_stream_is_noticed_while_a_leaked_one_is_open() {
    let leaked = Observation { lost_stream: true, ..STREAMING };
    assert_eq!(streaming().next(leaked, ms(1)), Action::Close(RestartReason::StreamEnded));
}

#[test]
fn a_stream_that_opened_and_ended_between_two_observations_is_a_lost_one() {
    let missed = Observation { lost_stream: true, ..READY };
    assert_eq!(registered().next(missed, ms(1)), Action::Close(RestartReason::StreamEnded));
}

#[test]
fn a_new_kubelet_ends_what_the_old_one_accepted() {
    let other = Observation { kubelet: Some(NEW), ..READY };
    assert_eq!(registered().next(other, ms(1)), Action::Close(RestartReason::KubeletRestarted));
    let other = Observation { kubelet: Some(NEW), ..STREAMING };
    assert_eq!(streaming().next(other, ms(1)), Action::Close(RestartReason::KubeletRestarted));
}

#[test]
fn a_missing_kubelet_socket_ends_nothing_while_the_stream_is_open() {
    assert_eq!(
        streaming().next(Observation { kubelet: None, ..STREAMING }, ms(1)),
        WAIT_FOR_A_HINT
    );
}

#[test]
fn a_socket_that_is_gone_or_dead_ends_every_state_that_serves() {
    for state in [serving, registering, registered, streaming] {
        for (observation, reason) in
            [(WIPED, RestartReason::OwnSocketGone), (DEAD_SOCKET, RestartReason::OwnSocketReplaced)]
        {
            let observation = Observation { streams: 1, ..observation };
            assert_eq!(state().next(observation, ms(1)), Action::Close(reason), "{:?}", state());
        }
    }
}

#[test]
fn an_older_instance_keeps_its_stream_while_it_lasts_and_then_yields() {
    let mut session = streaming();
    assert_eq!(session.next(Observation { streams: 1, ..OTHER_INSTANCE }, ms(1)), WAIT_FOR_A_HINT);
    assert!(session.is_streaming());
    assert_eq!(session.next(OTHER_INSTANCE, ms(2)), Action::Close(RestartReason::Yielding));
}

#[test]
fn a_leaked_stream_does_not_keep_an_older_instance_from_yielding() {
    let leaked = Observation { streams: 1, lost_stream: true, ..OTHER_INSTANCE };
    assert_eq!(streaming().next(leaked, ms(1)), Action::Close(RestartReason::Yielding));
}

#[test]
fn an_instance_that_is_replaced_before_it_streams_yields() {
    for state in [serving, registering, registered] {
        assert_eq!(state().next(OTHER_INSTANCE, ms(1)), Action::Close(RestartReason::Yielding));
    }
}

#[test]
fn an_instance_that_yielded_takes_over_when_nobody_has_accepted_connections_for_100_ms() {
    for gone in [WIPED, DEAD_SOCKET] {
        let mut session = yielded();
        assert_eq!(session.next(OTHER_INSTANCE, ms(60_000)), WAIT_FOR_A_HINT);
        assert_eq!(waits_until(session.next(gone, ms(60_000))), ms(60_100));
        assert_eq!(session.next(gone, ms(60_100)), Action::Bind);
    }
}

#[test]
fn a_newer_instance_that_restarts_its_session_keeps_precedence() {
    let mut session = yielded();
    assert_eq!(waits_until(session.next(WIPED, ms(1))), ms(101));
    assert_eq!(session.next(OTHER_INSTANCE, ms(50)), WAIT_FOR_A_HINT);
    assert_eq!(waits_until(session.next(WIPED, ms(90))), ms(190));
}

#[test]
fn an_older_instance_gives_precedence_when_the_kubelet_removes_both_sockets() {
    let mut session = streaming();
    session.next(Observation { streams: 1, ..OTHER_INSTANCE }, ms(1));
    assert_eq!(session.next(WIPED, ms(2)), Action::Close(RestartReason::OwnSocketGone));
    assert!(session.has_yielded());
    assert_eq!(waits_until(session.next(WIPED, ms(2))), ms(102));
}

#[test]
fn an_instance_that_yielded_and_cannot_bind_still_gives_precedence() {
    let mut session = yielded();
    session.next(WIPED, ms(0));
    assert_eq!(session.next(WIPED, ms(100)), Action::Bind);
    session.bound(BindOutcome::Failed, ms(100));
    let until = waits_until(session.next(WIPED, ms(100)));
    assert_eq!(session.next(OTHER_INSTANCE, until), WAIT_FOR_A_HINT);
}
