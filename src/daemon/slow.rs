//! Work that may hang is waited for all the same, but not in silence.

use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

/// How long a health sample may take. One of 64 chips takes a few milliseconds.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Waits for `work`, and calls `say` once where it takes longer than `limit`.
pub async fn warn_if_slow<T>(
    work: impl Future<Output = T>,
    limit: Duration,
    say: impl FnOnce(),
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(limit) => say(),
    }
    work.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_takes_too_long_is_said_and_it_is_waited_for() {
        for (takes, is_said) in [(0, false), (9, false), (11, true), (3600, true)] {
            let mut said = false;
            let work = async {
                sleep(Duration::from_secs(takes)).await;
                takes
            };
            assert_eq!(warn_if_slow(work, LIMIT, || said = true).await, takes);
            assert_eq!(said, is_said, "{takes} s");
        }
    }
}
