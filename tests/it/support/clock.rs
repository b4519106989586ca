//! Time limits of tests.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// Longer than anything takes; who waits for this has failed.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(60);

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
        let value = tokio::time::timeout(FOR_EVER, wanted).await;
        value.unwrap_or_else(|_| panic!("{place}: waited in vain for {what}"))
    }
}
