//! Reads libixml through its agent: one agent, one pending request at a time. Whatever the
//! library does, [`IxmlSource::read`] comes back by its deadline. It judges nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use crate::decide::ixml::IxmlRetry;
use crate::host::ixml::agent_process::{AgentError, AgentProcess, THIS_PROGRAM};
use crate::host::ixml::search_path::{LibraryEnv, libraries_to_try, loader_path};
use crate::model::ixml::{IxmlChoice, IxmlReading, IxmlState};
use crate::model::log_event::LogEvent;
use crate::model::pci::PciAddress;
use crate::wire::ixml_agent::{AgentMessage, parse_message, request_line};

/// How long a read usually may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);

const LONGEST_REASON: usize = 500;

/// What the source is built from.
#[derive(Clone, Debug)]
pub struct IxmlSettings {
    /// Which library to ask.
    pub choice: IxmlChoice,
    /// Library directories of the environment.
    pub env: LibraryEnv,
    /// The program that is the agent when it is given the verb; this one, but in tests.
    pub program: PathBuf,
    /// When a request fails, and when the next one is sent.
    pub retry: IxmlRetry,
}

impl IxmlSettings {
    /// As the daemon runs.
    #[must_use]
    pub fn new(choice: IxmlChoice, env: LibraryEnv) -> Self {
        let retry = IxmlRetry::default();
        Self { choice, env, program: THIS_PROGRAM.into(), retry }
    }
}

/// Asks the library; owns the agent, which is killed when this is dropped.
#[derive(Debug)]
pub struct IxmlSource {
    settings: IxmlSettings,
    agent_state: AgentState,
    /// As it was last returned.
    state: IxmlState,
    /// The last reading there was.
    last: Option<Arc<IxmlReading>>,
    /// How often in a row there was no reading.
    failures: u32,
}

#[derive(Debug)]
enum AgentState {
    /// Nobody to ask until then.
    Resting { until: Instant },
    /// An agent; its library is known once it is ready.
    Running { agent: AgentProcess, library: Option<PathBuf>, pending: Option<PendingRequest> },
    /// An agent that was killed. Nothing is started beside it: a call that hangs inside the kernel
    /// keeps it from ending, and would keep the next one too.
    Ending { agent: AgentProcess, until: Instant },
}

/// A pending without an answer; the start of an agent is one.
#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    asked: Instant,
    /// The deadline of the read that asked. From then on a read only looks whether an answer came.
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
        let agent_state = AgentState::Resting { until: Instant::now() };
        Self { settings, agent_state, state: IxmlState::Off, last: None, failures: 0 }
    }

    /// The reading of these chips, or why there is none, at the latest after `deadline`.
    /// Name those that have their driver: the library looks for chips anew when the list changes,
    /// and cannot find one before that.
    ///
    /// While an answer is overdue this comes back at once and asks nothing more; once it is there,
    /// late as it is, the pending is put anew. Changes are logged, each once. The future may be
    /// dropped before it is ready.
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
            self.announce(&state);
        }
        self.state = state.clone();
        state
    }

    /// One step towards a state; none when another must follow.
    async fn step(&mut self, chips: &[PciAddress], attempt: ReadAttempt) -> Option<IxmlState> {
        match &mut self.agent_state {
            AgentState::Resting { until } if attempt.begun < *until => Some(self.state.clone()),
            AgentState::Resting { .. } => self.start_agent(attempt),
            AgentState::Ending { agent, until } => {
                let resting = AgentState::Resting { until: *until };
                if !agent.has_ended() {
                    return Some(self.state.clone());
                }
                self.agent_state = resting;
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
        let IxmlSettings { choice, env, program, .. } = &self.settings;
        let libraries = libraries_to_try(choice, env);
        match AgentProcess::start(program, &libraries, loader_path(&libraries, env)) {
            Ok(agent) => {
                let pending = Some(attempt.pending());
                self.agent_state = AgentState::Running { agent, library: None, pending };
                None
            }
            Err(error) => {
                self.agent_state = AgentState::Resting { until: self.next_try() };
                Some(IxmlState::Unusable(format!("its agent cannot be started: {error}")))
            }
        }
    }

    async fn send_request(
        &mut self,
        chips: &[PciAddress],
        attempt: ReadAttempt,
    ) -> Option<IxmlState> {
        let AgentState::Running { agent, pending, .. } = &mut self.agent_state else { return None };
        *pending = Some(attempt.pending());
        match timeout_at(attempt.deadline, agent.send(&request_line(chips))).await {
            Ok(Err(_gone)) => Some(self.agent_failed(&AgentError::Ended, attempt).await),
            // Should half a line be all that went through, there will be no answer.
            Ok(Ok(())) | Err(_) => None,
        }
    }

    async fn receive_reply(
        &mut self,
        pending: PendingRequest,
        attempt: ReadAttempt,
    ) -> Option<IxmlState> {
        let AgentState::Running { agent, .. } = &mut self.agent_state else { return None };
        match timeout_at(pending.due, agent.receive()).await {
            Err(_) => Some(self.reply_is_overdue(pending)),
            Ok(Err(agent_error)) => Some(self.agent_failed(&agent_error, attempt).await),
            Ok(Ok(line)) => match parse_message(&line) {
                Ok(message) => self.handle_message(message, pending, attempt),
                Err(error) => Some(self.unusable(&format!("its agent's reply is {error}"))),
            },
        }
    }

    fn handle_message(
        &mut self,
        message: AgentMessage,
        pending: PendingRequest,
        attempt: ReadAttempt,
    ) -> Option<IxmlState> {
        let AgentState::Running { library, pending: open, .. } = &mut self.agent_state else {
            return None;
        };
        *open = None;
        match (message, library) {
            (AgentMessage::Ready(path), library @ None) => {
                *library = Some(path);
                None
            }
            (AgentMessage::Reading(chips), Some(library)) => {
                let reading = Arc::new(IxmlReading { library: library.clone(), chips });
                self.failures = 0;
                self.last = Some(Arc::clone(&reading));
                // A late answer is no longer what is asked for, but shows that asking is of use.
                (attempt.begun <= pending.asked).then_some(IxmlState::Reading(reading))
            }
            (AgentMessage::NotFound(tried), None) => {
                self.stop_agent();
                Some(IxmlState::NotFound(tried.into()))
            }
            (AgentMessage::Unusable(library, failure), _) => {
                let remedy = failure.code.remedy();
                let remedy = remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
                Some(self.unusable(&format!("{}: {failure}{remedy}", library.display())))
            }
            _ => Some(self.unusable("its agent sent a message that was not requested")),
        }
    }

    /// The reply is overdue; after `answer_timeout` its agent is killed.
    fn reply_is_overdue(&mut self, pending: PendingRequest) -> IxmlState {
        let waited = pending.asked.elapsed();
        if waited >= self.settings.retry.answer_timeout {
            debug!(?waited, "libixml does not answer; its agent is killed and restarted later");
            self.stop_agent();
        }
        let since = match self.state {
            IxmlState::Stalled { since, .. } => since,
            _ => pending.asked.into_std(),
        };
        IxmlState::Stalled { since, last: self.last.clone() }
    }

    /// The agent ended or is not usable.
    async fn agent_failed(&mut self, agent_error: &AgentError, attempt: ReadAttempt) -> IxmlState {
        let AgentState::Running { agent, .. } = &mut self.agent_state else {
            return self.state.clone();
        };
        let how = match agent_error {
            AgentError::Ended => timeout_at(attempt.deadline, agent.wait()).await.ok(),
            AgentError::Unreadable(_) => None,
        };
        self.unusable(&match how {
            Some(Ok(status)) => format!("its agent died, {status}"),
            _ => format!("its agent: {agent_error}"),
        })
    }

    fn unusable(&mut self, reason: &str) -> IxmlState {
        self.stop_agent();
        // The output of a broken agent may be as long as a line.
        IxmlState::Unusable(reason.chars().take(LONGEST_REASON).collect())
    }

    fn stop_agent(&mut self) {
        let until = self.next_try();
        let resting = AgentState::Resting { until };
        self.agent_state = match std::mem::replace(&mut self.agent_state, resting) {
            AgentState::Running { mut agent, .. } => {
                agent.kill();
                AgentState::Ending { agent, until }
            }
            other => other,
        };
    }

    fn next_try(&mut self) -> Instant {
        self.failures = self.failures.saturating_add(1);
        let pause = self.settings.retry.delay(self.failures);
        debug!(?pause, failures = self.failures, "retrying libixml later");
        Instant::now() + pause
    }

    fn announce(&self, state: &IxmlState) {
        match state {
            IxmlState::Off => {}
            IxmlState::Reading(_) => info!(event = LogEvent::IxmlReading.name(), "{state}"),
            // A node without the library is as it should be, unless it was named.
            IxmlState::NotFound(_) if self.settings.choice == IxmlChoice::Auto => {
                info!(event = LogEvent::IxmlUnavailable.name(), "{state}");
            }
            IxmlState::NotFound(_) | IxmlState::Stalled { .. } | IxmlState::Unusable(_) => {
                warn!(event = LogEvent::IxmlFailed.name(), "{state}");
            }
        }
    }
}

impl ReadAttempt {
    fn pending(self) -> PendingRequest {
        PendingRequest { asked: Instant::now(), due: self.deadline }
    }
}
