//! Waits for work that may hang, and reports when it is slow.

use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

/// How long a health sample may take. One of 64 chips takes a few milliseconds.
pub const SLOW_SAMPLE_LIMIT: Duration = Duration::from_secs(10);

/// Waits for `work`; calls `on_slow` once if it takes longer than `limit`.
pub async fn warn_if_slow<T>(
    work: impl Future<Output = T>,
    limit: Duration,
    on_slow: impl FnOnce(),
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(limit) => on_slow(),
    }
    work.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_slow_work_is_reported_and_it_is_waited_for() {
        for (takes, is_slow) in [(0, false), (9, false), (11, true), (3600, true)] {
            let mut reported = false;
            let work = async {
                sleep(Duration::from_secs(takes)).await;
                takes
            };
            assert_eq!(warn_if_slow(work, SLOW_SAMPLE_LIMIT, || reported = true).await, takes);
            assert_eq!(reported, is_slow, "{takes} s");
        }
    }
}
