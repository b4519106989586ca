//! Pauses after an accept that failed. A process that has no file descriptor left cannot accept the
//! connection that waits, and would spin if it tried again at once.

use std::io;
use std::time::Duration;

use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt as _};
use tracing::debug;

/// The pause after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Passes on every item; each error after a pause.
pub fn accept_with_backoff<T>(
    accepted: impl Stream<Item = io::Result<T>>,
) -> impl Stream<Item = io::Result<T>> {
    accepted.then(async |accepted| {
        if let Err(error) = &accepted {
            debug!(%error, "cannot accept a connection; trying again");
            sleep(RETRY_DELAY).await;
        }
        accepted
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_accept_that_fails_is_followed_by_a_pause_and_one_that_succeeds_by_none() {
        let emfile = || Err(io::Error::from_raw_os_error(24));
        let accepted = tokio_stream::iter([emfile(), emfile(), Ok(1), Ok(2)]);
        let mut accepted = std::pin::pin!(accept_with_backoff(accepted));
        let began = Instant::now();
        let mut accepts = Vec::new();
        while let Some(item) = accepted.next().await {
            accepts.push((item.ok(), began.elapsed()));
        }
        assert_eq!(
            accepts,
            [
                (None, RETRY_DELAY),
                (None, RETRY_DELAY * 2),
                (Some(1), RETRY_DELAY * 2),
                (Some(2), RETRY_DELAY * 2)
            ]
        );
    }
}
