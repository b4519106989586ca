//! Deadlines: optional ones for `select!`, and those of tasks that run at intervals.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Waits until the deadline; never ends without one.
pub async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The first whole number of intervals since `started` that is later than `moment`: at most one
/// interval away. Tasks whose intervals are multiples of one another wake the process together.
#[must_use]
pub fn next_tick(started: Instant, moment: Instant, interval: Duration) -> Instant {
    let passed = moment.saturating_duration_since(started).as_nanos();
    let over = passed.checked_rem(interval.as_nanos()).unwrap_or_default();
    let over = Duration::from_nanos(u64::try_from(over).unwrap_or_default());
    moment + interval.saturating_sub(over)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_next_tick_is_a_whole_number_of_intervals_and_at_most_one_away(
            passed in 0..10_u64.pow(15), interval in 1..10_u64.pow(12)
        ) {
            let (started, interval) = (Instant::now(), Duration::from_nanos(interval));
            let moment = started + Duration::from_nanos(passed);
            let tick = next_tick(started, moment, interval);
            prop_assert!(moment < tick && tick <= moment + interval);
            prop_assert_eq!((tick - started).as_nanos() % interval.as_nanos(), 0);
        }
    }

    #[test]
    fn an_interval_of_zero_is_always_over() {
        let now = Instant::now();
        assert_eq!(next_tick(now, now, Duration::ZERO), now);
    }
}
