//! The agent as its parent sees it: a child process with a pipe for requests and one for messages.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_stream::StreamExt as _;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use crate::wire::ixml_agent::LINE_LIMIT;

/// This program, even if its file was replaced meanwhile.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// The hidden verb that makes a process the agent.
pub const VERB: &str = "ixml-agent";

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    requests: ChildStdin,
    messages: FramedRead<ChildStdout, LinesCodec>,
}

/// Why the agent cannot answer any more.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The agent closed its output, as after a crash.
    #[error("it ended")]
    Ended,
    /// The output is not text, its line is too long, or it cannot be read.
    #[error("its answer cannot be read: {0}")]
    Unreadable(#[from] LinesCodecError),
}

impl AgentProcess {
    /// Starts `program` as the agent that loads the first of `libraries` that can be. What it
    /// prints besides messages goes to our standard error. It dies with the thread that starts it.
    ///
    /// # Errors
    /// As `fork` and `exec`.
    pub fn start(
        program: &Path,
        libraries: &[PathBuf],
        ld_library_path: Option<OsString>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg0("ix-device-plugin").arg(VERB).arg("--").args(libraries);
        if let Some(path) = ld_library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.kill_on_drop(true).spawn()?;
        let requests = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let messages = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let lines = LinesCodec::new_with_max_length(LINE_LIMIT);
        Ok(Self { child, requests, messages: FramedRead::new(messages, lines) })
    }

    /// Sends a line. Short ones fit the pipe, so an agent that hangs does not block the caller.
    ///
    /// # Errors
    /// The agent ended.
    pub async fn send(&mut self, line: &str) -> io::Result<()> {
        self.requests.write_all(format!("{line}\n").as_bytes()).await
    }

    /// Waits for its next line. Cancel safe.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn receive(&mut self) -> Result<String, AgentError> {
        Ok(self.messages.next().await.ok_or(AgentError::Ended)??)
    }

    /// Kills it. A call that hangs inside the kernel delays its end, maybe forever.
    pub fn kill(&mut self) {
        // The only failure is that it ended already.
        drop(self.child.start_kill());
    }

    /// Whether it has ended; it is reaped then.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end and returns the status. Cancel safe.
    ///
    /// # Errors
    /// As `waitpid`.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}
