//! The result of a verb: text on standard output, or a failure with its exit code.

use std::io::{self, ErrorKind, IsTerminal as _, StdoutLock, Write};

use anyhow::Context as _;

use crate::wire::report::paint::Paint;

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    Failed(anyhow::Error),
    /// Exit code 3.
    Configuration(anyhow::Error),
    /// The verb worked and its output names what is wrong; the exit code. Nothing more is printed.
    Found(u8),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Prints to standard output. A reader that closed its end (`| head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = StandardOutput::lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if !stdout.is_closed() => {
            Err(anyhow::Error::new(error).context("cannot write to standard output").into())
        }
        _ => Ok(()),
    }
}

/// Prints a warning to standard error.
pub(super) fn warn(text: &str) {
    // `eprintln!` would panic if standard error is closed.
    drop(writeln!(io::stderr(), "warning: {text}"));
}

/// Standard output that remembers whether its reader closed the other end.
pub(super) struct StandardOutput {
    inner: StdoutLock<'static>,
    is_closed: bool,
}

impl StandardOutput {
    pub(super) fn lock() -> Self {
        Self { inner: io::stdout().lock(), is_closed: false }
    }

    /// Whether a write failed because the reader closed its end.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        let is_closed = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
        self.is_closed |= result.as_ref().is_err_and(is_closed);
        result
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.noted(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.noted(flushed)
    }
}

/// A document for scripts, with a newline at its end.
pub(super) fn json(document: &impl serde::Serialize) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(document).context("cannot write JSON")?;
    Ok(text + "\n")
}

/// Colour on a terminal, unless NO_COLOR asks for none.
pub(super) fn paint() -> Paint {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stdout().is_terminal() { Paint::Colour } else { Paint::Plain }
}
