//! A kubelet that starts removes every socket, then makes its own. Its first node status leaves about
//! 100 ms later, so nothing that failed with the kubelet before it may delay a registration.

use super::*;

const NEW_KUBELET: Observation = Observation { kubelet: Some(NEW), ..READY };
const NEW_KUBELET_AND_WIPED: Observation = Observation { kubelet: Some(NEW), ..WIPED };

/// So many failures that the waits are the longest.
const MANY: u32 = 20;

/// A kubelet was killed; its socket refused until the time that is returned.
fn refused_by_a_dead_socket() -> (Session, Duration) {
    let (mut session, mut now) = (serving(), ms(0));
    for _ in 0..MANY {
        assert!(matches!(session.next(READY, now), Action::Register { .. }));
        session.registered(RegisterOutcome::Refused, now);
        now = waits_until(session.next(READY, now));
    }
    // In the middle of a wait.
    assert!(matches!(session.next(READY, now), Action::Register { .. }));
    session.registered(RegisterOutcome::Refused, now);
    assert!(waits_until(session.next(READY, now)) >= now + ms(250));
    (session, now + ms(1))
}

/// Lets the session act while the new kubelet serves. It may close and bind; it must not wait.
#[track_caller]
fn registers_without_waiting(session: &mut Session, first: Observation, now: Duration) {
    let mut observation = first;
    for _ in 0..3 {
        match session.next(observation, now) {
            Action::Close(_) => observation = NEW_KUBELET_AND_WIPED,
            Action::Bind => {
                session.bound(BindOutcome::Bound, now);
                observation = NEW_KUBELET;
            }
            Action::Register { timeout } => return assert_eq!(timeout, ms(500)),
            Action::Wait { until } => panic!("it waits until {until:?}, not at {now:?}"),
        }
    }
    panic!("it does not register: {session:?}");
}

#[test]
fn a_new_socket_that_is_seen_together_with_the_wipe_is_registered_with_at_once() {
    let (mut session, now) = refused_by_a_dead_socket();
    registers_without_waiting(&mut session, NEW_KUBELET_AND_WIPED, now);
}

#[test]
fn a_new_socket_that_is_seen_after_the_wipe_is_registered_with_at_once() {
    for gone in [WIPED, Observation { kubelet: None, ..WIPED }] {
        let (mut session, now) = refused_by_a_dead_socket();
        assert_eq!(session.next(gone, now), Action::Close(RestartReason::OwnSocketGone));
        assert!(waits_until(session.next(gone, now)) >= now + ms(250));
        registers_without_waiting(&mut session, NEW_KUBELET_AND_WIPED, now + ms(1));
    }
}

#[test]
fn a_new_socket_that_is_seen_while_ours_is_in_its_place_is_registered_with_at_once() {
    let (mut session, now) = refused_by_a_dead_socket();
    registers_without_waiting(&mut session, NEW_KUBELET, now);
}

#[test]
fn a_wipe_that_is_seen_during_the_first_call_costs_no_wait() {
    let (mut session, now) = refused_by_a_dead_socket();
    assert!(matches!(session.next(NEW_KUBELET, now), Action::Register { .. }));
    registers_without_waiting(&mut session, NEW_KUBELET_AND_WIPED, now);
}

#[test]
fn a_new_socket_ends_the_wait_after_many_failed_binds() {
    let mut session = Session::new(7);
    assert_eq!(session.next(WIPED, ms(0)), Action::Bind);
    for _ in 0..MANY {
        session.bound(BindOutcome::Failed, ms(0));
    }
    assert!(waits_until(session.next(WIPED, ms(0))) >= ms(250));
    registers_without_waiting(&mut session, NEW_KUBELET_AND_WIPED, ms(1));
}

#[test]
fn a_new_socket_is_registered_with_at_once_whatever_the_old_kubelet_had_accepted() {
    let dropped = Observation { lost_stream: true, ..NEW_KUBELET };
    for last in [NEW_KUBELET, NEW_KUBELET_AND_WIPED, dropped] {
        for streams in [0, 1] {
            let (mut session, now) = refused_by_a_dead_socket();
            session.state = State::Registering { kubelet: OLD };
            session.registered(RegisterOutcome::Accepted, now);
            if streams > 0 {
                session.next(STREAMING, now);
                assert!(session.is_streaming());
            }
            registers_without_waiting(&mut session, Observation { streams, ..last }, now);
        }
    }
}

#[test]
fn a_new_kubelet_has_the_first_time_limits() {
    let mut session = serving();
    let mut now = ms(0);
    for _ in 0..5 {
        assert!(matches!(session.next(READY, now), Action::Register { .. }));
        session.registered(RegisterOutcome::TimedOut, now);
        now = waits_until(session.next(READY, now));
    }
    registers_without_waiting(&mut session, NEW_KUBELET, now);
    session.registered(RegisterOutcome::Accepted, now);
    assert_eq!(waits_until(session.next(NEW_KUBELET, now)), now + ms(500));
}

#[test]
fn a_new_kubelet_that_does_not_accept_yet_is_called_again_after_ten_milliseconds() {
    let (mut session, now) = refused_by_a_dead_socket();
    registers_without_waiting(&mut session, NEW_KUBELET_AND_WIPED, now);
    session.registered(RegisterOutcome::Refused, now);
    assert!(waits_until(session.next(NEW_KUBELET, now)) <= now + ms(10));
}

#[test]
fn a_new_kubelet_that_keeps_refusing_is_called_less_and_less_often() {
    let (mut session, mut now) = refused_by_a_dead_socket();
    registers_without_waiting(&mut session, NEW_KUBELET, now);
    for _ in 0..MANY {
        session.registered(RegisterOutcome::Refused, now);
        now = waits_until(session.next(NEW_KUBELET, now));
        assert!(matches!(session.next(NEW_KUBELET, now), Action::Register { .. }));
    }
    session.registered(RegisterOutcome::Refused, now);
    assert!(waits_until(session.next(NEW_KUBELET, now)) >= now + ms(250));
}

#[test]
fn a_socket_that_goes_and_comes_back_is_no_new_one() {
    let (mut session, now) = refused_by_a_dead_socket();
    assert_eq!(session.next(NO_KUBELET, now), WAIT_FOR_A_HINT);
    assert!(waits_until(session.next(READY, now)) > now);
}

#[test]
fn an_instance_that_yielded_still_gives_the_other_one_precedence() {
    let mut session = yielded();
    for _ in 0..MANY {
        session.bound(BindOutcome::Failed, ms(0));
    }
    assert!(waits_until(session.next(WIPED, ms(0))) >= ms(250));
    assert_eq!(waits_until(session.next(NEW_KUBELET_AND_WIPED, ms(1))), ms(101));
}
