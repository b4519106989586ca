//! The session with the kubelet as a state machine: what to do next, given what is observed.
//!
//! **Invariant.** Within one second after the last fault (two where the directory is polled), the
//! kubelet holds an open stream of ours and has our current list. A fault is anything that ends a
//! state early: no kubelet, a refused or lost registration, a lost stream, a socket removed or
//! replaced. A call of Register without an answer, or without a stream, is a fault until its timeout
//! is over: half a second at first, longer each time, because a slow kubelet completes every call
//! that it received and opens a stream for each.
//!
//! The machine compares the present observation with its state and ignores what led to the
//! observation, so a missed or repeated hint changes nothing. It returns one action at a time; the
//! driver (`daemon::plugin_session`) carries it out and reports the outcome. Three rules follow from
//! how the kubelet works:
//! - The old server is closed before a new registration: the kubelet leaks the older of two streams
//!   of one process (kubernetes#124716).
//! - The kubelet never reopens a stream that ended. The end of any one leads to a new registration,
//!   because a leaked stream would hide the loss of the one that counts.
//! - A kubelet that starts removes every socket, then makes its own. What failed with an earlier
//!   kubelet socket neither delays nor counts against a new one.
//!
//! A session that ended before its stream was steady starts again after a wait, so it cannot spin.
//!
//! Two instances meet during a rolling update. The newer one replaces the older one's socket; the
//! older one keeps its stream while that lasts. Then it yields: it closes its server, leaves the
//! socket alone, and takes over once nobody has accepted connections there for a while.

use std::time::Duration;

use crate::decide::backoff::backoff;
use crate::model::session::RegisterOutcome;

/// Which file a socket is; another one at the same path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketIdentity {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number. File systems reuse them, hence the time.
    pub inode: u64,
    /// When the socket was made, in nanoseconds since the epoch.
    pub modified: i128,
}

/// What is at the path of our socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSocketState {
    /// The socket that our server listens on.
    Ours,
    /// Nothing.
    Missing,
    /// Another socket.
    Foreign {
        /// Whether somebody accepts connections on it.
        alive: bool,
    },
}

/// What the driver observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// At the path of our socket.
    pub own_socket: OwnSocketState,
    /// The kubelet's socket; none while there is none.
    pub kubelet: Option<SocketIdentity>,
    /// Open ListAndWatch streams of the kubelet on our present server.
    pub streams: usize,
    /// Whether a stream of the kubelet on our present server has ended.
    pub lost_stream: bool,
}

/// How [`Action::Bind`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindOutcome {
    /// The server listens.
    Bound,
    /// The socket cannot be made.
    Failed,
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a socket in place and serve on it; then call [`Session::bound`].
    Bind,
    /// Start a call of Register; its outcome goes to [`Session::registered`]. Cancel a call that is
    /// still in progress.
    Register {
        /// Cancel the call after this long.
        timeout: Duration,
    },
    /// End the server and its streams and forget the registration.
    Close(RestartReason),
    /// Observe again at a hint, or at this time at the latest.
    Wait {
        /// Absent where only a hint can change anything.
        until: Option<Duration>,
    },
}

/// Why a session ends and starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestartReason {
    /// A kubelet that starts removes all sockets.
    OwnSocketGone,
    /// A dead socket is at the path of ours.
    OwnSocketReplaced,
    /// Another live instance's socket is at the path of ours.
    Yielding,
    /// Registered, but the kubelet opened no stream.
    NoStream,
    /// The kubelet's stream ended.
    StreamEnded,
    /// The kubelet's socket is not the one that we registered with.
    KubeletRestarted,
}

impl RestartReason {
    /// For the log and the status.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::OwnSocketGone => "the plugin's socket was removed, as a starting kubelet does",
            Self::OwnSocketReplaced => "a dead socket replaced the plugin's socket",
            Self::Yielding => {
                "another live instance replaced the plugin's socket; waiting until it ends"
            }
            Self::NoStream => "the kubelet accepted the registration but opened no stream",
            Self::StreamEnded => "the kubelet's stream ended",
            Self::KubeletRestarted => "the kubelet has a new socket",
        }
    }
}

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No server.
    Down { retry_at: Duration },
    /// A server, no registration.
    Serving { retry_at: Duration },
    /// A call of Register is in progress.
    Registering { kubelet: SocketIdentity },
    /// Accepted; the stream is due.
    Registered { kubelet: SocketIdentity, stream_by: Duration },
    /// The kubelet has our list.
    Streaming { kubelet: Option<SocketIdentity>, since: Duration },
    /// A newer instance has replaced our socket. Once that instance is gone: when to take over.
    Yielded { take_over_at: Option<Duration> },
}

/// One resource's session.
#[derive(Clone, Debug)]
pub struct Session {
    state: State,
    /// The kubelet's socket that was observed last. The counts below are about this one alone.
    kubelet: Option<SocketIdentity>,
    /// Whether this kubelet has not answered a call yet.
    is_kubelet_new: bool,
    /// Failures since a stream was steady.
    failures: u32,
    /// Calls of Register in a row that timed out.
    timeouts: u32,
    /// Registrations in a row that led to no stream.
    streamless: u32,
    /// Whether a newer instance has replaced the socket of our present server.
    was_replaced: bool,
    seed: u64,
}

/// A timeout that doubles with each failure.
#[derive(Clone, Copy)]
struct GrowingTimeout {
    first: Duration,
    longest: Duration,
}

/// How long the kubelet may take to open its stream after a registration.
const STREAM_TIMEOUT: GrowingTimeout =
    GrowingTimeout { first: Duration::from_millis(500), longest: Duration::from_secs(8) };
/// How long one call of Register may take. The kubelet dials us inside it, for up to 10 s.
const REGISTER_TIMEOUT: GrowingTimeout =
    GrowingTimeout { first: Duration::from_millis(500), longest: Duration::from_secs(16) };
/// How long nobody may accept connections at our path before we take over from a newer instance,
/// which may be restarting its session.
const TAKEOVER_DELAY: Duration = Duration::from_millis(100);
/// A stream that has been open this long proves the session: earlier failures no longer count.
pub(super) const STEADY_AFTER: Duration = Duration::from_secs(1);

impl Session {
    /// A session that has nothing yet. `seed` makes its waits differ from other instances'.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: State::Down { retry_at: Duration::ZERO },
            kubelet: None,
            is_kubelet_new: false,
            failures: 0,
            timeouts: 0,
            streamless: 0,
            was_replaced: false,
            seed,
        }
    }

    /// True while the kubelet has an open stream of ours.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// True while another instance has our place.
    #[must_use]
    pub fn has_yielded(&self) -> bool {
        matches!(self.state, State::Yielded { .. })
    }

    /// The next action. `now` is the time since any fixed moment.
    pub fn next(&mut self, observation: Observation, now: Duration) -> Action {
        self.observe_kubelet(observation.kubelet, now);
        match self.state {
            State::Down { retry_at } if now >= retry_at => Action::Bind,
            State::Down { retry_at } => Action::Wait { until: Some(retry_at) },
            State::Yielded { take_over_at } => self.when_yielded(observation, now, take_over_at),
            _ => match self.fault(observation, now) {
                Some(reason) => self.close(reason, now),
                None => self.when_serving(observation, now),
            },
        }
    }

    /// How [`Action::Bind`] ended.
    pub fn bound(&mut self, outcome: BindOutcome, now: Duration) {
        if outcome == BindOutcome::Bound {
            self.state = State::Serving { retry_at: now };
            self.was_replaced = false;
            return;
        }
        let retry_at = now + self.next_wait();
        self.state = match self.state {
            // The newer instance may be back by the next attempt and still has precedence.
            State::Yielded { .. } => State::Yielded { take_over_at: Some(retry_at) },
            _ => State::Down { retry_at },
        };
    }

    /// How [`Action::Register`] ended. The late outcome of a cancelled call changes nothing.
    pub fn registered(&mut self, outcome: RegisterOutcome, now: Duration) {
        let State::Registering { kubelet } = self.state else { return };
        self.is_kubelet_new = false;
        self.timeouts = match outcome {
            RegisterOutcome::TimedOut => self.timeouts.saturating_add(1),
            RegisterOutcome::Accepted | RegisterOutcome::Refused => 0,
        };
        self.state = match outcome {
            RegisterOutcome::Accepted => {
                let stream_by = now + STREAM_TIMEOUT.after(self.streamless);
                State::Registered { kubelet, stream_by }
            }
            RegisterOutcome::Refused | RegisterOutcome::TimedOut => {
                State::Serving { retry_at: now + self.next_wait() }
            }
        };
    }

    /// Starts from zero with a kubelet socket that was not there before, and ends every wait. A
    /// kubelet sends its first node status about 100 ms after it serves; by then it needs our list.
    fn observe_kubelet(&mut self, observed: Option<SocketIdentity>, now: Duration) {
        if observed.is_none() || observed == self.kubelet {
            return;
        }
        (self.kubelet, self.is_kubelet_new) = (observed, true);
        (self.failures, self.timeouts, self.streamless) = (0, 0, 0);
        match &mut self.state {
            State::Down { retry_at } | State::Serving { retry_at } => *retry_at = now,
            State::Yielded { take_over_at: Some(at) } => *at = (*at).min(now + TAKEOVER_DELAY),
            _ => {}
        }
    }

    /// What is wrong with a server that should be up.
    fn fault(&mut self, observation: Observation, now: Duration) -> Option<RestartReason> {
        let has_ended = observation.lost_stream || observation.streams == 0;
        self.was_replaced |= observation.own_socket == OwnSocketState::Foreign { alive: true };
        match observation.own_socket {
            OwnSocketState::Missing => Some(RestartReason::OwnSocketGone),
            OwnSocketState::Foreign { alive: false } => Some(RestartReason::OwnSocketReplaced),
            OwnSocketState::Foreign { alive: true } if has_ended => Some(RestartReason::Yielding),
            OwnSocketState::Ours | OwnSocketState::Foreign { alive: true } => {
                self.registration_fault(observation, now)
            }
        }
    }

    /// What is wrong with a registration or its stream.
    fn registration_fault(&self, observation: Observation, now: Duration) -> Option<RestartReason> {
        let has_stream = observation.streams > 0;
        let is_other = |kubelet| observation.kubelet.is_some_and(|seen| seen != kubelet);
        match self.state {
            State::Streaming { .. } if observation.lost_stream || !has_stream => {
                Some(RestartReason::StreamEnded)
            }
            State::Registered { .. } if observation.lost_stream => Some(RestartReason::StreamEnded),
            State::Registered { kubelet, .. } | State::Streaming { kubelet: Some(kubelet), .. }
                if is_other(kubelet) =>
            {
                Some(RestartReason::KubeletRestarted)
            }
            // The earlier kubelet opened the stream.
            State::Registering { kubelet } if has_stream && is_other(kubelet) => {
                Some(RestartReason::KubeletRestarted)
            }
            State::Registered { stream_by, .. } if !has_stream && now >= stream_by => {
                Some(RestartReason::NoStream)
            }
            _ => None,
        }
    }

    fn close(&mut self, reason: RestartReason, now: Duration) -> Action {
        if reason == RestartReason::NoStream {
            self.streamless = self.streamless.saturating_add(1);
        }
        self.state = if self.was_replaced {
            State::Yielded { take_over_at: None }
        } else {
            State::Down { retry_at: now + self.wait_after_close(now) }
        };
        Action::Close(reason)
    }

    /// Zero after a steady stream, and zero once before a new kubelet has answered: what ends then
    /// is the session with the kubelet before it.
    fn wait_after_close(&mut self, now: Duration) -> Duration {
        if std::mem::take(&mut self.is_kubelet_new) {
            return Duration::ZERO;
        }
        match self.state {
            State::Streaming { since, .. } if now.saturating_sub(since) >= STEADY_AFTER => {
                self.failures = 0;
                Duration::ZERO
            }
            _ => self.next_wait(),
        }
    }

    fn when_serving(&mut self, observation: Observation, now: Duration) -> Action {
        if observation.streams > 0 {
            if !self.is_streaming() {
                (self.timeouts, self.streamless) = (0, 0);
                self.state = State::Streaming { kubelet: observation.kubelet, since: now };
            }
            return Action::Wait { until: None };
        }
        match self.state {
            State::Serving { retry_at } => self.try_register(observation, now, retry_at),
            State::Registering { kubelet }
                if observation.kubelet.is_some_and(|seen| seen != kubelet) =>
            {
                self.try_register(observation, now, now)
            }
            State::Registered { stream_by, .. } => Action::Wait { until: Some(stream_by) },
            _ => Action::Wait { until: None },
        }
    }

    fn try_register(
        &mut self,
        observation: Observation,
        now: Duration,
        retry_at: Duration,
    ) -> Action {
        let Some(kubelet) = observation.kubelet else { return Action::Wait { until: None } };
        if now < retry_at {
            return Action::Wait { until: Some(retry_at) };
        }
        self.state = State::Registering { kubelet };
        Action::Register { timeout: REGISTER_TIMEOUT.after(self.timeouts) }
    }

    fn when_yielded(
        &mut self,
        observation: Observation,
        now: Duration,
        take_over_at: Option<Duration>,
    ) -> Action {
        let is_alive = observation.own_socket == OwnSocketState::Foreign { alive: true };
        let take_over_at = (!is_alive).then(|| take_over_at.unwrap_or(now + TAKEOVER_DELAY));
        self.state = State::Yielded { take_over_at };
        match take_over_at {
            Some(at) if now >= at => Action::Bind,
            until => Action::Wait { until },
        }
    }

    fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        backoff(self.failures, self.seed)
    }
}

impl GrowingTimeout {
    /// After so many failures in a row.
    fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(8)).min(self.longest)
    }
}

#[cfg(test)]
mod tests;
