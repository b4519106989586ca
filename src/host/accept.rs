//! Accepting that rests where it fails: a process without a file descriptor left cannot take the
//! connection that waits, and whoever tried again at once would do nothing else.

use std::io;
use std::time::Duration;

use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt as _};
use tracing::debug;

/// How long to rest after a failure.
const REST: Duration = Duration::from_millis(100);

/// Passes everything on, each error only after a rest.
pub fn accept_with_backoff<T>(
    accepted: impl Stream<Item = io::Result<T>>,
) -> impl Stream<Item = io::Result<T>> {
    accepted.then(async |accepted| {
        if let Err(error) = &accepted {
            debug!(%error, "cannot accept a connection; trying again");
            sleep(REST).await;
        }
        accepted
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_without_descriptors_does_not_spin_and_what_it_accepts_does_not_wait() {
        let emfile = || Err(io::Error::from_raw_os_error(24));
        let accepted = tokio_stream::iter([emfile(), emfile(), Ok(1), Ok(2)]);
        let mut accepted = std::pin::pin!(accept_with_backoff(accepted));
        let began = Instant::now();
        let mut moments = Vec::new();
        while let Some(item) = accepted.next().await {
            moments.push((item.ok(), began.elapsed()));
        }
        assert_eq!(
            moments,
            [(None, REST), (None, REST * 2), (Some(1), REST * 2), (Some(2), REST * 2)]
        );
    }
}
