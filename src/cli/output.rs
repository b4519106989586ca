//! What a verb leaves behind: text on standard output, or a failure with its exit code.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use anyhow::Context as _;

use crate::wire::report::paint::Paint;

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    Failed(anyhow::Error),
    /// Exit code 3.
    Configuration(anyhow::Error),
    /// `doctor` said all there is to say; the exit code of the check that decides.
    Found(u8),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output").into())
        }
        _ => Ok(()),
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
