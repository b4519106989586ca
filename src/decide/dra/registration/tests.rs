mod random;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const SERVED: RegistrationObservation = RegistrationObservation {
    service: OwnSocketState::Ours,
    registration: OwnSocketState::Ours,
    handshake: Handshake::NoCall,
    is_connected: false,
};
const NOTHING: RegistrationObservation = RegistrationObservation {
    service: OwnSocketState::Missing,
    registration: OwnSocketState::Missing,
    ..SERVED
};

const fn serve(socket: DraSocket) -> RegistrationAction {
    RegistrationAction::Serve { socket, refusals: 0 }
}

const WAIT: RegistrationAction = RegistrationAction::Wait { until: None };

/// Both sockets are served at time zero and steady at 2 s.
fn served() -> Registration {
    let mut machine = Registration::new(1);
    for socket in [DraSocket::Service, DraSocket::Registration] {
        let observation = match socket {
            DraSocket::Service => NOTHING,
            DraSocket::Registration => {
                RegistrationObservation { registration: OwnSocketState::Missing, ..SERVED }
            }
        };
        assert_eq!(machine.next(observation, ms(0)), serve(socket));
        machine.bound(socket, BindOutcome::Bound, ms(0));
    }
    assert_eq!(machine.next(SERVED, ms(0)), WAIT);
    machine
}

#[test]
fn the_service_is_served_before_the_registration_socket_appears() {
    let mut machine = Registration::new(1);
    assert_eq!(machine.next(NOTHING, ms(0)), serve(DraSocket::Service));
    machine.bound(DraSocket::Service, BindOutcome::Failed, ms(0));
    let RegistrationAction::Wait { until: Some(retry_at) } = machine.next(NOTHING, ms(0)) else {
        panic!("it does not wait");
    };
    assert_eq!(machine.next(NOTHING, retry_at), serve(DraSocket::Service));
    machine.bound(DraSocket::Service, BindOutcome::Bound, retry_at);
    let observation = RegistrationObservation { service: OwnSocketState::Ours, ..NOTHING };
    assert_eq!(machine.next(observation, retry_at), serve(DraSocket::Registration));
}

#[test]
fn nothing_is_done_when_a_kubelet_restarts_or_is_away() {
    let mut machine = served();
    for (handshake, is_connected) in [
        (Handshake::InfoRead, false),
        (Handshake::Registered, true),
        (Handshake::Registered, false),
        (Handshake::InfoRead, false),
        (Handshake::Registered, true),
    ] {
        let observation = RegistrationObservation { handshake, is_connected, ..SERVED };
        assert_eq!(machine.next(observation, ms(2000)), WAIT);
    }
}

#[test]
fn a_socket_that_is_removed_is_put_back_at_once_and_the_other_stays() {
    for socket in [DraSocket::Service, DraSocket::Registration] {
        let mut machine = served();
        let observation = match socket {
            DraSocket::Service => {
                RegistrationObservation { service: OwnSocketState::Missing, ..SERVED }
            }
            DraSocket::Registration => {
                RegistrationObservation { registration: OwnSocketState::Missing, ..SERVED }
            }
        };
        let action = machine.next(observation, ms(2000));
        assert_eq!(action, RegistrationAction::Close(socket, ServerFault::SocketGone));
        assert_eq!(machine.next(observation, ms(2000)), serve(socket));
        machine.bound(socket, BindOutcome::Bound, ms(2000));
        assert_eq!(machine.next(SERVED, ms(2000)), WAIT);
    }
}

#[test]
fn a_refused_registration_is_repeated_under_another_name_after_a_wait_that_grows() {
    let mut machine = served();
    let refused = RegistrationObservation { handshake: Handshake::Refused, ..SERVED };
    let mut now = ms(2000);
    for (refusals, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let until = now + Duration::from_secs(seconds);
        assert_eq!(machine.next(refused, now), RegistrationAction::Wait { until: Some(until) });
        let close = RegistrationAction::Close(DraSocket::Registration, ServerFault::Refused);
        assert_eq!(machine.next(refused, until), close);
        let serve = RegistrationAction::Serve { socket: DraSocket::Registration, refusals };
        assert_eq!(machine.next(NOTHING_REGISTERED, until), serve);
        machine.bound(DraSocket::Registration, BindOutcome::Bound, until);
        now = until;
    }
    let registered = RegistrationObservation { handshake: Handshake::Registered, ..SERVED };
    assert_eq!(machine.next(registered, now), WAIT);
    let until = Some(now + ms(1000));
    assert_eq!(machine.next(refused, now), RegistrationAction::Wait { until });
}

const NOTHING_REGISTERED: RegistrationObservation =
    RegistrationObservation { registration: OwnSocketState::Missing, ..SERVED };

#[test]
fn a_kubelet_that_succeeds_with_a_socket_that_it_refused_keeps_it() {
    let mut machine = served();
    let refused = RegistrationObservation { handshake: Handshake::Refused, ..SERVED };
    machine.next(refused, ms(2000));
    let registered = RegistrationObservation { handshake: Handshake::Registered, ..SERVED };
    assert_eq!(machine.next(registered, ms(2900)), WAIT);
    assert_eq!(machine.next(registered, ms(3000)), WAIT);
}

#[test]
fn an_instance_that_was_replaced_serves_the_kubelet_while_it_is_connected_and_then_yields() {
    let mut machine = served();
    let foreign = OwnSocketState::Foreign { alive: true };
    let replaced = RegistrationObservation {
        service: foreign,
        is_connected: true,
        handshake: Handshake::Registered,
        ..SERVED
    };
    assert_eq!(machine.next(replaced, ms(2000)), WAIT);
    let left = RegistrationObservation { is_connected: false, ..replaced };
    let close = RegistrationAction::Close(DraSocket::Service, ServerFault::Yielding);
    assert_eq!(machine.next(left, ms(2100)), close);
    assert!(machine.has_yielded());
    assert_eq!(machine.next(left, ms(2100)), WAIT);
    let gone =
        RegistrationObservation { service: OwnSocketState::Foreign { alive: false }, ..left };
    let until = Some(ms(9100));
    assert_eq!(machine.next(gone, ms(9000)), RegistrationAction::Wait { until });
    assert_eq!(machine.next(gone, ms(9100)), serve(DraSocket::Service));
}
