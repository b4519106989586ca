//! The registration of the driver as a state machine: what to do next, given what is observed.
//!
//! **Invariant.** Within one second after the last fault, both sockets are in their places and served:
//! the service socket, and in `plugins_registry` the registration socket. The registration socket is
//! put in place only while the service is served, because its announcement makes the kubelet dial the
//! service. A fault is a socket that is removed or replaced, a server that ends, a socket that cannot
//! be made.
//!
//! The kubelet does the rest, and unlike with device plugins we call nobody: it finds the registration
//! socket, calls GetInfo, dials the service and reports the result. Three rules follow from how it
//! works:
//! - A kubelet that starts removes no socket and registers every one that it finds. There is nothing
//!   to do for the session then.
//! - It keeps its connection to the service, whatever happens to the registration socket. So each
//!   socket is replaced alone, and the other stays.
//! - After a failed attempt it backs off by the path of the registration socket, for up to two minutes.
//!   A refused registration is therefore repeated under another name, after a wait of ours; until then
//!   the refused socket stays, since the kubelet may succeed with it.
//!
//! Names are unique where the pod's uid is known, so two instances never meet at one path during a
//! rolling update. Where it is not known, the newer instance replaces the older one's sockets. The older
//! one serves the kubelet as long as that is connected. Then it yields, and takes over once nobody has
//! accepted connections at its path for a while.

use std::time::Duration;

use crate::decide::backoff::backoff;
use crate::decide::kubelet::session::{BindOutcome, OwnSocketState};

/// What the kubelet last reported about the present registration socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handshake {
    /// It has not called.
    #[default]
    NoCall,
    /// It called GetInfo; the result is due.
    InfoRead,
    /// It accepted the driver.
    Registered,
    /// It did not.
    Refused,
}

/// What the driver observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationObservation {
    /// At the path of the service socket.
    pub service: OwnSocketState,
    /// At the path of the registration socket.
    pub registration: OwnSocketState,
    /// The kubelet's last report.
    pub handshake: Handshake,
    /// Whether the kubelet is connected to our present service server.
    pub is_connected: bool,
}

/// One of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraSocket {
    /// Answers prepare, unprepare and health.
    Service,
    /// Answers GetInfo, in `plugins_registry`.
    Registration,
}

/// Why a server ends and starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerFault {
    /// Nothing is at the path.
    SocketGone,
    /// A dead socket is at the path.
    SocketReplaced,
    /// Another live instance's socket is at the path.
    Yielding,
    /// The kubelet refused the registration.
    Refused,
}

impl ServerFault {
    /// For the log and the status.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::SocketGone => "the plugin's socket was removed",
            Self::SocketReplaced => "a dead socket replaced the plugin's socket",
            Self::Yielding => {
                "another live instance replaced the plugin's socket; waiting until it ends"
            }
            Self::Refused => "the kubelet refused the registration; trying another socket name",
        }
    }
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationAction {
    /// Put this socket in place and serve on it; then call [`Registration::bound`].
    Serve {
        /// Which one.
        socket: DraSocket,
        /// How many names the kubelet has refused; the name of the registration socket depends on it.
        refusals: u32,
    },
    /// End this server and remove its socket if it is still ours.
    Close(DraSocket, ServerFault),
    /// Observe again at a hint, or at this time at the latest.
    Wait {
        /// Absent where only a hint can change anything.
        until: Option<Duration>,
    },
}

/// How far one server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerState {
    /// It does not run.
    Down { retry_at: Duration },
    /// It runs.
    Up { since: Duration, was_replaced: bool },
    /// A newer instance has our place. Once that instance is gone: when to take over.
    Yielded { take_over_at: Option<Duration> },
}

/// One server and its failures since it was steady.
#[derive(Clone, Copy, Debug)]
struct Server {
    state: ServerState,
    failures: u32,
}

/// The registration of one driver.
#[derive(Clone, Debug)]
pub struct Registration {
    service: Server,
    /// Of the registration socket.
    announced: Server,
    /// Since when the present registration socket is refused.
    refused_since: Option<Duration>,
    /// Refusals in a row.
    refusals: u32,
    seed: u64,
}

/// How long nobody may accept connections at our path before we take over from a newer instance.
const TAKEOVER_DELAY: Duration = Duration::from_millis(100);
/// A server that has run this long is steady: earlier failures no longer count.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// How long a refused socket stays after the first refusal; doubled with each that follows.
const FIRST_REFUSED_WAIT: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_REFUSED_WAIT: Duration = Duration::from_secs(60);

impl Registration {
    /// A registration that has nothing yet. `seed` makes its waits differ from other instances'.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let down = Server { state: ServerState::Down { retry_at: Duration::ZERO }, failures: 0 };
        Self { service: down, announced: down, refused_since: None, refusals: 0, seed }
    }

    /// True while another instance has our place.
    #[must_use]
    pub fn has_yielded(&self) -> bool {
        matches!(self.service.state, ServerState::Yielded { .. })
    }

    /// The next action. `now` is the time since any fixed moment.
    pub fn next(
        &mut self,
        observation: RegistrationObservation,
        now: Duration,
    ) -> RegistrationAction {
        let is_connected = observation.is_connected;
        let service = self.service.next(observation.service, is_connected, now, self.seed);
        if !matches!(service, ServerAction::Wait { .. }) {
            return self.act(DraSocket::Service, service);
        }
        let registration = self.next_registration(observation, now);
        match (service, registration) {
            (ServerAction::Wait { until }, ServerAction::Wait { until: other }) => {
                RegistrationAction::Wait { until: earliest(until, other) }
            }
            _ => self.act(DraSocket::Registration, registration),
        }
    }

    /// How [`RegistrationAction::Serve`] of this socket ended.
    pub fn bound(&mut self, socket: DraSocket, outcome: BindOutcome, now: Duration) {
        let seed = self.seed;
        self.server(socket).bound(outcome, now, seed);
    }

    fn server(&mut self, socket: DraSocket) -> &mut Server {
        match socket {
            DraSocket::Service => &mut self.service,
            DraSocket::Registration => &mut self.announced,
        }
    }

    fn act(&self, socket: DraSocket, action: ServerAction) -> RegistrationAction {
        match action {
            ServerAction::Serve => RegistrationAction::Serve { socket, refusals: self.refusals },
            ServerAction::Close(fault) => RegistrationAction::Close(socket, fault),
            ServerAction::Wait { until } => RegistrationAction::Wait { until },
        }
    }

    fn next_registration(
        &mut self,
        observation: RegistrationObservation,
        now: Duration,
    ) -> ServerAction {
        let (state, seed) = (observation.registration, self.seed);
        // What is not up is started only beside a service that is.
        if !self.announced.is_up() && !self.service.is_up() {
            return ServerAction::Wait { until: None };
        }
        let action = self.announced.next(state, false, now, seed);
        let ServerAction::Wait { until } = action else {
            self.refused_since = None;
            return action;
        };
        match self.refused_until(observation.handshake, now) {
            Some(until) if now >= until => self.rename(now),
            Some(refused_until) => {
                ServerAction::Wait { until: earliest(until, Some(refused_until)) }
            }
            None => ServerAction::Wait { until },
        }
    }

    /// Until when the refused socket stays; none where it is not refused.
    fn refused_until(&mut self, handshake: Handshake, now: Duration) -> Option<Duration> {
        match handshake {
            Handshake::Refused if self.announced.is_up() => {
                let since = *self.refused_since.get_or_insert(now);
                let doubled = FIRST_REFUSED_WAIT.saturating_mul(1 << self.refusals.min(8));
                Some(since + doubled.min(LONGEST_REFUSED_WAIT))
            }
            Handshake::Registered => {
                (self.refused_since, self.refusals) = (None, 0);
                None
            }
            _ => None,
        }
    }

    /// Ends the refused server; the next one has another name.
    fn rename(&mut self, now: Duration) -> ServerAction {
        self.refused_since = None;
        self.refusals = self.refusals.saturating_add(1);
        self.announced.state = ServerState::Down { retry_at: now };
        ServerAction::Close(ServerFault::Refused)
    }
}

/// What to do with one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerAction {
    Serve,
    Close(ServerFault),
    Wait { until: Option<Duration> },
}

impl Server {
    fn is_up(&self) -> bool {
        matches!(self.state, ServerState::Up { .. })
    }

    /// `is_needed`: whether somebody still uses a server whose socket was replaced.
    fn next(
        &mut self,
        socket: OwnSocketState,
        is_needed: bool,
        now: Duration,
        seed: u64,
    ) -> ServerAction {
        match self.state {
            ServerState::Down { retry_at } if now >= retry_at => ServerAction::Serve,
            ServerState::Down { retry_at } => ServerAction::Wait { until: Some(retry_at) },
            ServerState::Yielded { take_over_at } => self.when_yielded(socket, now, take_over_at),
            ServerState::Up { .. } => match self.fault(socket, is_needed) {
                Some(fault) => self.close(fault, now, seed),
                None => ServerAction::Wait { until: None },
            },
        }
    }

    fn fault(&mut self, socket: OwnSocketState, is_needed: bool) -> Option<ServerFault> {
        let ServerState::Up { was_replaced, .. } = &mut self.state else { return None };
        match socket {
            OwnSocketState::Ours => None,
            OwnSocketState::Missing => Some(ServerFault::SocketGone),
            OwnSocketState::Foreign { alive: false } => Some(ServerFault::SocketReplaced),
            OwnSocketState::Foreign { alive: true } => {
                *was_replaced = true;
                (!is_needed).then_some(ServerFault::Yielding)
            }
        }
    }

    /// Without a wait after a steady server, else with one.
    fn close(&mut self, fault: ServerFault, now: Duration, seed: u64) -> ServerAction {
        let ServerState::Up { since, was_replaced } = self.state else {
            return ServerAction::Wait { until: None };
        };
        self.state = if was_replaced {
            ServerState::Yielded { take_over_at: None }
        } else if now.saturating_sub(since) >= STEADY_AFTER {
            self.failures = 0;
            ServerState::Down { retry_at: now }
        } else {
            ServerState::Down { retry_at: now + self.next_wait(seed) }
        };
        ServerAction::Close(fault)
    }

    fn bound(&mut self, outcome: BindOutcome, now: Duration, seed: u64) {
        self.state = match (outcome, self.state) {
            (BindOutcome::Bound, _) => ServerState::Up { since: now, was_replaced: false },
            // The newer instance may be back by the next attempt and still has precedence.
            (BindOutcome::Failed, ServerState::Yielded { .. }) => {
                ServerState::Yielded { take_over_at: Some(now + self.next_wait(seed)) }
            }
            (BindOutcome::Failed, _) => ServerState::Down { retry_at: now + self.next_wait(seed) },
        };
    }

    fn when_yielded(
        &mut self,
        socket: OwnSocketState,
        now: Duration,
        take_over_at: Option<Duration>,
    ) -> ServerAction {
        let is_alive = socket == OwnSocketState::Foreign { alive: true };
        let take_over_at = (!is_alive).then(|| take_over_at.unwrap_or(now + TAKEOVER_DELAY));
        self.state = ServerState::Yielded { take_over_at };
        match take_over_at {
            Some(at) if now >= at => ServerAction::Serve,
            until => ServerAction::Wait { until },
        }
    }

    fn next_wait(&mut self, seed: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        backoff(self.failures, seed)
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
