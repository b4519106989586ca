//! How long a test waits.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// Longer than anything takes, also where every processor is busy; a test that waits this long fails.
pub(crate) const LIVENESS_LIMIT: Duration = Duration::from_secs(120);

const TICK: Duration = Duration::from_millis(10);

/// Waits for `wanted`, at most for `limit` of time in which this runtime was served: ticks that
/// come late because others have the processor count once. None where the limit passed first.
pub(crate) async fn within<T>(limit: Duration, wanted: impl Future<Output = T>) -> Option<T> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut left = limit;
    let mut wanted = std::pin::pin!(wanted);
    loop {
        tokio::select! {
            biased;
            value = &mut wanted => return Some(value),
            _ = ticks.tick(), if !left.is_zero() => left = left.saturating_sub(TICK),
            else => return None,
        }
        if left.is_zero() {
            return None;
        }
    }
}

/// Waits for what must come, however long this machine takes.
#[track_caller]
pub(crate) fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let value = tokio::time::timeout(LIVENESS_LIMIT, wanted).await;
        value.unwrap_or_else(|_| panic!("{place}: waited in vain for {what}"))
    }
}

/// Lets time pass at once, for all timers of this runtime, which has one thread.
pub(crate) async fn skip_ahead(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Waits until `wanted` finds something, for states that nobody announces.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    mut wanted: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    soon(what, async move {
        let mut ticks = interval(TICK / 2);
        loop {
            ticks.tick().await;
            if let Some(found) = wanted().await {
                return found;
            }
        }
    })
}
