//! The session with the kubelet as one state machine: what to do next, from what is seen.
//!
//! **Invariant.** Within one second after the last fault (two where changes of the directory are
//! only polled), the kubelet holds an open stream of ours and has our current list. A fault is
//! anything that ends a state early: no kubelet, a refused or lost registration, a lost stream, a
//! socket wiped or replaced. A call that the kubelet took and leaves without an answer, or without
//! a stream, is a fault until our patience with it ends: half a second at first, longer for one
//! that proves slow, because it goes on with every call it took and would open a stream for each.
//!
//! The machine looks at levels, not at edges: whatever hint wakes it, it compares the sight with
//! its state, so a missed or repeated hint changes nothing. It takes one step at a time; the driver
//! (`daemon::plugin_session`) does the step and tells how it went. Two rules come from the kubelet:
//! the old server is closed before a new registration, for two streams of one process leak in it
//! (kubernetes#124716), and a stream that ends is never reopened by it, so it is ours to register
//! again: any one of them, for one that leaked would hide the loss of the one that counts. A session
//! that fell before it was steady is tried again after a wait, so that nothing can make it spin.
//!
//! Two instances meet during a rolling update. The newer one puts its socket in place of the
//! older's; the older one keeps what stream it has, and when that ends it yields: it closes its
//! server, leaves the socket alone and waits until nobody has answered there for a moment.

use std::time::Duration;

use crate::decide::backoff::backoff;

/// Which file a socket is; another one at the same path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketIdentity {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number; reused by file systems, so the time stands beside it.
    pub inode: u64,
    /// Time of its making in nanoseconds since the epoch.
    pub modified: i128,
}

/// What is at the path of our socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSocket {
    /// The socket that our server listens on.
    Ours,
    /// Nothing.
    Missing,
    /// Somebody else's.
    Foreign {
        /// Whether somebody accepts connections on it.
        alive: bool,
    },
}

/// What the driver sees when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// At the path of our socket.
    pub own_socket: OwnSocket,
    /// The kubelet's socket; none while the kubelet is away.
    pub kubelet: Option<SocketIdentity>,
    /// Open ListAndWatch streams of the kubelet on our present server.
    pub streams: usize,
    /// Whether a stream of the kubelet on our present server has ended.
    pub lost_stream: bool,
}

/// How a call of Register went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// The kubelet knows us.
    Accepted,
    /// It said no, or nobody took the call.
    Refused,
    /// It took the call, and said nothing for as long as we waited.
    TimedOut,
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a socket in place and serve on it; then [`Session::bound`].
    Bind,
    /// Call Register without waiting for its answer here; the answer goes to
    /// [`Session::registered`]. A call that is still under way is given up first.
    Register {
        /// Give the call up after this long.
        patience: Duration,
    },
    /// End the server and its streams and forget the registration.
    Close(Reason),
    /// Look again at a hint, or at this time at the latest.
    Wait {
        /// Absent where only a hint can change anything.
        until: Option<Duration>,
    },
}

/// Why a session begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The kubelet wipes all sockets when it starts.
    OwnSocketGone,
    /// A dead socket stands in our place.
    OwnSocketReplaced,
    /// Another live instance stands in our place.
    Yielding,
    /// Registered, but the kubelet opened no stream.
    NoStream,
    /// The kubelet's stream ended.
    StreamEnded,
    /// Another kubelet socket than the one that we registered with.
    KubeletRestarted,
}

impl Reason {
    /// For the log: what happened, in the words of an operator.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::OwnSocketGone => "our socket is gone; the kubelet wipes all when it starts",
            Self::OwnSocketReplaced => "a dead socket stands in place of ours",
            Self::Yielding => "another live instance stands in our place; waiting until it is gone",
            Self::NoStream => "the kubelet accepted us but opened no stream",
            Self::StreamEnded => "the kubelet's stream ended",
            Self::KubeletRestarted => "the kubelet made a new socket",
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
    /// Register is under way.
    Registering { kubelet: SocketIdentity },
    /// Accepted; the stream must come by then.
    Registered { kubelet: SocketIdentity, stream_by: Duration },
    /// The kubelet has our list.
    Streaming { kubelet: Option<SocketIdentity>, since: Duration },
    /// A newer instance is in our place, or was until a moment ago: then the time when that is ours.
    Yielded { take_over_at: Option<Duration> },
}

/// One resource's session.
#[derive(Clone, Debug)]
pub struct Session {
    state: State,
    /// The kubelet's socket that was seen last. What is counted below is about this one alone: what
    /// failed with an earlier kubelet says nothing about a new one.
    kubelet: Option<SocketIdentity>,
    /// Whether this kubelet has not answered a call yet.
    is_kubelet_new: bool,
    /// Failures since a stream was steady.
    failures: u32,
    /// Calls of Register in a row that were not answered.
    silences: u32,
    /// Registrations in a row that led to no stream.
    unanswered: u32,
    /// Whether a newer instance stood in the place of our present server.
    was_replaced: bool,
    /// When a fall was last said.
    said: Option<Duration>,
    seed: u64,
}

/// How long the kubelet has to open its stream after a registration, at first and at most.
const STREAM_PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// How long one Register may take, at first and at most: the kubelet dials us inside it, for up to
/// 10 s.
const REGISTER_PATIENCE: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(16));
/// How long nobody must answer in our place before we take it from a newer instance, which may only
/// be starting its session again.
const PRECEDENCE: Duration = Duration::from_millis(100);
/// A stream that held this long proves the session: what failed before it no longer counts.
const STEADY: Duration = Duration::from_secs(1);
/// So many failures in a row are each said, and later one each so often: a session that falls as
/// often as it is made would fill the log.
const SAID: u32 = 8;
const REMIND: Duration = Duration::from_secs(60);

impl Session {
    /// A session that has nothing yet; `seed` makes its waits differ from other instances'.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: State::Down { retry_at: Duration::ZERO },
            kubelet: None,
            is_kubelet_new: false,
            failures: 0,
            silences: 0,
            unanswered: 0,
            was_replaced: false,
            said: None,
            seed,
        }
    }

    /// True while the kubelet has an open stream of ours.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// True while another instance stands in our place.
    #[must_use]
    pub fn has_yielded(&self) -> bool {
        matches!(self.state, State::Yielded { .. })
    }

    /// The next step. `now` is the time since any fixed moment.
    pub fn next(&mut self, observation: Observation, now: Duration) -> Action {
        self.see_kubelet(observation.kubelet, now);
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

    /// How [`Action::Bind`] went.
    pub fn bound(&mut self, success: bool, now: Duration) {
        if success {
            self.state = State::Serving { retry_at: now };
            self.was_replaced = false;
            return;
        }
        let retry_at = now + self.next_wait();
        self.state = match self.state {
            // The other may be back by the next try, and is still not to be fought.
            State::Yielded { .. } => State::Yielded { take_over_at: Some(retry_at) },
            _ => State::Down { retry_at },
        };
    }

    /// How [`Action::Register`] went; a late answer to a call that was given up changes nothing.
    pub fn registered(&mut self, answer: RegisterOutcome, now: Duration) {
        let State::Registering { kubelet } = self.state else { return };
        self.is_kubelet_new = false;
        self.silences = match answer {
            RegisterOutcome::TimedOut => self.silences.saturating_add(1),
            RegisterOutcome::Accepted | RegisterOutcome::Refused => 0,
        };
        self.state = match answer {
            RegisterOutcome::Accepted => {
                let stream_by = now + doubled(STREAM_PATIENCE, self.unanswered);
                State::Registered { kubelet, stream_by }
            }
            RegisterOutcome::Refused | RegisterOutcome::TimedOut => {
                State::Serving { retry_at: now + self.next_wait() }
            }
        };
    }

    /// Whether the session that was closed just now, and what comes of the next, belong in the log.
    pub fn is_worth_saying(&mut self, now: Duration) -> bool {
        let is_old = self.said.is_none_or(|said| now.saturating_sub(said) >= REMIND);
        let is_worth = self.failures <= SAID || is_old;
        if is_worth {
            self.said = Some(now);
        }
        is_worth
    }

    /// Starts from zero with a kubelet's socket that was not there before: it ends every wait. A
    /// kubelet sends its first node status about 100 ms after it serves; by then it needs our list.
    fn see_kubelet(&mut self, seen: Option<SocketIdentity>, now: Duration) {
        if seen.is_none() || seen == self.kubelet {
            return;
        }
        (self.kubelet, self.is_kubelet_new) = (seen, true);
        (self.failures, self.silences, self.unanswered) = (0, 0, 0);
        match &mut self.state {
            State::Down { retry_at } | State::Serving { retry_at } => *retry_at = now,
            State::Yielded { take_over_at: Some(moment) } => {
                *moment = (*moment).min(now + PRECEDENCE);
            }
            _ => {}
        }
    }

    /// What is wrong with a server that should be up.
    fn fault(&mut self, observation: Observation, now: Duration) -> Option<Reason> {
        let has_ended = observation.lost_stream || observation.streams == 0;
        self.was_replaced |= observation.own_socket == OwnSocket::Foreign { alive: true };
        match observation.own_socket {
            OwnSocket::Missing => return Some(Reason::OwnSocketGone),
            OwnSocket::Foreign { alive: false } => return Some(Reason::OwnSocketReplaced),
            OwnSocket::Foreign { alive: true } if has_ended => return Some(Reason::Yielding),
            _ => {}
        }
        let is_other = |kubelet| observation.kubelet.is_some_and(|seen| seen != kubelet);
        match self.state {
            State::Streaming { .. } if has_ended => Some(Reason::StreamEnded),
            State::Registered { .. } if observation.lost_stream => Some(Reason::StreamEnded),
            State::Registered { kubelet, .. } | State::Streaming { kubelet: Some(kubelet), .. }
                if is_other(kubelet) =>
            {
                Some(Reason::KubeletRestarted)
            }
            // The stream is one that the kubelet before it opened.
            State::Registering { kubelet } if observation.streams > 0 && is_other(kubelet) => {
                Some(Reason::KubeletRestarted)
            }
            State::Registered { stream_by, .. } if observation.streams == 0 && now >= stream_by => {
                Some(Reason::NoStream)
            }
            _ => None,
        }
    }

    fn close(&mut self, reason: Reason, now: Duration) -> Action {
        if reason == Reason::NoStream {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        self.state = if self.was_replaced {
            State::Yielded { take_over_at: None }
        } else {
            State::Down { retry_at: now + self.wait_after_fall(now) }
        };
        Action::Close(reason)
    }

    /// None after a steady stream, and none the first time that a session ends before a new kubelet
    /// has answered: that ended with the kubelet before it.
    fn wait_after_fall(&mut self, now: Duration) -> Duration {
        if std::mem::take(&mut self.is_kubelet_new) {
            return Duration::ZERO;
        }
        match self.state {
            State::Streaming { since, .. } if now.saturating_sub(since) >= STEADY => {
                self.failures = 0;
                Duration::ZERO
            }
            _ => self.next_wait(),
        }
    }

    fn when_serving(&mut self, observation: Observation, now: Duration) -> Action {
        if observation.streams > 0 {
            if !self.is_streaming() {
                (self.silences, self.unanswered) = (0, 0);
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
        Action::Register { patience: doubled(REGISTER_PATIENCE, self.silences) }
    }

    fn when_yielded(
        &mut self,
        observation: Observation,
        now: Duration,
        take_over_at: Option<Duration>,
    ) -> Action {
        let is_alive = observation.own_socket == OwnSocket::Foreign { alive: true };
        let take_over_at = (!is_alive).then(|| take_over_at.unwrap_or(now + PRECEDENCE));
        self.state = State::Yielded { take_over_at };
        match take_over_at {
            Some(moment) if now >= moment => Action::Bind,
            until => Action::Wait { until },
        }
    }

    fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        backoff(self.failures, self.seed)
    }
}

fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(8)).min(longest)
}

#[cfg(test)]
mod tests;
