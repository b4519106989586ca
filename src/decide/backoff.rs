//! How long to wait before trying again.

use std::time::Duration;

const FIRST_WAIT: Duration = Duration::from_millis(10);
/// Half of the second in which a session must recover; the other half is for the attempt itself.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The wait after the `failures`-th failure in a row, counted from 1: 10 ms, doubled each time, at most
/// 500 ms. `seed` reduces it by up to half, so that many waiters do not retry together.
#[must_use]
pub fn backoff(failures: u32, seed: u64) -> Duration {
    backoff_up_to(LONGEST_WAIT, failures, seed)
}

/// The same with another longest wait.
#[must_use]
pub fn backoff_up_to(longest: Duration, failures: u32, seed: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST_WAIT.saturating_mul(1 << doublings).min(longest);
    let share = u32::try_from(mix(seed ^ u64::from(failures)) % 1000).unwrap_or(0);
    whole / 2 + whole / 2 * share / 1000
}

/// The finaliser of the `SplitMix64` generator: neighbouring seeds give unrelated results.
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_ten_milliseconds_to_half_a_second_and_differ() {
        for seed in 0..100 {
            let first = backoff(1, seed);
            assert!(first >= FIRST_WAIT / 2 && first <= FIRST_WAIT, "{first:?}");
            let late = backoff(u32::MAX, seed);
            assert!(late >= LONGEST_WAIT / 2 && late <= LONGEST_WAIT, "{late:?}");
        }
        assert_ne!(backoff(9, 1), backoff(9, 2));
    }
}
