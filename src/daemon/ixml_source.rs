//! Queries libixml through its agent: one agent, one pending request at a time. Whatever the library
//! does, [`IxmlSource::read`] returns by its deadline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use crate::decide::ixml::{LibraryPlaces, RetryPolicy, libraries_to_try, loader_path};
use crate::host::ixml::agent_process::{AgentProcess, NoReply, THIS_PROGRAM};
use crate::model::ixml::{IxmlChoice, IxmlReading, IxmlState};
use crate::model::pci::PciAddress;
use crate::wire::ixml_agent::{AgentReply, parse_reply, request_line};

/// How long a read may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);

const REASON_LENGTH_LIMIT: usize = 500;

/// What the source is built from.
#[derive(Clone, Debug)]
pub struct IxmlSettings {
    /// Which library to use.
    pub choice: IxmlChoice,
    /// Library directories of the environment.
    pub places: LibraryPlaces,
    /// The program that is the agent when it is given the verb; this one, but in tests.
    pub program: PathBuf,
    /// When to give up, and when to try again.
    pub retry: RetryPolicy,
}

impl IxmlSettings {
    /// As the daemon runs.
    #[must_use]
    pub fn new(choice: IxmlChoice, places: LibraryPlaces) -> Self {
        let retry = RetryPolicy::default();
        Self { choice, places, program: THIS_PROGRAM.into(), retry }
    }
}

/// Queries the library; owns the agent, which is killed when this is dropped.
#[derive(Debug)]
pub struct IxmlSource {
    settings: IxmlSettings,
    agent: AgentState,
    /// As it was last returned.
    state: IxmlState,
    /// The last reading there was.
    last: Option<Arc<IxmlReading>>,
    /// How often in a row there was no reading.
    failures: u32,
}

#[derive(Debug)]
enum AgentState {
    /// No agent until then.
    Resting { until: Instant },
    /// An agent; its library is known once it is ready.
    Running { agent: AgentProcess, library: Option<PathBuf>, pending: Option<PendingRequest> },
    /// An agent that was killed. Nothing is started beside it: a call that hangs inside the kernel
    /// keeps it from ending, and would keep the next one too.
    Ending { agent: AgentProcess, until: Instant },
}

/// A request without a reply; the start of an agent is one.
#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    sent: Instant,
    /// The deadline of the read that sent it. Later reads only check whether a reply came.
    due: Instant,
}

/// One read, for as long as it may take.
#[derive(Clone, Copy)]
struct ReadAttempt {
    begun: Instant,
    deadline: Instant,
}

impl IxmlSource {
    /// A source that starts its agent when it is first read.
    #[must_use]
    pub fn start(settings: IxmlSettings) -> Self {
        let agent = AgentState::Resting { until: Instant::now() };
        Self { settings, agent, state: IxmlState::Off, last: None, failures: 0 }
    }

    /// The reading of these chips, or why there is none, at the latest after `deadline`. Pass only
    /// chips that have a driver: the library searches for chips again when the list changes, and
    /// finds none without a driver.
    ///
    /// While a reply is overdue this returns at once and sends nothing; after a late reply the request
    /// is repeated. Each change of state is logged once. The future may be dropped.
    pub async fn read(&mut self, chips: &[PciAddress], deadline: Duration) -> IxmlState {
        if self.settings.choice == IxmlChoice::Off {
            return IxmlState::Off;
        }
        let begun = Instant::now();
        let attempt = ReadAttempt { begun, deadline: begun + deadline };
        let state = loop {
            if let Some(state) = self.step(chips, attempt).await {
                break state;
            }
        };
        if state.to_string() != self.state.to_string() {
            self.log_state(&state);
        }
        self.state = state.clone();
        state
    }

    /// One step towards a state; none when another must follow.
    async fn step(&mut self, chips: &[PciAddress], attempt: ReadAttempt) -> Option<IxmlState> {
        match &mut self.agent {
            AgentState::Resting { until } if attempt.begun < *until => Some(self.state.clone()),
            AgentState::Resting { .. } => self.start_agent(attempt),
            AgentState::Ending { agent, until } => {
                let resting = AgentState::Resting { until: *until };
                if !agent.has_ended() {
                    return Some(self.state.clone());
                }
                self.agent = resting;
                None
            }
            AgentState::Running { pending: Some(pending), .. } => {
                let pending = *pending;
                self.receive_reply(pending, attempt).await
            }
            AgentState::Running { pending: None, .. } => self.send_request(chips, attempt).await,
        }
    }

    fn start_agent(&mut self, attempt: ReadAttempt) -> Option<IxmlState> {
        let IxmlSettings { choice, places, program, .. } = &self.settings;
        let libraries = libraries_to_try(choice, places);
        match AgentProcess::start(program, &libraries, loader_path(&libraries, places)) {
            Ok(agent) => {
                let pending = Some(attempt.request());
                self.agent = AgentState::Running { agent, library: None, pending };
                None
            }
            Err(error) => {
                self.agent = AgentState::Resting { until: self.schedule_retry() };
                Some(IxmlState::Unusable(format!("its agent cannot be started: {error}")))
            }
        }
    }

    async fn send_request(
        &mut self,
        chips: &[PciAddress],
        attempt: ReadAttempt,
    ) -> Option<IxmlState> {
        let AgentState::Running { agent, pending, .. } = &mut self.agent else { return None };
        *pending = Some(attempt.request());
        match timeout_at(attempt.deadline, agent.send(&request_line(chips))).await {
            Ok(Err(_gone)) => Some(self.agent_failed(&NoReply::Ended, attempt).await),
            // Should half a line be all that went through, there will be no answer.
            Ok(Ok(())) | Err(_) => None,
        }
    }

    async fn receive_reply(
        &mut self,
        pending: PendingRequest,
        attempt: ReadAttempt,
    ) -> Option<IxmlState> {
        let AgentState::Running { agent, .. } = &mut self.agent else { return None };
        match timeout_at(pending.due, agent.receive()).await {
            Err(_) => Some(self.reply_is_overdue(pending)),
            Ok(Err(no_reply)) => Some(self.agent_failed(&no_reply, attempt).await),
            Ok(Ok(line)) => match parse_reply(&line) {
                Ok(answer) => self.handle_reply(answer, pending, attempt),
                Err(error) => Some(self.unusable(&format!("its agent's reply is {error}"))),
            },
        }
    }

    fn handle_reply(
        &mut self,
        answer: AgentReply,
        pending: PendingRequest,
        attempt: ReadAttempt,
    ) -> Option<IxmlState> {
        let AgentState::Running { library, pending: open, .. } = &mut self.agent else {
            return None;
        };
        *open = None;
        match (answer, library) {
            (AgentReply::Ready(path), library @ None) => {
                *library = Some(path);
                None
            }
            (AgentReply::Reading(chips), Some(library)) => {
                let reading = Arc::new(IxmlReading { library: library.clone(), chips });
                self.failures = 0;
                self.last = Some(Arc::clone(&reading));
                // A late reply is outdated, but shows that the library answers.
                (attempt.begun <= pending.sent).then_some(IxmlState::Reading(reading))
            }
            (AgentReply::NotFound(tried), None) => {
                self.stop_agent();
                Some(IxmlState::NotFound(tried.into()))
            }
            (AgentReply::Unusable(library, failure), _) => {
                let remedy = failure.code.remedy();
                let remedy = remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
                Some(self.unusable(&format!("{}: {failure}{remedy}", library.display())))
            }
            _ => Some(self.unusable("its agent sent an unexpected reply")),
        }
    }

    /// The reply is overdue; after `give_up_after` its agent is killed.
    fn reply_is_overdue(&mut self, pending: PendingRequest) -> IxmlState {
        let waited = pending.sent.elapsed();
        if waited >= self.settings.retry.give_up_after {
            info!(?waited, "libixml does not answer; its agent is killed and restarted later");
            self.stop_agent();
        }
        let since = match self.state {
            IxmlState::Stalled { since, .. } => since,
            _ => pending.sent.into_std(),
        };
        IxmlState::Stalled { since, last: self.last.clone() }
    }

    /// The agent ended or is not usable.
    async fn agent_failed(&mut self, no_reply: &NoReply, attempt: ReadAttempt) -> IxmlState {
        let AgentState::Running { agent, .. } = &mut self.agent else { return self.state.clone() };
        let how = match no_reply {
            NoReply::Ended => timeout_at(attempt.deadline, agent.ended()).await.ok(),
            NoReply::Unreadable(_) => None,
        };
        self.unusable(&match how {
            Some(Ok(status)) => format!("its agent died, {status}"),
            _ => format!("its agent: {no_reply}"),
        })
    }

    fn unusable(&mut self, reason: &str) -> IxmlState {
        self.stop_agent();
        // A broken agent may send a long line.
        IxmlState::Unusable(reason.chars().take(REASON_LENGTH_LIMIT).collect())
    }

    fn stop_agent(&mut self) {
        let until = self.schedule_retry();
        let resting = AgentState::Resting { until };
        self.agent = match std::mem::replace(&mut self.agent, resting) {
            AgentState::Running { mut agent, .. } => {
                agent.kill();
                AgentState::Ending { agent, until }
            }
            other => other,
        };
    }

    fn schedule_retry(&mut self) -> Instant {
        self.failures = self.failures.saturating_add(1);
        let pause = self.settings.retry.pause(self.failures);
        debug!(?pause, failures = self.failures, "retrying libixml later");
        Instant::now() + pause
    }

    fn log_state(&self, state: &IxmlState) {
        match state {
            IxmlState::Off => {}
            IxmlState::Reading(_) => info!("{state}"),
            // A node without the library is as it should be, unless it was named.
            IxmlState::NotFound(_) if self.settings.choice == IxmlChoice::Auto => info!("{state}"),
            IxmlState::NotFound(_) | IxmlState::Stalled { .. } | IxmlState::Unusable(_) => {
                warn!("{state}");
            }
        }
    }
}

impl ReadAttempt {
    fn request(self) -> PendingRequest {
        PendingRequest { sent: Instant::now(), due: self.deadline }
    }
}
